"""Read the picture or the sound of a file alone, at its own timestamps, in bounded memory.

`decode` puts both streams on one clock at one rate, for the store; here nothing is resampled in
time, either stream may be missing, and no more is held than a frame or a block of sound.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from syncdisc_plugin.errors import MediaError
from syncdisc_plugin.media.container import (
    JITTER_S,
    MAX_GAP_S,
    MAX_PAUSE_S,
    Decoding,
    frame_rate,
    need_decoder,
    opened,
    pick_stream,
    pictures,
    until_damage,
)
from syncdisc_plugin.media.turn import turn_of

# A keyframe is found by decoding time, which B-frames move away from the time of showing.
SEEK_EARLIER_S = 0.5
# With these a frame goes to RGB and back without a change in its mean; swscale's fast way darkens
# it by one level. PyAV names the last two from 18 on: SWS_FULL_CHR_H_INT, SWS_ACCURATE_RND.
_EXACT = int(Interpolation.BICUBIC) | 0x2000 | 0x40000
_SPACE_RGB, _SPACE_BT709, _RANGE_LIMITED, _RANGE_FULL = 0, 1, 1, 2


class _Noting:
    """Says why less than the whole was read: what went wrong first."""

    note: str | None = None

    def _noted(self, words: str | None) -> None:
        self.note = self.note or words


class PictureStream(_Noting):
    """The video stream of a file.

    Attributes:
        path: the file.
        width: pixels across, after rotation.
        height: pixels down, after rotation.
        turn: how the file asks to be turned; `pixels` applies it.
        fps: average frames per second; None where the file does not say.
        time_base: seconds of one tick of the timestamps.
        sample_aspect: width over height of one pixel, after rotation.
        bits: of each colour; `pixels` gives 8.
        is_interlaced: each frame is two, of every other row; `pixels` leaves them together.
        is_transparent: it has an alpha channel; `pixels` puts it on white.
        color: FFmpeg's numbers of matrix, range, transfer and primaries, for an encoder's tags.
        note: why less than the whole stream was read; None when all is well. Set by `frames`.

    Raises:
        MediaError: Not a readable file, or one without a picture.
    """

    def __init__(self, path: str | os.PathLike[str], *, threads: int = 1) -> None:
        self.path, self.threads = Path(path), threads
        first: av.VideoFrame | None = None
        with opened(self.path) as container:
            stream = pick_stream(container.streams.video)
            if stream is None:
                raise MediaError(f"{path}: no video stream. Give a video or a photograph.")
            need_decoder(self.path, stream)
            with until_damage(self._noted):
                first = next((p for _, p in pictures(container, stream, threads)), None)
            if first is None:
                raise MediaError(f"{path}: no frame can be decoded. Re-encode the file.")
            self.fps = frame_rate(stream)
            self.time_base = Fraction(str(first.time_base))
            aspect = Fraction(str(stream.sample_aspect_ratio or 1))
        parts = first.format.components
        self.bits = max((part.bits for part in parts), default=8)
        self.is_interlaced = bool(first.interlaced_frame)
        self.is_transparent = any(part.is_alpha for part in parts)
        self.turn = turn_of(first)
        self._stored = first.width, first.height
        is_turned = bool(self.turn.quarters % 2)
        self.width, self.height = self._stored[::-1] if is_turned else self._stored
        self.sample_aspect = (1 / aspect if is_turned else aspect) if aspect else Fraction(1)
        is_full = first.color_range == _RANGE_FULL or first.format.name.startswith("yuvj")
        space = _SPACE_BT709 if first.colorspace == _SPACE_RGB else first.colorspace
        self.color = (
            space,
            _RANGE_FULL if is_full else _RANGE_LIMITED,
            first.color_trc,
            first.color_primaries,
        )
        self._rgb = VideoReformatter()

    def frames(self, first_pts: int | None = None) -> Iterator[tuple[int, av.VideoFrame]]:
        """Decode (timestamp in ticks, frame), timestamps rising; each call starts anew.

        Args:
            first_pts: begin at this timestamp, which must be one that an earlier call gave.

        Damage ends it early and sets `note`.
        """
        if first_pts is not None:
            found = self._sought(first_pts)
            if (head := next(found, None)) is not None:
                yield head
                yield from found
                return
        for pts, frame in self._read(None):
            if first_pts is None or pts >= first_pts:
                yield pts, frame

    def pixels(self, frame: av.VideoFrame, *, exact: bool = False, shrink: int = 1) -> np.ndarray:
        """One frame upright: (H // shrink, W // shrink, C=3) uint8 RGB.

        Args:
            frame: of `frames`; of another size than the first one, it is resized to that.
            exact: three times slower, and back in YUV it is the same frame.
            shrink: a whole number, by which the sides are divided.
        """
        width, height = (max(1, side // shrink) for side in self._stored)
        how: dict[str, Any] = {"interpolation": _EXACT} if exact else {}
        if shrink > 1:
            how = {"interpolation": Interpolation.AREA}
        form = "rgba" if self.is_transparent else "rgb24"
        rgb = self._rgb.reformat(frame, width, height, form, threads=self.threads, **how)
        pixels = rgb.to_ndarray()
        if self.is_transparent:
            pixels = on_white(pixels[..., :3], pixels[..., 3:] / np.float32(255))
        return self.turn(pixels)

    def _sought(self, first_pts: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """Frames from `first_pts` on by way of a keyframe; nothing where that cannot be had."""
        is_reached = False
        for pts, frame in self._read(first_pts - round(SEEK_EARLIER_S / self.time_base)):
            if pts < first_pts:
                continue
            if not is_reached and pts > first_pts:  # The index led to a later place.
                return
            is_reached = True
            yield pts, frame

    def _read(self, seek_pts: int | None) -> Iterator[tuple[int, av.VideoFrame]]:
        last_s = 0.0
        with opened(self.path) as container:
            stream = pick_stream(container.streams.video)
            decoded = Decoding()
            ended: list[str] = []
            with until_damage(ended.append):
                if seek_pts is not None:
                    container.seek(max(seek_pts, stream.start_time or 0), stream=stream)
                before: float | None = None
                for time_s, frame in pictures(container, stream, self.threads, decoded):
                    if before is not None and time_s - before > MAX_PAUSE_S:
                        raise ValueError(f"timestamps jump by {time_s - before:.0f} s")
                    last_s = before = time_s
                    yield int(frame.pts or 0), frame  # A frame that has a time has a timestamp.
            if seek_pts is None and ended:
                self._noted(f"picture: stopped at {last_s:.2f} s: {ended[0]}")
            elif seek_pts is None:
                self._noted(decoded.note("picture"))


class SoundStream(_Noting):
    """The audio stream of a file: of the default or first one, all channels.

    t = 0 is the earlier of the first sample and, where the file has one, the first picture: a
    voice that starts late in its own video starts late here.

    Attributes:
        path: the file.
        rate_hz: samples per second.
        layout: FFmpeg's name of the channels.
        codec: FFmpeg's name of the codec.
        is_global: the codec's settings lie in the file's header, so that packets can be copied.
        start_s: when the first sample is heard, >= 0.
        note: why less than the whole stream was read; None when all is well. Set by `blocks`.

    Raises:
        MediaError: Not a readable file, or one without sound.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        first: av.AudioFrame | None = None
        with opened(self.path) as container:
            stream = pick_stream(container.streams.audio)
            if stream is None:
                raise MediaError(f"{path}: no audio stream. Give a file that has sound.")
            need_decoder(self.path, stream)
            video = pick_stream(container.streams.video)
            picture_s = None
            if video is not None and video.start_time is not None:
                picture_s = float(video.start_time * video.time_base)
            decoded = Decoding()
            with until_damage(self._noted):
                for packet in container.demux(stream):
                    first = next(iter(decoded(packet)), None)
                    if first is not None:
                        break
            if first is None or not first.sample_rate:
                raise MediaError(f"{path}: no sound can be decoded. Re-encode the file.")
            self.rate_hz, self.codec = first.sample_rate, stream.codec_context.name
            self.is_global = bool(stream.codec_context.extradata)
            channels = first.layout.nb_channels
            plain = {1: "mono", 2: "stereo"}
            self.layout = plain.get(channels, first.layout.name)
        first_s = first.time or 0.0
        self._zero_s = first_s if picture_s is None else min(first_s, picture_s)
        self.start_s = first_s - self._zero_s

    def blocks(self, rate_hz: int | None = None, layout: str | None = None) -> Iterator[np.ndarray]:
        """Decode (channels, N) float32 blocks, about [-1, 1], that follow each other from t = 0 on.

        Gaps are silence, overlaps keep the earlier. Damage ends it early and sets `note`.

        Args:
            rate_hz: samples per second; the stream's own by default.
            layout: FFmpeg's name of the channels; the stream's own by default.
        """
        rate_hz, layout = rate_hz or self.rate_hz, layout or self.layout
        resampler: av.AudioResampler | None = None
        form: tuple[Any, ...] = ()
        run_s = end_s = 0.0  # where the run of samples without a gap began, and where it ends
        n_in = at = written = 0  # samples of the run that came in; next and last sample given out

        def given(frame: av.AudioFrame | None) -> Iterator[np.ndarray]:
            nonlocal at, written
            if resampler is None:
                return
            for piece in resampler.resample(frame):
                # Packed: PyAV reads beyond the planes of eight channels and more.
                samples = piece.to_ndarray().reshape(-1, piece.layout.nb_channels).T
                if not np.isfinite(samples).all():
                    self._noted("sound: samples that are no finite numbers are silence")
                    samples = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)
                yield from _silence(len(samples), at - written)
                fresh = samples[:, max(0, written - at) :]
                at += samples.shape[1]
                written = max(written, at)
                if fresh.size:
                    yield fresh

        with opened(self.path) as container:
            stream = pick_stream(container.streams.audio)
            decoded = Decoding()
            with until_damage(lambda why: self._noted(f"sound: stopped at {end_s:.2f} s: {why}")):
                for packet in container.demux(stream):
                    for frame in decoded(packet):
                        time_s = end_s if frame.time is None else frame.time - self._zero_s
                        now = frame.sample_rate, frame.layout.name, frame.format.name
                        if now != form or abs(time_s - end_s) > JITTER_S:
                            if form and time_s - end_s > MAX_GAP_S:
                                raise ValueError(f"timestamps jump by {time_s - end_s:.0f} s")
                            yield from given(None)
                            resampler = av.AudioResampler("flt", layout=layout, rate=rate_hz)
                            form, run_s, n_in, at = now, time_s, 0, round(time_s * rate_hz)
                        n_in += frame.samples
                        end_s = run_s + n_in / frame.sample_rate
                        yield from given(frame)
                yield from given(None)
                self._noted(decoded.note("sound"))

    def packets(self) -> Iterator[tuple[float, av.Packet]]:
        """Undecoded packets with their times from t = 0 on, timestamps moved to that zero."""
        with opened(self.path) as container:
            stream = pick_stream(container.streams.audio)
            shift = round(self._zero_s / stream.time_base)
            for packet in container.demux(stream):
                if packet.pts is None or packet.dts is None:  # The last one of a stream is empty.
                    continue
                packet.pts -= shift
                packet.dts -= shift
                yield float(packet.pts * packet.time_base), packet

    def template(self) -> Any:
        """An open container and its audio stream, for an output stream of the same codec."""
        container = av.open(os.path.abspath(self.path))
        return container, pick_stream(container.streams.audio)


def on_white(picture: np.ndarray, solid: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8, of which (H, W, 1) in [0, 1] is seen, before white."""
    return np.rint(picture * solid + 255 * (1 - solid)).astype(np.uint8)


def _silence(channels: int, n_samples: int) -> Iterator[np.ndarray]:
    """Zeros in blocks of a bounded size."""
    for first in range(0, max(0, n_samples), 1 << 16):
        yield np.zeros((channels, min(1 << 16, n_samples - first)), np.float32)
