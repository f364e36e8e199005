"""Find faces in one image: face-alignment's detectors, or scikit-image's bundled cascade."""

from __future__ import annotations

import importlib
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np

from syncdisc_plugin.errors import FaceError
from syncdisc_plugin.faces.crop import block_mean

if TYPE_CHECKING:
    import torch

DETECTORS: dict[str, str] = {
    "auto": "yunet on a CPU, sfd on CUDA",
    "yunet": "OpenCV's FaceDetectorYN, a few ms on a CPU; wants a file of 0.3 MB",
    "sfd": "S3FD, what the Wav2Lip family cuts its faces with; wants CUDA and a file of 90 MB",
    "blazeface": "BlazeFace, for faces near the camera; wants two files of 0.5 MB",
    "retinaface": "RetinaFace with a MobileNet; wants torchvision and a file of 2 MB",
    "scrfd": "SCRFD 2.5g; wants onnxruntime and a file of 3 MB",
    "lbp": "scikit-image's cascade, needs no file; frontal faces only",
    "none": "no detection: the whole image is the face",
}


class Detector(Protocol):
    """Finds the faces of one image."""

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Map (H, W, 3) uint8 RGB to (K, 5) float32 x1, y1, x2, y2, score in pixels, best first.

        Or to (K, 11): then x, y of one eye, the other, and the middle of the mouth, in pixels.
        A detector that is quicker with several images has an attribute `batch`, a `Batch`.
        """
        ...


@dataclass(frozen=True)
class Batch:
    """How a detector takes several images at once, where that is quicker: its attribute `batch`."""

    size: int
    """Images that it is best given."""
    find: Callable[[Sequence[np.ndarray]], list[np.ndarray]]
    """What `Detector` gives, of each of some images of one size."""


def load_detector(
    name: str = "auto",
    *,
    models: Path | str | None = None,
    device: str = "cpu",
    max_side: int = 320,
    points: bool = False,
) -> Detector:
    """Load a detector by one of the names in `DETECTORS`.

    Its file is looked for in `models` (else in the folder that SYNCDISC_MODELS names), then in
    face-alignment's own cache, and is then downloaded to that cache.

    Args:
        models: a folder with detector files.
        device: where the torch detectors run, "cpu" or "cuda[:N]".
        max_side: a longer image is shrunk to this longer side, in pixels, before detection.
        points: whether eyes and mouth are needed (the crop "aligned"); "auto" is yunet then.

    Raises:
        ValueError: no such name, or max_side is below 32.
        FaceError: the detector's file is missing and cannot be downloaded, or cannot be read; or
            it gives no points where they are needed.
    """
    if name not in DETECTORS:
        raise ValueError(f"detector: expected one of {', '.join(DETECTORS)}, got {name!r}.")
    if max_side < _MIN_SIDE:
        raise ValueError(f"max_side: expected at least {_MIN_SIDE} pixels, got {max_side}.")
    if points:
        require_points(name)
    if name == "auto" and points:
        name = "yunet"
    if name == "auto":
        name = "sfd" if device.startswith("cuda") else "yunet"
    if name == "none":
        return _whole_image
    if name == "lbp":
        # More pixels cost time and bring little: it found 53 of 53 close-ups of real footage.
        return _Scaled(_load_cascade(), (min(max_side, 160),))
    if name == "yunet":
        # FaceDetectorYN always runs on the CPU, and warns about any other device. At 160 pixels it
        # found all of 149 faces that it found at 640, with a mean overlap of 0.92 (0.95 at 320).
        return _Scaled(_load_yunet(models), (min(max_side, 160), max_side))
    net = _load_net(name, models, device)
    # The batches of face-alignment's other detectors are loops, and a CPU gains nothing by them.
    find_batch = net.detect_from_batch if name == "sfd" and device.startswith("cuda") else None
    return _Scaled(net.detect_from_image, (max_side,), find_batch)


def require_points(name: str) -> None:
    """Raise FaceError for a detector that gives no points of eyes and mouth."""
    if name not in ("auto", "yunet"):
        raise FaceError(
            f'detector: the crop "aligned" needs the points of eyes and mouth, which {name} does '
            "not give. Use --detector yunet."
        )


def overlap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of each of (K, 4+) boxes with each of (M, 4+) boxes: (K, M)."""
    a, b = first[:, None], second[None]
    sides = np.minimum(a[..., 2:4], b[..., 2:4]) - np.maximum(a[..., :2], b[..., :2])
    shared = sides.clip(min=0).prod(-1)
    areas = [(box[..., 2:4] - box[..., :2]).prod(-1) for box in (a, b)]
    return shared / np.maximum(areas[0] + areas[1] - shared, 1e-9)


_MIN_SIDE = 32
_WIDE_SHOT_PX = 12
_BATCH = 8  # of every fifth frame: 36 frames wait, 0.2 GB of 1080p
_Find = Callable[[np.ndarray], Any]
_FindBatch = Callable[["torch.Tensor"], Sequence[Any]]  # (N, 3, H, W) uint8


class _Scaled:
    """Runs `find` on shrunk copies of the image; boxes and scores come back for the original.

    A finer side is tried only where the coarser one shows no face, or none that is large: it is
    such wide shots that need the pixels, and the usual close-up costs a quarter of the time.
    `find_batch` is of several copies at once, of the last side.
    """

    def __init__(
        self, find: _Find, sides: Sequence[int], find_batch: _FindBatch | None = None
    ) -> None:
        self.find = find
        self.sides = sides
        self.find_batch = find_batch
        self.batch = Batch(_BATCH, self._of_each) if find_batch else None

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """See `Detector`; a grey image, (H, W) or (H, W, 1), is taken too."""
        if image.ndim == 2 or image.shape[2] == 1:
            image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
        longer = max(image.shape[:2])
        found = np.zeros((0, 5), np.float32)
        for side in sorted({min(side, longer) for side in self.sides}):
            small, scale = _shrunk(image, side)
            found = _rows(self.find(small))
            is_close_up = (found[:, 2:4] - found[:, :2] >= _WIDE_SHOT_PX).all(axis=1).any()
            found = _enlarged(found, scale)
            if is_close_up:
                break
        return found

    def _of_each(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        import torch

        assert self.find_batch is not None
        side = min(self.sides[-1], max(images[0].shape[:2]))
        shrunk = [_shrunk(image, side) for image in images]
        stack = torch.from_numpy(np.stack([small for small, _ in shrunk])).permute(0, 3, 1, 2)
        found = self.find_batch(stack)
        return [_enlarged(_rows(f), s) for f, (_, s) in zip(found, shrunk, strict=True)]


def _shrunk(image: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The image with a longer side of `side` pixels, and (2,) what its x, y are to be scaled by."""
    height, width = image.shape[:2]
    longer = max(height, width)
    # Blocks first, against aliasing: cv2's fractional INTER_AREA costs six times as much.
    factor = max(1, min(longer // side, height, width))
    small = block_mean(image, factor)
    rows, columns = small.shape[:2]
    shrink = side / (longer // factor)
    small_w, small_h = max(1, round(columns * shrink)), max(1, round(rows * shrink))
    small = cv2.resize(small, (small_w, small_h), interpolation=cv2.INTER_LINEAR)
    # The nets' strides need some pixels; a border at the far edges moves no coordinate.
    right, bottom = max(0, _MIN_SIDE - small_w), max(0, _MIN_SIDE - small_h)
    if right or bottom:
        small = cv2.copyMakeBorder(small, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
    return small, np.array([columns * factor / small_w, rows * factor / small_h], np.float32)


def _rows(found: Any) -> np.ndarray:
    rows = np.asarray(found, np.float32)
    return rows.reshape(len(rows), -1) if rows.size else np.zeros((0, 5), np.float32)


def _enlarged(found: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Rows in pixels of the original, best first."""
    found[:, :4] *= np.tile(scale, 2)
    found[:, 5:] *= np.tile(scale, (found.shape[1] - 5) // 2)
    return found[np.argsort(-found[:, 4], kind="stable")]


def _whole_image(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    return np.array([[0, 0, width, height, 1]], np.float32)


def _load_cascade() -> _Find:
    import skimage.data
    import skimage.feature

    cascade = skimage.feature.Cascade(skimage.data.lbp_frontal_face_cascade_filename())
    # The cascade was trained on squares from brow to mouth, ears in; YuNet's boxes are narrower and
    # reach from forehead to chin. Medians over 53 faces that both found, in sides of the square.
    to_yunet = np.array([0.10, -0.04, 0.88, 1.05])

    def find(image: np.ndarray) -> np.ndarray:
        hits = cascade.detect_multi_scale(
            img=cv2.cvtColor(image, cv2.COLOR_RGB2GRAY),
            scale_factor=1.2,
            step_ratio=1,
            min_size=(24, 24),
            max_size=image.shape[:2],
            min_neighbor_number=4,
        )
        squares = sorted(((hit["width"], hit["c"], hit["r"]) for hit in hits), reverse=True)
        # A cascade has no score: the largest is the best, and it takes in what it overlaps.
        kept = np.zeros((0, 5))
        for side, column, row in squares:
            box = np.append(np.array([column, row] * 2) + side * to_yunet, 1.0)[None]
            if not (overlap(kept, box) > 0.2).any():
                kept = np.concatenate([kept, box])
        return kept

    return find


@dataclass(frozen=True)
class _ModelFile:
    """One file of a detector."""

    keyword: str
    """Argument of face-alignment's class that takes its path."""
    cached_as: str
    """Its name in face-alignment's cache."""
    url: str
    """Where face-alignment downloads it."""
    patterns: tuple[str, ...]
    """Names by which it is found in a folder of the user's."""
    sha256_prefix: str | None = None
    """First digits of its digest, where the publisher names them."""


_ADRIAN = "https://www.adrianbulat.com/downloads/python-fan/"
_HOLLANCE = "https://github.com/hollance/BlazeFace-PyTorch/raw/master/"
_FILES: dict[str, tuple[_ModelFile, ...]] = {
    "yunet": (
        _ModelFile(
            "path_to_detector",
            "face_detection_yunet_2023mar.onnx",
            "https://github.com/opencv/opencv_zoo/raw/main/models/face_detection_yunet/"
            "face_detection_yunet_2023mar.onnx",
            ("face_detection_yunet*.onnx", "yunet*.onnx"),
        ),
    ),
    "sfd": (
        _ModelFile(
            "path_to_detector",
            "s3fd-619a316812.pth",
            _ADRIAN + "s3fd-619a316812.pth",
            ("s3fd*.pth",),
            "619a316812",
        ),
    ),
    "blazeface": (
        _ModelFile(
            "path_to_detector", "blazeface.pth", _HOLLANCE + "blazeface.pth", ("blazeface.pth",)
        ),
        _ModelFile("path_to_anchor", "anchors.npy", _HOLLANCE + "anchors.npy", ("anchors.npy",)),
    ),
    "retinaface": (
        _ModelFile(
            "path_to_detector",
            "retinaface_mobilenet0.25.pth",
            _ADRIAN + "retinaface_mobilenet0.25.pth",
            ("retinaface*.pth",),
        ),
    ),
    "scrfd": (
        _ModelFile(
            "path_to_detector",
            "scrfd_2.5g_bnkps.onnx",
            "https://github.com/yakhyo/facial-analysis/releases/download/v0.0.1/det_2.5g.onnx",
            ("scrfd*.onnx", "det_2.5g*.onnx"),
        ),
    ),
}


def _load_net(name: str, models: Path | str | None, device: str) -> Any:
    """Build face-alignment's detector class (its FaceAlignment would fetch landmark nets too)."""
    try:
        module = importlib.import_module(f"face_alignment.detection.{name}")
    except ImportError as error:
        raise FaceError(
            f"detector {name}: {error}. Install what is missing, or use --detector yunet or lbp."
        ) from error
    paths = {file.keyword: str(path) for file, path in _find_files(name, models)}
    # OpenCV 5 prints a warning about its own target setting for each FaceDetectorYN.
    log = cv2.utils.logging
    level = log.getLogLevel()
    log.setLogLevel(log.LOG_LEVEL_ERROR)
    try:
        return module.FaceDetector(device, **paths)
    except Exception as error:  # torch, numpy, OpenCV and onnxruntime each have their own
        raise FaceError(
            f"detector {name}: cannot load {', '.join(paths.values())} ({error}). "
            "If a file is damaged, delete it and try again, or use --detector lbp."
        ) from error
    finally:
        log.setLogLevel(level)


def _load_yunet(models: Path | str | None) -> _Find:
    """YuNet with its points, which face-alignment's own call drops."""
    net = _load_net("yunet", models, "cpu").face_detector

    def find(image: np.ndarray) -> list[list[float]]:
        net.setInputSize(image.shape[1::-1])
        _, faces = net.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        return [] if faces is None else [row(face.tolist()) for face in faces]

    def row(face: list[float]) -> list[float]:
        x, y, width, height = face[:4]
        mouth = [(face[10] + face[12]) / 2, (face[11] + face[13]) / 2]
        return [x, y, x + width, y + height, face[14], *face[4:8], *mouth]

    return find


def detector_files(
    name: str, models: Path | str | None = None, *, download: bool = True
) -> list[Path]:
    """Paths of a detector's files; downloaded where they are nowhere, unless that is forbidden.

    Raises:
        FaceError: a file is missing, and cannot or may not be downloaded.
    """
    return [path for _, path in _find_files(name, models, download)]


def _find_files(
    name: str, models: Path | str | None, download: bool = True
) -> list[tuple[_ModelFile, Path]]:
    return [(file, _find_file(name, file, models, download)) for file in _FILES[name]]


def _find_file(name: str, file: _ModelFile, models: Path | str | None, download: bool) -> Path:
    from torch.hub import download_url_to_file, get_dir

    given = models if models is not None else os.environ.get("SYNCDISC_MODELS") or None
    models = None if given is None else Path(given)
    if models is not None:
        for pattern in file.patterns:
            for path in sorted(models.glob(pattern)):
                return path
    cached = Path(get_dir(), "checkpoints", file.cached_as)
    if cached.is_file():
        return cached
    if not download:
        raise FaceError(
            f"detector {name}: {file.cached_as} is not in {models or cached.parent}. Get it from "
            f"{file.url} and put it into a folder that --models DIR (in Python models=DIR) or "
            "SYNCDISC_MODELS names."
        )
    # urlopen knows no other way from here; offline must be said in seconds, not in minutes.
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(5.0)
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        download_url_to_file(file.url, str(cached), file.sha256_prefix, progress=False)
    except (OSError, RuntimeError) as error:
        looked_in = f"{models} or {cached.parent}" if models else f"{cached.parent}"
        raise FaceError(
            f"detector {name}: {file.cached_as} is not in {looked_in}, and downloading it failed "
            f"({error}). Get it from {file.url} and put it into a folder that --models DIR (in "
            "Python models=DIR) or SYNCDISC_MODELS names; or use --detector lbp, where there is a "
            "choice: it needs no file (frontal faces)."
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)
    return cached
