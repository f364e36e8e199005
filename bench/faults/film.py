"""Films as nobody should send them: any codec, size, rate, clock, layout, by PyAV."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

TICK = Fraction(1, 90000)
PQ = {"color_primaries": 9, "color_trc": 16, "colorspace": 9}  # BT.2020, SMPTE ST 2084


def right(time_s: float) -> float:
    """A clock that goes as it should."""
    return time_s


@dataclass(frozen=True)
class Sound:
    """One audio stream."""

    codec: str = "aac"
    rate_hz: int = 16000
    layout: str = "mono"
    format: str = "fltp"
    seconds: float = 1.6
    level: float = 0.2
    clock: Callable[[float], float] = right
    """When what belongs to this second is stamped."""


@dataclass(frozen=True)
class Film:
    """What `shoot` encodes."""

    n_frames: int = 40
    fps: Fraction | int = 25
    size: tuple[int, int] = (96, 64)
    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    options: tuple[tuple[str, str], ...] = (("preset", "ultrafast"),)
    sounds: tuple[Sound, ...] = (Sound(),)
    clock: Callable[[float], float] = right
    """When the frame of this second is stamped."""
    turn: int = 0
    tags: tuple[tuple[str, int], ...] = ()
    container: tuple[tuple[str, str], ...] = ()
    """Options of the muxer."""
    has_picture: bool = True


def shoot(path: Path, film: Film, form: str | None = None) -> None:
    """Encode `film`; `form` is the container where the suffix does not say it."""
    with av.open(str(path), "w", format=form, options=dict(film.container)) as out:
        timed: list[tuple[float, Any, Any]] = []
        streams = []
        if film.has_picture:
            streams.append(picture := _picture_stream(out, film))
            timed += [(at_s, picture, frame) for at_s, frame in _frames(film)]
        for number, sound in enumerate(film.sounds):
            stream = out.add_stream(sound.codec, rate=sound.rate_hz, layout=sound.layout)
            streams.append(stream)
            timed += [(at_s, stream, block) for at_s, block in _blocks(sound, number)]
        for _, stream, frame in sorted(timed, key=lambda item: item[0]):
            out.mux(stream.encode(frame))
        out.start_encoding()  # a film without a frame has a header too
        for stream in streams:
            if timed:
                out.mux(stream.encode(None))


def _picture_stream(out: Any, film: Film) -> Any:
    stream = out.add_stream(film.codec, rate=Fraction(film.fps))
    stream.width, stream.height = film.size
    stream.pix_fmt, stream.options = film.pix_fmt, dict(film.options)
    if out.format.name != "avi":
        stream.time_base = stream.codec_context.time_base = TICK
    if film.turn:
        stream.set_display_rotation(film.turn)
    for name, value in film.tags:
        setattr(stream.codec_context, name, value)
    return stream


def _frames(film: Film) -> Any:
    """(seconds, frame): a grey field in which a bright bar moves."""
    width, height = film.size
    is_avi = film.codec in ("mjpeg", "ffv1")  # of this bench, these go into AVI: one tick a frame
    for i in range(film.n_frames):
        pixels = np.full((height, width, 3), 70, np.uint8)
        at = (3 * i) % width
        pixels[:, at : at + max(1, width // 4)] = 200 - i % 90
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        time_s = film.clock(i / float(film.fps))
        tick = 1 / Fraction(film.fps) if is_avi else TICK
        frame.pts, frame.time_base = round(time_s / tick), tick
        yield i / float(film.fps), frame


def _blocks(sound: Sound, seed: int) -> Any:
    """(seconds, block of 0.05 s): noise that swells like syllables."""
    chance = np.random.default_rng(seed)
    n_channels = av.AudioLayout(sound.layout).nb_channels
    step = max(1, sound.rate_hz // 20)
    for at in range(0, round(sound.seconds * sound.rate_hz), step):
        time_s = (at + np.arange(step)) / sound.rate_hz
        wave = chance.standard_normal((n_channels, step)) * np.abs(np.sin(9 * time_s))
        block = av.AudioFrame.from_ndarray(
            (sound.level * wave).clip(-1, 1).astype(np.float32), "fltp", sound.layout
        )
        block.sample_rate, block.time_base = sound.rate_hz, Fraction(1, sound.rate_hz)
        block.pts = round(sound.clock(at / sound.rate_hz) * sound.rate_hz)
        yield at / sound.rate_hz, block
