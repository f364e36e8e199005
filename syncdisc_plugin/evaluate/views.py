"""A clip store seen otherwise: in another net's size, or as worse footage."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

from syncdisc_plugin import weights
from syncdisc_plugin.data.manifest import Clip
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.errors import StoreError
from syncdisc_plugin.mel import log_mel
from syncdisc_plugin.nn import Discriminator
from syncdisc_plugin.spec import ClipSpec

Picture = Callable[[np.ndarray, ClipSpec], np.ndarray]
"""(F, S, S, 3) uint8 as stored, and the store's spec -> the same shape."""
Sound = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""(N,) float samples -> (N,)."""


@dataclass(frozen=True)
class Condition:
    """One way in which footage is worse than it could be."""

    name: str
    """What is worse: "blur", "noise", ..."""
    level: str
    """By how much, in words."""
    picture: Picture | None = None
    """What becomes of the stored crops."""
    sound: Sound | None = None
    """What becomes of the audio."""


def can_see(stored: ClipSpec, spec: ClipSpec) -> bool:
    """Whether clips stored by the one spec can be given the sizes of a net of the other."""
    # What a net may choose on its own: the crop's size, the part that it sees, its window.
    free = replace(
        stored,
        face_px=spec.face_px,
        region=spec.region,
        window_frames=spec.window_frames,
        window_mels=spec.window_mels,
    )
    return free == spec


def view_for(store: ClipStore, spec: ClipSpec) -> ClipStore:
    """The store with its clips in the sizes of a net of another spec.

    Raises:
        StoreError: what cannot be changed any more differs: frame rate, crop, margin, or mel.
    """
    if store.spec == spec:
        return store
    if not can_see(store.spec, spec):
        raise StoreError(
            f"{store.root}: prepared with another frame rate, crop or mel than the weights were "
            "trained on. Prepare the videos again with the checkpoint's spec."
        )
    view = _View(store)
    view.spec = spec
    view.picture = partial(_resize, side=spec.stored_px)
    return view


def load_with_view(
    ref: str | Path, store: ClipStore, device: str | torch.device
) -> tuple[Discriminator, ClipStore]:
    """A discriminator, and the store in the size that it was trained on.

    Raises:
        WeightsError: it cannot be loaded.
        StoreError: it was trained on another crop or mel.
    """
    net = weights.load(ref, device)
    return net, view_for(store, net.spec)


def under(store: ClipStore, condition: Condition) -> ClipStore:
    """The store as if its footage had been recorded under the condition."""
    view = _View(store)
    if (change := condition.picture) is not None:
        view.picture = lambda frames: change(frames, store.spec)
    view.sound = condition.sound
    return view


class _View(ClipStore):
    """A store that changes what it reads."""

    picture: Callable[[np.ndarray], np.ndarray] | None = None
    sound: Sound | None = None

    def __init__(self, store: ClipStore) -> None:
        self.__dict__.update(copy.copy(store.__dict__))
        self._below = store

    def frames(self, clip: Clip, start: int = 0, stop: int | None = None) -> np.ndarray:
        """As a store gives them, changed."""
        frames = self._below.frames(clip, start, stop)
        return self.picture(frames) if self.picture else frames

    def audio(self, clip: Clip, start: int = 0, stop: int | None = None) -> np.ndarray:
        """As a store gives it, changed."""
        if self.sound is None:
            return self._below.audio(clip, start, stop)
        rng = np.random.default_rng(zlib.crc32(clip.id.encode()))  # the same at every call
        return self.sound(self._below.audio(clip), rng)[start:stop]

    def mel(self, clip: Clip, start: int = 0, stop: int | None = None) -> np.ndarray:
        """As a store gives it, of the changed audio."""
        if self.sound is None:
            return self._below.mel(clip, start, stop)
        return log_mel(torch.from_numpy(self.audio(clip)), self.spec.mel).T.numpy()[start:stop]


def _resize(frames: np.ndarray, side: int) -> np.ndarray:
    how = cv2.INTER_AREA if side < frames.shape[1] else cv2.INTER_CUBIC
    out = [cv2.resize(frame, (side, side), interpolation=how) for frame in frames]
    return np.stack(out) if out else np.empty((0, side, side, 3), np.uint8)


def _moved(
    frames: np.ndarray, spec: ClipSpec, shift: float = 0, size: float = 1, roll_deg: float = 0
) -> np.ndarray:
    """As if the face had been cut elsewhere, larger or rolled; shift in faces, to the right."""
    centre = (spec.stored_px - 1) / 2
    matrix = cv2.getRotationMatrix2D((centre, centre), roll_deg, 1 / size)
    matrix[0, 2] -= shift * spec.face_px
    side = (spec.stored_px, spec.stored_px)
    return np.stack(
        [cv2.warpAffine(f, matrix, side, borderMode=cv2.BORDER_REPLICATE) for f in frames]
    )


def _blurred(frames: np.ndarray, spec: ClipSpec, sigma_px: float) -> np.ndarray:
    return np.stack([cv2.GaussianBlur(f, (0, 0), sigma_px * spec.face_px / 96) for f in frames])


def _compressed(frames: np.ndarray, spec: ClipSpec, quality: int) -> np.ndarray:
    del spec
    codes = (cv2.imencode(".jpg", f, [cv2.IMWRITE_JPEG_QUALITY, quality])[1] for f in frames)
    return np.stack([np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR)) for code in codes])


def _coarse(frames: np.ndarray, spec: ClipSpec, face_px: int) -> np.ndarray:
    side = round(spec.stored_px * face_px / spec.face_px)
    return _resize(_resize(frames, side), spec.stored_px)


def _noisy(audio: np.ndarray, rng: np.random.Generator, snr_db: float) -> np.ndarray:
    """With pink noise, as rooms and fans make it."""
    spectrum = np.fft.rfft(rng.standard_normal(len(audio)))
    spectrum /= np.sqrt(np.maximum(1, np.arange(len(spectrum))))
    noise = np.fft.irfft(spectrum, len(audio))
    power = np.mean(audio**2) / max(1e-12, np.mean(noise**2)) * 10 ** (-snr_db / 10)
    return np.clip(audio + np.sqrt(power) * noise, -1, 1).astype(np.float32)


CONDITIONS = (
    *(Condition("crop shifted", f"{s:.0%}", partial(_moved, shift=s)) for s in (0.05, 0.1)),
    *(Condition("crop size", f"{s:.0%}", partial(_moved, size=s)) for s in (0.9, 1.1, 1.2)),
    *(Condition("head rolled", f"{d}°", partial(_moved, roll_deg=d)) for d in (5, 10, 20)),
    *(Condition("blur", f"{s} px of 96", partial(_blurred, sigma_px=s)) for s in (1, 2, 3)),
    *(Condition("JPEG", f"quality {q}", partial(_compressed, quality=q)) for q in (40, 20, 10)),
    *(Condition("face size", f"{s} px", partial(_coarse, face_px=s)) for s in (64, 48, 32, 24)),
    *(Condition("pink noise", f"{s} dB SNR", None, partial(_noisy, snr_db=s)) for s in (20, 10, 0)),
)
