"""Files that do not hold still: they grow, are replaced, cut, touched or deleted while read."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import TracebackType

from plan import EITHER, REFUSED, Originals, Plan

KIND = "changing"
TICK_S = 0.005


def grow(path: Path, tick: int) -> None:
    with path.open("ab") as file:
        file.write(b"more" * 16)


def replace(path: Path, tick: int) -> None:
    """By a whole file, at once, as a careful program does it."""
    fresh = path.with_name(f".fresh {path.name}")
    data = path.read_bytes()
    fresh.write_bytes(data[:-1] if tick % 2 else data + b"\0")
    os.replace(fresh, path)


def cut(path: Path, tick: int) -> None:
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.truncate(size * 99 // 100 if size > 1000 else 100_000)


def touch(path: Path, tick: int) -> None:
    os.utime(path)


def delete(path: Path, tick: int) -> None:
    path.unlink(missing_ok=True)


HOW: dict[str, tuple[Callable[[Path, int], None], str]] = {
    "grows": (grow, REFUSED),
    "is replaced": (replace, REFUSED),
    "is cut": (cut, REFUSED),
    "is touched": (touch, REFUSED),
    "is deleted": (delete, EITHER),
}


def changing(originals: Originals) -> Iterator[Plan]:
    """Plans of this file's kind: good files, until `Restless` is at work."""
    for source in (originals.real[0], originals.shot[0]):
        for name, (_, expects) in HOW.items():
            copy = partial(shutil.copyfile, source)
            yield Plan(KIND, f"{name}{source.suffix}", expects, lambda path, c=copy: c(path))


class Restless:
    """Keeps changing the files of this kind below `root` while its block runs.

    Deletes from the moment that `store` is begun: the file was seen and is gone.
    """

    def __init__(self, root: Path, store: Path) -> None:
        self.files = [p for p in sorted((root / KIND).glob("*")) if p.stem in HOW]
        self.store = store
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        tick = 0
        while not self._stop.wait(TICK_S):
            tick += 1
            has_begun = (self.store / "manifest.jsonl").exists()
            for path in self.files:
                change, _ = HOW[path.stem]
                if change is not delete or has_begun:
                    change(path, tick)
