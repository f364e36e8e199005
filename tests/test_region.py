"""Where the face lies in a host's frames: arithmetic on a made detector, and on real faces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from syncdisc_plugin import SyncLoss, locate, weights
from syncdisc_plugin.faces import load_detector
from syncdisc_plugin.media import decode
from syncdisc_plugin.nn import Architecture, Discriminator
from syncdisc_plugin.region import Located
from syncdisc_plugin.spec import ClipSpec

BOX = (0.25, 0.75, 0.4, 0.9)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    weights.save(Discriminator(arch=Architecture(8, 8, 32)), tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


@pytest.fixture
def sees_red(monkeypatch: pytest.MonkeyPatch) -> None:
    """A detector of what is red."""

    def detect(image: np.ndarray) -> np.ndarray:
        red = (image[..., 0] > 200) & (image[..., 2] < 50)
        if not red.any():
            return np.zeros((0, 5), np.float32)
        rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
        box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1, 0.9]
        return np.array([box], np.float32)

    monkeypatch.setattr("syncdisc_plugin.faces.load_detector", lambda *_, **__: detect)


def frames(batch: int = 4, size: tuple[int, int] = (80, 120)) -> torch.Tensor:
    """(B, 3, 5, H, W) RGB in 0..1, red in BOX."""
    out = torch.full((batch, 3, 5, *size), 0.5)
    top, bottom, left, right = BOX
    rows = slice(round(top * size[0]), round(bottom * size[0]))
    columns = slice(round(left * size[1]), round(right * size[1]))
    out[..., rows, columns] = torch.tensor([1.0, 0, 0])[None, :, None, None, None]
    return out


@pytest.mark.usefixtures("sees_red")
@pytest.mark.parametrize(
    ("options", "change"),
    [
        ({}, lambda x: x),
        ({"color": "bgr", "value_range": "-1..1"}, lambda x: x.flip(1) * 2 - 1),
        ({"value_range": "0..255"}, lambda x: (x * 255).byte()),
        (
            {"layout": "(b t) c h w", "n_frames": 5},
            lambda x: x.transpose(1, 2).flatten(0, 1),
        ),
    ],
)
@pytest.mark.parametrize("packed", [lambda x: x, lambda x: (x, 0), lambda x: {"frames": x}])
def test_the_box_in_ratios_of_the_frame(
    path: Path,
    options: dict[str, Any],
    change: Callable[[torch.Tensor], torch.Tensor],
    packed: Callable[[torch.Tensor], Any],
) -> None:
    found = locate(SyncLoss(path, **options), [packed(change(frames()))] * 2)
    assert found.region == pytest.approx(BOX, abs=0.01)
    assert (found.found, found.looked) == (8, 8) and found.spread == 0
    assert "say region=(0.25, 0.75, 0.4, 0.9); the detector sees a face in 8 of 8" in str(found)
    SyncLoss(path, region=found.region, **options)(change(frames()), torch.zeros(4, 1, 80, 16))


@pytest.mark.usefixtures("sees_red")
def test_it_stops_and_it_says_where_no_faces_are(path: Path) -> None:
    sync = SyncLoss(path)
    assert locate(sync, iter([frames()] * 50), most_frames=8).looked == 8
    some = torch.cat([frames(3), torch.zeros(5, 3, 5, 80, 120)])
    with pytest.raises(ValueError, match=r"sees one in 3 of 8 frames.*true frames"):
        locate(sync, [some])
    with pytest.raises(ValueError, match="sees one in 0 of 0"):
        locate(sync, [])


def test_aligned_weights_have_no_box(tmp_path: Path) -> None:
    net = Discriminator(replace(ClipSpec(), crop="aligned"), Architecture(8, 8, 32))
    weights.save(net, tmp_path / "aligned.safetensors")
    with pytest.raises(ValueError, match="expected weights of boxes, got of aligned crops"):
        locate(SyncLoss(tmp_path / "aligned.safetensors"), [])


@pytest.mark.real
@pytest.mark.parametrize(
    "region",
    [
        (-0.06, 0.84, 0.06, 0.96),  # LatentSync's
        (-0.23, 0.95, 0.06, 0.95),  # IP_LAP's
        (0.0, 1.0, 0.0, 1.0),
        (0.2, 0.8, 0.25, 0.75),
    ],
)
def test_real_faces_cut_as_hosts_do(
    clips_dir: Path, models_dir: Path, region: tuple[float, float, float, float], path: Path
) -> None:
    detect = load_detector("yunet", models=models_dir)
    top, bottom, left, right = region
    items = []
    for video in sorted(clips_dir.glob("presenters/**/*.mp4"))[::2][:24]:
        picture = next(islice(decode(video).frames(), 30, None))
        if not len(seen := detect(picture)):
            continue
        x1, y1, x2, y2 = seen[0, :4]
        height, width = (y2 - y1) / (bottom - top), (x2 - x1) / (right - left)
        corner = x1 - left * width, y1 - top * height
        matrix = np.array([[width / 256, 0, corner[0]], [0, height / 256, corner[1]]], np.float32)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        items.append(cv2.warpAffine(picture, matrix, (256, 256), flags=flags))
    batch = torch.from_numpy(np.stack(items)).permute(0, 3, 1, 2)[:, :, None].repeat(1, 1, 5, 1, 1)
    found = locate(SyncLoss(path, value_range="0..255"), [batch], models=models_dir)
    assert len(items) >= 16 and found.found >= 0.9 * len(items)
    assert found.region == pytest.approx(region, abs=0.1)


@pytest.mark.usefixtures("sees_red")
def test_faces_that_lie_differently_are_said_to_and_the_middle_frame_counts(path: Path) -> None:
    items = torch.full((6, 3, 5, 80, 120), 0.5)
    red = torch.tensor([1.0, 0, 0])[:, None, None, None]
    for i in range(6):
        items[i, :, :, 20:60, 48 + 6 * (i % 2) : 108] = red
        items[i, :, 0] = 0.5  # nothing in the first frame
    found = locate(SyncLoss(path), [items])
    assert found.found == 6 and found.spread == pytest.approx(0.025, abs=0.01)


def test_the_detector_sees_a_border_around_the_frame(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faces that fill their frame are found only with some room around them."""
    shapes = set()

    def detect(image: np.ndarray) -> np.ndarray:
        shapes.add(image.shape)
        return np.array([[60, 40, 180, 120, 0.9]], np.float32)

    monkeypatch.setattr("syncdisc_plugin.faces.load_detector", lambda *_, **__: detect)
    found = locate(SyncLoss(path), [frames(8)])
    assert shapes == {(160, 240, 3)} and found.region == (0, 1, 0, 1)


@pytest.mark.usefixtures("sees_red")
def test_a_few_faces_say_nothing(path: Path) -> None:
    with pytest.raises(ValueError, match="in 4 of 4"):
        locate(SyncLoss(path), [frames(4)])
    some = torch.cat([frames(6), torch.zeros(12, 3, 5, 80, 120)])
    with pytest.raises(ValueError, match="in 6 of 18"):
        locate(SyncLoss(path), [some])


def test_an_upper_edge_that_nobody_saw_is_said_to_be_a_guess() -> None:
    assert "is a guess" in str(Located((-0.55, 0.98, 0.0, 1.0), 0.04, 14, 16))
    assert "guess" not in str(Located((-0.1, 0.98, 0.0, 1.0), 0.04, 14, 16))
