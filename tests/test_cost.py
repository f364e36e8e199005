"""The tally: steps inside steps are charged once, and sums are what they are of."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator

import pytest

from syncdisc_plugin.data.cost import Cost, peak_memory_mb


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be moved by hand."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_a_step_inside_is_taken_out_of_the_one_around_it(clock: list[float]) -> None:
    cost = Cost()

    def find(seconds: float) -> float:
        clock[0] += seconds
        return seconds

    def frames() -> Iterator[int]:
        for i in range(3):
            clock[0] += 1.0
            yield i

    def tracks() -> Iterator[int]:
        for frame in cost.each("decode", frames()):
            assert cost.timed("detect", find)(0.25) == 0.25
            clock[0] += 10.0
            yield frame

    for _ in cost.each("crop", tracks()):
        clock[0] += 100.0  # the reader's own time is nobody's
        with cost.step("mel"):
            clock[0] += 5.0
    assert cost.seconds == {"crop": 30.0, "decode": 3.0, "detect": 0.75, "mel": 15.0}


def test_a_step_that_fails_is_charged_too(clock: list[float]) -> None:
    cost = Cost()
    with cost.step("a"):
        with pytest.raises(ValueError), cost.step("b"):
            clock[0] += 2.0
            raise ValueError
        clock[0] += 1.0
    assert cost.seconds == {"a": 1.0, "b": 2.0}


def test_costs_add_up_and_travel() -> None:
    total = Cost({"decode": 1.0}, peak_mb=200.0)
    total.add(pickle.loads(pickle.dumps(Cost({"decode": 2.0, "mel": 0.5}, peak_mb=100.0))))
    assert total == Cost({"decode": 3.0, "mel": 0.5}, peak_mb=200.0)


def test_the_peak_is_this_process_own() -> None:
    before = peak_memory_mb()
    block = bytearray(64 * 2**20)
    block[::4096] = b"x" * len(block[::4096])
    assert 10 < before < 100_000 and before <= peak_memory_mb() < before + 200
