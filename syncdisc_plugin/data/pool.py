"""Jobs on processes of this machine: results as they come, whatever a job does to its process.

The interface of every engine (this one, and `ray_pool`): jobs in, a `Done` for each as it ends.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from syncdisc_plugin.data.cost import Cost
from syncdisc_plugin.data.manifest import refused_row
from syncdisc_plugin.errors import RunError

_REASON_BYTES = 2000


@dataclass(frozen=True)
class Job:
    """One input to prepare."""

    key: str
    """Changes with the file's place, size and time, and with the settings."""
    path: str
    """The video."""
    speaker: str
    """Who speaks in it."""
    store: str
    """The store that its shards go into."""
    language: str = ""
    """Which is spoken, where the table of speakers says it."""


@dataclass(frozen=True)
class Done:
    """What came of a job."""

    rows: list[dict[str, Any]]
    """Its manifest rows."""
    cost: Cost
    """What they cost."""
    same: dict[str, str] = field(default_factory=dict)
    """Where the store's rows of that video still hold: their key, and the job's."""


Work = Callable[[Job], Done]
Begin = Callable[[], Work]  # called once in each worker; must be picklable
Results = Generator[Done, None, None]

QUOTA = Path("/sys/fs/cgroup/cpu.max")  # a container's; of `docker --cpus 4`: "400000 100000"


def crashed(job: Job) -> Done:
    """What comes of a job that kills its process."""
    return Done([refused_row(job.key, job.path, "the decoder crashed on this file")], Cost())


def cores() -> int:
    """Cores that this process may use: a scheduler's or a container's share, where that is less."""
    mine = hasattr(os, "sched_getaffinity")
    n = len(os.sched_getaffinity(0)) if mine else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # no such file, or "max": no limit
        quota, period = QUOTA.read_text().split()
        n = min(n, max(1, round(int(quota) / int(period))))
    return n


def run_local(jobs: Sequence[Job], begin: Begin, workers: int = 0) -> Results:
    """Do the jobs in `workers` processes (0: one per core), in no fixed order.

    A job that kills its process is refused and the rest goes on; therefore even one worker is a
    process of its own. Twice as many jobs as workers are in flight, however many there are.

    Raises:
        RunError: the processes cannot start. No job is refused for that.
        Exception: what a job raises; the jobs behind it are not done.
    """
    if multiprocessing.current_process().daemon:
        raise RunError(
            "prepare: expected a process that may start workers, but this one is daemonic "
            "(a worker of multiprocessing.Pool or of a DataLoader). Call prepare from the main "
            "process."
        )
    workers = min(workers or cores(), len(jobs))
    waiting, suspects = list(reversed(jobs)), list[Job]()
    while waiting or suspects:
        alone = not waiting
        if alone:
            waiting = [suspects.pop()]
        pool = _Pool(begin, 1 if alone else workers)
        running: dict[Future[Done], Job] = {}
        try:
            while waiting or running:
                while waiting and len(running) < 2 * workers:
                    running[pool.submit(waiting[-1])] = waiting[-1]
                    waiting.pop()  # only now: submit itself raises when the pool is broken
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    done = future.result()
                    del running[future]
                    yield done
        except BrokenProcessPool:
            pool.check_start(workers)
            # One of those in flight took the process down: each is tried again by itself.
            if alone:
                (job,) = running.values()
                yield crashed(job)
            else:
                suspects += running.values()
        except (KeyboardInterrupt, GeneratorExit):
            pool.end()
            raise
        finally:
            pool.close()


class _Pool:
    """Processes, and how their start went."""

    def __init__(self, begin: Begin, workers: int) -> None:
        context = multiprocessing.get_context("spawn")
        # Without locks: a process may be killed while it writes.
        self._started = context.RawValue("b", 0)
        self._reason = context.RawArray("c", _REASON_BYTES)
        self._others = {*multiprocessing.active_children()}
        self._mine: set[Any] = set()
        most = 61 if sys.platform == "win32" else workers  # Windows waits for no more at once
        self._pool = ProcessPoolExecutor(
            min(workers, most),
            mp_context=context,
            initializer=_start,
            initargs=(begin, self._started, self._reason),
        )

    def submit(self, job: Job) -> Future[Done]:
        try:
            with _main_script_aside():  # processes start in here
                future = self._pool.submit(_do, job)
        except OSError as error:
            raise RunError(
                f"prepare: a worker process cannot be started ({error}). Free memory or processes, "
                "or take fewer: --workers 1."
            ) from error
        self._mine |= {*multiprocessing.active_children()} - self._others
        return future

    def check_start(self, workers: int) -> None:
        """Raise RunError where the pool broke because a process could not start."""
        reason = self._reason.value.decode(errors="replace")
        if self._started.value and not reason:
            return
        self.close()  # exit codes are known only then; the pool itself ends the rest by SIGTERM
        codes = {process.exitcode for process in self._mine} - {None, -signal.SIGTERM}
        ends = ", ".join(map(str, sorted(codes))) or "unknown"
        raise RunError(
            f"prepare: expected {workers} worker processes, but they could not start: "
            f"{reason or f'they ended at once, with exit status {ends}'}. No input was refused for "
            "it; the same command goes on. What the processes wrote stands above. Try one worker "
            "(--workers 1); a script of your own should call prepare under "
            "`if __name__ == '__main__':`, with settings that can be imported."
        )

    def end(self) -> None:
        """Stop what is at work: it may be at it for minutes, and what it writes is whole or not."""
        for process in self._mine:
            process.terminate()

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _main_script_aside() -> Iterator[None]:
    """Let processes start without importing the caller's script again.

    They need nothing of it. From stdin there is none to import, and one without
    `if __name__ == "__main__"` would prepare, or whatever else it does, once more in each of them.
    """
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


# --- in a worker

_work: Work


def _start(begin: Begin, started: Any, reason: Any) -> None:
    global _work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    end_with_parent()
    try:
        _work = begin()
    except Exception as error:
        reason.value = f"{type(error).__name__}: {error}".encode()[: _REASON_BYTES - 1]
        os._exit(1)
    started.value = 1


def end_with_parent() -> None:
    """For a worker: a parent that was killed cannot end it, and it would work or wait on."""
    threading.Thread(target=_end_behind_parent, daemon=True).start()


def _end_behind_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _do(job: Job) -> Done:
    return _work(job)
