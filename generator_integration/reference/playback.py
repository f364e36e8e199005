"""In which order, and when, the pictures of a video are shown until a sound has ended."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path

import cv2
import numpy as np

from syncdisc_plugin.errors import MediaError
from syncdisc_plugin.media.stream import PictureStream, on_white

# fmt: off
PHOTO_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"))
# fmt: on
PHOTO_SIDE_PX = 1920
"""A photograph's longer side in a video; cameras give more than decoders of video take."""
SLOW_S = Fraction(1, 20)
"""A picture that is shown for longer than this is shown several times, for the mouth to move."""
MOUTHS_FPS = 25
"""So often a second, then."""
TICK_S = Fraction(1, 1000)
"""Longest tick of the output's clock, where pictures are shown several times."""
REVERSE_BYTES = 128 << 20
"""Decoded frames that are held in order to be shown backwards."""


@dataclass(frozen=True)
class Clock:
    """How the frames of the output are timed and looked at."""

    time_base: Fraction
    """Seconds of one tick of the timestamps."""
    fps: Fraction
    """Average frames per second."""
    sample_aspect: Fraction = Fraction(1)
    """Width over height of one pixel."""
    color: tuple[int, int, int, int] = (1, 1, 1, 1)
    """FFmpeg's numbers of matrix, range, transfer and primaries; BT.709 by default."""


@dataclass(frozen=True)
class Shot:
    """One frame of the output."""

    image: np.ndarray
    """(H, W, C=3) uint8 RGB."""
    source_s: Fraction
    """Seconds from the video's first frame on: where it comes from."""
    pts: int
    """When it is shown, in ticks of the clock, from 0 on."""


class VideoPlayback:
    """A video from its first frame on, cut where the sound ends, or continued until then.

    Its frames keep their timestamps. Those that are shown for long (few frames a second, a screen
    recording's pauses) are shown again in between.

    Args:
        stream: the video.
        pts: (F,) timestamps of all of its frames.
        seconds: length of the sound.
        extend: what comes behind the last frame: "pingpong" plays the video backwards, then
            forwards and so on; "hold" keeps the last frame.
    """

    def __init__(
        self, stream: PictureStream, pts: np.ndarray, seconds: Fraction, extend: str = "pingpong"
    ) -> None:
        self.stream, self.pts, self.seconds, self.extend = stream, pts, seconds, extend
        self.hw = stream.height, stream.width
        gaps = np.diff(pts).tolist()
        fps = stream.fps
        if fps is None:  # the file does not say
            span_s = sum(gaps) * stream.time_base
            fps = len(gaps) / span_s if gaps else Fraction(MOUTHS_FPS)
        self.step = max(1, round(1 / (fps * stream.time_base)))
        gaps.append(self.step)
        times = [self._times(gap) for gap in gaps]
        self.slow = sum(n > 1 for n in times)
        """How many of the video's pictures are shown for long."""
        self._fine = math.ceil(stream.time_base / TICK_S) if self.slow else 1
        fps *= Fraction(sum(times), len(times))
        tick_s = stream.time_base / self._fine
        self.clock = Clock(tick_s, fps, stream.sample_aspect, stream.color)

    @property
    def note(self) -> str | None:
        """Why less than the whole video was read; final after `shots`."""
        return self.stream.note and f"{self.stream.path}: {self.stream.note}"

    @property
    def video_seconds(self) -> Fraction:
        """Length of the video itself."""
        return int(self.pts[-1] - self.pts[0] + self.step) * self.stream.time_base

    def order(self) -> Iterator[tuple[int, int]]:
        """(index of the frame in the video, when it is shown in ticks), until the sound ends."""
        end = self.seconds / self.stream.time_base
        for (index, at), (_, until) in pairwise(chain(self._once(end), [(-1, end)])):
            times = self._times(until - at)
            for i in range(times):
                yield index, int((at + (until - at) * Fraction(i, times)) * self._fine)

    def _times(self, ticks: Fraction | int) -> int:
        """How often a picture is shown that is there for so many of the stream's ticks."""
        seconds = ticks * self.stream.time_base
        return math.ceil(seconds * MOUTHS_FPS) if seconds > SLOW_S else 1

    def _once(self, end: Fraction) -> Iterator[tuple[int, Fraction | int]]:
        """The same, each picture once and in the stream's ticks."""
        pts = [int(p) for p in self.pts]
        last, span = len(pts) - 1, pts[-1] - pts[0]
        for index, at in enumerate(pts):
            if at - pts[0] >= end:
                return
            yield index, at - pts[0]
        now = span
        if self.extend == "hold" or not last:
            while (now := now + self.step) < end:
                yield last, now
            return
        while True:
            # Neither end is shown twice in a row.
            for index in range(last - 1, -1, -1):
                if (at := now + pts[last] - pts[index]) >= end:
                    return
                yield index, at
            now += span
            for index in range(1, last + 1):
                if (at := now + pts[index] - pts[0]) >= end:
                    return
                yield index, at
            now += span

    def __len__(self) -> int:
        """Frames of the output."""
        return sum(1 for _ in self.order())

    def shots(self) -> Iterator[Shot]:
        """Decode the frames of the output; one is held, going backwards a few dozen.

        Raises:
            MediaError: the video gives other frames than before.
        """
        images, shown, image = self._images(), -1, None
        for index, at in self.order():
            source_s = int(self.pts[index] - self.pts[0]) * self.stream.time_base
            if index != shown:
                shown, image = index, next(images, None)
            if image is None:
                raise MediaError(
                    f"{self.stream.path}: frame {index} could be decoded once and not again. "
                    "Re-encode the file."
                )
            yield Shot(image, source_s, at)

    def _images(self) -> Iterator[np.ndarray]:
        """Pixels in the order of `order`, those of one frame in a row once."""
        pixels, last = self.stream.pixels, len(self.pts) - 1
        for _, frame in self.stream.frames():
            yield pixels(frame, exact=True)
        while last:
            yield from self._backwards(last - 1)
            for index, (_, frame) in enumerate(self.stream.frames()):
                if index:
                    yield pixels(frame, exact=True)

    def _backwards(self, index: int) -> Iterator[np.ndarray]:
        """Pixels of the frames from `index` down to the first, decoded stretch by stretch."""
        n_held = max(8, REVERSE_BYTES // (self.stream.width * self.stream.height * 3 // 2))
        while index >= 0:
            first = max(0, index + 1 - n_held)
            held = []
            for pts, frame in self.stream.frames(int(self.pts[first])):
                held.append(frame)
                if pts >= self.pts[index]:
                    break
            if len(held) != index + 1 - first:
                return
            while held:
                yield self.stream.pixels(held.pop(), exact=True)
            index = first - 1


class PhotoPlayback:
    """A photograph, held at 25 frames a second for as long as the sound.

    Raises:
        MediaError: the file is not readable.
    """

    clock = Clock(Fraction(1, 25), Fraction(25))

    def __init__(self, path: Path, seconds: Fraction) -> None:
        self.seconds = seconds
        if not path.is_file():
            raise MediaError(f"{path}: no such file. Check the spelling.")
        data = np.frombuffer(path.read_bytes(), np.uint8)
        # Turned upright by what the camera noted, which is lost where transparency is kept.
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
        if picture is None:
            raise MediaError(f"{path}: cannot be read as a photograph. Give a .jpg or .png.")
        self.note: str | None = None
        whole = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        if whole is not None and whole.ndim == 3 and whole.shape[2] == 4:
            most = 255 if whole.dtype == np.uint8 else 65535
            solid = whole[..., 3:].astype(np.float32) / most
            if solid.min() < 1 and whole.shape[:2] == picture.shape[:2]:
                picture = on_white(picture, solid)
                self.note = "what is transparent in the photograph is white"
        image = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
        shrink = PHOTO_SIDE_PX / max(image.shape[:2])
        if shrink < 1:
            height, width = (max(1, round(side * shrink)) for side in image.shape[:2])
            shrunk = (
                f"the photograph is shrunk from {image.shape[1]}x{image.shape[0]} to "
                f"{width}x{height}"
            )
            self.note = f"{self.note}; {shrunk}" if self.note else shrunk
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        self.image = image
        self.hw: tuple[int, int] = (image.shape[0], image.shape[1])

    def __len__(self) -> int:
        """Frames of the output."""
        return max(1, -int(-self.seconds * self.clock.fps // 1))

    @property
    def video_seconds(self) -> Fraction:
        """How long it can be shown: as long as the sound."""
        return self.seconds

    def shots(self) -> Iterator[Shot]:
        """The same picture again and again."""
        for index in range(len(self)):
            yield Shot(self.image, Fraction(0), index)


def is_photo(path: str | os.PathLike[str]) -> bool:
    """Told by the suffix."""
    return Path(path).suffix.lower() in PHOTO_SUFFIXES
