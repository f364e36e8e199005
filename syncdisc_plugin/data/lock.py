"""One writer at a time in a folder: a lock that goes with the process that held it.

The lock is the kernel's (flock), on the file `lock` inside the folder. That file stays, and is no
obstacle: what counts is whether a living process holds it.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import time
import warnings
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

from syncdisc_plugin.errors import RunError, StoreError

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

NAME = "lock"
_HELD = (errno.EAGAIN, errno.EACCES)  # the second where a network file system says it so


class Lock:
    """A folder's lock, held until `release`, garbage collection, or the end of the process."""

    def __init__(self, root: Path, *, shared: bool = False, run: bool = False) -> None:
        """Take the lock at once or not at all.

        Args:
            root: a folder that exists: a store's, or a run's.
            shared: for readers that need the folder to hold still; they keep writers out, and not
                each other. They write nothing: where no writer left a lock file there is no lock.
            run: it is a run's, not a store's.

        Raises:
            StoreError, or RunError for a run: another process, or another object of this one,
                holds it.

        Where the file system has no locks there is a warning, and nothing is held.
        """
        self.path, self._is_run = root / NAME, run
        if shared and not self.path.exists():
            return
        try:
            flags = os.O_RDONLY if shared else os.O_RDWR | os.O_CREAT
            file = os.open(self.path, flags, 0o644)
        except PermissionError:  # another user's file in a folder that both may write to
            file = os.open(self.path, os.O_RDONLY)
        # Closing lets go, also when nobody asks for it; a kill closes as well.
        self._close = weakref.finalize(self, os.close, file)
        try:
            self._take(root, file, shared)
        except BaseException:
            self.release()
            raise

    def _take(self, root: Path, file: int, shared: bool) -> None:
        if fcntl is None:
            self._warn(root, "this system has no flock")
            return
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD:
                what = "run" if self._is_run else "store"
                words = (
                    f"{root}: expected no other process at work on this {what}, but there is one "
                    f"({_holder(self.path)}). Wait for it or stop it"
                )
                if self._is_run:
                    raise RunError(f"{words}, or give another --out.") from None
                raise StoreError(
                    f"{words}; jobs that run side by side (--shard) each need a store of their "
                    "own, merged afterwards."
                ) from None
            self._warn(root, f"the file system has no locks ({error.strerror})")
            return
        if not shared:
            about = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}
            with suppress(OSError):  # only for the message
                os.ftruncate(file, 0)
                os.pwrite(file, json.dumps(about).encode(), 0)

    def _warn(self, root: Path, why: str) -> None:
        self.release()
        warnings.warn(
            f"{root}: cannot be locked, {why}. Two commands that write into it at once would "
            "spoil it: see to it that there is one.",
            stacklevel=4,
        )

    def release(self) -> None:
        """Let go; a second time does nothing."""
        if hasattr(self, "_close"):
            self._close()


def _holder(path: Path) -> str:
    """Who wrote last, as it said itself: nearly always who holds the lock."""
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(about["since"]))
        return f"the last writer was process {about['pid']} on {about['host']}, since {since}"
    except (OSError, ValueError, KeyError, TypeError):
        return "it has not said which"
