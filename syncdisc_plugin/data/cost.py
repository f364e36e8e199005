"""What work cost: seconds by step, and the memory of the process that did it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

_T = TypeVar("_T")
_P = ParamSpec("_P")


@dataclass
class Cost:
    """A tally that steps are charged to; a step inside another is charged for itself only."""

    seconds: dict[str, float] = field(default_factory=dict)
    """Wall-clock seconds by step, in the order in which steps began."""
    peak_mb: float = 0.0
    """The most memory that one process had in use at once, in MB of 2**20 bytes."""
    _open: list[str] = field(default_factory=list, repr=False, compare=False)
    _since: float = field(default=0.0, repr=False, compare=False)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Charge what the block takes to `name`."""
        self._charge()
        self._open.append(name)
        self.seconds.setdefault(name, 0.0)
        try:
            yield
        finally:
            self._charge()
            self._open.pop()

    def each(self, name: str, items: Iterable[_T]) -> Iterator[_T]:
        """Give the items, charging what it takes to make them."""
        iterator = iter(items)
        while True:
            with self.step(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def timed(self, name: str, function: Callable[_P, _T]) -> Callable[_P, _T]:
        """Give the function, charging what its calls take."""

        @wraps(function)
        def call(*args: _P.args, **more: _P.kwargs) -> _T:
            with self.step(name):
                return function(*args, **more)

        return call

    def add(self, other: Cost) -> None:
        """Sum the seconds; the peak is that of the larger."""
        for name, seconds in other.seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        self.peak_mb = max(self.peak_mb, other.peak_mb)

    def _charge(self) -> None:
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


def peak_memory_mb() -> float:
    """The most memory that this process ever had in use; 0 where the system does not say."""
    try:
        # Not ru_maxrss on Linux: a process that was spawned inherits its parent's there.
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
