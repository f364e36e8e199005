"""The held-out clips of a run: what they say of its weights on the way, and which are kept."""

from __future__ import annotations

import copy
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from syncdisc_plugin import weights
from syncdisc_plugin.data.embed import Embedded, embed_clips
from syncdisc_plugin.data.manifest import Clip
from syncdisc_plugin.data.split import Split
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.evaluate import metrics
from syncdisc_plugin.nn import Discriminator
from syncdisc_plugin.train.gap import next_gap
from syncdisc_plugin.train.measure import Heldout, measure_heldout, write_heldout
from syncdisc_plugin.train.progress import Progress
from syncdisc_plugin.train.settings import TrainSettings

CHANCE = 1 / 2 + 3 / 31  # of pair accuracy and PM accuracy together


class Validation:
    """Measures a run's weights on the clips that it does not train on, in its first process.

    On the way by those of `probe` alone, at the end of a stage by all that are held out.
    """

    def __init__(
        self,
        run: Path,
        store: ClipStore,
        split: Split,
        probe: list[Clip],
        settings: TrainSettings,
        precision: str,
        lag: int,
    ) -> None:
        self._run, self._store, self._split, self._s = run, store, split, settings
        self._probe, self._precision, self._lag = probe, precision, lag

    def measure(
        self, stage: int, average: Discriminator, progress: Progress
    ) -> tuple[str, dict[str, Any]]:
        """Measure the weights, keep them if they are the best, and note both in `progress`.

        Returns:
            A reason to end the stage, or ''; and the figures for the log.
        """
        p, how = progress, self._s.stage(stage)
        p.measured_at = p.step
        began = time.monotonic()
        clips = list(embed_clips(average, self._store, self._probe, self._precision, self._lag))
        p.frame_seconds = (time.monotonic() - began) / sum(c.n_frames for c in self._probe)
        pairs = metrics.far_pairs(clips)
        gap = float(pairs.true.mean() - pairs.false.mean())
        pm = metrics.pm_accuracy(clips, (5, 15))
        values: dict[str, Any] = {
            "pair_accuracy": metrics.pair_accuracy(clips),
            "pm_accuracy_5": pm["5"],
            "pm_accuracy_15": pm["15"],
            "gap": gap,
            "similarity_true": float(pairs.true.mean()),
            "similarity_false": float(pairs.false.mean()),
        }
        scores = clip_scores(clips)
        if not p.best or may_replace(scores, p.kept or p.best, p.best):
            self._keep(stage, p.step, average, values)
            p.kept = scores
        if not p.best or sum(scores) > sum(p.best):
            p.best, p.since_best = scores, 0
        else:
            p.since_best += 1
        verdict = ""
        if stage == 2:
            p.gap = next_gap(p.gap, gap, self._s.gap)
            verdict = p.gap.verdict
            values["target"] = p.gap.target
        elif p.since_best >= how.patience and 2 * p.step >= p.steps and beats_chance(p.best):
            verdict = f"plateau: no better for {p.since_best} measurements"
        return verdict, values

    def begin(self, net: Discriminator) -> None:
        """What the first weights score, those of chance as a rule: the report's first picture."""
        write_heldout(self._run, 0, self._whole(copy.deepcopy(net), self._probe))

    def end(self, stage: int, device: torch.device) -> dict[str, Any]:
        """All held-out figures of the stage's best weights; they are calibrated and kept."""
        path = self._run / f"stage{stage}.safetensors"
        net, about = weights.load(path, device), weights.read_about(path)
        figures = self._whole(net, self._split.heldout)
        write_heldout(self._run, stage, figures)
        about = {k: v for k, v in about.items() if k not in ("spec", "architecture")}
        weights.save(net, path, **{**about, "heldout": figures.summary})
        return figures.summary

    def _whole(self, net: Discriminator, clips: list[Clip]) -> Heldout:
        filtering = self._s.filter
        return measure_heldout(net, self._store, clips, filtering, self._precision, self._lag)

    def _keep(self, stage: int, step: int, net: Discriminator, figures: dict[str, Any]) -> None:
        train = self._split.train
        frames = sum(clip.n_frames for clip in train)
        weights.save(
            net,
            self._run / f"stage{stage}.safetensors",
            stage=stage,
            step=step,
            init_from=self._s.init_from,
            split=self._split.note,
            speakers=len({c.speaker for c in train}),
            minutes_of_footage=round(frames / self._store.spec.fps / 60, 1),
            probe=figures,
        )


def clip_scores(clips: list[Embedded]) -> list[float]:
    """Pair accuracy plus PM accuracy at 15 frames of each clip: single windows and context."""
    pairs = np.nan_to_num([metrics.pair_accuracy([c]) for c in clips], nan=0.5)  # very short clips
    pm = [metrics.pm_accuracy([c], (15,))["15"] for c in clips]
    return (pairs + np.array(pm)).tolist()


def beats_chance(scores: list[float]) -> bool:
    """Whether scores of clips are better than chance by more than two standard errors."""
    error = np.std(scores, ddof=1) / math.sqrt(len(scores)) if len(scores) > 1 else 0.0
    return bool(np.mean(scores) - CHANCE > 2 * error)


def may_replace(now: list[float], kept: list[float], best: list[float]) -> bool:
    """Whether later weights, which the schedule has cooled further, are to take the place of those
    that are kept.

    On a few clips the best of several measurements is best by luck: the later one is taken unless
    it is worse than that by more than a standard error of the paired difference; and in any case
    where it is as good as what it replaces.
    """
    if sum(now) >= sum(kept):
        return True
    difference = np.array(now) - np.array(best)
    error = difference.std(ddof=1) / math.sqrt(len(now)) if len(now) > 1 else 0.0
    return bool(difference.mean() >= -error)
