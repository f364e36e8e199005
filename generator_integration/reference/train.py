"""Train the generator on a clip store.

    python -m generator_integration.reference.train --data STORE --out RUN --minutes 60

RUN/generator.safetensors is the averaged generator, RUN/samples its sheets, RUN/log.jsonl the log.
"""

from __future__ import annotations

import copy
import json
import math
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from generator_integration.reference.data import Batch, Windows, chosen_items
from generator_integration.reference.ear import hearing
from generator_integration.reference.generator import (
    Generator,
    read_generator,
    save_generator,
)
from generator_integration.reference.losses import Losses
from generator_integration.reference.progress import Progress, read_progress
from generator_integration.reference.quality import QualityDiscriminator
from generator_integration.reference.settings import NONE, GeneratorTrainSettings
from generator_integration.reference.sheet import write_sheet
from syncdisc_plugin.atomic import write_text
from syncdisc_plugin.cli.parsing import new_parser, say_what_stays, typed
from syncdisc_plugin.data.ahead import made_ahead, threads_beside
from syncdisc_plugin.data.lock import Lock
from syncdisc_plugin.data.split import split_store
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.errors import RunError, SyncDiscError
from syncdisc_plugin.nn.precision import (
    autocast,
    choose_device,
    choose_precision,
    denormals_as_zero,
)
from syncdisc_plugin.train.divergence import Divergence
from syncdisc_plugin.train.folder import read_clips, take_folder, write_clips
from syncdisc_plugin.train.interrupt import Interrupt
from syncdisc_plugin.train.log import RunLog
from syncdisc_plugin.train.ranks import processes
from syncdisc_plugin.train.schedule import average_weights
from syncdisc_plugin.train.state import load_state, save_state

STAGE = 1  # the log's rows have one; there is no other here
WARM_UP = 50  # steps
PROBES = 4  # batches of held-out windows that are measured on
SHOWN = 8  # windows on a sample sheet


def train_generator(
    store: ClipStore,
    run: Path,
    settings: GeneratorTrainSettings | None = None,
    *,
    resume: bool = False,
) -> Path:
    """Train -> RUN/generator.safetensors.

    Args:
        store: the clips; its split.json is made where there is none.
        run: a new folder, or one with a run to go on with.
        settings: all settings; stored in RUN/settings.json.
        resume: go on from the saved state with the settings stored in the folder; where it holds
            no run yet, start one.

    Returns:
        Path of the averaged generator.

    Raises:
        RunError: the folder holds a run and `resume` is false, or one of other clips; another
            process is at work in it; the store's crop or the judge does not suit it; or the nets'
            numbers have overflowed for good.
        StoreError: too little footage for a held-out split, or another split is stored.
        WeightsError: the sync loss's weights cannot be read.
        ValueError: no clip is long enough.
        KeyboardInterrupt: Ctrl-C; the state is saved.
    """
    if processes() > 1:
        raise RunError(
            "the reference generator is trained by one process on one device. Start it without "
            "torchrun."
        )
    # The gradients of a mean over many pixels are full of them (bench/precision.py).
    with Interrupt() as interrupt, denormals_as_zero(), ExitStack() as held:
        settings = settings or GeneratorTrainSettings()
        return GeneratorTrainer(store, run, settings, resume, interrupt, held).train()


class GeneratorTrainer:
    """One run: its data, nets, losses, optimisers, log and progress."""

    def __init__(
        self,
        store: ClipStore,
        run: Path,
        settings: GeneratorTrainSettings,
        resume: bool,
        interrupt: Interrupt,
        held: ExitStack,
    ) -> None:
        self.run, self._interrupt = run, interrupt
        self.path = run / "generator.safetensors"
        begun = (run / "settings.json").exists()
        if begun and not resume:
            raise RunError(
                f"--out {run}: holds a run. Add --resume to go on with it, or give another."
            )
        if begun:
            held.callback(Lock(run, run=True).release)
            text = (run / "settings.json").read_text(encoding="utf-8")
            stored = GeneratorTrainSettings.from_dict(json.loads(text))
            settings = replace(stored, device=settings.device)  # it may go on elsewhere
        self.device = torch.device(choose_device(settings.device))
        # Stored as it was found, so that a machine that would choose otherwise goes on alike.
        precision = choose_precision(settings.precision, self.device)
        s = self.s = replace(settings, precision=precision)
        torch.manual_seed(s.seed)
        if store.spec.crop != "box":
            raise RunError(
                f"--data {store.root}: its faces are cut {store.spec.crop}, and new mouths are put "
                "back into the detector's box. Prepare it with --spec.crop box."
            )
        spec = replace(store.spec, face_px=s.generator.size)
        if s.ear == NONE:
            self.net = Generator(s.generator, spec).to(self.device)
        else:
            self.net = hearing(s.generator, spec, s.ear).to(self.device)
        self.average = copy.deepcopy(self.net).requires_grad_(False).eval()
        self.quality = QualityDiscriminator(s.quality_width).to(self.device)
        self.losses = Losses(s, self.net, self.quality, self.device, precision)
        # A low first beta: the discriminator's opinion changes from step to step.
        self.optimiser = torch.optim.AdamW(
            self.net.parameters(), lr=s.learning_rate, betas=(0.5, 0.99), weight_decay=1e-4
        )
        self.judge = torch.optim.Adam(
            self.quality.parameters(), lr=s.quality_rate, betas=(0.5, 0.99)
        )
        self.modules = {"net": self.net, "average": self.average, "quality": self.quality}
        self.optimisers = {"optimiser": self.optimiser, "judge": self.judge}

        # Speakers that a discriminator's training held out stay unseen for its generator too.
        self.split = (read_clips(run, store) if begun else None) or split_store(
            store,
            share=s.heldout_share,
            speakers=s.heldout_speakers,
            stored=not s.heldout_speakers,
        )
        items = chosen_items(self.split.train, s.aligned)
        self.windows = Windows(
            store, items, spec, batch=s.batch, references=s.references, seed=s.seed
        )
        self.heldout = Windows(
            store,
            chosen_items(self.split.heldout, s.aligned, heldout=True),
            spec,
            batch=s.batch,
            references=s.references,
            seed=0,
            changes=None,
        )
        if s.sync_rests:
            self.losses.weights["sync"].true_loss = self._true_loss()
        self.progress = (read_progress(run) if begun else None) or Progress()
        if self.progress.step:
            load_state(run, self.modules, self.optimisers)
            self.losses.load_state_dict(self.progress.weights)
        if not begun:  # only now: what was refused until here leaves no run behind
            take_folder(run, held)
            write_clips(run, self.split)
            write_text(run / "settings.json", json.dumps(asdict(s), indent=1))
        self.divergence = Divergence(run)
        self.log = RunLog(run, (STAGE, self.progress.step) if begun else None)
        if not self.progress.step:
            self._log(
                "data",
                clips=len(self.windows.items),
                too_short=self.windows.skipped,
                split=self.split.note,
                perceptual=self.losses.said,
                sync_rests_at=self.losses.weights["sync"].true_loss,
            )
        tqdm.write(f"split: {self.split.note}; perceptual loss {self.losses.said}")
        self._sitting = self._saved = time.monotonic()
        # Nothing is left to do, the last measurement included.
        written = read_generator(self.path)["step"] if self.path.exists() else None
        self._ended = self._part() >= 1 and written == self.progress.step

    def train(self) -> Path:
        """Take what is left of the steps; Ctrl-C saves and ends."""
        s, p = self.s, self.progress
        bar = tqdm(initial=p.step, total=s.steps or None, desc="generator")
        try:
            threads = threads_beside(self.device.type)
            with closing(made_ahead(self.windows.batch, p.step, threads)) as batches:
                while self._part() < 1:
                    row = self._step(next(batches))
                    p.step += 1
                    bar.set_postfix(
                        {k: f"{row[k]:.3f}" for k in ("l1", "sync") if k in row}
                        | ({} if s.steps else {"budget": f"{self._part():.0%}"})
                    )
                    bar.update()
                    if p.step == 1 or p.step % 10 == 0 or p.step == s.steps:
                        self._log("step", **row)
                    asked = self._interrupt.asked
                    if not self.divergence.lost:
                        self._keep(asked)
                    if asked:
                        raise KeyboardInterrupt
            bar.close()
            if not self._ended:
                self._measure()
                self._save()
            return self.path
        finally:
            bar.close()
            self.log.close()

    def _keep(self, asked: bool) -> None:
        """Measure, keep a generator and save the state, each where it is due."""
        s, step = self.s, self.progress.step
        if step % s.measure_steps == 0 and self._part() < 1:
            self._measure()
        if s.snapshot_steps and step % s.snapshot_steps == 0:
            path = self.run / "snapshots" / f"step-{step:06d}.safetensors"
            save_generator(self.average, path, step=step)
        if asked or time.monotonic() - self._saved >= s.save_seconds:
            self._save()

    def _step(self, batch: Batch) -> dict[str, float]:
        """One step of both optimisers: what to log."""
        s, p = self.s, self.progress
        part = self._part()
        rate = learning_rate(s, p.step, part)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        target, window = self._pictures(batch.target), batch.window.to(self.device)
        drawn = self._draw(self.net, batch, target)
        loss, judged, row = self.losses.of_generator(drawn, target, window, part, (s.seed, p.step))
        norm = loss.detach()
        if torch.isfinite(loss):  # on a CPU, grid_sample's way back from NaN ends the process
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        if torch.isfinite(norm):
            self.optimiser.step()
            average_weights(self.average, self.net, s.ema, p.step)
        if judged is not None and torch.isfinite(judged):
            self.judge.zero_grad(set_to_none=True)
            judged.backward()
            self.judge.step()
        self.divergence.note(bool(torch.isfinite(norm)), p.step)
        return {
            **row,
            "part": round(part, 4),
            "learning_rate": rate,
            "gradient_norm": float(norm),
            "seconds": round(self._seconds(), 2),
        }

    def _draw(
        self,
        net: Generator,
        batch: Batch,
        target: torch.Tensor,
        mels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The batch's frames as the net draws them, with other sound where it is given."""
        reference = self._pictures(batch.reference)
        mels = (batch.mels if mels is None else mels).to(self.device)
        with autocast(self.device, self.s.precision):
            return net(target, reference, mels)

    def _pictures(self, frames: torch.Tensor) -> torch.Tensor:
        return frames.to(self.device).float() / 255

    @torch.no_grad()
    def _true_loss(self) -> float:
        """The sync loss of held-out people's true frames; 0 without one."""
        if (sync := self.losses.sync) is None:
            return 0.0
        batches = [self.heldout.batch(index) for index in range(PROBES)]
        losses = [sync(self._pictures(b.target), b.window.to(self.device)) for b in batches]
        return float(torch.stack(losses).mean())

    @torch.no_grad()
    def _measure(self) -> None:
        """Figures on held-out clips, a sample sheet, and the averaged generator."""
        rows, n = [], 0
        for index in range(PROBES):
            batch = self.heldout.batch(index)
            target, window = self._pictures(batch.target), batch.window.to(self.device)
            drawn = self._draw(self.average, batch, target)
            rows.append(self.losses.figures(drawn, target, window))
            if index == 0:
                n = min(SHOWN, len(target))
                other = self._draw(self.average, batch, target, batch.mels.roll(1, 0))
                middle = target.shape[1] // 2
                seen = target[:n, middle].clone()
                seen[:, :, seen.shape[2] // 2 :] = 0
                sheet = {
                    "input": seen,
                    "reference": self._pictures(batch.reference[:n, 0]),
                    "generated": drawn[:n, middle],
                    "truth": target[:n, middle],
                    "generated, to the sound of the clip before": other[:n, middle],
                }
                path = self.run / "samples" / f"step-{self.progress.step:06d}.png"
                write_sheet(path, sheet)
        figures = {key: sum(r[key] for r in rows) / len(rows) for key in rows[0]}
        if not math.isfinite(figures["l1"]):
            raise RunError(
                f"{self.run}: at step {self.progress.step} the generator draws no finite numbers, "
                "and is not kept. Begin another run with a lower --learning_rate."
            )
        self._log("measure", **{k: round(v, 5) for k, v in figures.items()})
        minutes = sum(i.clip.n_frames for i in self.windows.items) / self.net.spec.fps / 60
        save_generator(
            self.average,
            self.path,
            step=self.progress.step,
            sync=self.s.sync,
            split=self.split.note,
            speakers=len({i.clip.speaker for i in self.windows.items}),
            minutes_of_footage=round(minutes, 1),
            measured_on="held-out clips" if self.split.apart else "clips it was trained on",
            heldout=figures,
        )

    def _save(self) -> None:
        p = self.progress
        p.seconds = self._seconds()
        p.weights = self.losses.state_dict()
        save_state(self.run, p, self.modules, self.optimisers)
        self._sitting = self._saved = time.monotonic()

    def _part(self) -> float:
        """How much of the budget is used up, 0 to 1."""
        if self.s.steps:
            return self.progress.step / self.s.steps
        return self._seconds() / (60 * self.s.minutes)

    def _seconds(self) -> float:
        return self.progress.seconds + time.monotonic() - self._sitting

    def _log(self, kind: str, **values: Any) -> None:
        self.log.write(kind, STAGE, self.progress.step, **values)


def learning_rate(settings: GeneratorTrainSettings, step: int, part: float) -> float:
    """Warm-up over the first steps, then a cosine over the budget to the last rate."""
    s = settings
    cosine = (1 + math.cos(math.pi * min(1.0, part))) / 2
    rate = s.final_rate + (s.learning_rate - s.final_rate) * cosine
    return rate * min(1.0, (step + 1) / WARM_UP)


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit status: 0 done, 2 bad input, 130 stopped."""
    parser = new_parser(
        "train",
        "Train the reference generator on a clip store.",
        prog="python -m generator_integration.reference.train",
    )
    parser.add_argument("--config", action="config", help="YAML or JSON with any of these")
    parser.add_argument("--data", type=Path, required=True, help="a clip store")
    parser.add_argument("--out", type=Path, required=True, help="the run's folder")
    parser.add_argument(
        "--resume", action="store_true", help="go on with a run, with its stored settings"
    )
    parser.add_class_arguments(GeneratorTrainSettings)
    try:
        parsed = parser.parse_args(argv)
        names = GeneratorTrainSettings.__dataclass_fields__
        raw = {key: value for key, value in parsed.as_dict().items() if key in names}
        settings = GeneratorTrainSettings.from_dict(raw)
        if parsed.resume:
            say_what_stays(parsed.out, settings, typed(parser, argv))
        path = train_generator(ClipStore(parsed.data), parsed.out, settings, resume=parsed.resume)
    except (SyncDiscError, ValueError, OSError) as error:
        print(f"generator_integration.reference.train: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped. The same command with --resume goes on.", file=sys.stderr)
        return 130
    print(said_of(path))
    return 0


def said_of(path: Path) -> str:
    """What a finished run says of its generator."""
    about = read_generator(path)
    f = about["heldout"]
    sync = f", sync loss {f['sync']:.3f} (true frames {f['sync_truth']:.3f})" if "sync" in f else ""
    where = about.get("measured_on", "held-out clips")
    return (
        f"{about['step']} steps. On {where}: L1 {f['l1']:.4f}, PSNR {f['psnr_db']:.1f} dB, "
        f"sharpness {f['sharpness']:.0%} of the truth's{sync}\ngenerator: {path}"
    )


if __name__ == "__main__":
    sys.exit(main())
