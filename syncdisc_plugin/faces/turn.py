"""YuNet on a face crop: how far the head is turned, and how sure it is that this is a face."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from syncdisc_plugin.faces.detect import detector_files

NOSE = 0.6  # how far its tip stands out of the plane of the eyes, in distances of the eyes


class Look(NamedTuple):
    """What YuNet makes of one crop."""

    turn_deg: float
    """> 0: the nose is right of the eyes' middle in the picture; nan where no face is found. Good
    to about ten degrees."""
    score: float
    """In [0, 1]; 0 where no face is found."""


def load_look(models: Path | None = None) -> Callable[[np.ndarray], Look]:
    """A function that looks at a face crop (H, W, 3) uint8 RGB.

    Args:
        models: see `load_detector`.

    Raises:
        FaceError: YuNet's file is missing; for this it is not downloaded.
    """
    (path,) = detector_files("yunet", models, download=False)
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # OpenCV 5 warns of itself
    try:
        net = cv2.FaceDetectorYN.create(str(path), "", (0, 0), 0.5, 0.3)
    finally:
        cv2.utils.logging.setLogLevel(level)

    def look(crop: np.ndarray) -> Look:
        net.setInputSize(crop.shape[1::-1])
        _, faces = net.detect(np.ascontiguousarray(crop[..., ::-1]))
        if faces is None:
            return Look(float("nan"), 0.0)
        best = faces[faces[:, 14].argmax()]
        return Look(turn_deg(best[4:14].reshape(5, 2)), float(best[14]))

    return look


def turn_deg(points: np.ndarray) -> float:
    """Degrees from (5, 2) points: one eye, the other, the nose's tip, two corners of the mouth."""
    eyes = points[1] - points[0]
    apart = float(np.hypot(*eyes))
    if apart < 1:
        return 90.0
    beside = float((points[2] - points[:2].mean(0)) @ eyes) / apart**2
    return float(np.degrees(np.arctan(beside / NOSE)) * np.sign(eyes[0] or 1))
