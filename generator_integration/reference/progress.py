"""Where a generator's training stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from syncdisc_plugin.errors import RunError
from syncdisc_plugin.train.state import STATE, read_state


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
        RunError: the file is damaged.
    """
    raw = read_state(run)
    try:
        return None if raw is None else Progress(**raw)
    except TypeError as error:
        raise RunError(
            f"{run / STATE}: damaged, or of another version ({error}). Start again in a new --out."
        ) from error
