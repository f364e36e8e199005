"""Read picture and sound of a video file on one clock, by presentation timestamps only.

t = 0 of the clip clock is the later of the two streams' first timestamps. Frame f of the clip is
the source frame whose timestamp is nearest to f / fps, and sample n is heard at n / rate.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from syncdisc_plugin.errors import MediaError
from syncdisc_plugin.media.container import (
    JITTER_S,
    MAX_GAP_S,
    Decoding,
    frame_rate,
    need_decoder,
    opened,
    pick_stream,
    pictures,
    trimmed_s,
    until_damage,
)
from syncdisc_plugin.media.sound import Sound
from syncdisc_plugin.media.turn import Turn, turn_of

# fmt: off
VIDEO_SUFFIXES = frozenset((
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".flv", ".f4v", ".mpg", ".mpeg", ".ts",
    ".mts", ".m2ts", ".vob", ".wmv", ".asf", ".3gp", ".ogv", ".mxf",
))
# fmt: on
# What systems keep in the root of a disk, often for themselves.
NO_FOOTAGE = frozenset(("lost+found", "$RECYCLE.BIN", "System Volume Information"))
# Less than this missing at the end is the header's rounding, not a truncated file.
MAX_MISSING_S = 0.5
# For how long the nearest picture stands for a moment: a camera that was turned off, a call that
# froze. Slower footage than this shows no lips that move.
HELD_S = 1.5
# Damaged headers claim anything, and memory is taken by what they claim.
MAX_PIXELS = 8192 * 4352


@dataclass(frozen=True)
class Source:
    """What the file holds, as it was before resampling."""

    width: int
    """Pixels across, after rotation."""
    height: int
    """Pixels down, after rotation."""
    fps: float
    """Average frames per second."""
    video_start_s: float
    """First video timestamp on the file's clock."""
    audio_start_s: float
    """First audio timestamp on the file's clock, behind the encoder's priming."""
    rotation_deg: int
    """Counter-clockwise rotation that the file asks for: 0, 90, 180 or 270; already applied."""
    mirrored: bool = False
    """Whether it asks to be mirrored before that, as front cameras do; already applied."""


@dataclass
class Recording:
    """One video on the clip clock: the sound at hand, the picture on demand."""

    path: Path
    """The file."""
    source: Source
    """What the file holds."""
    start_s: float
    """t = 0 of the clip clock, on the file's clock."""
    sound: Sound
    """Mono; sample n is heard at n / sample_rate_hz."""
    fps: int
    """Frames per second that `frames` gives."""
    sample_rate_hz: int
    """Samples per second of the sound."""
    threads: int
    """Threads that decode the picture; 0 = one per core."""
    trimmed_s: float = 0.0
    """What the decoder's times of the picture lack, as `trimmed_s` of `container` found it."""
    note: str | None = None
    """Why less than the whole file was read; None when all is well. Final after `frames`."""

    def _noted(self, words: str | None) -> None:
        if words and words not in (self.note or ""):  # `frames` may be called again
            self.note = f"{self.note}; {words}" if self.note else words

    @property
    def audio(self) -> np.ndarray:
        """All of the sound in memory, (N,) float32 mono, about [-1, 1]."""
        return self.sound.read()

    @property
    def n_frames(self) -> int:
        """Whole frames that the sound lasts, F; `frames` gives no more."""
        return len(self.sound) * self.fps // self.sample_rate_hz

    def frames(self) -> Iterator[np.ndarray]:
        """Decode (H, W, C=3) uint8 RGB frames at `fps`, up to the earlier end of both streams.

        Each call starts anew and holds two source frames. What cannot be decoded is passed over;
        where nothing more can, it ends early. Both set `note`. Where no picture is for longer than
        HELD_S to either side, frames are black: a face does not stand still there.

        Raises:
            MediaError: The file is gone or no longer readable.
            OSError: The disk or the network fails.
        """
        n_audio = self.n_frames
        turn = Turn(self.source.rotation_deg // 90, self.source.mirrored)
        width, height = self.source.width, self.source.height
        if turn.quarters % 2:
            width, height = height, width
        rgb = VideoReformatter()

        def pixels(shown: tuple[float, av.VideoFrame], f: int) -> np.ndarray:
            if abs(f / self.fps - shown[0]) > HELD_S:
                return np.zeros((self.source.height, self.source.width, 3), np.uint8)
            # Fixed to the first frame's size: streams may change theirs.
            frame = rgb.reformat(shown[1], width, height, "rgb24", threads=self.threads)
            return turn(frame.to_ndarray())

        f = 0
        shown: tuple[float, av.VideoFrame] | None = None
        with opened(self.path) as container:
            stream = pick_stream(container.streams.video)
            decoded = Decoding()
            with until_damage(
                lambda why: self._noted(f"picture: stopped at {f / self.fps:.2f} s: {why}")
            ):
                for time_s, picture in pictures(container, stream, self.threads, decoded):
                    time_s += self.trimmed_s - self.start_s
                    if shown and time_s - shown[0] > MAX_GAP_S:
                        raise ValueError(f"timestamps jump by {time_s - shown[0]:.0f} s")
                    while shown and f < n_audio and f / self.fps <= (shown[0] + time_s) / 2:
                        yield pixels(shown, f)
                        f += 1
                    if f >= n_audio:
                        self._noted(decoded.note("picture"))
                        return
                    shown = time_s, picture
            self._noted(decoded.note("picture"))
            if shown is None:
                raise MediaError(f"{self.path}: no frame can be decoded. Re-encode the file.")
            end_s = shown[0] + 1 / self.source.fps + JITTER_S
            while f < n_audio and (f + 1) / self.fps <= end_s:
                yield pixels(shown, f)
                f += 1


def decode(
    path: str | os.PathLike[str], *, fps: int = 25, sample_rate_hz: int = 16000, threads: int = 1
) -> Recording:
    """Open a video: read its sound and its first frame, and leave the rest to `frames`.

    Args:
        path: A file that holds at least one video and one audio stream.
        fps: Frames per second of the clip.
        sample_rate_hz: Samples per second of the clip's mono sound.
        threads: Threads that decode the picture; 0 = one per core.

    Raises:
        MediaError: Not a readable video, or one without picture or sound.
        RunError: No room on the disk for the sound of a long one.
    """
    path = Path(path)
    if os.path.isfile(path) and not os.path.getsize(path):
        raise MediaError(f"{path}: the file is empty. Copy or download it again.")
    sound = Sound(sample_rate_hz)
    first: av.VideoFrame | None = None
    picture_end_s = 0.0
    with opened(path) as container:
        video, audio = pick_stream(container.streams.video), pick_stream(container.streams.audio)
        if video is None:
            raise MediaError(f"{path}: no video stream. Give a file with picture and sound.")
        if audio is None:
            raise MediaError(f"{path}: no audio stream. Give a file with picture and sound.")
        for stream in (video, audio):
            need_decoder(path, stream)
        _check_size(path, video.codec_context)
        video.codec_context.thread_count = threads
        heard, looked = Decoding(), Decoding()
        ended: list[str] = []
        with until_damage(ended.append):
            for packet in container.demux(video, audio):
                if packet.stream.index == audio.index:
                    for frame in heard(packet):
                        sound.add(frame)
                    continue
                if packet.pts is not None:
                    picture_end_s = max(picture_end_s, float(packet.pts * packet.time_base))
                if first is None:
                    # `frames` leaves those without a time out too.
                    timed = (f for f in looked(packet) if f.time is not None)
                    first = next(timed, None)
        note = heard.note("sound")
        if ended:
            note = f"sound: stopped at {sound.end_s:.2f} s: {ended[0]}"
        if first is None or first.time is None:
            raise MediaError(f"{path}: no frame with a time can be decoded. Re-encode the file.")
        _check_size(path, first)
        if sound.start_s is None:
            because = f" ({note})" if note else ""
            raise MediaError(f"{path}: no sound can be decoded{because}. Re-encode the file.")
        source_fps = float(frame_rate(video) or fps)
        reached_s = {video.index: picture_end_s + 1 / source_fps, audio.index: sound.end_s}
        # A download that was cut off ends within a packet, too.
        short = None if ended else _truncation(container, reached_s)
        note = "; ".join(words for words in (note, short) if words) or None
        turn = turn_of(first)
        is_turned = bool(turn.quarters % 2)
        late_s = trimmed_s(path)
        source = Source(
            width=first.height if is_turned else first.width,
            height=first.width if is_turned else first.height,
            fps=source_fps,
            video_start_s=first.time + late_s,
            audio_start_s=sound.start_s,
            rotation_deg=turn.quarters * 90,
            mirrored=turn.mirrored,
        )
    start_s = max(source.video_start_s, source.audio_start_s)
    sound.begin(start_s)
    if not len(sound):
        raise MediaError(f"{path}: the sound ends before the picture begins. Re-mux the file.")
    return Recording(path, source, start_s, sound, fps, sample_rate_hz, threads, late_s, note)


def _check_size(path: Path, picture: Any) -> None:
    """Refuse pictures that would fill the memory; 8K is the largest that passes."""
    if picture.width * picture.height > MAX_PIXELS:
        raise MediaError(
            f"{path}: {picture.width} x {picture.height} pixels, more than 8K. "
            "Scale it down, or re-encode the file if it is not as large as that."
        )


def list_videos(paths: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """List files as they are given, and the videos in folders: recursive, sorted, no hidden ones.

    Raises:
        MediaError: A path that does not exist, or a folder that cannot be read.
    """

    def refuse(exc: OSError) -> None:
        raise MediaError(f"{exc.filename}: cannot be listed ({exc.strerror}).") from exc

    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise MediaError(f"{path}: no such file or folder. Check the spelling.")
        if not path.is_dir():
            found[path] = None
            continue
        visited = set()
        inside = []
        for folder, folders, files in os.walk(path, followlinks=True, onerror=refuse):
            here = os.path.realpath(folder)
            if here in visited:  # A link to a folder that was already walked, or to a parent.
                folders.clear()
                continue
            visited.add(here)
            folders[:] = sorted(
                name for name in folders if not name.startswith(".") and name not in NO_FOOTAGE
            )
            names = (name for name in files if not name.startswith("."))
            videos = (Path(folder, name) for name in names)
            inside += [video for video in videos if video.suffix.lower() in VIDEO_SUFFIXES]
        found.update(dict.fromkeys(sorted(inside)))
    return list(found)


def _truncation(container: Any, reached_s: dict[int, float]) -> str | None:
    """Say so where the file announces more than was found."""
    announced_s = {
        index: float((stream.start_time + stream.duration) * stream.time_base)
        for index in reached_s
        if (stream := container.streams[index]).duration and stream.start_time is not None
    }
    if len(announced_s) < len(reached_s):  # Matroska and FLV know one duration for all streams.
        if not container.duration:
            return None
        # Some writers count from the file's zero, some from its start: the lesser is believed.
        end_s = (min(0, container.start_time or 0) + container.duration) / av.time_base
        announced_s, reached_s = {0: end_s}, {0: max(reached_s.values())}
    for index, end_s in announced_s.items():
        if end_s - reached_s[index] > MAX_MISSING_S:
            return f"truncated: the file ends at {reached_s[index]:.2f} s of {end_s:.2f} s"
    return None
