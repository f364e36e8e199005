"""Our detector in the shapes that the peers' scripts call."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from syncdisc_plugin.faces import load_detector


def module(name: str, **contents: Any) -> None:
    """Put a module of that name in place, before the script imports its own."""
    made = ModuleType(name)
    made.__dict__.update(contents)
    made.__path__ = []  # so that it may have submodules
    sys.modules[name] = made


class FaceAlignment:
    """What Wav2Lip's `face_detection` gives: the best face of each image of a batch."""

    def __init__(self, *_: object, **__: object) -> None:
        self._detect = load_detector("yunet")

    def get_detections_for_batch(
        self, images: np.ndarray
    ) -> list[tuple[int, int, int, int] | None]:
        """images (N, H, W, 3) BGR -> x1, y1, x2, y2 of each, None without a face."""
        found = (self._detect(np.ascontiguousarray(image[..., ::-1])) for image in images)
        boxes = (np.clip(f[0, :4], 0, None).astype(int).tolist() if len(f) else None for f in found)
        return [tuple(b) if b else None for b in boxes]


class S3FD:
    """What syncnet_python's `detectors` gives."""

    def __init__(self, *_: object, **__: object) -> None:
        self._detect = load_detector("yunet")

    def detect_faces(
        self, image: np.ndarray, conf_th: float = 0.8, scales: object = None
    ) -> np.ndarray:
        """image (H, W, 3) RGB -> (K, 5); YuNet's scores are lower than S3FD's, so .6 is asked."""
        found = self._detect(image)
        return found[found[:, 4] > 0.6]


class OneShot:
    """PySceneDetect's old managers: the whole video is one shot."""

    def __init__(self, *what: object) -> None:
        self._frames = 10**9

    def get_base_timecode(self) -> SimpleNamespace:
        return SimpleNamespace(frame_num=0)

    def get_current_timecode(self) -> SimpleNamespace:
        return SimpleNamespace(frame_num=self._frames)

    def get_scene_list(self, *_: object) -> list:
        return []

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None
