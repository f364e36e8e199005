"""Cut one face out of a frame, by its box or its points, at sub-pixel precision."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

# Where two eyes and the mouth's middle lie in the box, as ratios of its sides: medians of YuNet's
# points in the box crops of 222 clips, made mirror-symmetric. So both crops show the same region.
TEMPLATE = np.array([[0.29, 0.361], [0.71, 0.361], [0.5, 0.722]])


def crop_face(
    image: np.ndarray, box: Sequence[float] | np.ndarray, *, face_px: int, margin: float
) -> np.ndarray:
    """Resize the box to `face_px` x `face_px` (aspect not kept, as the hosts do) plus a margin.

    Args:
        image: (H, W, 3) uint8.
        box: x1, y1, x2, y2 in pixels; pixel i spans [i, i+1). It may reach outside of the image.
        face_px: side of the central square that the box fills.
        margin: border added on each side, as a ratio of the box.

    Returns:
        (S, S, 3) uint8, S = face_px + 2 * round(face_px * margin). Beyond the image its border
        pixels are repeated.

    Raises:
        ValueError: the box is empty or not finite.
    """
    x1, y1, x2, y2 = (float(edge) for edge in box[:4])
    if not (math.isfinite(x1 + y1 + x2 + y2) and x1 < x2 and y1 < y2):
        raise ValueError(f"box: expected finite x1 < x2 and y1 < y2, got {(x1, y1, x2, y2)}.")
    pad = round(face_px * margin)
    side = face_px + 2 * pad
    x_step, y_step = (x2 - x1) / face_px, (y2 - y1) / face_px  # image pixels per crop pixel
    x_start, y_start = x1 + (0.5 - pad) * x_step, y1 + (0.5 - pad) * y_step  # middle of pixel 0, 0
    factor = max(1, min(math.floor(min(x_step, y_step)), *image.shape[:2]))
    left, right = _slice(x_start, x_start + (side - 1) * x_step, factor, image.shape[1])
    top, bottom = _slice(y_start, y_start + (side - 1) * y_step, factor, image.shape[0])
    # Two moves: the mean of whole blocks of pixels against aliasing (fast, and nearer to the exact
    # area mean than cv2's fractional INTER_AREA), then a linear warp that puts the edges of the box
    # exactly where they belong. Cutting at rounded edges would make the face tremble.
    region = block_mean(image[top:bottom, left:right], factor)
    # Crop pixel -> region pixel, both counted from pixel centres (hence the halves).
    crop_to_region = np.array(
        [
            [x_step / factor, 0.0, (x_start - left) / factor - 0.5],
            [0.0, y_step / factor, (y_start - top) / factor - 0.5],
        ]
    )
    return cv2.warpAffine(
        region,
        crop_to_region,
        (side, side),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )


def crop_aligned(
    image: np.ndarray, points: Sequence[float] | np.ndarray, *, face_px: int, margin: float
) -> np.ndarray:
    """Turn, scale and shift the face so that its points come nearest to `TEMPLATE`.

    Args:
        image: (H, W, 3) uint8.
        points: (3, 2) or (6,) x, y in pixels: the eye on the left of the picture, the other, the
            middle of the mouth; pixel i spans [i, i+1).
        face_px: side of the central square that the template fills.
        margin: see `crop_face`.

    Returns:
        (S, S, 3) uint8, as `crop_face`.

    Raises:
        ValueError: the points are not three, not finite, or all in one place.
    """
    there = np.asarray(points, np.float64).reshape(-1, 2)
    spread = there - there.mean(0) if len(there) else there
    if there.shape != (3, 2) or not np.isfinite(there).all() or not spread.any():
        raise ValueError(f"points: expected three finite points apart, got {there.tolist()}.")
    pad = round(face_px * margin)
    side = face_px + 2 * pad
    wanted = pad + TEMPLATE * face_px
    # Least squares in complex numbers: one factor is both the turn and the scale.
    a, b = (p[:, 0] + 1j * p[:, 1] for p in (wanted - wanted.mean(0), spread))
    step = 1 / (np.vdot(b, a) / np.vdot(b, b).real)  # image pixels per crop pixel
    if not np.isfinite(step):
        raise ValueError(f"points: expected eyes above a mouth, got {there.tolist()}.")
    turn = np.array([[step.real, -step.imag], [step.imag, step.real]])
    shift = there.mean(0) - turn @ (wanted.mean(0) - 0.5)  # where the middle of pixel 0, 0 lies
    corners = np.array([[0, 0], [side - 1, 0], [0, side - 1], [side - 1, side - 1]]) @ turn.T
    low, high = (corners + shift).min(0), (corners + shift).max(0)
    factor = max(1, min(math.floor(abs(step)), *image.shape[:2]))
    left, right = _slice(low[0], high[0], factor, image.shape[1])
    top, bottom = _slice(low[1], high[1], factor, image.shape[0])
    region = block_mean(image[top:bottom, left:right], factor)
    start = (shift - (left, top)) / factor - 0.5
    return cv2.warpAffine(
        region,
        np.column_stack([turn / factor, start]),
        (side, side),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )


def block_mean(image: np.ndarray, factor: int) -> np.ndarray:
    """Shrink (H, W, 3) uint8 by a whole factor; a rest that fills no block is left out."""
    if factor == 1:
        return image
    rows, columns = image.shape[0] // factor, image.shape[1] // factor
    whole = image[: rows * factor, : columns * factor]
    return cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA)


def _slice(low: float, high: float, factor: int, limit: int) -> tuple[int, int]:
    """Pixels [first, last) of one axis that hold all that is sampled between low and high.

    The slack keeps the warp's repeated border outside, unless it is the image's own.
    """
    first = min(max(math.floor(low) - 2 * factor, 0), limit - factor)
    last = min(max(math.ceil(high) + 3 * factor, first + factor), limit)
    return first, last
