"""Cut one face box out of a frame, at sub-pixel precision."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np


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
