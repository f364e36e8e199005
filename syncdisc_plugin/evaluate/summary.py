"""All figures of a clip set, of any part of it, and how sure they are."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from syncdisc_plugin.data.embed import Embedded
from syncdisc_plugin.evaluate import metrics
from syncdisc_plugin.evaluate.metrics import CONTEXTS
from syncdisc_plugin.evaluate.pair_sums import PairSums
from syncdisc_plugin.nn.curve import OffsetCurve, is_clear, offset_curve, similarity_by_offset

RESAMPLES = 1000
LEVEL = 0.95
FEWEST = 3  # speakers, below which their resampling says nothing
Figures = dict[str, Any]


class Tally:
    """What each clip adds to each figure: figures of any weighting of the clips are then cheap.

    Args:
        clips: C embedded clips, one of them longer than 5 windows.
        scale: of the judge's logit.
        bias: of the judge's logit.

    Raises:
        ValueError: no clip is long enough.
    """

    def __init__(self, clips: Sequence[Embedded], scale: float, bias: float) -> None:
        self.clips = clips
        self.pairs = PairSums(metrics.far_pairs(clips), len(clips), scale, bias)
        self.curves = [offset_curve(c.v, c.a) for c in clips]
        aligned = [_aligned(c, k) for c, k in zip(clips, self.curves, strict=True)]
        self.far = np.array([metrics.pair_counts(c) for c in clips])
        self.far_aligned = np.array([metrics.pair_counts(c) for c in aligned])
        self.distances = metrics.distance_counts(clips)
        self.pm = np.array([metrics.pm_hits(c, CONTEXTS) for c in clips])
        self.pm_chance = np.array([metrics.pm_chance(len(c.v), c.window_frames) for c in clips])
        self.pm_aligned = np.array([metrics.pm_hits(c, CONTEXTS) for c in aligned])
        self.offset = np.array([abs(c.offset_frames) for c in self.curves])
        self.confidence = np.array([c.confidence for c in self.curves])
        self.distance = np.array([_distances(c) for c in clips])
        self.loss = np.array([metrics.loss(_own(c), scale, bias).mean() for c in clips])
        self.windows = np.array([len(c.v) for c in clips])
        self.speakers = np.array([c.clip.speaker for c in clips])

    def figures(self, weight: np.ndarray | None = None) -> Figures:
        """Every figure, as `syncdisc evaluate --json` writes them; nan where there is none.

        Args:
            weight: (C,) how often each clip counts; None: once.
        """
        w = np.ones(len(self.clips)) if weight is None else weight
        return {
            **self.outline(w),
            "pair_accuracy_by_distance": {k: _share(c, w) for k, c in self.distances.items()},
            **self.pairs.figures(weight),
            "loss_true_sd": float(np.sqrt(_mean((self.loss - _mean(self.loss, w)) ** 2, w))),
            "offset_mae_frames": _mean(self.offset, w),
            "pair_accuracy_aligned": _share(self.far_aligned, w),
            "pm_accuracy_aligned": _by_context(self.pm_aligned, w),
            "embedding_distance": _mean(self.distance[:, 0], w),
            "embedding_confidence": _mean(self.distance[:, 1], w),
        }

    def outline(self, w: np.ndarray) -> Figures:
        """The figures that tell groups of clips apart."""
        return {
            "pair_accuracy": _share(self.far, w),
            "pm_accuracy": _by_context(self.pm, w),
            "offset_within_1": _mean(self.offset <= 1, w),
            "confidence": _mean(self.confidence, w),
        }

    def counts(self, w: np.ndarray) -> Figures:
        """How many clips, speakers and windows count, and what guessing would reach in PM."""
        return {
            "pm_accuracy_chance": _by_context(self.pm_chance, w),
            "n_clips": int((w > 0).sum()),
            "n_speakers": len(set(self.speakers[w > 0])),
            "n_windows": int(self.windows[w > 0].sum()),
        }

    def intervals(
        self, of: Callable[[np.ndarray], Figures], part: np.ndarray | None = None, seed: int = 0
    ) -> Figures | None:
        """95% bootstrap intervals [low, high] of figures, speakers drawn with replacement.

        Clips of one speaker are alike, so it is speakers and not clips that are drawn. None below
        three speakers.

        Args:
            of: `figures` or `outline`.
            part: (C,) true for the clips that count; None: all.
            seed: of the draws.
        """
        part = np.ones(len(self.clips), bool) if part is None else part
        names, speaker = np.unique(self.speakers[part], return_inverse=True)
        if len(names) < FEWEST:
            return None
        rng, draws = np.random.default_rng(seed), []
        for _ in range(RESAMPLES):
            times = np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names))
            w = np.zeros(len(part))
            w[part] = times[speaker]
            draws.append(of(w))
        alone = [of((part & (self.speakers == name)).astype(float)) for name in names]
        out = _spread(draws, alone)
        if out.get("ece"):
            # A sum of absolute errors only grows when speakers are drawn anew: its spread is laid
            # on the other side of what was found.
            found = of(part.astype(float))["ece"]
            low, high = (max(0.0, 2 * found - end) for end in reversed(out["ece"]))
            out["ece"] = [min(low, found), max(high, found)]
        return out

    def group(self, names: Sequence[str]) -> dict[str, Figures]:
        """Outline, counts and intervals of the clips that bear each name. names: (C,)."""
        out = {}
        for name in sorted(set(names) - {""}, key=_in_order):
            part = np.array([n == name for n in names])
            w = part.astype(float)
            found = {**self.outline(w), **self.counts(w)}
            out[name] = known({**found, "intervals": self.intervals(self.outline, part)})
        return out


def summary(clips: Sequence[Embedded], scale: float, bias: float) -> Figures:
    """All figures of a clip set.

    None stands for what the clips cannot give (no second speaker, no clip long enough).
    The `_aligned` ones undo each clip's own offset first, where these weights see it clearly: what
    they would be if the footage had no constant lag (a clip two frames off is never right in PM).
    `embedding_distance` and `embedding_confidence` are the formulas of LSE-D and LSE-C on this
    judge's own unit embeddings (0 to 2): they compare clips, and nothing with syncnet_v2's.
    """
    return whole(Tally(clips, scale, bias))


def whole(tally: Tally) -> Figures:
    """Figures and counts of all clips."""
    return known({**tally.figures(), **tally.counts(np.ones(len(tally.clips)))})


def known(value: Any) -> Any:
    """JSON has no NaN: None in its place."""
    if isinstance(value, dict):
        return {k: known(v) for k, v in value.items()}
    return None if isinstance(value, float) and np.isnan(value) else value


def _spread(draws: Sequence[Figures], alone: Sequence[Figures]) -> Figures:
    """[low, high] of each figure over the draws, in the shape of one of them.

    None where too few of the speakers, each `alone`, have a say in it.
    """
    out: Figures = {}
    for name, value in draws[0].items():
        column, single = [d[name] for d in draws], [a[name] for a in alone]
        if isinstance(value, dict):
            out[name] = _spread(column, single)
            continue
        values = np.array(column, dtype=float)
        values = values[np.isfinite(values)]
        tail = (1 - LEVEL) / 2
        enough = np.isfinite(np.array(single, dtype=float)).sum() >= FEWEST
        ends = np.quantile(values, [tail, 1 - tail]) if len(values) and enough else None
        out[name] = None if ends is None else [float(end) for end in ends]
    return out


def _in_order(name: str) -> tuple[int, str]:
    """Ranges by the number that they begin with, then names."""
    return int(re.match(r"\d*", name)[0] or 0), name  # type: ignore[index]


def _distances(clip: Embedded) -> tuple[float, float]:
    """Least mean distance of the unit embeddings over offset, and median minus least.

    Source: syncnet_python, SyncNetInstance.py, `evaluate`.
    """
    table = similarity_by_offset(clip.v, clip.a).numpy().astype(np.float64)
    distance = np.sqrt(np.maximum(0.0, 2 - 2 * table))
    reached = np.isfinite(distance)
    mean = np.where(reached, distance, 0).sum(0) / np.maximum(1, reached.sum(0))
    mean = mean[reached.any(0)]
    return float(mean.min()), float(np.median(mean) - mean.min())


def _aligned(clip: Embedded, curve: OffsetCurve) -> Embedded:
    """The clip with its offset undone where that is clear."""
    table = similarity_by_offset(clip.v, clip.a).numpy()
    return clip.shifted(curve.offset_frames) if is_clear(curve, table) else clip


def _by_context(hits: np.ndarray, w: np.ndarray) -> dict[str, float]:
    return {str(k): _mean(hits[:, i], w) for i, k in enumerate(CONTEXTS)}


def _own(clip: Embedded) -> np.ndarray:
    """(N,) similarity of each window to its own audio."""
    return (clip.v * clip.a).sum(-1).double().numpy()


def _mean(values: np.ndarray, w: np.ndarray) -> float:
    total = w.sum()
    return float((values * w).sum() / total) if total else float("nan")


def _share(counts: np.ndarray, w: np.ndarray) -> float:
    return metrics.share((counts * w[:, None]).sum(0))
