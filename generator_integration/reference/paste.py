"""Put a small drawn face back into a large frame, so that nobody sees where."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np

TOP, TOP_END = 0.50, 0.60
"""Rows, as ratios of the box, between which the mask rises from 0 to 1: from the nose's tip on."""
MIDDLE, REACH = 0.55, 0.45
"""Row from which the mask is round, and how far it goes to the sides and down from there: to the
chin, and not to the ears, where a generator draws background."""
EDGE = 0.72
"""Part of that reach from which on it falls."""
TINT = 0.08
"""The most that a colour is moved to meet its surroundings, in [0, 1] units."""
SKIN, ELSE = 0.06, 0.15
"""Differences up to which a place at the rim says how the colour is off, and from which it says
nothing: hair and background that were drawn wrong."""
SAME, OTHER = 0.03, 0.10
"""Differences up to which a place counts as unchanged, and from which as drawn anew."""


def paste_face(
    image: np.ndarray, box: np.ndarray, drawn: np.ndarray, seen: np.ndarray
) -> np.ndarray:
    """Blend the lower half of a drawn face into a copy of the frame.

    A drawn face has fewer pixels than the frame has there. So what it changes is taken from it, and
    where it changes nothing (cheeks, beard, background) the frame keeps its own detail.

    Args:
        image: (H, W, C=3) uint8 RGB.
        box: (4,) x1, y1, x2, y2 in pixels, as `crop_face` takes it; it may reach outside.
        drawn: (S, S, 3) float32 RGB in [0, 1], the box as it shall look.
        seen: (S, S, 3) float32 RGB in [0, 1], the box as it was, by `crop_face` without a margin.

    Returns:
        (H, W, 3) uint8; outside of the box's lower part the input's own pixels.
    """
    side = drawn.shape[0]
    x1, y1, x2, y2 = (float(edge) for edge in box)
    height, width = image.shape[:2]
    left, right = max(0, math.floor(x1)), min(width, math.ceil(x2))
    top, bottom = max(0, math.floor(y1 + TOP * (y2 - y1))), min(height, math.ceil(y2))
    out = image.copy()
    if left >= right or top >= bottom:
        return out

    mask = soft_mask(side)
    drawn = drawn + _tint(drawn, seen, mask)
    changed = cv2.GaussianBlur(np.abs(drawn - seen).max(axis=2), (0, 0), side / 40)
    kept = 1 - _rise(changed, SAME, OTHER)

    x_step, y_step = (x2 - x1) / side, (y2 - y1) / side  # frame pixels per drawn pixel
    # Drawn pixel -> pixel of the cut, both counted from pixel centres (hence the halves).
    to_cut = np.array(
        [
            [x_step, 0.0, x1 + 0.5 * x_step - 0.5 - left],
            [0.0, y_step, y1 + 0.5 * y_step - 0.5 - top],
        ]
    )

    def enlarged(small: np.ndarray, border: int = cv2.BORDER_REPLICATE) -> np.ndarray:
        if min(x_step, y_step) < 1:  # The face is smaller than the drawing: against aliasing.
            sigmas = (max(1e-3, 0.5 * (1 / step - 1)) for step in (x_step, y_step))
            small = cv2.GaussianBlur(small, (0, 0), *sigmas)
        size = (right - left, bottom - top)
        return cv2.warpAffine(small, to_cut, size, flags=cv2.INTER_CUBIC, borderMode=border)

    cut = image[top:bottom, left:right].astype(np.float32) / 255
    new = enlarged(drawn.astype(np.float32))
    share = enlarged(np.dstack([kept, mask]).astype(np.float32), cv2.BORDER_CONSTANT).clip(0, 1)
    detail = cut - enlarged(seen.astype(np.float32))
    new = new + share[..., :1] * detail
    blended = cut + share[..., 1:] * (new - cut)
    out[top:bottom, left:right] = np.round(blended.clip(0, 1) * 255).astype(np.uint8)
    return out


@lru_cache(maxsize=4)
def soft_mask(side: int) -> np.ndarray:
    """Mask (S, S) float32 in [0, 1]: mouth, chin and cheeks, round below, feathered."""
    at = (np.arange(side) + 0.5) / side
    across = np.abs(at - 0.5)[None] / REACH
    down = (at - MIDDLE).clip(min=0)[:, None] / REACH
    reach = (across**4 + down**4) ** 0.25
    mask = _rise(at[:, None], TOP, TOP_END) * (1 - _rise(reach, EDGE, 1.0))
    return mask.astype(np.float32)


def _tint(drawn: np.ndarray, seen: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """What to add to the drawn colours (S, S, 3) so that they fit at the rim of the mask."""
    off = np.abs(seen - drawn).max(axis=2)
    rim = mask * (1 - mask) * (1 - _rise(off, SKIN, ELSE))
    sigma = len(mask) / 6
    weight = cv2.GaussianBlur(rim, (0, 0), sigma)[..., None]
    short = cv2.GaussianBlur(rim[..., None] * (seen - drawn), (0, 0), sigma)
    return (short / np.maximum(weight, 1e-3)).clip(-TINT, TINT)


def _rise(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 up to `low`, 1 from `high` on, without a kink."""
    t = ((x - low) / (high - low)).clip(0, 1)
    return t * t * (3 - 2 * t)
