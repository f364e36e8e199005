"""Sound by timestamp, in memory or on disk: the same samples, and little memory for hours."""

from __future__ import annotations

import errno
import os
import tracemalloc
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest

from syncdisc_plugin.errors import RunError
from syncdisc_plugin.media import sound as module
from syncdisc_plugin.media.sound import Sound

RATE, BLOCK = 16000, 1600


def frame(samples: np.ndarray, time_s: float) -> av.AudioFrame:
    out = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), "fltp", "mono")
    out.sample_rate, out.time_base, out.pts = RATE, Fraction(1, RATE), round(time_s * RATE)
    return out


def filled(noise: np.ndarray, jumps: dict[int, float] | None = None) -> Sound:
    """Noise in frames of 0.1 s; from the frame `jumps` names on, times are later by so much."""
    sound, late_s = Sound(RATE), 0.0
    for i in range(len(noise) // BLOCK):
        late_s += (jumps or {}).get(i, 0.0)
        sound.add(frame(noise[i * BLOCK : (i + 1) * BLOCK], i * BLOCK / RATE + late_s))
    return sound


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, 10 * RATE).astype(np.float32)


def test_on_disk_as_in_memory(noise: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    jumps = {20: 0.5, 50: -0.25}  # silence, then what was heard before is sent again
    memory = filled(noise, jumps)
    monkeypatch.setattr(module, "IN_MEMORY_BYTES", 1000)
    disk = filled(noise, jumps)
    for start_s in (0.0, 0.31, 5.0):
        for sound in (memory, disk):
            sound.begin(start_s)
        assert len(memory) == len(disk) == round((10.25 - start_s) * RATE)
        np.testing.assert_array_equal(memory.read(), disk.read())
        np.testing.assert_array_equal(np.concatenate([*disk.blocks()]), disk.read())
        for first, last in ((0, 10), (30_000, 45_000), (len(disk) - 5, len(disk) + 99)):
            np.testing.assert_array_equal(disk.read(first, last), disk.read()[first:last])


def test_gaps_are_silence_and_overlaps_keep_the_earlier(noise: np.ndarray) -> None:
    sound = filled(noise, {20: 0.5, 50: -0.25})
    sound.begin(0.0)
    heard = sound.read()
    np.testing.assert_array_equal(heard[: 2 * RATE], noise[: 2 * RATE])
    assert not heard[2 * RATE : round(2.5 * RATE)].any()
    np.testing.assert_array_equal(heard[round(2.5 * RATE) : round(5.5 * RATE)], noise[32000:80000])
    np.testing.assert_array_equal(heard[round(5.5 * RATE) :], noise[round(5.25 * RATE) :])


def test_before_the_first_and_behind_the_last_sample(noise: np.ndarray) -> None:
    sound = filled(noise)
    sound.begin(10.5)
    assert len(sound) == 0 and sound.read(0, 50).shape == (0,)
    sound.begin(-0.5)
    assert len(sound) == round(10.5 * RATE) and not sound.read(0, 8000).any()


def test_hours_take_little_memory() -> None:
    """Two hours of 16 kHz are 460 MB."""
    block = np.zeros(10 * RATE, np.float32)
    tracemalloc.start()
    try:
        sound = Sound(RATE)
        for i in range(720):
            sound.add(frame(block, 10.0 * i))
        sound.begin(0.0)
        assert sum(len(b) for b in sound.blocks()) == 7200 * RATE
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 80e6


def test_a_full_disk_is_no_fault_of_the_video(
    noise: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def __init__(self, **_: Any) -> None: ...

        def write(self, _: bytes) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module.tempfile, "SpooledTemporaryFile", Full)
    with pytest.raises(RunError, match=r"no room for the sound.*TMPDIR"):
        filled(noise)
