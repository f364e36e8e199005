"""Stage 2's controller: measure the gap, ask for a little more, repeat until it is enough."""

from __future__ import annotations

from dataclasses import dataclass

from syncdisc_plugin.train.settings import GapSettings


@dataclass
class GapState:
    """Where the controller stands; saved with the run."""

    target: float = 0.0
    """The gap that is trained for."""
    best: float = -2.0
    """Widest gap measured so far."""
    mark: float = -2.0
    """The gap from which progress is counted."""
    stalled: int = 0
    """Measurements since `mark` rose."""
    raised: int = 0
    """How often the target was set anew."""
    verdict: str = ""
    """Empty while it goes on; else why it ended."""


def next_gap(state: GapState, gap: float, settings: GapSettings) -> GapState:
    """The controller's next state after a measurement of mean s+ minus mean s-."""
    best = max(gap, state.best)
    # Small rises add up, so that one which is slow but steady is no stall.
    is_progress = gap > state.mark + settings.progress
    mark, stalled = (gap, 0) if is_progress else (state.mark, state.stalled + 1)
    target, raised = state.target, state.raised
    if raised == 0 or gap >= target:
        target, raised = gap + settings.step, raised + 1
    verdict = ""
    if gap > settings.preset:
        verdict = f"reached: gap {gap:.3f} is above the preset {settings.preset:.3f}"
    elif stalled >= settings.patience:
        verdict = (
            f"stalled: gap {best:.3f} of target {target:.3f} after {stalled} measurements "
            f"without a rise of {settings.progress}; the last weights that are no worse on "
            "held-out clips are kept"
        )
    return GapState(target, best, mark, stalled, raised, verdict)
