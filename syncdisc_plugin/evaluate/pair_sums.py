"""What each clip's pairs add to the figures: those of any weighting of the clips are then cheap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from syncdisc_plugin.evaluate import metrics
from syncdisc_plugin.evaluate.metrics import BINS, Pairs

# Similarities are told apart to one in so many quantiles where clips are weighted.
CELLS = 4096


@dataclass(frozen=True)
class _Side:
    """True pairs, or false ones, summed up clip by clip."""

    count: np.ndarray
    """(C,) pairs."""
    similarity: np.ndarray
    """(C,) sums of similarities."""
    loss: np.ndarray
    """(C,) sums of -log probability that the pair is true."""
    error: np.ndarray
    """(C, BINS) sums of label minus probability, by probability."""
    cells: np.ndarray
    """(C, CELLS) pairs by quantile of their similarity."""


class PairSums:
    """Figures of true and false pairs.

    Args:
        pairs: of C clips, with the number of each pair's clip.
        n_clips: C.
        scale: of the judge's logit.
        bias: of the judge's logit.
    """

    def __init__(self, pairs: Pairs, n_clips: int, scale: float, bias: float) -> None:
        self._pairs = pairs
        values = np.sort(np.concatenate([pairs.true, pairs.false]))
        places = np.linspace(0, len(values), CELLS + 1)[1:-1].astype(int)
        edges = np.unique(values[np.minimum(places, len(values) - 1)])

        def side(similarity: np.ndarray, clip: np.ndarray | None, label: int) -> _Side:
            assert clip is not None
            p = metrics.probabilities(similarity, scale, bias)
            spots = clip * BINS + metrics.probability_bins(p)
            cells = clip * CELLS + np.searchsorted(edges, similarity, side="right")
            return _Side(
                np.bincount(clip, minlength=n_clips),
                np.bincount(clip, similarity, n_clips),
                np.bincount(clip, metrics.loss(similarity, scale, bias), n_clips),
                np.bincount(spots, label - p, n_clips * BINS).reshape(n_clips, BINS),
                np.bincount(cells, minlength=n_clips * CELLS).reshape(n_clips, CELLS).astype("f4"),
            )

        self._true = side(pairs.true, pairs.true_clip, 1)
        self._false = side(pairs.false, pairs.false_clip, 0)

    def figures(self, weight: np.ndarray | None = None) -> dict[str, float]:
        """AUC, EER, calibration error, mean similarities and losses; nan where there is no pair.

        Args:
            weight: (C,) how often each clip counts; None: once. Where it is given, AUC and EER are
                good to one in `CELLS`, else exact.
        """
        t, f = self._true, self._false
        w = np.ones(len(t.count)) if weight is None else weight
        n_true, n_false = w @ t.count, w @ f.count
        names = ("auc", "eer", "ece", "similarity_true", "similarity_false", "gap")
        if not (n_true and n_false):
            return dict.fromkeys((*names, "loss_true", "loss_false"), float("nan"))
        if weight is None:
            masses = self._pairs.masses
        else:
            few = w.astype(np.float32)  # as the cells are: else all of them are copied, every time
            masses = (few @ t.cells) / n_true, (few @ f.cells) / n_false
        error = (w @ t.error) / (2 * n_true) + (w @ f.error) / (2 * n_false)
        similarity = (w @ t.similarity) / n_true, (w @ f.similarity) / n_false
        return {
            "auc": metrics.auc(*masses),
            "eer": metrics.eer(*masses),
            "ece": float(np.abs(error).sum()),
            "similarity_true": float(similarity[0]),
            "similarity_false": float(similarity[1]),
            "gap": float(similarity[0] - similarity[1]),
            "loss_true": float((w @ t.loss) / n_true),
            "loss_false": float((w @ f.loss) / n_false),
        }
