"""What a broken input is: where it lies, how it is made, and what must become of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

OK, REFUSED, EITHER, NO_INPUT = "ok", "refused", "either", "no input"


@dataclass(frozen=True)
class Plan:
    """One input, not made yet."""

    kind: str
    """Row of the table, and the folder."""
    name: str
    """File name; bytes that are no UTF-8 as surrogates."""
    expects: str
    """ok: clips; refused: a row with a reason; either; no input: nothing that is looked at."""
    make: Callable[[Path], object]
    """Writes the file at this path. Raises Impossible where this machine cannot."""


class Impossible(Exception):
    """This machine cannot make such an input; the text says why."""


@dataclass(frozen=True)
class Originals:
    """Good files that the bytes come from."""

    real: tuple[Path, ...]
    """Short videos, as they are."""
    shot: tuple[Path, ...]
    """One of each other container, made here."""

    @property
    def all(self) -> tuple[Path, ...]:
        return self.real + self.shot
