from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from syncdisc_plugin.train.gap import GapState, next_gap
from syncdisc_plugin.train.settings import GapSettings

SETTINGS = GapSettings(step=0.05, preset=0.8, patience=4, progress=0.005)


def lead(gaps: Iterable[float], settings: GapSettings = SETTINGS) -> list[GapState]:
    """States after each measurement, up to the verdict."""
    states = [GapState()]
    for gap in gaps:
        states.append(next_gap(states[-1], gap, settings))
        if states[-1].verdict:
            break
    return states[1:]


def test_first_target_is_a_step_above_what_was_measured() -> None:
    (state,) = lead([0.3])
    assert state.target == pytest.approx(0.35)
    assert (state.best, state.raised, state.stalled, state.verdict) == (0.3, 1, 0, "")


def test_target_stays_until_it_is_reached() -> None:
    states = lead([0.3, 0.32, 0.34, 0.36, 0.37])
    assert [s.target for s in states] == pytest.approx([0.35, 0.35, 0.35, 0.41, 0.41])
    assert [s.raised for s in states] == [1, 1, 1, 2, 2]


def test_target_never_falls() -> None:
    targets = [s.target for s in lead([0.3, 0.4, 0.1, 0.42, 0.2])]
    assert targets == pytest.approx([0.35, 0.45, 0.45, 0.45, 0.45])


def test_a_net_that_follows_reaches_the_preset_step_by_step() -> None:
    """The net always gets most of the way, or just beyond."""
    state, gap = GapState(), 0.1
    for _ in range(500):
        state = next_gap(state, gap, SETTINGS)
        if state.verdict:
            break
        assert 0 < state.target - gap <= SETTINGS.step + 1e-9  # never asks too much at once
        gap += 0.6 * (state.target - gap) + 0.008
    assert state.verdict.startswith("reached: gap 0.8")
    assert "0.800" in state.verdict
    assert state.raised >= (0.8 - 0.1) / 0.05 / 2


def test_a_gap_that_is_wide_enough_at_once_ends_at_once() -> None:
    (state,) = lead([0.81, 0.9])
    assert state.verdict.startswith("reached")
    assert lead([0.8])[-1].verdict == ""  # above the preset, not at it


def test_a_stall_is_said_with_its_numbers() -> None:
    states = lead([0.3, 0.41, 0.41, 0.40, 0.412, 0.41, 0.9])
    assert len(states) == 6
    assert [s.stalled for s in states] == [0, 0, 1, 2, 3, 4]
    verdict = states[-1].verdict
    assert verdict.startswith("stalled: gap 0.412 of target 0.460 after 4 measurements")
    assert "0.005" in verdict


def test_progress_starts_the_count_anew() -> None:
    states = lead([0.3, 0.3, 0.3, 0.3, 0.32, 0.3, 0.3, 0.3, 0.3])
    assert [s.stalled for s in states] == [0, 1, 2, 3, 0, 1, 2, 3, 4]


def test_small_rises_add_up() -> None:
    """A gap that rises slowly, but by more than is asked within the patience, goes on."""
    states = lead([0.3, 0.3025, 0.3075, 0.3115, 0.3155, 0.3185, 0.3185])
    assert [s.stalled for s in states] == [0, 1, 0, 1, 0, 1, 2]
    states = lead(0.3 + 0.001 * i for i in range(9))
    assert [s.stalled for s in states] == [0, 1, 2, 3, 4]
    assert states[-1].verdict.startswith("stalled: gap 0.304")


@pytest.mark.parametrize(
    "kind", ["flat", "falling", "creeping", "teasing", "random", "nan", "below -1", "preset 2"]
)
def test_never_endless(kind: str) -> None:
    rng = np.random.default_rng(0)
    settings = GapSettings(preset=2.0 if kind == "preset 2" else 0.8)

    def gap(i: int) -> float:
        """Measurement i; a gap lies in [-2, 2]."""
        return {
            "flat": 0.2,
            "falling": 0.5 - 0.01 * i,
            "creeping": 0.1 + 0.0001 * i,
            # The least progress that counts, as late as it may come.
            "teasing": -1.0 + 0.0051 * (i // settings.patience),
            "random": rng.uniform(-2, 0.79),
            "nan": float("nan"),
            "below -1": -2.0,
            "preset 2": min(2.0, 0.01 * i),
        }[kind]

    states = lead((gap(i) for i in range(3000)), settings)
    assert states[-1].verdict.startswith(("stalled", "reached"))
    limit = settings.patience * (2.8 / settings.progress + 2)
    assert len(states) < limit
    if kind != "teasing":
        assert states[-1].verdict.startswith("stalled")


def test_the_state_is_all_that_a_resume_needs() -> None:
    gaps = [0.2, 0.26, 0.25, 0.33, 0.34, 0.34]
    whole = lead(gaps)
    half = lead(gaps[:3])[-1]
    copy = GapState(**vars(half))
    for gap in gaps[3:]:
        copy = next_gap(copy, gap, SETTINGS)
    assert copy == whole[-1]
    assert half == lead(gaps[:3])[-1]  # a measurement makes a new state


def test_the_first_target_is_a_step_above_a_gap_below_zero_too() -> None:
    assert next_gap(GapState(), -0.2, SETTINGS).target == pytest.approx(-0.15)
