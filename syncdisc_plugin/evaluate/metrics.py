"""How good a discriminator is: pure functions of embedded clips."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from syncdisc_plugin.data.embed import Embedded
from syncdisc_plugin.nn.curve import MAX_OFFSET, similarity_by_offset

FAR = 5
FALSE_PER_WINDOW = 8  # far false pairs that are drawn
CONTEXTS = (5, 7, 9, 11, 13, 15, 25)
DISTANCES = (1, 2, 3, 5, 10)
BINS = 15  # of probability, in the calibration error
SCALES = (0.01, 60.0)  # within what a discriminator can hold


@dataclass(frozen=True)
class Pairs:
    """Similarities of true pairs and of false ones from the same clip, FAR frames away or more."""

    true: np.ndarray
    """(N,) similarity of each window to its own audio."""
    false: np.ndarray
    """(K,) similarities of false pairs."""
    true_clip: np.ndarray | None = None
    """(N,) which clip each true pair is of, by its place in the list."""
    false_clip: np.ndarray | None = None
    """(K,) the same of the false pairs."""

    @cached_property
    def masses(self) -> tuple[np.ndarray, np.ndarray]:
        """Shares of the true and of the false pairs at each different value, in rising order."""
        values, rank = np.unique(np.concatenate([self.true, self.false]), return_inverse=True)
        sides = rank[: len(self.true)], rank[len(self.true) :]
        true, false = (np.bincount(side, minlength=len(values)) / len(side) for side in sides)
        return true, false


def far_pairs(clips: Sequence[Embedded], seed: int = 0) -> Pairs:
    """True pairs of all windows, and a fixed sample of far false pairs of the same clips."""
    rng = np.random.default_rng(seed)
    true, false = [], []
    for clip in clips:
        s = clip.similarity.numpy()
        n = len(s)
        true.append(np.diagonal(s))
        i, j = rng.integers(0, n, (2, n * FALSE_PER_WINDOW))
        far = np.abs(i - j) >= FAR
        false.append(s[i[far], j[far]])
    if not sum(map(len, false)):
        raise ValueError(
            f"clips: expected some with more than {FAR} windows, got {len(clips)} that are "
            "shorter. Hold out or evaluate longer clips."
        )
    which = [np.repeat(np.arange(len(clips)), list(map(len, parts))) for parts in (true, false)]
    return Pairs(np.concatenate(true), np.concatenate(false), *which)


def pair_accuracy(clips: Sequence[Embedded]) -> float:
    """Share of (window, false audio >= 5 frames away, same clip) where the true audio is closer.

    Every such pair counts; a tie counts half. Chance is 0.5.
    """
    return share(np.array([pair_counts(clip) for clip in clips]).sum(0))


def pair_counts(clip: Embedded) -> tuple[float, float]:
    """Pairs of `pair_accuracy` in one clip: those that are ranked rightly, and all."""
    s = clip.similarity
    index = torch.arange(len(s))
    far = (index[:, None] - index[None]).abs() >= FAR
    difference = s.diagonal()[:, None] - s
    right = float(((difference > 0) & far).sum() + 0.5 * ((difference == 0) & far).sum())
    return right, float(far.sum())


def distance_counts(clips: Sequence[Embedded], seed: int = 0) -> dict[str, np.ndarray]:
    """(clips, 2) by kind of false audio: pairs that are ranked rightly, and all.

    False is audio at exactly d frames (both sides), or from another clip.
    """
    out = {str(d): np.array([_counts_at(clip, d) for clip in clips]) for d in DISTANCES}
    rng = np.random.default_rng(seed)
    by_speaker: dict[str, list[int]] = defaultdict(list)
    for i, clip in enumerate(clips):
        by_speaker[clip.clip.speaker].append(i)
    for name, same_speaker in (("other_clip_same_speaker", True), ("other_speaker", False)):
        rows = []
        for i, clip in enumerate(clips):
            mine = by_speaker[clip.clip.speaker]
            others = len(mine) - 1 if same_speaker else len(clips) - len(mine)
            if not others:
                rows.append((0.0, 0.0))
                continue
            at = int(rng.integers(others))
            if same_speaker:
                at = mine[at + (at >= mine.index(i))]
            else:
                for own in mine:  # ascending: each own clip before it moves it on by one
                    at += own <= at
            other = clips[at]
            pick = rng.integers(0, len(other.a), len(clip.v))
            own_pair = (clip.v * clip.a).sum(1)
            rows.append(_wins(own_pair, (clip.v * other.a[pick]).sum(1)))
        out[name] = np.array(rows)
    return out


def _counts_at(clip: Embedded, d: int) -> tuple[float, float]:
    if len(clip.v) <= d:
        return 0.0, 0.0
    s = clip.similarity
    own = s.diagonal()
    before, after = _wins(own[:-d], s.diagonal(d)), _wins(own[d:], s.diagonal(-d))
    return before[0] + after[0], before[1] + after[1]


def _wins(true: torch.Tensor, false: torch.Tensor) -> tuple[float, float]:
    """How many true pairs are closer, a tie counting half, and of how many."""
    return float((true > false).sum() + 0.5 * (true == false).sum()), float(len(true))


def share(counts: np.ndarray) -> float:
    """Right ones of all, nan of none. counts: (2,)."""
    return float(counts[0] / counts[1]) if counts[1] else float("nan")


def pm_accuracy(clips: Sequence[Embedded], contexts: Sequence[int] = CONTEXTS) -> dict[str, float]:
    """Share of windows whose best of 31 shifts is within one frame of zero.

    A context of K frames averages the rows of K - T + 1 neighbouring windows before the argmax,
    as the PM / VocaLiST protocol does (VocaLiST `test_lrs2.py`); a shift for which a window has
    no audio counts as -2 there. Mean over the windows of a clip, then over clips. Chance is
    `pm_chance`.
    """
    rows = [pm_hits(clip, contexts) for clip in clips]
    mean = np.mean(rows, axis=0) if rows else np.zeros(len(contexts))
    return {str(k): float(m) for k, m in zip(contexts, mean, strict=True)}


def pm_hits(clip: Embedded, contexts: Sequence[int] = CONTEXTS) -> list[float]:
    """`pm_accuracy` of one clip, by context; a context shorter than a window is one window."""
    table = similarity_by_offset(clip.v, clip.a).nan_to_num(nan=-2.0).numpy()
    total = np.concatenate([np.zeros((1, table.shape[1])), np.cumsum(table, axis=0)])
    n = len(table)
    out = []
    for k in contexts:
        reach = max(0, k - clip.window_frames) // 2
        lo = np.maximum(0, np.arange(n) - reach)
        hi = np.minimum(n, np.arange(n) + reach + 1)
        best = ((total[hi] - total[lo]) / (hi - lo)[:, None]).argmax(1) - MAX_OFFSET
        out.append(float(np.mean(np.abs(best) <= 1)))
    return out


def pm_chance(n: int, window_frames: int) -> list[float]:
    """`pm_hits` that guessing has in a clip of n windows, by context.

    3 of 31 far from its ends; near them fewer shifts are possible and 0 always is, so short clips
    and long contexts are easier.
    """
    index, out = np.arange(n), []
    for k in CONTEXTS:
        reach = max(0, k - window_frames) // 2
        # The last window of a context must not lie behind the audio's end, nor the first before 0.
        low = np.maximum(np.minimum(n, index + reach + 1) - n, -MAX_OFFSET)
        high = np.minimum(np.maximum(0, index - reach), MAX_OFFSET)
        right = np.minimum(high, 1) - np.maximum(low, -1) + 1
        out.append(float(np.mean(right / (high - low + 1))))
    return out


def auc(true: np.ndarray, false: np.ndarray) -> float:
    """Area under the ROC curve: chance that a true pair scores above a false one.

    From `Pairs.masses`.
    """
    below = np.cumsum(false) - false / 2  # a tie counts half
    return float((true * below).sum())


def eer(true: np.ndarray, false: np.ndarray) -> float:
    """Equal error rate: false accepts equal to false rejects. From `Pairs.masses`."""
    reject = np.append(0.0, np.cumsum(true))  # of a threshold at each value, and above all
    accept = 1 - np.append(0.0, np.cumsum(false))
    # Between two thresholds both are taken to change evenly.
    at = int(np.searchsorted(reject - accept, 0.0))
    if at == 0:
        return 0.0
    before, after = accept[at - 1] - reject[at - 1], reject[at] - accept[at]
    part = before / (before + after)
    return float(reject[at - 1] + part * (reject[at] - reject[at - 1]))


def probability_bins(p: np.ndarray) -> np.ndarray:
    """Which of BINS equal parts of [0, 1] each probability lies in."""
    return np.minimum((p * BINS).astype(int), BINS - 1)


def calibration_error(p_true: np.ndarray, p_false: np.ndarray) -> float:
    """Expected calibration error of probabilities, true and false pairs weighing the same."""
    error = np.zeros(BINS)
    for p, label in ((p_true, 1), (p_false, 0)):
        error += np.bincount(probability_bins(p), (label - p) / (2 * len(p)), BINS)
    return float(np.abs(error).sum())


def fit_calibration(pairs: Pairs) -> tuple[float, float]:
    """Scale and bias of sigmoid(scale * similarity + bias), logistic regression, balanced.

    The scale is held within SCALES, and the bias fitted to it then.
    """
    scale, bias = _logistic(pairs, None)
    if not SCALES[0] <= scale <= SCALES[1]:
        scale, bias = _logistic(pairs, min(max(scale, SCALES[0]), SCALES[1]))
    return scale, bias


def _logistic(pairs: Pairs, fixed: float | None) -> tuple[float, float]:
    """Scale (or the fixed one) and bias of the balanced logistic regression."""
    x = torch.from_numpy(np.concatenate([pairs.true, pairs.false])).double()
    y = torch.cat([torch.ones(len(pairs.true)), torch.zeros(len(pairs.false))]).double()
    w = torch.where(y > 0, 0.5 / len(pairs.true), 0.5 / len(pairs.false))
    free = torch.tensor([-3.0] if fixed else [-3.0, 10.0], dtype=torch.double, requires_grad=True)
    optimiser = torch.optim.LBFGS([free], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        logit = (fixed or free[-1]) * x + free[0]
        value = (
            torch.nn.functional.binary_cross_entropy_with_logits(logit, y, reduction="none") * w
        ).sum()
        value.backward()
        return value

    optimiser.step(loss)
    found = free.detach().tolist()
    return fixed or found[-1], found[0]


def probabilities(similarity: np.ndarray, scale: float, bias: float) -> np.ndarray:
    """sigmoid(scale * similarity + bias)."""
    return 1 / (1 + np.exp(-(scale * similarity + bias)))


def loss(similarity: np.ndarray, scale: float, bias: float) -> np.ndarray:
    """-log probability, what `SyncLoss` says: log(1 + exp(-(scale * similarity + bias)))."""
    return np.logaddexp(0.0, -(scale * similarity + bias))


def crossfitted_ece(first: Sequence[Embedded], second: Sequence[Embedded]) -> float:
    """Calibration error where each half is judged with the scale and bias of the other."""
    true, false = [], []
    for fitted, judged in ((first, second), (second, first)):
        scale, bias = fit_calibration(far_pairs(fitted))
        pairs = far_pairs(judged)
        true.append(probabilities(pairs.true, scale, bias))
        false.append(probabilities(pairs.false, scale, bias))
    return calibration_error(np.concatenate(true), np.concatenate(false))
