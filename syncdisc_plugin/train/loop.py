"""The three stages, one loop. Everything random is a function of (seed, stage, step)."""

from __future__ import annotations

import copy
import time
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from syncdisc_plugin import weights
from syncdisc_plugin.data.ahead import threads_beside
from syncdisc_plugin.data.manifest import Clip
from syncdisc_plugin.data.sampling import Batch, Item, Sampler
from syncdisc_plugin.data.split import Split, some_frames
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.evaluate.views import load_with_view
from syncdisc_plugin.nn import Discriminator
from syncdisc_plugin.nn.precision import choose_device, choose_precision
from syncdisc_plugin.train.clips import FILTERS, clips_for, judge_for
from syncdisc_plugin.train.divergence import Divergence
from syncdisc_plugin.train.folder import START, abandon_run, begin_run, open_run, run_split
from syncdisc_plugin.train.interrupt import Interrupt
from syncdisc_plugin.train.log import RunLog
from syncdisc_plugin.train.measure import measure_lag
from syncdisc_plugin.train.progress import Progress
from syncdisc_plugin.train.ranks import Ranks, join, share_norms
from syncdisc_plugin.train.schedule import (
    average_weights,
    learning_rate,
    plan_steps,
    time_step,
)
from syncdisc_plugin.train.settings import TrainSettings
from syncdisc_plugin.train.stage_loss import stage_loss
from syncdisc_plugin.train.state import load_state, save_state
from syncdisc_plugin.train.validation import Validation, beats_chance

REPLAN = (12, 50)  # steps at which a budget in minutes is planned anew, beside measurements


def train(
    store: ClipStore, run: Path, settings: TrainSettings | None = None, *, resume: bool = False
) -> Path:
    """Stage 1, filter, stage 2, stage 3 -> RUN/stage3.safetensors (or that of `last_stage`).

    Under torchrun, every process calls this with the same arguments and a `run` that all see.

    Args:
        store: the clips.
        run: a new folder, or one with a run to go on with.
        settings: all settings; stored in RUN/settings.json.
        resume: go on from the saved state with the settings stored in the folder; where it holds
            no run yet, start one.

    Returns:
        Path of the last stage's weights.

    Raises:
        RunError: the folder holds a run and `resume` is false, parts of one, or one of other clips;
            or the net's numbers have overflowed for good.
        StoreError: the store has too little for a held-out split, or another spec than the
            reference or the weights to go on from.
        WeightsError: one of these cannot be loaded.
        ValueError: no clip is as long as a chunk, or another architecture than the weights' was
            asked for.
        KeyboardInterrupt: Ctrl-C; the state is saved.
    """
    settings = settings or TrainSettings()
    ranks = join(choose_device(settings.device))
    try:
        with Interrupt() as interrupt, ExitStack() as held:
            return Trainer(store, run, settings, resume, interrupt, ranks, held).run_all()
    finally:
        ranks.leave()


class Trainer:
    """One run: its data, net, averaged net, optimiser, log and progress."""

    def __init__(
        self,
        store: ClipStore,
        run: Path,
        settings: TrainSettings,
        resume: bool,
        interrupt: Interrupt,
        ranks: Ranks,
        held: ExitStack,
    ) -> None:
        self.run, self._interrupt, self.ranks = run, interrupt, ranks
        found = open_run(run, settings, resume, held) if ranks.first else None
        self.s, progress = ranks.agree(found)
        settings = self.s
        self.progress = progress or Progress()
        self.rows = ranks.share(settings.batch_clips)
        self.device = torch.device(choose_device(settings.device))
        self.threads = threads_beside(self.device.type)
        start = None
        if settings.init_from:
            ref = str(run / START) if progress else settings.init_from
            start, store = load_with_view(ref, store, self.device)
            settings = settings.with_architecture(start.arch)
        self.store = store
        self.split: Split = ranks.agree(run_split(run, store, settings) if ranks.first else None)
        self.precision = choose_precision(settings.precision, self.device)
        if progress is None:
            self._sampler([Item(c) for c in self.split.train])  # refuses what cannot be trained on
            if settings.reference:
                load_with_view(settings.reference, store, self.device)
            # Only now: what was refused until here leaves no run behind. The precision is stored
            # as it was found, so that a machine that would choose otherwise goes on alike.
            self.s = replace(settings, precision=self.precision)
            if ranks.first:
                begin_run(run, self.s, self.split, start, held)
        probe = some_frames(self.split.heldout, settings.heldout_frames)
        clips = self.split.train + probe
        self.lag: int = ranks.agree(
            measure_lag(run, self.s.reference, store, clips, self.device, self.precision, interrupt)
            if ranks.first
            else 0
        )
        if progress is None and self.lag:
            try:
                self._sampler([Item(c, self.lag) for c in self.split.train])
            except ValueError:
                if ranks.first:
                    abandon_run(run)
                raise
        self.validation = Validation(
            run, store, self.split, probe, self.s, self.precision, self.lag
        )
        self.divergence = Divergence(run)
        at = (progress.stage, progress.step) if progress else None
        self.log = RunLog(run, at) if ranks.first else None
        self._sitting = time.monotonic()

    # ------------------------------------------------------------------ the stages

    def run_all(self) -> Path:
        """Run what is left of the stages."""
        last = self.s.last_stage
        try:
            while self.progress.stage <= last:
                stage = self.progress.stage
                self._stop_if_asked()
                if stage > 1 and self.ranks.first:
                    self._filter(stage)
                self._stop_if_asked()
                self._stage(stage)
                self.progress = Progress(
                    stage=stage + 1,
                    seconds=self.progress.seconds,
                    step_seconds=self.progress.step_seconds,
                    gap=self.progress.gap,
                )
                if self.ranks.first:
                    save_state(self.run, self.progress)
        finally:
            if self.log:
                self.log.close()
        return self.run / f"stage{last}.safetensors"

    def _stop_if_asked(self) -> None:
        """Between stages; and what the first process wrote until here is there for all."""
        if self.ranks.agree(self._interrupt.asked):
            raise KeyboardInterrupt

    def _stage(self, stage: int) -> None:
        """Train one stage until its plateau, its verdict or its budget."""
        s, p, ranks = self.s, self.progress, self.ranks
        net, average, optimiser = self._start(stage)
        if p.step:
            load_state(self.run, {"net": net, "average": average}, {"optimiser": optimiser})
        items, words = clips_for(stage, self.run, self.store, self.split, s.chunk_frames, self.lag)
        sampler = self._sampler(items)
        if words:
            self._say(words)
        if sampler.skipped:
            self._say(f"stage {stage}: {sampler.skipped} clips are shorter than chunk_frames")
        if p.step == 0:
            about = {"clips": len(sampler.items), "too_short": sampler.skipped}
            self._log("data", stage, **about, unfiltered=bool(words))
            p.steps = self._replan(stage)
            p = self._measure(stage, average)[0]
            if stage == 1 and ranks.first:
                self.validation.begin(average)
        hidden = None if ranks.first else True
        bar = tqdm(initial=p.step, total=p.steps or None, desc=f"stage {stage}", disable=hidden)
        with closing(sampler.batches(stage, p.step, self.rows, self.threads)) as batches:
            while not p.steps or p.step < p.steps:
                began = time.monotonic()
                row, asked = self._step(stage, net, optimiser, next(batches))
                average_weights(average, net, s.ema, p.step)
                p.step += 1
                time_step(p, time.monotonic() - began)
                if p.step in REPLAN:
                    bar.total = p.steps = self._replan(stage)
                bar.set_postfix(loss=f"{row['loss']:.3f}", chance=f"{row['chance']:.3f}")
                bar.update()
                if p.step == 1 or p.step % 10 == 0 or p.step == p.steps:
                    self._log("step", stage, seconds=round(self._seconds(), 2), **row)
                if p.steps and self._due():
                    p, ended = self._measure(stage, average)
                    if ended:
                        self._log("stage", stage, verdict=ended)
                        self._say(f"stage {stage}: {ended}")
                        p.steps = p.step  # saved with the state: a resumed run ends here too
                    elif p.step < p.steps:
                        bar.total = p.steps = self._replan(stage)
                    self._save(net, average, optimiser)
                elif p.step % s.save_steps == 0 or asked:
                    self._save(net, average, optimiser)
                if asked:
                    bar.close()
                    raise KeyboardInterrupt
        bar.close()
        if ranks.first:
            self._log("stage_end", stage, figures=self.validation.end(stage, self.device))
            if not beats_chance(p.kept or p.best):
                self._say(
                    f"stage {stage}: no better than chance on held-out clips. It wants more "
                    "footage or minutes, or footage that is in sync: ask `syncdisc doctor`."
                )

    def _step(
        self, stage: int, net: Discriminator, optimiser: torch.optim.Optimizer, batch: Batch
    ) -> tuple[dict[str, float], bool]:
        """One step of the optimiser: what to log, and whether a process was asked to stop."""
        how, p, ranks = self.s.stage(stage), self.progress, self.ranks
        # Dropout resumes too, and differs between processes.
        drawn = ((self.s.seed * 4 + stage) * 10_000_000 + p.step) * 1000 + ranks.rank
        torch.manual_seed(drawn % 2**63)
        rate = learning_rate(how, p.step, p.steps)
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss, row = stage_loss(
            net,
            batch,
            how,
            margin=p.gap.target if stage == 2 else None,
            precision=self.precision,
            ranks=ranks,
        )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        asked = ranks.average_gradients(net.parameters(), flag=self._interrupt.asked)
        norm = torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        is_finite = bool(torch.isfinite(norm))
        if is_finite:
            optimiser.step()
        self.divergence.note(is_finite, p.step)
        return {**row, "learning_rate": rate, "gradient_norm": float(norm)}, asked

    def _measure(self, stage: int, average: Discriminator) -> tuple[Progress, str]:
        """Measure on held-out clips, keep the best weights; a reason to end the stage, or ''."""
        verdict = ""
        if self.ranks.first:
            verdict, figures = self.validation.measure(stage, average, self.progress)
            self._log("measure", stage, seconds=round(self._seconds(), 2), **figures)
        self.progress, verdict = self.ranks.agree((self.progress, verdict))
        return self.progress, verdict

    def _filter(self, stage: int) -> None:
        """Judge every training clip with the discriminator of the stage before."""
        result = judge_for(
            stage,
            self.run,
            self.store,
            self.split,
            self.s,
            self.device,
            self.lag,
            self._interrupt,
        )
        if result:
            self._say(f"{FILTERS[stage]}: {result.counts} of {len(result.verdicts)} clips")
            self._log("filter", stage - 1, **result.counts)

    def _sampler(self, items: list[Item]) -> Sampler:
        s = self.s
        return Sampler(
            self.store,
            items,
            batch_clips=s.batch_clips,
            chunk_frames=s.chunk_frames,
            augment=s.augment,
            seed=s.seed,
        )

    # ------------------------------------------------------------------ state and budget

    def _start(self, stage: int) -> tuple[Discriminator, Discriminator, torch.optim.Optimizer]:
        """Net, its average, a fresh optimiser; from the seed, or from the weights before."""
        if stage == 1 and not self.s.init_from:
            torch.manual_seed(self.s.seed)
            net = Discriminator(self.store.spec, self.s.architecture).to(self.device)
        else:
            net = weights.load(self.run / f"stage{stage - 1}.safetensors", self.device)
        net.train()
        average = copy.deepcopy(net).requires_grad_(False).eval()
        if self.ranks.world > 1:
            share_norms(net)
        if self.s.compile:
            net.face.compile()
            net.audio.compile()
        decayed = [p for p in net.parameters() if p.ndim > 1]
        rest = [p for p in net.parameters() if p.ndim <= 1]
        groups: list[dict[str, Any]] = [{"params": decayed}, {"params": rest, "weight_decay": 0.0}]
        optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=self.s.weight_decay)
        return net, average, optimiser

    def _save(
        self, net: Discriminator, average: Discriminator, optimiser: torch.optim.Optimizer
    ) -> None:
        self.progress.seconds = self._seconds()
        self._sitting = time.monotonic()
        if self.ranks.first and not self.divergence.lost:
            nets = {"net": net, "average": average}
            save_state(self.run, self.progress, nets, {"optimiser": optimiser})

    def _seconds(self) -> float:
        return self.progress.seconds + time.monotonic() - self._sitting

    def _replan(self, stage: int) -> int:
        """Steps of this stage, now that it is known how long one takes."""
        shares = [self.s.stage(k).share for k in range(1, self.s.last_stage + 1)]
        aside = self.progress.frame_seconds * (
            (len(shares) - stage + 1) * _frames(self.split.heldout)  # at the ends of stages
            + (len(shares) - stage) * _frames(self.split.train)  # by the filters between them
        )
        is_first = stage == 1 and self.progress.step == REPLAN[0] and not self.s.steps
        if is_first and aside > 30 * self.s.minutes:  # half of it
            self._say(
                f"--minutes {self.s.minutes:g}: about {aside / 60:.0f} go into judging and "
                "measuring the clips alone. Give more, or fewer clips (--choose)."
            )
        spent = self._seconds()
        return self.ranks.agree(plan_steps(self.progress, stage, shares, self.s, spent, aside))

    def _say(self, words: str) -> None:
        """A line beside the progress bar, from the first process."""
        if self.ranks.first:
            tqdm.write(words)

    def _log(self, kind: str, stage: int, **values: Any) -> None:
        """A row of the log, from the first process."""
        if self.log:
            self.log.write(kind, stage, self.progress.step, **values)

    def _due(self) -> bool:
        """Whether held-out clips are to be measured after this step."""
        p = self.progress
        every = max(1, p.steps // self.s.measures)
        # The one before the last is left out when the last is near.
        return p.step >= p.steps or (
            p.step - p.measured_at >= every and p.steps - p.step >= every // 2
        )


def _frames(clips: list[Clip]) -> int:
    return sum(clip.n_frames for clip in clips)
