"""Videos, sounds and stand-ins for the tests of `lipsync`: whatever is drawn can be read back."""

from __future__ import annotations

import wave
from collections.abc import Iterable
from pathlib import Path

import av
import numpy as np
import torch

from generator_integration.reference import LipsyncResult, lipsync
from syncdisc_plugin.spec import ClipSpec

H, W = 128, 160
BOX = (48.0, 32.0, 112.0, 112.0)
MOUTH = (slice(84, 100), slice(72, 88))
LEFT, RIGHT = (16.0, 40.0, 64.0, 100.0), (88.0, 30.0, 152.0, 110.0)
BROW = (slice(32, 60), slice(48, 112))
RATE = 16000


class Painter(torch.nn.Module):
    """Lower halves as bright as the sound is loud."""

    spec = ClipSpec()

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []

    def forward(self, masked: torch.Tensor, reference: torch.Tensor, mel: torch.Tensor):
        size = self.spec.face_px
        assert masked.shape[2:] == reference.shape[2:] == (3, size, size)
        assert mel.shape == (*masked.shape[:2], 1, 80, 16) and reference.shape[1] >= 1
        assert masked.min() >= 0 and masked.max() <= 1
        self.calls.append(masked.shape[1])
        out = masked.clone()
        out[..., size // 2 :, :] = (mel.mean((2, 3, 4)) / 8 + 0.5)[:, :, None, None, None]
        return out


class Marked:
    """Finds a face wherever the frame's corner is not black."""

    def __init__(self, *boxes: tuple[float, ...]) -> None:
        self.boxes = boxes or (BOX,)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        if image[-8:, -8:].mean() < 20:
            return np.zeros((0, 5), np.float32)
        return np.array([[*box, 0.9] for box in self.boxes], np.float32)


def picture(index: int, *, has_face: bool = True, hw: tuple[int, int] = (H, W)) -> np.ndarray:
    """Soft colours; the left upper corner tells the index, the right lower one of the face."""
    rows, columns = hw
    y, x = np.mgrid[0:rows, 0:columns]
    image = np.dstack([90 + 40 * np.sin(x / 19), 100 + 40 * np.cos(y / 23), 120 + 0 * x])
    image[:24, :24] = 16 + 4 * index
    image[-16:, -16:] = 200 * has_face
    return image.astype(np.uint8)


def bursts(seconds: float, rate: int = RATE) -> np.ndarray:
    """Noise that is loud and quiet in turn, four times a second, never the same twice."""
    rng = np.random.default_rng(5)
    n = round(seconds * rate)
    level = np.repeat(rng.uniform(0.001, 0.5, round(seconds * 8) + 2), rate // 8)[:n]
    noise = np.convolve(rng.uniform(-1, 1, n + 7), np.full(8, 0.2), "valid")
    return (level * noise).astype(np.float32)


def write_wav(path: Path, *channels: np.ndarray, rate: int = RATE) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.stack(channels, 1) * 32767).astype("<i2").tobytes())
    return path


def encode(
    path: Path,
    images: Iterable[np.ndarray],
    *,
    codec: str,
    rate: int = 25,
    form: str = "yuv420p",
    given: str = "rgb24",
    options: dict[str, str] | None = None,
) -> None:
    """A video without sound of any codec and pixel format; `given` is that of the images."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = W, H, form
        stream.codec_context.options = options or {}
        for image in images:
            frame = av.VideoFrame.from_ndarray(image, format=given)
            file.mux(stream.encode(frame.reformat(format=form)))
        file.mux(stream.encode(None))


def read_frames(path: Path) -> tuple[list[float], np.ndarray]:
    """Times and (F, H, W, 3) RGB."""
    with av.open(str(path)) as file:
        frames = [(f.time, f.to_ndarray(format="rgb24")) for f in file.decode(video=0)]
    return [t for t, _ in frames], np.stack([image for _, image in frames])


def read_sound(path: Path) -> tuple[np.ndarray, int, float]:
    """(channels, N), samples per second, and when the first one is heard."""
    with av.open(str(path)) as file:
        frames = list(file.decode(audio=0))
    sound = np.concatenate([f.to_ndarray() for f in frames], axis=1)
    return sound, frames[0].sample_rate, float(frames[0].time)


def lag_s(sound: np.ndarray, rate: int, wanted: np.ndarray) -> float:
    """By how much `sound` is late against `wanted`, at most 0.3 s; both mono at `rate`."""
    n = min(len(sound), len(wanted)) - round(0.6 * rate)
    reach = round(0.3 * rate)
    middle = wanted[reach : reach + n]
    scores = np.correlate(sound[: n + 2 * reach], middle, "valid")
    best = int(scores.argmax())
    assert scores[best] > 0.8 * np.sum(middle**2), "another sound"
    return (best - reach) / rate


def indices(frames: np.ndarray) -> list[int]:
    """Which source frames these are."""
    return [round((float(f[4:20, 4:20].mean()) - 16) / 4) for f in frames]


def run(video: Path, audio: Path, out: Path, **options: object) -> LipsyncResult:
    options = {"generator": Painter(), "detect": Marked(), "crf": 4, "device": "cpu"} | options
    return lipsync(video, audio, out, **options)  # type: ignore[arg-type]
