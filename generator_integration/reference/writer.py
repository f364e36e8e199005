"""Write frames at given timestamps and a sound beside them, in bounded memory."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import cv2
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter

from generator_integration.reference.playback import Clock
from syncdisc_plugin.errors import MediaError
from syncdisc_plugin.media.encode import CODECS
from syncdisc_plugin.media.remux import CONTAINERS, EDIT_LIST
from syncdisc_plugin.media.stream import SoundStream

# The layouts that FFmpeg's encoders take; others are mixed to stereo.
LAYOUTS = {
    "aac": ("mono", "stereo", "3.0", "4.0", "5.0", "5.1", "7.1"),
    "libopus": ("mono", "stereo", "3.0", "quad", "5.0", "5.1", "6.1", "7.1"),
}
# The same speakers, which films' codecs call those at the side.
_AT_THE_SIDE = {"5.0(side)": "5.0", "5.1(side)": "5.1"}
BIT_RATE = 96_000
"""Of each channel, per second."""
LARGE_PX = 1920 * 1200
"""Pixels of a frame from which memory counts more than a few bytes of the file."""
MAX_THREADS = 8
"""Of the encoder; each holds some frames."""


class VideoWriter:
    """A video that is being written; a context that closes the file.

    Args:
        path: where to.
        name: what it will be called: by its suffix the container, one of `CONTAINERS`.
        hw: height and width of the frames; odd ones get one more row or column, which encoders
            of video need.
        clock: timing and colours.
        sound: copied where it is AAC already and the container takes that, else encoded at its own
            rate and channels where the codec has those.
        crf: quality of the picture, 0 (best) to 51.

    Attributes:
        note: what is lost of the sound; None when nothing is.

    Raises:
        MediaError: an encoder or the disk fails, also later on.
    """

    def __init__(
        self,
        path: Path,
        name: Path,
        hw: tuple[int, int],
        clock: Clock,
        sound: SoundStream,
        *,
        crf: int = 18,
    ) -> None:
        self.name, self.clock, self.sound = name, clock, sound
        self.note: str | None = None
        suffix = name.suffix.lower()
        self._pad = hw[0] % 2, hw[1] % 2
        self._yuv = VideoReformatter()
        self._open = ExitStack()
        video_codec, audio_codec = CODECS[suffix]
        self._has_edit_list = CONTAINERS[suffix] in EDIT_LIST
        fast_start = {"movflags": "+faststart"} if self._has_edit_list else {}
        try:
            container = av.open(
                os.path.abspath(path), "w", format=CONTAINERS[suffix], options=fast_start
            )
            self._container = self._open.enter_context(container)
            self._picture = self._add_picture(video_codec, hw, crf)
            # Damaged sound is encoded as far as it can be heard: packets go on behind that.
            is_whole = sound.is_global and not sound.note
            self.is_copied = sound.codec == audio_codec == "aac" and is_whole
            self._sound = self._add_copy() if self.is_copied else self._add_sound(audio_codec)
        except (FFmpegError, OSError, ValueError) as exc:
            self._open.close()
            raise self._failure(exc) from exc
        self._heard = self._copied() if self.is_copied else self._encoded()
        self._next_sound = next(self._heard, None)

    def write(self, image: np.ndarray, pts: int) -> None:
        """Append a frame (H, W, 3) uint8 RGB at a tick, and the sound up to it."""
        rows, columns = self._pad
        if rows or columns:
            image = cv2.copyMakeBorder(image, 0, rows, 0, columns, cv2.BORDER_REPLICATE)
        rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        rgb.colorspace, rgb.color_range = self.clock.color[:2]
        try:
            frame = self._yuv.reformat(rgb, format="yuv420p", threads=1)
            frame.pts, frame.time_base = pts, self.clock.time_base
            self._mux_sound(float(pts * self.clock.time_base))
            self._container.mux(self._picture.encode(frame))
        except (FFmpegError, OSError) as exc:
            raise self._failure(exc) from exc

    def __enter__(self) -> VideoWriter:
        """Nothing to do: the file is open."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write what is held back, unless something went wrong, and close the file."""
        try:
            if kind is None:
                self._container.mux(self._picture.encode(None))
                self._mux_sound(float("inf"))
                if not self.is_copied:
                    self._container.mux(self._sound.encode(None))
        except (FFmpegError, OSError) as exc:
            raise self._failure(exc) from exc
        finally:
            self._heard.close()
            try:
                self._open.close()
            except (FFmpegError, OSError) as exc:
                if kind is None:
                    raise self._failure(exc) from exc

    def _add_picture(self, codec: str, hw: tuple[int, int], crf: int) -> Any:
        clock = self.clock
        stream: Any = self._container.add_stream(codec, rate=clock.fps.limit_denominator(1001))
        context = stream.codec_context
        stream.height, stream.width = (side + side % 2 for side in hw)
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 0  # VP9 reads the CRF as a mere lower bound beside a bit rate.
        stream.time_base = context.time_base = clock.time_base
        context.sample_aspect_ratio = clock.sample_aspect
        context.colorspace, context.color_range = clock.color[:2]
        context.color_trc, context.color_primaries = clock.color[2:]
        context.thread_count = min(MAX_THREADS, os.cpu_count() or 1)
        # The encoder holds the frames that it looks ahead, in 4K 40 MB each.
        is_large = hw[0] * hw[1] > LARGE_PX
        quick = {"preset": "faster", "rc-lookahead": "4" if is_large else "10"}
        if is_large:
            quick |= {"bf": "1", "refs": "1"}
        vp9 = {"deadline": "good", "cpu-used": "4", "row-mt": "1", "lag-in-frames": "8"}
        context.options = {"crf": str(crf), **(quick if codec == "libx264" else vp9)}
        return stream

    def _add_copy(self) -> Any:
        source, template = self.sound.template()
        with source:
            return self._container.add_stream_from_template(template)

    def _add_sound(self, codec: str) -> Any:
        rates = av.Codec(codec, "w").audio_rates or [self.sound.rate_hz]
        self._rate_hz = self.sound.rate_hz if self.sound.rate_hz in rates else 48000
        layout = _AT_THE_SIDE.get(self.sound.layout, self.sound.layout)
        self._layout = layout if layout in LAYOUTS[codec] else "stereo"
        if self._layout != layout:
            self.note = f"the sound's channels ({layout}) are mixed to stereo"
        stream: Any = self._container.add_stream(codec, rate=self._rate_hz, layout=self._layout)
        stream.bit_rate = BIT_RATE * stream.layout.nb_channels
        return stream

    def _copied(self) -> Generator[tuple[float, list[av.Packet]], None, None]:
        for time_s, packet in self.sound.packets():
            # What a trimmed file hides by an edit list, Matroska would show; but for the packet
            # that a decoder begins with.
            length_s = float((packet.duration or 0) * packet.time_base)
            if packet.is_discard and time_s + 2 * length_s <= 0 and not self._has_edit_list:
                continue
            packet.stream = self._sound
            yield time_s, [packet]

    def _encoded(self) -> Generator[tuple[float, list[av.Packet]], None, None]:
        at = 0
        for block in self.sound.blocks(self._rate_hz, self._layout):
            samples = np.ascontiguousarray(block.clip(-1, 1).T).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(samples, format="flt", layout=self._layout)
            frame.sample_rate, frame.time_base = self._rate_hz, Fraction(1, self._rate_hz)
            frame.pts = at
            yield at / self._rate_hz, self._sound.encode(frame)
            at += block.shape[1]

    def _mux_sound(self, until_s: float) -> None:
        """Sound goes in beside its pictures: a muxer holds what is ahead of the other stream."""
        while self._next_sound is not None and self._next_sound[0] <= until_s:
            self._container.mux(self._next_sound[1])
            self._next_sound = next(self._heard, None)

    def _failure(self, exc: BaseException) -> MediaError:
        why = getattr(exc, "strerror", None) or str(exc)
        return MediaError(
            f"{self.name}: cannot be written ({why}). Check the folder, the disk, and that the "
            "encoders take this frame size and sound."
        )
