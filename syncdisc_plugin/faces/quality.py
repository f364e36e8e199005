"""How well a face can be seen in its crops: sharpness, turn of the head, what covers it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from syncdisc_plugin.errors import FaceError
from syncdisc_plugin.faces.turn import Look, load_look

FRAMES_PER_LOOK = 100  # a look costs as much as preparing a frame or two
LEAST_LOOKS = 2


@dataclass(frozen=True)
class Quality:
    """Medians over some crops of a track."""

    sharpness: float
    """See `sharpness`."""
    turn_deg: float | None
    """How far the head is turned to either side, in degrees; None where it was not found."""
    crop_score: float | None
    """YuNet's score of the crop, in [0, 1]; None without YuNet. It moves little, but falls where
    something covers the mouth: below that of 88 to 96 of 100 open faces, by what covers it."""


class QualityMeter:
    """Looks at crops; with YuNet only where its file is at hand: none is fetched."""

    def __init__(self, models: Path | None = None) -> None:
        self._look: Callable[[np.ndarray], Look] | None
        try:
            self._look = load_look(models)
        except FaceError:
            self._look = None

    def __call__(self, crops: np.ndarray) -> Quality:
        """Measure evenly spaced crops of (N, S, S, 3) uint8 RGB, N >= 1."""
        looks = max(LEAST_LOOKS, round(len(crops) / FRAMES_PER_LOOK))
        some = crops[((np.arange(looks) + 0.5) / looks * len(crops)).astype(int)]
        seen = [self._look(crop) for crop in some] if self._look is not None else []
        turns = [abs(one.turn_deg) for one in seen if np.isfinite(one.turn_deg)]
        return Quality(
            sharpness=float(np.median([sharpness(crop) for crop in some])),
            turn_deg=float(np.median(turns)) if turns else None,
            crop_score=float(np.median([one.score for one in seen])) if seen else None,
        )


def sharpness(crop: np.ndarray) -> float:
    """Fine detail as a ratio of all contrast: standard deviation of the Laplacian over the image's.

    Neither light nor contrast changes it. A small face that was enlarged is blurred, and so is one
    that moved; noise counts as detail. A flat image has 0.
    """
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    spread = float(grey.std())
    return float(cv2.Laplacian(grey, cv2.CV_32F).std()) / spread if spread > 1 else 0.0
