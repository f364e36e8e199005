"""Does the score of a crop fall where something covers the mouth?"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from syncdisc_plugin.data.footage import Footage
from syncdisc_plugin.faces import QualityMeter, TrackSettings, load_detector
from syncdisc_plugin.spec import ClipSpec

pytestmark = pytest.mark.real
SPEAKERS = 24


def hand(face: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A blurred ellipse in the colour of the cheeks, with some texture."""
    shape, cheek = face.shape[:2], face[60:70, 30:90].reshape(-1, 3).mean(0)
    axes = int(rng.integers(24, 34)), int(rng.integers(16, 24))
    cover = np.zeros(shape, np.float32)
    middle = 60 + int(rng.integers(-12, 12)), 88
    cv2.ellipse(cover, middle, axes, float(rng.integers(-30, 30)), 0, 360, 1, -1)
    cover = cv2.GaussianBlur(cover, (0, 0), 1.5)[..., None]
    texture = cv2.GaussianBlur(rng.normal(0, 30, shape).astype(np.float32), (0, 0), 3)
    return (face * (1 - cover) + (cheek + texture[..., None]) * cover).clip(0, 255).astype(np.uint8)


def microphone(face: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    out, middle = face.copy(), (60 + int(rng.integers(-8, 8)), 92)
    cv2.circle(out, middle, int(rng.integers(14, 20)), (30, 30, 32), -1)
    cv2.line(out, middle, (middle[0] + int(rng.integers(-20, 20)), 119), (40, 40, 40), 10)
    return out


def mask(face: np.ndarray, _: np.random.Generator) -> np.ndarray:
    out = face.copy()
    cv2.rectangle(out, (14, 68), (106, 112), (170, 190, 205), -1)
    return cv2.GaussianBlur(out, (0, 0), 0.8)


@pytest.fixture(scope="module")
def faces(clips_dir: Path, models_dir: Path) -> np.ndarray:
    """A crop of each of some speakers, one second into a track."""
    with (clips_dir / "clips.csv").open(newline="", encoding="utf-8") as file:
        first = {row["speaker"]: row["path"] for row in csv.DictReader(file)}
    detect = load_detector("yunet", models=models_dir)
    short, out = TrackSettings(min_frames=25, max_frames=26), []
    for path in sorted(first.values())[:: max(1, len(first) // SPEAKERS)]:
        tracks = Footage(clips_dir / path, detect, ClipSpec(), short).clips()
        out.append(next(tracks)[0].crops[-1])
    return np.stack(out)


@pytest.mark.parametrize(("cover", "least"), [(hand, 0.8), (microphone, 0.8), (mask, 0.9)])
def test_a_covered_mouth_has_a_lower_score(
    faces: np.ndarray,
    models_dir: Path,
    cover: Callable[[np.ndarray, np.random.Generator], np.ndarray],
    least: float,
) -> None:
    """The share of (covered, open) pairs in the right order; all of these faces are open."""
    meter, rng = QualityMeter(models_dir), np.random.default_rng(0)
    seen = np.array([meter(face[None]).crop_score for face in faces], float)
    covered = np.array([meter(cover(face, rng)[None]).crop_score for face in faces], float)
    right = (covered[:, None] < seen).mean() + 0.5 * (covered[:, None] == seen).mean()
    print(f"{cover.__name__}: {right:.3f} of {len(faces)} x {len(faces)} pairs")
    assert right > least
