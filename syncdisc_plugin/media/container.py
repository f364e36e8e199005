"""An open file: its errors in one line, its streams, its pictures in time."""

from __future__ import annotations

import errno
import heapq
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError
from av.stream import Disposition

from syncdisc_plugin.errors import MediaError, is_passing

# Containers round timestamps to 1 ms; real gaps are longer than this.
JITTER_S = 0.005
# A longer silence than this is a broken clock, not a gap.
MAX_GAP_S = 60.0
# A picture that stands for longer, too: slides are shown for minutes.
MAX_PAUSE_S = 600.0
# A faster video is none: FFmpeg takes the clock for the rate where a file does not say one.
MAX_FPS = 300
# What overlaps by less is sent twice; by more, the clock began anew, as in joined recordings.
MAX_BACK_S = 1.0
ANEW = 8  # pictures in a row that lie as far back
# What PyAV raises for damaged input; its own classes derive from several of these.
BROKEN = (FFmpegError, OSError, ValueError, EOFError)
# Packets in a row that cannot be decoded, after which it is no hole in the file but its end.
MOST_DAMAGED = 250
MOST_REORDERED = 16  # pictures by which H.264 and HEVC may be out of order


def why(exc: BaseException) -> str:
    """What went wrong, without the error number."""
    return getattr(exc, "strerror", None) or str(exc)


_FIX = {
    errno.ENOENT: "It was moved or deleted, or is a link to what is no longer there.",
    errno.ENOTDIR: "It is a link to what is no longer there.",
    errno.ELOOP: "It is a link that leads back to itself: remove it.",
    errno.ENAMETOOLONG: "It is a link to a name that no file can have: remove it.",
    errno.EACCES: "Give yourself the right to read it.",
    errno.EPERM: "Give yourself the right to read it.",
}


def fix(exc: BaseException) -> str:
    """What most likely mends it."""
    return _FIX.get(getattr(exc, "errno", 0) or 0, "Check that it is complete and plays.")


@contextmanager
def opened(path: Path, options: dict[str, str] | None = None) -> Iterator[Any]:
    """Open `path` for reading; what FFmpeg raises inside becomes one clear line.

    `options` are FFmpeg's, of the container.
    """
    # To open a pipe is to wait for ever, and a device may never end.
    if os.path.exists(path) and not os.path.isfile(path):
        what = "a folder" if os.path.isdir(path) else "a pipe, socket or device"
        raise MediaError(
            f"{path}: {what}, no video file. Give files, or take it out of the folder."
        )
    # A title in another encoding must not make a good video unreadable (PyAV 19 sees to it).
    is_strict = int(av.__version__.split(".")[0]) < 19
    lenient: dict[str, Any] = {"metadata_errors": "replace"} if is_strict else {}
    try:
        # Absolute: a colon in a name would make a protocol of what is before it.
        with av.open(os.path.abspath(path), options=options, **lenient) as container:
            yield container
    except BROKEN as exc:
        if is_passing(exc):
            raise
        raise MediaError(f"{path}: cannot be read as a video ({why(exc)}). {fix(exc)}") from exc


@contextmanager
def until_damage(said: Callable[[str], None]) -> Iterator[None]:
    """Damage ends the block, and `said` is told why; what fails only for a while is raised."""
    try:
        yield
    except BROKEN as exc:
        if is_passing(exc):
            raise
        said(why(exc))


def pick_stream(streams: Sequence[Any]) -> Any:
    """Give the default stream, else the first; None where there is none but cover art."""
    real = [s for s in streams if not s.disposition & Disposition.attached_pic]
    return next((s for s in real if s.disposition & Disposition.default), next(iter(real), None))


def frame_rate(stream: Any) -> Fraction | None:
    """Average frames per second of a video stream; None where the file does not say.

    Recordings of browsers are such: WebM without a rate, timestamps in ms at irregular times.
    """
    if stream.average_rate:
        return Fraction(str(stream.average_rate))
    guess = Fraction(str(stream.guessed_rate or 0))
    return guess if 0 < guess <= MAX_FPS else None


def need_decoder(path: Path, stream: Any) -> None:
    """Refuse a stream of a codec that FFmpeg does not know. Raises MediaError."""
    if stream.codec_context is None:
        raise MediaError(
            f"{path}: the codec of its {stream.type} stream is unknown. Check that it is complete "
            "and plays, or re-encode it."
        )


class Decoding:
    """Decodes packets of one stream; those that are damaged give nothing, and are counted.

    Timestamps place what follows, so a hole costs no more than itself.
    """

    def __init__(self) -> None:
        self.damaged = 0
        """Packets that could not be decoded, since the first that could."""
        self.failed = False
        """Whether the last one could not."""
        self._began = False
        self._in_a_row = 0

    def __call__(self, packet: av.Packet) -> list[Any]:
        """Frames of a packet. Raises FFmpegError after MOST_DAMAGED in a row without any."""
        self.failed = False
        try:
            frames = packet.decode()
        except FFmpegError as exc:
            if is_passing(exc):
                raise
            self.failed = True
            if self._began:  # recordings may start mid-stream
                self.damaged += 1
                self._in_a_row += 1
                if self._in_a_row >= MOST_DAMAGED:
                    raise
            return []
        if frames:
            self._began, self._in_a_row = True, 0
        return frames

    def note(self, kind: str) -> str | None:
        """What is to be said of it, or None."""
        many = "packet" if self.damaged == 1 else "packets"
        return f"{kind}: {self.damaged} damaged {many} skipped" if self.damaged else None


def trimmed_s(path: Path) -> float:
    """By how much FFmpeg shows the picture of a trimmed MP4 too early, in seconds; else 0.

    Cutting without re-encoding leaves frames before the cut, and an edit list that hides them.
    FFmpeg then moves the first frame behind the cut to the cut itself, and all others with it: up
    to a frame, and the sound stays. Read without hiding, the same packet has its true time.
    """
    with opened(path) as hiding, opened(path, {"advanced_editlist": "0"}) as plain:
        stream = pick_stream(hiding.streams.video)
        if "mov" not in hiding.format.name.split(",") or stream is None:
            return 0.0
        try:
            is_hidden = False
            for packet in hiding.demux(stream):
                if packet.is_discard or packet.pts is None:
                    is_hidden = True
                    continue
                if not is_hidden:
                    return 0.0
                for same in plain.demux(plain.streams[stream.index]):
                    if same.pos == packet.pos and same.pts is not None:
                        late_s = float((same.pts - packet.pts) * packet.time_base)
                        return late_s if 0 < late_s < 1 else 0.0
                return 0.0
        except BROKEN:  # Whoever decodes it says what is wrong.
            return 0.0
    return 0.0


def _is_numbered(container: Any, stream: Any) -> bool:
    """Whether the times are only the packets' numbers, and pictures may come in another order."""
    return container.format.name == "avi" and stream.codec_context.name in ("h264", "hevc")


class _Numbers:
    """The packets' numbers, given to pictures in the order in which these come."""

    def __init__(self) -> None:
        self._waiting: list[int] = []

    def add(self, packet: av.Packet) -> None:
        if packet.pts is not None:
            heapq.heappush(self._waiting, packet.pts)

    def give(self, picture: av.VideoFrame) -> None:
        if picture.pts is None or not self._waiting:
            return
        number = heapq.heappop(self._waiting)
        while self._waiting and number < picture.pts - MOST_REORDERED:  # of packets without picture
            number = heapq.heappop(self._waiting)
        picture.pts = number


def pictures(
    container: Any, stream: Any, threads: int, decoded: Decoding | None = None
) -> Iterator[tuple[float, av.VideoFrame]]:
    """Yield (seconds on the file's clock, picture), times rising.

    Raises:
        ValueError: they go back for good, by more than what is sent twice.
    """
    decoded = decoded or Decoding()
    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = threads
    last_s: float | None = None
    before_s, behind = -math.inf, 0
    numbers = _Numbers() if _is_numbered(container, stream) else None
    for packet in container.demux(stream):
        frames = decoded(packet)
        if numbers and packet.size and not decoded.failed:
            numbers.add(packet)
        for picture in frames:
            if numbers:
                numbers.give(picture)
            if picture.time is None:
                continue
            # One odd time is dropped, or what is behind it until the clock is there again.
            behind = behind + 1 if before_s - picture.time > MAX_BACK_S else 0
            if last_s is not None and behind == ANEW:
                raise ValueError(f"timestamps go back by {last_s - picture.time:.1f} s")
            if last_s is None or picture.time > last_s:
                before_s = -math.inf if last_s is None else last_s
                last_s = picture.time
                yield last_s, picture
