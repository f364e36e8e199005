"""A training whose steps have come to nothing is ended, and its last good state kept."""

from __future__ import annotations

from pathlib import Path

from syncdisc_plugin.errors import RunError

MOST_LOST = 50
"""Steps in a row without a finite gradient. One batch may overflow, so many mean that the net's own
numbers have."""


class Divergence:
    """Counts steps that were not taken, their loss or gradient being no number.

    Args:
        run: the run's folder, for the message.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self.lost = 0
        """Such steps in a row until now; while there are any, the state is not worth saving."""

    def note(self, is_finite: bool, step: int) -> None:
        """A step was taken, or was not.

        Raises:
            RunError: MOST_LOST in a row were not.
        """
        self.lost = 0 if is_finite else self.lost + 1
        if self.lost >= MOST_LOST:
            raise RunError(
                f"{self._run}: since step {step - self.lost + 1} no loss or gradient was a finite "
                "number, so the net does not learn any more. The state of before is kept. Begin "
                "another run with a lower learning rate, or with --precision fp32."
            )
