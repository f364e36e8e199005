"""bench/timebase: what it measures is what was planted, and the store's clocks agree."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from syncdisc_plugin.errors import MediaError
from syncdisc_plugin.media import decode, move_audio
from syncdisc_plugin.media.phase import frame_leads_s

BENCH = Path(__file__).parents[1] / "bench"
NAMES = ["edit list, picture cut .mp4", "late picture .ts", "variable rate .mkv"]


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        return importlib.import_module("timebase")


def store_of(bench: ModuleType, planted, late_s) -> tuple[np.ndarray, np.ndarray]:
    """Frames and audio as a perfect `prepare` makes them, the k-th click `late_s(k)` late."""
    times_s = np.array(planted.times_s)
    starts_s = times_s[planted.events]
    n_frames = int(bench.SECONDS * 25)
    nearest = np.abs(times_s[None] - np.arange(n_frames)[:, None] / 25).argmin(1)
    is_on = [(t >= starts_s) & (t < starts_s + bench.FLASH_S) for t in times_s[nearest]]
    frames = 255 * np.any(is_on, axis=1)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    audio = np.zeros(n_frames * 640)
    for k, start_s in enumerate(starts_s):
        near = np.arange(round(start_s * 16000) - 2000, round(start_s * 16000) + 2000)
        time_s = near / 16000 - start_s - late_s(k)
        is_in = (time_s >= 0) & (time_s < bench.CLICK_S)
        audio[near[is_in]] += bench.click(time_s[is_in])
    return frames, audio


@pytest.mark.parametrize("late_ms", [-35, -8, 0, 8, 25])
def test_an_offset_is_measured_finer_than_a_frame(bench: ModuleType, late_ms: int) -> None:
    planted = bench.FILES["29.97 fps"]
    found = bench.agreement(planted, *store_of(bench, planted, lambda k: late_ms / 1000))
    assert abs(1000 * found.offset_s - late_ms) <= 1000 * found.resolution_s + 0.2
    assert found.resolution_s < 0.005
    assert (found.error_s > bench.LIMIT_S) == (abs(late_ms) > 20)


def test_an_offset_that_varies_is_an_error_as_large_as_its_furthest(bench: ModuleType) -> None:
    planted = bench.FILES["29.97 fps"]
    found = bench.agreement(planted, *store_of(bench, planted, lambda k: 0.06 * (k % 2)))
    assert found.resolution_s < 0 and found.error_s > bench.LIMIT_S


def test_a_lost_event_is_an_error(bench: ModuleType) -> None:
    planted = bench.FILES["29.97 fps"]
    frames, audio = store_of(bench, planted, lambda k: 0.0)
    assert bench.agreement(planted, frames, 0 * audio).error_s == np.inf
    assert bench.agreement(planted, 0 * frames, audio).error_s == np.inf


@pytest.mark.parametrize("cut_s", [0.31, 0.285])
def test_a_trimmed_file_stays_together(bench: ModuleType, tmp_path: Path, cut_s: float) -> None:
    """Its picture is cut within a frame: FFmpeg shows it up to a frame early, and says nothing."""
    planted = bench.Planted(".mp4", tuple(bench.steady(25)), video_s=-cut_s, options=bench.AS_IS)
    bench.write(tmp_path / "a.mp4", planted)
    moved = {"a.mp4": 0.0, "b.mp4": 0.0, "c.mp4": 0.08}
    for name in ("b.mp4", "c.mp4"):
        move_audio(tmp_path / "a.mp4", tmp_path / name, moved[name])
    assert decode(tmp_path / "a.mp4").trimmed_s > 0.005
    with pytest.raises(MediaError, match=r"b\.mkv: would show what was cut off the beginning"):
        move_audio(tmp_path / "a.mp4", tmp_path / "b.mkv", 0.0)
    assert not (tmp_path / "b.mkv").exists()
    for name, seconds in moved.items():
        recording = decode(tmp_path / name)
        frames = np.stack(list(recording.frames()))
        # Sound that begins between two frames moves all of them: the leads say by how much.
        flashes = np.array(bench.flashes(frames))
        shown_s = flashes / 25 + frame_leads_s(recording)[flashes]
        late_s = np.array(bench.clicks_s(recording.audio)) - shown_s
        assert late_s.mean() == pytest.approx(seconds, abs=0.003), name


def test_picture_and_sound_agree_in_the_store(bench: ModuleType, tmp_path: Path) -> None:
    found = bench.measure({name: bench.FILES[name] for name in NAMES}, tmp_path)
    assert list(found) == NAMES
    for name, its in found.items():
        assert its.error_s < 0.006 and abs(its.resolution_s) < 0.006, f"{name}: {its}"
    assert NAMES[0] in bench.table(found)
