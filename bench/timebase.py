"""Do picture and sound agree in the store? Flashes and clicks at the same instants, in many files.

    python bench/timebase.py [--out DIR] [--only WORD]

Each file holds nine events: a source frame that is white for the first time, and a click that
begins at that frame's timestamp. All files are written here with PyAV, not with the package, then
prepared with `--detector none`, and the events are looked for in the store's frames and audio.

How far apart they are is known better than to a frame. Frame f of the store is the source frame
whose timestamp is nearest to f / 25, so that the flash, shown d seconds after the frame before it,
is first seen in frame f where

    (f - 1) / 25 < t - d / 2 <= f / 25        (t: the flash, on the clock of the store)

which leaves an interval of 40 ms for t, and for click minus flash. Events fall differently between
the store's frames, so that the intervals of one file have less in common: its middle is the
offset, half its length the resolution (20 ms where the source has 25 fps itself: all events fall
alike). Where they have nothing in common the offset varies within the file, and the error is the
furthest that it must go: error = |middle| + half of what is missing. The click is found by
correlation, to 0.1 ms without and about 1 ms with a lossy codec.

Offset > 0: the sound is late. Exits with 1 over 20 ms, or where an event is lost.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from syncdisc_plugin.data.manifest import Clip, read_rows
from syncdisc_plugin.data.prepare import PrepareSettings, prepare
from syncdisc_plugin.data.store import ClipStore

LIMIT_S = 0.020
SECONDS = 6.5
WANTED_S = [0.97 + 0.583 * k for k in range(9)]
FLASH_S, CLICK_S = 0.2, 0.02
STORE_FPS, STORE_HZ = 25, 16000
TICK = Fraction(1, 90000)
NTSC_FILM, NTSC = Fraction(24000, 1001), Fraction(30000, 1001)


def steady(fps: Fraction | float) -> list[float]:
    return [float(i / fps) for i in range(round(SECONDS * fps))]


def variable() -> list[float]:
    """30, 11, 50 and 24 frames per second, over and over."""
    times_s, steps = [0.0], [1 / 30] * 9 + [1 / 11] * 4 + [1 / 50] * 17 + [1 / 24] * 8
    while times_s[-1] < SECONDS:
        times_s.append(times_s[-1] + steps[len(times_s) % len(steps)])
    return times_s


def jittered() -> list[float]:
    """As a telephone's camera stamps them: 30 a second, each up to 9 ms off."""
    chance = np.random.default_rng(0)
    return [max(0.0, t + chance.uniform(-0.009, 0.009)) for t in steady(30)]


@dataclass(frozen=True)
class Planted:
    """A file, of which all times are those that a player goes by."""

    suffix: str
    times_s: Sequence[float] = tuple(steady(NTSC))
    """When each frame is shown."""
    video_s: float = 0.0
    """Added to the timestamps of the picture."""
    audio_s: float = 0.0
    """The timestamp of the first sample."""
    sound_clock: float = 1.0
    """Seconds of timestamps in a second of samples: not 1 where the recorder's clocks drift."""
    codec: str = "libx264"
    sound_codec: str = "aac"
    rate_hz: int = 44100
    video_options: tuple[tuple[str, str], ...] = ()
    options: tuple[tuple[str, str], ...] = ()
    """Of the container."""

    @property
    def events(self) -> list[int]:
        """Frames in which a flash begins."""
        shown = np.array(self.times_s) + self.video_s - max(self.video_s, self.audio_s, 0)
        return [int(np.abs(shown - wanted).argmin()) for wanted in WANTED_S]


AS_IS = (("avoid_negative_ts", "disabled"),)
NO_EDITS = (("use_editlist", "0"),)
VP9 = {"codec": "libvpx-vp9", "video_options": (("deadline", "realtime"), ("cpu-used", "8"))}
OPUS = {"sound_codec": "libopus", "rate_hz": 48000}
PCM = {"sound_codec": "pcm_s16le"}
LATE = {"late picture": {"video_s": 0.137}, "late sound": {"audio_s": 0.213}}
FILES: dict[str, Planted] = {
    **{f"{name} fps": Planted(".mp4", tuple(steady(fps))) for name, fps in {
        "23.976": NTSC_FILM, "25": 25, "29.97": NTSC, "30": 30, "50": 50, "60": 60, "15": 15,
    }.items()},
    **{f"in {suffix}": Planted(suffix) for suffix in (".mov", ".mkv", ".ts")},
    "in .webm": Planted(".webm", **VP9, **OPUS),
    "in .avi": Planted(".avi", codec="ffv1", **PCM),
    **{f"variable rate {suffix}": Planted(suffix, tuple(variable()))
       for suffix in (".mp4", ".mkv", ".ts")},
    "jittered .mp4": Planted(".mp4", tuple(jittered())),
    **{f"{name} {suffix}": Planted(suffix, **how)
       for name, how in LATE.items() for suffix in (".mp4", ".mov", ".mkv", ".ts")},
    **{f"{name} .webm": Planted(".webm", **how, **VP9, **OPUS) for name, how in LATE.items()},
    "AAC 48 kHz .mp4": Planted(".mp4", rate_hz=48000),
    "AAC 8 kHz .mp4": Planted(".mp4", rate_hz=8000),
    "MP3 .mp4": Planted(".mp4", sound_codec="libmp3lame"),
    "MP3 .mkv": Planted(".mkv", sound_codec="libmp3lame"),
    "AC3 .ts": Planted(".ts", sound_codec="ac3", rate_hz=48000),
    "Opus .mp4": Planted(".mp4", **OPUS),
    "FLAC .mkv": Planted(".mkv", sound_codec="flac"),
    # A negative start: what lies before 0 is cut away by an edit list, in the midst of a frame.
    "edit list, picture cut .mp4": Planted(".mp4", video_s=-0.31, options=AS_IS),
    "edit list, sound cut .mp4": Planted(".mp4", audio_s=-0.31, options=AS_IS),
    "edit list, both cut .mov": Planted(".mov", video_s=-0.31, audio_s=-0.47, options=AS_IS),
    "edit list, cut and late .mp4": Planted(".mp4", video_s=-0.31, audio_s=0.213, options=AS_IS),
    "no edit list .mp4": Planted(".mp4", options=NO_EDITS),
    "no edit list, late picture .mp4": Planted(".mp4", video_s=0.137, options=NO_EDITS),
    "negative composition .mp4": Planted(
        ".mp4", options=(("movflags", "negative_cts_offsets"),)
    ),
    "fragments .mp4": Planted(".mp4", options=(("movflags", "frag_keyframe+empty_moov"),)),
    "fragments, late picture .mp4": Planted(
        ".mp4", video_s=0.137, options=(("movflags", "frag_keyframe+empty_moov"),)
    ),
    "many B-frames .mp4": Planted(".mp4", video_options=(("bf", "8"), ("b-pyramid", "normal"))),
    **{f"sound's clock x {clock} .mkv": Planted(".mkv", sound_clock=clock, **PCM)
       for clock in (0.99, 1.001, 1.02)},
    "begins after an hour .mkv": Planted(".mkv", video_s=3600.137, audio_s=3600),
    "begins after an hour .ts": Planted(".ts", video_s=3600.137, audio_s=3600),
}  # fmt: skip


def click(time_s: np.ndarray) -> np.ndarray:
    """(N,) the click at so many seconds after its beginning: five tones that die away."""
    tones = [np.sin(2 * np.pi * hz * time_s + hz) for hz in (410, 770, 1330, 2090, 2990)]
    return 0.18 * np.exp(-time_s / 0.006) * np.sum(tones, axis=0)


def write(path: Path, planted: Planted) -> None:
    """Encode the file."""
    with av.open(str(path), "w", options=dict(planted.options)) as out:
        rate = Fraction(len(planted.times_s) / SECONDS).limit_denominator(1001)
        is_avi = path.suffix == ".avi"
        video: Any = out.add_stream(planted.codec, rate=NTSC if is_avi else rate)
        video.width = video.height = 64
        video.pix_fmt, video.options = "yuv420p", dict(planted.video_options)
        tick = 1 / NTSC if is_avi else TICK
        video.thread_count = 1
        if not is_avi:
            video.time_base = video.codec_context.time_base = tick
        layout = "mono"
        sound: Any = out.add_stream(planted.sound_codec, rate=planted.rate_hz, layout=layout)
        timed = [*_pictures(planted, video, tick), *_sounds(planted, sound)]
        for _, stream, frame in sorted(timed, key=lambda item: item[0]):
            out.mux(stream.encode(frame))
        for stream in (video, sound):
            out.mux(stream.encode(None))


def _pictures(planted: Planted, stream: Any, tick: Fraction) -> Iterator[tuple[float, Any, Any]]:
    starts_s = [planted.times_s[i] for i in planted.events]
    for time_s in planted.times_s:
        is_on = any(start <= time_s < start + FLASH_S for start in starts_s)
        frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 255 * is_on, np.uint8), "rgb24")
        frame.pts, frame.time_base = round((time_s + planted.video_s) / tick), tick
        yield time_s + planted.video_s, stream, frame


def _sounds(planted: Planted, stream: Any) -> Iterator[tuple[float, Any, Any]]:
    rate_hz, step = planted.rate_hz, planted.rate_hz // 50
    stamped_s = planted.sound_clock * np.arange(round((SECONDS + 1) * rate_hz)) / rate_hz
    stamped_s = stamped_s + planted.audio_s
    wave = np.zeros(len(stamped_s))
    for i in planted.events:
        at_s = planted.times_s[i] + planted.video_s
        near = slice(*np.searchsorted(stamped_s, (at_s, at_s + CLICK_S)))
        wave[near] += click(stamped_s[near] - at_s)
    for at in range(0, len(wave) - step + 1, step):
        samples = wave[None, at : at + step].astype(np.float32)
        frame = av.AudioFrame.from_ndarray(samples, "fltp", "mono")
        frame.sample_rate, frame.time_base = rate_hz, Fraction(1, rate_hz)
        frame.pts = round(stamped_s[at] * rate_hz)
        yield float(stamped_s[at]), stream, frame


def flashes(frames: np.ndarray) -> list[int]:
    """First frames of the flashes in (F, S, S, 3)."""
    is_on = frames.mean((1, 2, 3)) > 128
    return [int(i) for i in np.flatnonzero(is_on[1:] & ~is_on[:-1]) + 1]


def clicks_s(audio: np.ndarray) -> list[float]:
    """Where the clicks in (N,) begin, in seconds, to a part of a sample."""
    pattern = click(np.arange(round(CLICK_S * STORE_HZ)) / STORE_HZ)
    match = np.correlate(audio, pattern, "full")[len(pattern) - 1 :] / np.sum(pattern**2)
    found = []
    while match.max() > 0.4:
        at = int(match.argmax())
        before, peak, after = np.pad(match, 1)[at : at + 3]
        bend = before - 2 * peak + after
        found.append((at + (0.5 * (before - after) / bend if bend else 0.0)) / STORE_HZ)
        match[max(0, at - STORE_HZ // 8) : at + STORE_HZ // 8] = 0
    return sorted(found)


@dataclass(frozen=True)
class Agreement:
    """Click minus flash in one file, in seconds."""

    offset_s: float
    resolution_s: float
    """Half of what remains open; below 0 where the offset varies within the file."""
    lost: str = ""
    """What was not found."""

    @property
    def error_s(self) -> float:
        return np.inf if self.lost else abs(self.offset_s) + max(0.0, -self.resolution_s)


def agreement(planted: Planted, frames: np.ndarray, audio: np.ndarray) -> Agreement:
    """Compare the events in a clip's frames (F, S, S, 3) and audio (N,)."""
    seen, heard, events = flashes(frames), clicks_s(audio), planted.events
    if not len(seen) == len(heard) == len(events):
        return Agreement(0, 0, f"{len(seen)} flashes, {len(heard)} clicks of {len(events)}")
    low, high = -np.inf, np.inf
    for f, click_s, i in zip(seen, heard, events, strict=True):
        latest_s = f / STORE_FPS + (planted.times_s[i] - planted.times_s[i - 1]) / 2
        low = max(low, click_s - latest_s)
        high = min(high, click_s - latest_s + 1 / STORE_FPS)
    return Agreement((low + high) / 2, (high - low) / 2)


def measure(files: dict[str, Planted], folder: Path) -> dict[str, Agreement]:
    """Write the files into `folder`, prepare them, and compare."""
    videos = folder / "videos"
    videos.mkdir(parents=True, exist_ok=True)
    names = {}
    for number, (name, planted) in enumerate(files.items()):
        path = videos / f"{number:02}{planted.suffix}"
        write(path, planted)
        names[path.name] = name
    prepare([videos], folder / "store", settings=PrepareSettings(detector="none"))
    found = {
        names[Path(row["path"]).name]: Agreement(0, 0, row["reason"])
        for row in read_rows(folder / "store" / "manifest.jsonl")
        if row["status"] != "ok"
    }
    store = ClipStore(folder / "store")
    by_name: dict[str, list[Clip]] = {}
    for clip in store.clips:
        by_name.setdefault(names[Path(clip.source).name], []).append(clip)
    for name, clips in by_name.items():
        if len(clips) > 1:
            found[name] = Agreement(0, 0, f"{len(clips)} clips")
            continue
        found[name] = agreement(files[name], store.frames(clips[0]), store.audio(clips[0]))
    return {name: found.get(name, Agreement(0, 0, "no row")) for name in files}


def table(found: dict[str, Agreement]) -> str:
    """The table as Markdown."""
    rows = ["| file | click - flash, ms | resolution, ms | error, ms |", "|---|--:|--:|--:|"]
    for name, x in found.items():
        middle = f"{1000 * x.offset_s:+.1f} | {1000 * x.resolution_s:.1f}"
        found_ms = f"{x.lost} | -" if x.lost else middle
        rows.append(f"| {name} | {found_ms} | {1000 * x.error_s:.1f} |")
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="keeps files, store and table.md; a new folder")
    parser.add_argument("--only", default="", help="files whose name holds this")
    args = parser.parse_args()
    files = {name: planted for name, planted in FILES.items() if args.only in name}
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.out or Path(temporary)
        found = measure(files, folder)
        text = table(found)
        (folder / "table.md").write_text(text + "\n", encoding="utf-8")
    worst = max(x.error_s for x in found.values())
    bad = sum(x.error_s > LIMIT_S for x in found.values())
    print(text)
    print(f"{len(found)} files, worst {1000 * worst:.1f} ms, {bad} over {1000 * LIMIT_S:.0f} ms")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
