"""How good a discriminator is: pure functions of embedded clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from syncdisc_plugin.data.embed import Embedded
from syncdisc_plugin.nn.curve import MAX_OFFSET, offset_curve, similarity_by_offset

FAR = 5
CONTEXTS = (5, 7, 9, 11, 13, 15, 25)
DISTANCES = (1, 2, 3, 5, 10)
SCALES = (0.01, 60.0)  # within what a discriminator can hold


@dataclass(frozen=True)
class Pairs:
    """Similarities of true pairs and of false ones from the same clip, FAR frames away or more."""

    true: np.ndarray
    """(N,) similarity of each window to its own audio."""
    false: np.ndarray
    """(K,) similarities of false pairs."""


def far_pairs(clips: Sequence[Embedded], per_window: int = 8, seed: int = 0) -> Pairs:
    """True pairs of all windows, and a fixed sample of far false pairs of the same clips."""
    rng = np.random.default_rng(seed)
    true, false = [], []
    for clip in clips:
        s = clip.similarity.numpy()
        n = len(s)
        true.append(np.diagonal(s))
        i, j = rng.integers(0, n, (2, n * per_window))
        far = np.abs(i - j) >= FAR
        false.append(s[i[far], j[far]])
    if not sum(map(len, false)):
        raise ValueError(
            f"clips: expected some with more than {FAR} windows, got {len(clips)} that are "
            "shorter. Hold out or evaluate longer clips."
        )
    return Pairs(np.concatenate(true), np.concatenate(false))


def pair_accuracy(clips: Sequence[Embedded]) -> float:
    """Share of (window, false audio >= 5 frames away, same clip) where the true audio is closer.

    Every such pair counts; a tie counts half. Chance is 0.5.
    """
    right = total = 0.0
    for clip in clips:
        s = clip.similarity
        n = len(s)
        index = torch.arange(n)
        far = (index[:, None] - index[None]).abs() >= FAR
        difference = s.diagonal()[:, None] - s
        right += float(((difference > 0) & far).sum() + 0.5 * ((difference == 0) & far).sum())
        total += float(far.sum())
    return right / total if total else float("nan")


def pair_accuracy_by_distance(clips: Sequence[Embedded], seed: int = 0) -> dict[str, float]:
    """The same with false audio at exactly d frames (both sides), or from another clip."""
    out: dict[str, float] = {}
    for d in DISTANCES:
        right: list[np.ndarray] = []
        for clip in clips:
            if len(clip.v) > d:
                s = clip.similarity
                own = s.diagonal()
                right.append(_wins(own[:-d], s.diagonal(d)))
                right.append(_wins(own[d:], s.diagonal(-d)))
        out[str(d)] = float(np.concatenate(right).mean()) if right else float("nan")
    rng = np.random.default_rng(seed)
    for name, same_speaker in (("other_clip_same_speaker", True), ("other_speaker", False)):
        right = []
        for clip in clips:
            others = [
                o
                for o in clips
                if o is not clip and (o.clip.speaker == clip.clip.speaker) == same_speaker
            ]
            if not others:
                continue
            other = others[rng.integers(len(others))]
            pick = rng.integers(0, len(other.a), len(clip.v))
            own = (clip.v * clip.a).sum(1)
            right.append(_wins(own, (clip.v * other.a[pick]).sum(1)))
        out[name] = float(np.concatenate(right).mean()) if right else float("nan")
    return out


def _wins(true: torch.Tensor, false: torch.Tensor) -> np.ndarray:
    """1 where the true pair is closer, 0.5 for a tie."""
    return ((true > false).float() + 0.5 * (true == false).float()).numpy()


def pm_accuracy(clips: Sequence[Embedded], contexts: Sequence[int] = CONTEXTS) -> dict[str, float]:
    """Share of windows whose best of 31 shifts is within one frame of zero.

    A context of K frames averages the rows of K - T + 1 neighbouring windows before the argmax,
    as the PM / VocaLiST protocol does (VocaLiST `test_lrs2.py`); shifts beyond the clip's ends
    count as impossible. Mean over the windows of a clip, then over clips. Chance is 3/31.
    """
    sums = {k: [0.0, 0] for k in contexts}
    for clip in clips:
        table = similarity_by_offset(clip.v, clip.a).nan_to_num(nan=-2.0).numpy()
        total = np.concatenate([np.zeros((1, table.shape[1])), np.cumsum(table, axis=0)])
        n = len(table)
        for k in contexts:
            reach = (k - 5) // 2
            lo = np.maximum(0, np.arange(n) - reach)
            hi = np.minimum(n, np.arange(n) + reach + 1)
            rows = (total[hi] - total[lo]) / (hi - lo)[:, None]
            best = rows.argmax(1) - MAX_OFFSET
            sums[k][0] += float(np.mean(np.abs(best) <= 1))
            sums[k][1] += 1
    return {str(k): s / max(1, c) for k, (s, c) in sums.items()}


def auc(pairs: Pairs) -> float:
    """Area under the ROC curve: chance that a true pair scores above a false one."""
    scores = np.concatenate([pairs.false, pairs.true])
    _, which, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[which]  # ties share their mean rank
    n1, n0 = len(pairs.true), len(pairs.false)
    return float((ranks[n0:].sum() - n1 * (n1 + 1) / 2) / (n1 * n0))


def eer(pairs: Pairs) -> float:
    """Equal error rate: false accepts equal to false rejects."""
    thresholds = np.quantile(np.concatenate([pairs.true, pairs.false]), np.linspace(0, 1, 1001))
    reject = np.searchsorted(np.sort(pairs.true), thresholds) / len(pairs.true)
    accept = 1 - np.searchsorted(np.sort(pairs.false), thresholds) / len(pairs.false)
    at = np.abs(reject - accept).argmin()
    return float((reject[at] + accept[at]) / 2)


def calibration_error(p_true: np.ndarray, p_false: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error of probabilities, true and false pairs weighing the same."""
    p = np.concatenate([p_true, p_false])
    is_true = np.concatenate([np.ones(len(p_true)), np.zeros(len(p_false))])
    weight = np.concatenate(
        [np.full(len(p_true), 0.5 / len(p_true)), np.full(len(p_false), 0.5 / len(p_false))]
    )
    which = np.minimum((p * bins).astype(int), bins - 1)
    error = 0.0
    for b in range(bins):
        inside = which == b
        error += abs(float((weight[inside] * (is_true[inside] - p[inside])).sum()))
    return error


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


def crossfitted_ece(first: Sequence[Embedded], second: Sequence[Embedded]) -> float:
    """Calibration error where each half is judged with the scale and bias of the other."""
    true, false = [], []
    for fitted, judged in ((first, second), (second, first)):
        scale, bias = fit_calibration(far_pairs(fitted))
        pairs = far_pairs(judged)
        true.append(probabilities(pairs.true, scale, bias))
        false.append(probabilities(pairs.false, scale, bias))
    return calibration_error(np.concatenate(true), np.concatenate(false))


def summary(clips: Sequence[Embedded], scale: float, bias: float) -> dict[str, object]:
    """All figures of a clip set, as `syncdisc evaluate --json` writes them.

    None stands for what the clips cannot give (no second speaker, no clip long enough).
    """
    pairs = far_pairs(clips)
    curves = [offset_curve(c.v, c.a) for c in clips]

    offsets = np.array([c.offset_frames for c in curves])
    figures = {
        "pair_accuracy": pair_accuracy(clips),
        "pair_accuracy_by_distance": pair_accuracy_by_distance(clips),
        "pm_accuracy": pm_accuracy(clips),
        "auc": auc(pairs),
        "eer": eer(pairs),
        "ece": calibration_error(
            probabilities(pairs.true, scale, bias), probabilities(pairs.false, scale, bias)
        ),
        "similarity_true": float(pairs.true.mean()),
        "similarity_false": float(pairs.false.mean()),
        "gap": float(pairs.true.mean() - pairs.false.mean()),
        **_losses(clips, pairs, scale, bias),
        "offset_mae_frames": float(np.abs(offsets).mean()),
        "offset_within_1": float((np.abs(offsets) <= 1).mean()),
        "confidence": float(np.mean([c.confidence for c in curves])),
        "n_clips": len(clips),
        "n_speakers": len({c.clip.speaker for c in clips}),
        "n_windows": int(sum(len(c.v) for c in clips)),
    }
    return {name: _known(value) for name, value in figures.items()}


def _losses(clips: Sequence[Embedded], pairs: Pairs, scale: float, bias: float) -> dict[str, float]:
    """What `SyncLoss` says of real pairs, its spread over clips, and what it says of false ones."""

    def loss(similarity: np.ndarray) -> float:
        return float(np.logaddexp(0.0, -(scale * similarity + bias)).mean())

    by_clip = [loss((c.v * c.a).sum(-1).double().numpy()) for c in clips]
    return {
        "loss_true": loss(pairs.true),
        "loss_true_sd": float(np.std(by_clip)),
        "loss_false": loss(pairs.false),
    }


def _known(value: object) -> object:
    """JSON has no NaN."""
    if isinstance(value, dict):
        return {k: _known(v) for k, v in value.items()}
    return None if isinstance(value, float) and np.isnan(value) else value
