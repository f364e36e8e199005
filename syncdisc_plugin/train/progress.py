"""Where a run of the trainer stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from syncdisc_plugin.train.gap import GapState
from syncdisc_plugin.train.state import read_state


@dataclass
class Progress:
    """Saved with the state."""

    stage: int = 1
    """1, 2, 3; 4 when all is done."""
    step: int = 0
    """Steps done in this stage."""
    steps: int = 0
    """Steps that this stage is to take; 0 until it is known how long one takes."""
    seconds: float = 0.0
    """Wall-clock seconds of training so far, all sittings together."""
    step_seconds: float = 0.0
    """Seconds per step, measured in this run."""
    frame_seconds: float = 0.0
    """Seconds per frame of a pass over clips: judging, measuring."""
    best: list[float] = field(default_factory=list)
    """Held-out scores, clip by clip, of this stage's best measurement."""
    kept: list[float] = field(default_factory=list)
    """The same of the weights that are in the stage's file, the last that were no worse."""
    measured_at: int = 0
    """Step of the last measurement."""
    since_best: int = 0
    """Measurements since then."""
    gap: GapState = field(default_factory=GapState)
    """Stage 2's controller."""


def read_progress(run: Path) -> Progress | None:
    """Progress of the saved state; None when nothing has been saved yet.

    Raises:
        RunError: the file is damaged, or of another version.
    """
    return read_state(run, lambda raw: Progress(**{**raw, "gap": GapState(**raw["gap"])}))
