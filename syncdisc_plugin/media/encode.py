"""Write a video whose picture and sound carry exact timestamps."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from heapq import merge
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError

from syncdisc_plugin.errors import MediaError

# The AAC and Opus encoders put priming samples first. These containers record how many a reader
# has to skip, or give them timestamps before the sound's, so that nothing moves.
CODECS = {
    ".mp4": ("libx264", "aac"),
    ".m4v": ("libx264", "aac"),
    ".mov": ("libx264", "aac"),
    ".mkv": ("libx264", "aac"),
    ".ts": ("libx264", "aac"),
    ".webm": ("libvpx-vp9", "libopus"),
    # AVI stores no timestamps: nothing that delays fits, neither priming nor reordered frames.
    ".avi": ("ffv1", "pcm_s16le"),
}
# MPEG's 90 kHz clock: ticks of 11 us hold every frame rate and every late start.
TICK_S = Fraction(1, 90000)

_Timed = tuple[Fraction, Any]
"""When a frame is due, and the frame: av.VideoFrame or av.AudioFrame."""


def write_video(
    path: str | os.PathLike[str],
    frames: Iterable[np.ndarray],
    *,
    fps: float | Fraction = 25,
    audio: np.ndarray | None = None,
    sample_rate_hz: int = 16000,
    frame_times_s: Sequence[float] | None = None,
    video_start_s: float = 0.0,
    audio_start_s: float = 0.0,
    crf: int = 18,
) -> Path:
    """Encode frames and sound into `path`, wholly or not at all; the suffix picks the container.

    Args:
        path: Where to write; an existing file is replaced.
        frames: (H, W, C=3) uint8 RGB each, all of one even size; read lazily.
        fps: Frames per second, where `frame_times_s` is not given.
        audio: (N,) float in [-1, 1], mono. None: the file has no audio stream.
        sample_rate_hz: Samples per second of `audio`.
        frame_times_s: When each frame is shown, rising: a variable frame rate.
        video_start_s: Added to every frame's timestamp (>= 0); no frames are padded in.
        audio_start_s: Timestamp of the first sample (>= 0); no silence is padded in.
        crf: Quality of the picture, from 0 (best) to 51; AVI is lossless.

    Raises:
        ValueError: Frames, times or audio of a wrong shape, type or order.
        MediaError: A container that cannot hold this, or a failing encoder or disk.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in CODECS:
        raise MediaError(f"{path}: cannot write {suffix or 'no suffix'}. Use {', '.join(CODECS)}.")
    if suffix == ".avi" and (frame_times_s is not None or video_start_s or audio_start_s):
        raise MediaError(f"{path}: AVI stores no timestamps. Use .mkv or .mp4.")
    if min(video_start_s, audio_start_s) < 0:
        raise ValueError("video_start_s, audio_start_s: expected >= 0. Delay the other stream.")
    if fps <= 0:
        raise ValueError(f"fps: expected more than 0, got {fps}.")

    rate = Fraction(fps).limit_denominator(1001)
    tick_s = 1 / rate if suffix == ".avi" else TICK_S
    pictures = _pictures(frames, rate, frame_times_s, Fraction(video_start_s), tick_s)
    first = next(pictures, None)
    if first is None:
        raise ValueError("frames: expected at least one, got none.")
    video_codec, audio_codec = CODECS[suffix]
    # Hidden, so that a scan of the folder does not meet a half-written video.
    temp = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}{suffix}")
    try:
        with av.open(os.path.abspath(temp), "w") as container:
            video: Any = container.add_stream(video_codec, rate=rate)
            video.width, video.height, video.pix_fmt = first[1].width, first[1].height, "yuv420p"
            video.bit_rate = 0  # VP9 reads the CRF as a mere lower bound beside a bit rate.
            video.time_base = video.codec_context.time_base = tick_s
            video.codec_context.options = {"crf": str(crf)}
            streams: list[Any] = [video]
            media = [iter([first]), pictures]
            if audio is not None:
                # Opus runs at 48 kHz; PyAV resamples on the way in.
                stream_hz = 48000 if audio_codec == "libopus" else sample_rate_hz
                streams.append(container.add_stream(audio_codec, rate=stream_hz, layout="mono"))
                media.append(_sounds(audio, sample_rate_hz, Fraction(audio_start_s)))
            for _, frame in merge(*media, key=lambda timed: timed[0]):
                container.mux(streams[isinstance(frame, av.AudioFrame)].encode(frame))
            for stream in streams:
                container.mux(stream.encode(None))
        os.replace(temp, path)
    except (FFmpegError, OSError) as exc:
        raise MediaError(
            f"{path}: cannot be written ({exc.strerror}). Check the folder, the disk, and that "
            f"{video_codec} and {audio_codec} take this frame size and sample rate."
        ) from exc
    finally:
        temp.unlink(missing_ok=True)
    return path


def _pictures(
    frames: Iterable[np.ndarray],
    rate: Fraction,
    times_s: Sequence[float] | None,
    start_s: Fraction,
    tick_s: Fraction,
) -> Iterator[_Timed]:
    """Check each frame and stamp it with the tick nearest to its time."""
    size, last = None, -1
    for index, pixels in enumerate(frames):
        size = size or pixels.shape
        height, width, *channels = size
        if pixels.shape != size or channels != [3] or height % 2 or width % 2:
            raise ValueError(
                f"frames: expected (H, W, 3) of one even size, got {pixels.shape} at frame "
                f"{index} after {size}. Crop or pad to even sides."
            )
        if pixels.dtype != np.uint8:
            raise ValueError(f"frames: expected uint8 in 0..255, got {pixels.dtype}.")
        if times_s is not None and index >= len(times_s):
            raise ValueError(f"frame_times_s: {len(times_s)} times for more frames. Give one each.")
        time_s = start_s + (index / rate if times_s is None else Fraction(times_s[index]))
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame.pts, frame.time_base = round(time_s / tick_s), tick_s
        if frame.pts <= last:
            raise ValueError(f"frame_times_s: expected rising times >= 0, got {time_s} s at last.")
        last = frame.pts
        yield time_s, frame


def _sounds(audio: np.ndarray, rate_hz: int, start_s: Fraction) -> Iterator[_Timed]:
    """Cut the sound into tenths of a second, so that it can be muxed between the pictures."""
    if audio.ndim != 1 or not np.issubdtype(audio.dtype, np.floating):
        raise ValueError(
            f"audio: expected (N,) float in [-1, 1], got {audio.shape} {audio.dtype}. "
            "Mix the channels down; divide int16 by 32768."
        )
    for at in range(0, len(audio), rate_hz // 10):
        samples = np.clip(audio[None, at : at + rate_hz // 10], -1, 1).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate, frame.time_base = rate_hz, Fraction(1, rate_hz)
        frame.pts = at + round(start_s * rate_hz)
        yield Fraction(frame.pts, rate_hz), frame
