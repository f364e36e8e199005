"""`syncdisc prepare` as a process of its own, with a limit of time and, if wished, of space."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from plan import Impossible

NOBODY = 65534  # the user of that name, nearly everywhere


@dataclass(frozen=True)
class Outcome:
    """How the command ended."""

    status: int | None
    """Its exit status; None where it hung and was killed."""
    said: str
    """What it wrote to stderr."""
    seconds: float

    def faults(self) -> list[str]:
        """What a command that met bad input only must not do."""
        if self.status is None:
            return [f"the command hung: killed after {self.seconds:.0f} s"]
        found = [f"the command ended with {self.status}: {self._end}"] if self.status else []
        return found + (["a traceback on stderr"] if "Traceback" in self.said else [])

    def stop_faults(self, words: Sequence[str]) -> list[str]:
        """What a command must not do that met a full disk: it ends, with one line that says so."""
        if self.status is None:
            return [f"the command hung: killed after {self.seconds:.0f} s"]
        found = [] if self.status else ["the command ended as if all were well"]
        if "Traceback" in self.said:
            found.append(f"a traceback on stderr: {self._end}")
        if not any(word in self.said for word in words):
            found.append(f"stderr says nothing of the disk: {self._end}")
        return found

    @property
    def _end(self) -> str:
        return " / ".join(self.said.strip().splitlines()[-3:])[-300:]


def run_prepare(
    paths: Sequence[Path],
    out: Path,
    options: Sequence[str],
    limit_s: float,
    before: Callable[[], None] | None = None,
) -> Outcome:
    """Prepare `paths` into `out`. `before` runs in the process before the command does."""
    argv = [sys.executable, "-m", "syncdisc_plugin", "prepare", *map(str, paths)]
    began = time.monotonic()
    with subprocess.Popen(
        [*argv, "--out", str(out), *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,  # so that its workers can be killed with it
        preexec_fn=before,
    ) as process:
        try:
            said = process.communicate(timeout=limit_s)[1]
            status: int | None = process.returncode
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            said, status = process.communicate()[1], None
    return Outcome(status, said.decode(errors="replace"), time.monotonic() - began)


def unprivileged() -> Callable[[], None] | type[Impossible] | None:
    """What makes a process one that may not read everything; None where it is so already."""
    if os.geteuid():
        return None

    def become_nobody() -> None:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)

    try:
        call = [sys.executable, "-c", "import syncdisc_plugin"]
        subprocess.run(call, preexec_fn=become_nobody, check=True, capture_output=True)
    except (OSError, subprocess.SubprocessError):
        return Impossible
    return become_nobody
