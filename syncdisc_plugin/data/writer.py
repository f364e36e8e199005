"""Writing a store: rows behind whole shards, one writer at a time, nothing half after a kill."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from syncdisc_plugin.atomic import replacing, write_text
from syncdisc_plugin.data.inputs import canonical, named
from syncdisc_plugin.data.lock import NAME as LOCK
from syncdisc_plugin.data.lock import Lock
from syncdisc_plugin.data.manifest import read_rows, shard_names, unfinished
from syncdisc_plugin.data.remote import INCOMING, check_local
from syncdisc_plugin.data.store import FORMAT, MANIFEST, META, read_spec, shard_path
from syncdisc_plugin.errors import StoreError
from syncdisc_plugin.spec import ClipSpec

# Where all rows are written anew in more than a moment, that is a tenth of the time at most.
QUICK_S, PAUSE = 0.05, 10


class StoreWriter:
    """Adds clips and refusals to a store, and keeps other writers out meanwhile.

    Use it in a `with`, or call `close`.
    """

    def __init__(self, root: Path, spec: ClipSpec) -> None:
        """Open a store, or begin one.

        Raises:
            StoreError: `root` is something else, holds clips of another spec, or another process
                is at work on it.
        """
        self.root, self.manifest = root, root / MANIFEST
        self._same: dict[str, str] = {}
        self._replacing: list[dict[str, Any]] = []
        self._due = 0.0  # when they are to be written
        _check_place(root, spec)  # before the lock: nothing of ours goes into a foreign folder
        root.mkdir(parents=True, exist_ok=True)
        self._lock = Lock(root)
        try:
            _check_place(root, spec)  # what another process made of it in between
            self._begin(spec)
        except BaseException:
            self._lock.release()
            raise

    def _begin(self, spec: ClipSpec) -> None:
        meta = self.root / META
        (self.root / "shards").mkdir(exist_ok=True)
        if not meta.exists():
            write_text(meta, json.dumps({"format": FORMAT, "spec": json.loads(spec.to_json())}))
        for temp in leftovers(self.root):
            temp.unlink(missing_ok=True)
        rows = list(read_rows(self.manifest))
        cut = unfinished(rows)
        self._rewrite([row for row in rows if row["key"] not in cut])

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write what waits, and let others write."""
        try:
            self._replace()
            if same := self._same:
                self._same = {}
                rows = self._rows
                self._rewrite(
                    [r | {"seen": same[r["key"]]} if r["key"] in same else r for r in rows]
                )
        finally:
            self._lock.release()

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All rows, a copy of the list."""
        self._replace()
        return list(self._rows)

    @property
    def done(self) -> set[str]:
        """Keys of the inputs that have their rows."""
        return {row["key"] for row in self.rows}

    def see(self, same: dict[str, str]) -> None:
        """Note for inputs, by key, the job that found them unchanged; written by `close`."""
        self._same |= same

    def rename(self, speakers: Mapping[str, str], languages: Mapping[str, str]) -> int:
        """Give clips the speaker and language of their video, by `canonical` place.

        What is "" changes nothing. How many clips had another.
        """
        if not speakers:
            return 0
        rows, changed = [], 0
        for row in self.rows:
            place = canonical(row["path"])
            told = {"speaker": speakers.get(place), "language": languages.get(place)}
            new = {name: value for name, value in told.items() if value and row.get(name) != value}
            if row["status"] == "ok" and new:
                row, changed = row | new, changed + 1
            rows.append(row)
        if changed:
            self._rewrite(rows)
        return changed

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Append all rows of one input, or of several; they replace older ones of the same inputs.

        A kill leaves the rows of an input all there, or the input to be done again.
        """
        counts = Counter(row["key"] for row in rows)
        rows = [{**row, "rows": counts[row["key"]]} for row in rows]
        new = _inputs(rows)
        if not new.isdisjoint(_inputs(self._replacing)):
            self._replace()
        if new.isdisjoint(self._inputs):
            with self.manifest.open("a", encoding="utf-8") as out:
                out.write("".join(json.dumps(row) + "\n" for row in rows))
                out.flush()
                os.fsync(out.fileno())
            self._rows += rows
            self._inputs |= new
            return
        # Replacing writes all rows anew: of a large store several inputs at once, and what a kill
        # costs is done again.
        self._replacing += rows
        if time.monotonic() >= self._due:
            self._replace()

    def _replace(self) -> None:
        """Put the rows that wait in the place of older ones, and delete the shards of those."""
        began = time.monotonic()
        rows, self._replacing = self._replacing, []
        if not rows:
            return
        new = _inputs(rows)
        kept: list[dict[str, Any]] = []
        replaced: list[dict[str, Any]] = []
        for row in self._rows:
            (kept if new.isdisjoint(_inputs([row])) else replaced).append(row)
        self._rewrite(kept + rows)  # at once: a kill between two steps would lose the old and new
        for shard in shard_names(replaced) - shard_names(self._rows):
            shard_path(self.root, shard).unlink(missing_ok=True)
        took = time.monotonic() - began
        self._due = time.monotonic() + PAUSE * took if took > QUICK_S else 0.0

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        # Whole, so that a half-written last line does not swallow the next row.
        write_text(self.manifest, "".join(json.dumps(row) + "\n" for row in rows))
        self._rows, self._inputs = rows, _inputs(rows)


def _inputs(rows: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """What rows are of: the paths, which stores of before have as they were typed, and the keys."""
    return {pair for row in rows for pair in (("path", named(row["path"])), ("key", row["key"]))}


def _check_place(root: Path, spec: ClipSpec) -> None:
    check_local("--out", root, "Make the store here; then syncdisc store copy puts it there.")
    if (root / META).exists():
        if read_spec(root) != spec:
            raise StoreError(
                f"--out {root}: holds clips of another spec (size, crop or mel). "
                "Give another folder, or the settings that it was made with."
            )
    elif root.exists():
        # What a store has that was killed before its first file was written.
        begun = {LOCK, "shards", *(temp.name for temp in leftovers(root))}
        if any(path.name not in begun for path in root.iterdir()):
            raise StoreError(f"--out {root}: not empty and not a clip store. Give a new folder.")


def leftovers(root: Path) -> list[Path]:
    """Temporary files of writers that were killed or are at work, fetched videos among them."""
    names = (f".{name}.*.tmp" for name in (META, MANIFEST))
    found = [path for name in names for path in root.glob(name)]
    # The second are those of safetensors, which writes beside our own temporary file.
    for name in (".*.safetensors.*.tmp", ".tmp??????", INCOMING):
        found += (root / "shards").glob(name)
    return sorted(found)


def write_shard(root: Path, key: str, tensors: dict[str, np.ndarray]) -> None:
    """Write one shard atomically. Raises OSError where it cannot be, of a full disk too."""
    with replacing(shard_path(root, key)) as temp:
        save_file(tensors, temp)
