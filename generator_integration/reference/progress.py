"""Where a generator's training stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from syncdisc_plugin.train.state import read_state


@dataclass
class Progress:
    """Saved with the state."""

    step: int = 0
    """Steps done."""
    seconds: float = 0.0
    """Wall-clock seconds of training so far, all sittings together."""
    weights: dict[str, dict[str, Any]] = field(default_factory=dict)
    """States of the losses' `SyncWeight`s, by name."""


def read_progress(run: Path) -> Progress | None:
    """Progress of the saved state; None when nothing has been saved yet.

    Raises:
        RunError: the file is damaged, or of another version.
    """
    return read_state(run, lambda raw: Progress(**raw))
