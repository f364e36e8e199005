"""The aligned crop: eyes and mouth lie in fixed places, however the head is held."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest

from syncdisc_plugin.data.footage import Footage
from syncdisc_plugin.errors import FaceError
from syncdisc_plugin.faces import TrackSettings, crop_aligned, follow, load_detector
from syncdisc_plugin.faces.crop import TEMPLATE
from syncdisc_plugin.spec import ClipSpec


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    data = pytest.importorskip("skimage.data")
    return data.astronaut()


@pytest.mark.parametrize(("turn", "scale"), [(0, 1.0), (20, 1.0), (-20, 1.5), (7, 0.8)])
def test_an_aligned_crop_is_the_same_however_the_face_lies(
    portrait: np.ndarray, turn: float, scale: float
) -> None:
    points = np.array([[206.0, 107.0], [244.0, 109.0], [226.0, 150.0]])
    move = cv2.getRotationMatrix2D((225, 125), turn, scale)
    move[:, 2] += (9.3, 40.6)
    image = cv2.warpAffine(cv2.GaussianBlur(portrait, (0, 0), 2), move, (512, 512))
    there = (points - 0.5) @ move[:, :2].T + move[:, 2] + 0.5  # cv2 counts from pixels' middles
    same = crop_aligned(cv2.GaussianBlur(portrait, (0, 0), 2), points, face_px=64, margin=0.0)
    crop = crop_aligned(image, there, face_px=64, margin=0.0)
    assert np.abs(crop.astype(float) - same).mean() < 3


@pytest.mark.parametrize("size", [40, 96, 230])
def test_points_come_to_lie_on_the_template(size: int) -> None:
    there = 150 + size * TEMPLATE
    grid = np.mgrid[:480, :480].astype(np.float32)
    ramp = np.stack([grid[1] / 2, grid[0] / 2, grid[0] * 0], -1).round().astype(np.uint8)
    crop = crop_aligned(ramp, there, face_px=96, margin=0.125)
    assert crop.shape == (120, 120, 3)
    for spot, (x, y) in zip(12 + 96 * TEMPLATE, there, strict=True):
        column, row = (spot - 0.5).round().astype(int)
        step = size / 96
        offset = (np.array([column, row]) + 0.5 - spot) * step
        expected = (np.array([x, y]) + offset - 0.5) / 2
        assert crop[row, column, :2] == pytest.approx(expected, abs=1)


def test_points_are_interpolated_and_smoothed_as_boxes_are() -> None:
    seen = itertools.count()

    def detect(image: np.ndarray) -> np.ndarray:
        at = 10.0 * next(seen)
        box = np.array([40, 40, 100, 100, 0.9], np.float32)
        eyes = 40 + 60 * TEMPLATE + (at / 10, 0)
        return np.append(box, eyes)[None].astype(np.float32)

    frames = [np.random.default_rng(1).integers(0, 255, (140, 140, 3), np.uint8)] * 11
    made = TrackSettings(every=5, min_frames=2, smooth_frames=0)
    (track,) = follow(frames, detect, made, face_px=32, margin=0.0, crop="aligned")
    for i in (0, 3, 5, 8):
        there = 40 + 60 * TEMPLATE + (i / 5, 0)
        exact = crop_aligned(frames[i], there, face_px=32, margin=0.0)
        assert np.abs(track.crops[i].astype(int) - exact).max() <= 1


def test_an_aligned_crop_wants_points() -> None:
    with pytest.raises(FaceError, match="--detector yunet"):
        load_detector("none", points=True)
    frames = [np.zeros((64, 64, 3), np.uint8)] * 30
    with pytest.raises(FaceError, match="11 columns"):
        list(
            follow(
                frames,
                load_detector("none"),
                TrackSettings(),
                face_px=32,
                margin=0.0,
                crop="aligned",
            )
        )


@pytest.mark.real
def test_points_move_less_than_in_box_crops(clips_dir: Path, models_dir: Path) -> None:
    """Spread of eyes and mouth over a track, as YuNet finds them in the crops themselves."""
    with (clips_dir / "clips.csv").open(newline="", encoding="utf-8") as file:
        paths = [r["path"] for r in csv.DictReader(file) if r["path"].startswith("presenters/")]
    detect = load_detector("yunet", models=models_dir, points=True)
    spread: dict[str, list[float]] = {"box": [], "aligned": []}
    for path in sorted(paths)[::15]:
        for crop, found in spread.items():
            (track, _), *_ = Footage(
                clips_dir / path, detect, ClipSpec(crop=crop), TrackSettings(max_frames=250)
            ).clips()
            faces = [detect(image)[:1] for image in track.crops[::4]]
            seen = np.concatenate([face[:, 5:11] for face in faces if len(face)])
            assert len(seen) > 0.8 * len(faces)
            found.append(float(seen.std(0).mean()))
    print({crop: np.round(found, 2).tolist() for crop, found in spread.items()})
    assert np.median(spread["aligned"]) < 0.9 * np.median(spread["box"])


def test_a_large_face_is_not_aliased() -> None:
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, np.arange(400) % 4 >= 2] = 255
    crop = crop_aligned(stripes, (51, 50) + TEMPLATE * 256, face_px=64, margin=0.0)
    assert np.abs(crop.astype(int) - 127).max() <= 2
