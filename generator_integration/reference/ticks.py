"""A video of any frame rate, on a clock of the discriminator's."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from tqdm import tqdm

from syncdisc_plugin.media.container import JITTER_S
from syncdisc_plugin.media.stream import PictureStream


class Ticks:
    """A video on a clock of its own: for each tick the nearest frame.

    Args:
        fps: ticks per second.
    """

    def __init__(self, fps: int) -> None:
        self.fps = fps
        self.of: list[int] = []
        """For each frame the tick that it belongs to: that shows it, or else one of its shot.

        At more than `fps` frames a second some are never shown. Which side of a cut these are on
        nobody knows but by their looks.
        """
        self._unseen: list[np.ndarray] = []  # small ones
        self._seen: av.VideoFrame | None = None  # the last one that was shown
        self._tick = 0

    def read(self, stream: PictureStream, pts: list[int], shrink: int) -> Iterator[np.ndarray]:
        """(H, W, 3) uint8 of each tick; `pts` receives the timestamps of all frames."""
        shown: tuple[Fraction, av.VideoFrame] | None = None
        bar = tqdm(desc="faces", unit="frame", disable=None)
        for now, frame in stream.frames():
            pts.append(now)
            bar.update()
            time_s = (now - pts[0]) * stream.time_base
            if shown:
                yield from self._show(stream, shrink, *shown, until_s=(shown[0] + time_s) / 2)
            shown = time_s, frame
        bar.close()
        if shown is None:
            return
        # All that is shown, at whatever rate: the last frame too has a tick before or behind it.
        last_s = 1 / (stream.fps or Fraction(self.fps))
        end_s = shown[0] + last_s + Fraction(JITTER_S) - Fraction(1, self.fps)
        yield from self._show(stream, shrink, *shown, until_s=max(shown[0], end_s))
        self.of += [self._tick - 1] * len(self._unseen)

    def _show(
        self,
        stream: PictureStream,
        shrink: int,
        time_s: Fraction,
        frame: av.VideoFrame,
        until_s: Fraction,
    ) -> Iterator[np.ndarray]:
        """The frame, for each tick that is left until a moment."""
        first = self._tick
        image: np.ndarray | None = None
        while Fraction(self._tick, self.fps) <= until_s:
            image = stream.pixels(frame, shrink=shrink) if image is None else image
            yield image
            self._tick += 1
        if image is None:
            self._unseen.append(_small(frame))
            return
        self._place_unseen(first, frame)
        self._seen = frame
        self.of.append(min(max(round(time_s * self.fps), first), self._tick - 1))

    def _place_unseen(self, next_tick: int, following: av.VideoFrame) -> None:
        """Give those between two frames that were shown to the one that they look like."""
        if not self._unseen:
            return
        after = _small(following)
        before = None if self._seen is None else _small(self._seen)
        is_behind = before is None
        for here in self._unseen:
            if before is not None:
                is_behind |= bool(np.abs(here - after).mean() < np.abs(here - before).mean())
            self.of.append(next_tick if is_behind else next_tick - 1)
        self._unseen.clear()


def _small(frame: av.VideoFrame) -> np.ndarray:
    """(48, 48) grey levels."""
    grey = VideoReformatter().reformat(frame, 48, 48, "gray8", interpolation=Interpolation.AREA)
    return grey.to_ndarray().astype(np.int16)
