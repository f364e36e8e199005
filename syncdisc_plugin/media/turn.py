"""How a file asks its pictures to be turned: the display matrix that phones write."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Turn:
    """A stored picture -> the picture that is shown."""

    quarters: int = 0
    """Counter-clockwise quarter turns, 0 to 3."""
    mirrored: bool = False
    """Whether left and right are exchanged first."""

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(H, W, C) as stored -> as shown, contiguous."""
        if self.mirrored:
            image = image[:, ::-1]
        return np.ascontiguousarray(np.rot90(image, self.quarters))


def turn_of(frame: Any) -> Turn:
    """What the display matrix of a decoded frame asks for; nothing without one.

    A point (x, y) is shown at (a x + c y, b x + d y); y points down. The matrix holds a, b and c, d
    in its first two rows, in 16.16 fixed point (FFmpeg, `libavutil/display.h`).
    """
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            matrix = np.frombuffer(data, "=i4")
            a, b, c, d = (float(matrix[i]) for i in (0, 1, 3, 4))
            mirrored = a * d - b * c < 0
            if mirrored:
                a, b = -a, -b
            return Turn(round(-math.degrees(math.atan2(b, a)) / 90) % 4, mirrored)
    return Turn()
