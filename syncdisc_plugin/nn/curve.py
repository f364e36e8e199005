"""Similarity over offset: the curve from which offset and confidence are read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

MAX_OFFSET = 15
# About 1 in 50 pairs of a face with another clip's sound is as clear (bench/score_offsets.py).
CLEAR = 6.0
# Offsets this near belong to the peak: the lips' movements are slower than a frame.
PEAK_FRAMES = 4
# Neighbours share frames: fewer than these 0.4 s are one or two observations.
LEAST_WINDOWS = 10


@dataclass(frozen=True)
class OffsetCurve:
    """Mean similarity of a clip when its audio is taken to be early by each offset."""

    offsets: np.ndarray
    """(31,) offsets in video frames, -15..15; > 0: audio early."""
    similarity: np.ndarray
    """(31,) mean similarity over the clip's windows; nan where no window has a partner."""

    @property
    def offset_frames(self) -> int:
        """The offset of the highest similarity."""
        return int(self.offsets[np.nanargmax(self.similarity)])

    @property
    def lag_frames(self) -> float:
        """Where the curve peaks between two offsets: a parabola through the three highest."""
        at = int(np.nanargmax(self.similarity))
        if not 0 < at < len(self.offsets) - 1:
            return float(self.offsets[at])
        left, top, right = self.similarity[at - 1 : at + 2]
        bend = left - 2 * top + right
        shift = 0.5 * (left - right) / bend if np.isfinite(bend) and bend < 0 else 0.0
        return float(self.offsets[at] + np.clip(shift, -0.5, 0.5))

    @property
    def confidence(self) -> float:
        """Maximum minus median of the curve, as syncnet_python's, but of similarities."""
        return float(np.nanmax(self.similarity) - np.nanmedian(self.similarity))

    def listed(self) -> list[float | None]:
        """The similarities for JSON: None where no window has a partner."""
        return [None if np.isnan(s) else round(float(s), 4) for s in self.similarity]


def similarity_by_offset(
    v: torch.Tensor, a: torch.Tensor, max_offset: int = MAX_OFFSET
) -> torch.Tensor:
    """Similarity of each video window to the audio window `offset` frames before it.

    Args:
        v: (N, D) unit embeddings of the video windows.
        a: (N, D) unit embeddings of the audio windows on the same clock.
        max_offset: largest offset in video frames.

    Returns:
        (N, 2 * max_offset + 1), column max_offset + o for offset o; nan out of range.
    """
    n = v.shape[0]
    full = v @ a.T
    out = full.new_full((n, 2 * max_offset + 1), float("nan"))
    for o in range(-min(max_offset, n - 1), min(max_offset, n - 1) + 1):
        diagonal = full.diagonal(-o)  # pairs (i, i - o)
        first = max(0, o)
        out[first : first + diagonal.shape[0], max_offset + o] = diagonal
    return out


def offset_curve(v: torch.Tensor, a: torch.Tensor) -> OffsetCurve:
    """The clip's curve: mean of `similarity_by_offset` over windows. v, a: (N, D), N >= 1."""
    table = similarity_by_offset(v, a)
    return OffsetCurve(
        offsets=np.arange(-MAX_OFFSET, MAX_OFFSET + 1),
        similarity=torch.nanmean(table, dim=0).double().cpu().numpy(),
    )


def clearness(curve: OffsetCurve, table: np.ndarray) -> float:
    """Peak above median, in standard errors of a mean over as many unrelated windows.

    Fewer windows have a partner at large offsets, and their mean scatters more. 0: too few to say.

    Args:
        curve: of a clip.
        table: (N, 31), `similarity_by_offset` of the same clip.
    """
    far = np.abs(curve.offsets - curve.offset_frames) > PEAK_FRAMES
    unrelated = table[:, far][np.isfinite(table[:, far])]
    windows = int(np.isfinite(table[:, curve.offset_frames + MAX_OFFSET]).sum())
    scatter = float(unrelated.std()) if len(unrelated) else 0.0
    if windows < LEAST_WINDOWS or scatter < 1e-6:
        return 0.0
    return curve.confidence * windows**0.5 / scatter


def is_clear(curve: OffsetCurve, table: np.ndarray) -> bool:
    """Whether the curve's offset can be trusted: clear, and no end beyond which it may peak."""
    return clearness(curve, table) >= CLEAR and abs(curve.offset_frames) < MAX_OFFSET
