"""How well a face can be seen in its crops: sharpness, and the turn of the head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from syncdisc_plugin.errors import FaceError
from syncdisc_plugin.faces.turn import load_turn_meter

FRAMES_PER_LOOK = 100  # a look costs as much as preparing a frame or two
LEAST_LOOKS = 2
TURN_PX = 64  # within 2 degrees of what 120 pixels give, at half the time


@dataclass(frozen=True)
class Quality:
    """Medians over some crops of a track."""

    sharpness: float
    """See `sharpness`."""
    turn_deg: float | None
    """How far the head is turned to either side, in degrees; None where it was not found."""


class QualityMeter:
    """Looks at crops; at the turn of heads only where YuNet's file is at hand: none is fetched."""

    def __init__(self, models: Path | None = None) -> None:
        self._turn: Callable[[np.ndarray], float] | None
        try:
            self._turn = load_turn_meter(models, download=False)
        except FaceError:
            self._turn = None

    def __call__(self, crops: np.ndarray) -> Quality:
        """Measure evenly spaced crops of (N, S, S, 3) uint8 RGB, N >= 1."""
        looks = max(LEAST_LOOKS, round(len(crops) / FRAMES_PER_LOOK))
        some = crops[((np.arange(looks) + 0.5) / looks * len(crops)).astype(int)]
        turn = self._turn
        turns = [] if turn is None else [abs(turn(_small(crop))) for crop in some]
        turns = [degrees for degrees in turns if np.isfinite(degrees)]
        return Quality(
            sharpness=float(np.median([sharpness(crop) for crop in some])),
            turn_deg=float(np.median(turns)) if turns else None,
        )


def sharpness(crop: np.ndarray) -> float:
    """Fine detail as a ratio of all contrast: standard deviation of the Laplacian over the image's.

    Neither light nor contrast changes it. A small face that was enlarged is blurred, and so is one
    that moved; noise counts as detail. A flat image has 0.
    """
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    spread = float(grey.std())
    return float(cv2.Laplacian(grey, cv2.CV_32F).std()) / spread if spread > 1 else 0.0


def _small(crop: np.ndarray) -> np.ndarray:
    if len(crop) <= TURN_PX:
        return crop
    return cv2.resize(crop, (TURN_PX, TURN_PX), interpolation=cv2.INTER_AREA)
