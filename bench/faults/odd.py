"""Whole files that are no usual talking face: sizes, rates, sounds, clocks, colours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import mutate
from film import PQ, Film, Sound, shoot
from plan import EITHER, OK, REFUSED, Plan

BASE = Film()
PCM, OPUS = Sound("pcm_s16le"), Sound("libopus", 48000)
HEVC = {"codec": "libx265", "options": (("preset", "ultrafast"), ("x265-params", "log-level=none"))}
VP9 = {"codec": "libvpx-vp9", "options": (("deadline", "realtime"), ("cpu-used", "8"))}
LOSSLESS = {"codec": "ffv1", "options": ()}
MJPEG = replace(BASE, codec="mjpeg", pix_fmt="yuvj420p", options=(), sounds=(PCM,))
AS_IS = (("avoid_negative_ts", "disabled"),)


def moved(seconds: float):
    return lambda time_s: time_s + seconds


def faster(factor: float):
    return lambda time_s: time_s * factor


def jump(at_s: float, by_s: float):
    return lambda time_s: time_s + by_s * (time_s >= at_s)


def film(kind: str, name: str, expects: str, form: str | None = None, **how) -> Plan:
    return Plan(kind, name, expects, partial(shoot, film=replace(BASE, **how), form=form))


def odd() -> Iterator[Plan]:
    """Plans of this file's kinds."""
    yield from _pictures()
    yield from _sounds()
    yield from _clocks()
    yield from _claims()


def _pictures() -> Iterator[Plan]:
    short = (Sound(seconds=0.04),)
    yield film("no frame", "none.mkv", REFUSED, n_frames=0)
    yield film("no frame", "nothing.mp4", REFUSED, n_frames=0, sounds=(Sound(seconds=0),))
    yield film("no frame", "nothing.mkv", REFUSED, n_frames=0, sounds=(Sound(seconds=0),))
    yield film("one frame", "one.mp4", REFUSED, n_frames=1, sounds=short)
    yield film("one frame", "one.mkv", REFUSED, n_frames=1)
    yield film("one frame", "one, long sound.mp4", REFUSED, n_frames=1)
    yield film("one frame", "two.mp4", REFUSED, n_frames=2, sounds=short)
    for width, height in ((1, 1), (64, 1), (2, 2), (3, 5), (4000, 2)):
        how = {"size": (width, height), "pix_fmt": "bgr0", **LOSSLESS}
        yield film(
            "size", f"{width}x{height}.mkv", OK if min(width, height) > 24 else EITHER, **how
        )
    yield film("size", "8K.mp4", OK, size=(7680, 4320), n_frames=27)
    yield film("size", "8K upright.mp4", OK, size=(4320, 7680), n_frames=27)
    large = replace(MJPEG, size=(9000, 4400), n_frames=2)
    yield Plan("size", "more than 8K.avi", REFUSED, partial(shoot, film=large))
    for fps, n_frames in ((1, 3), (5, 8), (12, 20), (240, 384), (1000, 1600)):
        sounds = (Sound(seconds=max(1.6, n_frames / fps)),)
        yield film("rate", f"{fps}.mp4", OK, fps=fps, n_frames=n_frames, sounds=sounds)
    for turn in (90, 180, 270, 45):
        yield film("rotated", f"{turn}.mp4", OK, turn=turn)
    tags = tuple(PQ.items())
    yield film("colour", "HDR.mp4", OK, pix_fmt="yuv420p10le", tags=tags, **HEVC)
    yield film("colour", "HDR.mkv", OK, pix_fmt="yuv420p10le", tags=tags, **HEVC)
    yield film("colour", "10 bit.mp4", OK, pix_fmt="yuv420p10le")
    yield film("colour", "444.mp4", OK, pix_fmt="yuv444p")
    yield film("colour", "grey.mkv", OK, pix_fmt="gray", **LOSSLESS)
    yield film("colour", "16 bit.mkv", OK, pix_fmt="gray16le", **LOSSLESS)
    yield film("colour", "alpha.webm", OK, pix_fmt="yuva420p", sounds=(OPUS,), **VP9)


def _sounds() -> Iterator[Plan]:
    for suffix in (".mp4", ".mkv", ".ts", ".avi"):
        picture = {"codec": "ffv1", "options": ()} if suffix == ".avi" else {}
        yield film("no sound", f"none{suffix}", REFUSED, sounds=(), **picture)
    for suffix in (".mp4", ".mkv", ".ts"):
        yield film("only sound", f"aac{suffix}", REFUSED, has_picture=False)
    mp3 = (Sound("libmp3lame", 44100, format="fltp"),)
    yield film("only sound", "mp3.mp4", REFUSED, "mp3", has_picture=False, sounds=mp3)
    yield film("streams", "three.mkv", OK, sounds=(Sound(),) * 3)
    yield film("streams", "three.mp4", OK, sounds=(Sound(), Sound("ac3", 48000, "stereo"), PCM))
    yield film("streams", "three.ts", OK, sounds=(Sound(),) * 3)
    for layout in ("5.1", "quad", "stereo"):
        yield film("layout", f"{layout}.mp4", OK, sounds=(Sound("aac", 48000, layout),))
    yield film("layout", "5.1 ac3.mkv", OK, sounds=(Sound("ac3", 48000, "5.1"),))
    for rate_hz in (8000, 11025, 96000):
        yield film("sound rate", f"{rate_hz}.mp4", OK, sounds=(Sound("aac", rate_hz),))
    for rate_hz in (4000, 192000):
        yield film("sound rate", f"{rate_hz}.mkv", OK, sounds=(Sound("pcm_s16le", rate_hz),))
    yield film("sound rate", "telephone.mov", OK, sounds=(Sound("pcm_mulaw", 8000),))
    yield film("silent", "silent.mp4", REFUSED, sounds=(Sound(level=0),))
    yield film("silent", "very quiet.mkv", REFUSED, sounds=(replace(PCM, level=1e-4),))
    yield film("silent", "a blink of sound.mp4", REFUSED, sounds=(Sound(seconds=0.1),))


def _clocks() -> Iterator[Plan]:
    for part in (0.98, 1.001, 1.02, 1.2):
        sounds = (replace(PCM, clock=faster(part)),)
        yield film("drifting", f"sound x {part}.mkv", OK, sounds=sounds)
        yield film("drifting", f"picture x {part}.mp4", OK, clock=faster(part))
    for suffix in (".mkv", ".mp4", ".ts"):
        form = {"clock": moved(-0.3), "container": AS_IS}
        yield film("negative times", f"picture{suffix}", OK, **form)
        sound = (Sound(clock=moved(-0.3)),)
        yield film("negative times", f"sound{suffix}", OK, sounds=sound, container=AS_IS)
        yield film("negative times", f"both{suffix}", OK, sounds=sound, **form)
    for name, by_s in (("a minute and a half", 90.0), ("a day", 86400.0)):
        yield film("times that jump", f"picture, {name}.mkv", EITHER, clock=jump(1.2, by_s))
        sound = (replace(PCM, clock=jump(1.2, by_s)),)
        yield film("times that jump", f"sound, {name}.mkv", EITHER, sounds=sound)
        both = {"clock": moved(by_s), "sounds": (replace(PCM, clock=moved(by_s)),)}
        yield film("times that jump", f"both begin at {name}.mkv", OK, **both)
        yield film("times that jump", f"sound begins at {name}.mkv", REFUSED, sounds=both["sounds"])
    holes = (replace(PCM, clock=lambda time_s: 1000 * time_s),)
    yield film("times that jump", "50 s between two blocks.mkv", EITHER, sounds=holes)


def _claims() -> Iterator[Plan]:
    """Headers that promise what is not there."""

    def claiming(kind: str, name: str, expects: str, source: Film, change, **how) -> Plan:
        def make(path: Path) -> None:
            shoot(path, source)
            path.write_bytes(change(path.read_bytes(), **how))

        return Plan(kind, name, expects, make)

    # Of those without a time nothing is shown: every second one leaves so little that its jumps may
    # pass for cuts.
    for every, expects in ((1, EITHER), (2, EITHER), (5, OK)):
        yield claiming("missing times", f"each {every}.ts", expects, BASE, mutate.without_pts,
                       every=every)  # fmt: skip
    yield film("missing times", "a raw stream.mp4", REFUSED, "h264", sounds=())
    b_frames = {"options": (("preset", "veryfast"), ("bf", "3"))}
    yield film("missing times", "B-frames.avi", EITHER, "matroska", **b_frames)
    for name, known in (("picture", b"V_MPEG4/ISO/AVC"), ("sound", b"A_AAC")):
        unknown = known[:2] + known[2:].replace(b"A", b"Q")
        yield claiming("claims", f"unknown {name}.mkv", REFUSED, BASE, mutate.rename,
                       old=known, new=unknown)  # fmt: skip
    for side in (16384, 30000, 65500):
        yield claiming("claims", f"{side} pixels wide.avi", REFUSED, MJPEG, mutate.picture_size,
                       width=side, height=min(side, 16000))  # fmt: skip
    for rate_hz in (0, 1, 7, 2**31 - 1, 2**32 - 1):
        yield claiming("claims", f"{rate_hz} Hz.avi", REFUSED, MJPEG, mutate.avi_sound_rate,
                       rate_hz=rate_hz)  # fmt: skip
