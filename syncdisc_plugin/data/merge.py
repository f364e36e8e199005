"""Several stores -> one: what the jobs of an array made becomes what one `prepare` would make."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tqdm import tqdm

from syncdisc_plugin.atomic import replacing, write_text
from syncdisc_plugin.data.inputs import named
from syncdisc_plugin.data.lock import Lock
from syncdisc_plugin.data.manifest import by_key, read_rows, row_clip
from syncdisc_plugin.data.split import merged_split
from syncdisc_plugin.data.store import JUDGED, MANIFEST, read_judged, read_spec, shard_path
from syncdisc_plugin.data.verify import finished_rows, shard_faults
from syncdisc_plugin.data.writer import StoreWriter
from syncdisc_plugin.errors import StoreError
from syncdisc_plugin.spec import ClipSpec

BATCH = 256  # inputs whose rows are written together, behind their shards

_Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class MergeResult:
    """What `merge` did."""

    inputs: int
    """Inputs that were added, refused ones among them."""
    clips: int
    """Clips that were added."""
    known: int
    """Inputs that were passed over: they were there, from an earlier merge or another store."""
    linked: int
    """Shards that are the same file as in their store, under another name."""
    copied: int
    """Shards that had to be copied: another disk, or one without hard links."""


def merge(stores: Sequence[Path], out: Path) -> MergeResult:
    """Put the clips and refusals of `stores` into `out`; what is there already is passed over.

    What `store judge` found of the clips goes along, and who was held out, but for speakers whom
    another of the stores trains on. A kill at any time leaves a store that is whole as far as it
    goes; the same call goes on. The stores stay as they are, and may be deleted afterwards. An
    input with the same key (same file, same settings) in two stores is taken once; a path that was
    refused in one and prepared in another is taken as it was prepared.

    Args:
        stores: each of the same spec, with no `prepare` at work or left unfinished.
        out: a new folder, or a store of that spec to add to.

    Raises:
        StoreError: one is no store, of another spec, unfinished, damaged or in use, or the same
            path stands for different content in two of them. Nothing is written then, unless it
            is a damaged shard, which is found when its turn comes.
    """
    stores = list({os.path.realpath(store): Path(store) for store in stores}.values())
    if not stores:
        raise StoreError("merge: no store was given. Name those that `prepare` made.")
    if os.path.realpath(out) in {os.path.realpath(store) for store in stores}:
        raise StoreError(
            f"--out {out}: is one of the stores. Leave it out of them, or name a new one."
        )
    spec = _common_spec(stores)
    with ExitStack() as held:
        for store in stores:
            held.callback(Lock(store, shared=True).release)
        rows = {store: finished_rows(store) for store in stores}
        best = _best({**rows, out: list(read_rows(out / MANIFEST))})
        _check_paths(best)
        writer = held.enter_context(StoreWriter(out, spec))
        passed = sum(len(rows[store]) - len(best[store]) for store in stores)
        return _merge({store: best[store] for store in stores}, writer, spec, passed)


def _common_spec(stores: Sequence[Path]) -> ClipSpec:
    first = read_spec(stores[0])
    for store in stores[1:]:
        other = read_spec(store)
        both = [(f.name, getattr(other, f.name), getattr(first, f.name)) for f in fields(ClipSpec)]
        odd = ", ".join(f"{name} {its} and {here}" for name, its, here in both if its != here)
        if odd:
            raise StoreError(
                f"merge: {store} and {stores[0]} are of different specs ({odd}). "
                "Prepare one of them anew with the settings of the other."
            )
    return first


def _check_paths(rows: dict[Path, _Rows]) -> None:
    """One path, one content: `prepare` would keep the newer one, and here nobody knows which."""
    seen: dict[str, tuple[str, Path]] = {}
    odd = []
    for store, its_rows in rows.items():
        for row in its_rows:
            key, where = seen.setdefault(named(row["path"]), (row["key"], store))
            if key != row["key"]:
                odd.append((row["path"], where, store))
    if odd:
        path, where, store = odd[0]
        raise StoreError(
            f"merge: {path} is in {where} and, changed or with other settings, in {store} "
            f"({len({path for path, _, _ in odd})} such inputs). Leave one of the two out, or "
            "prepare these inputs again into both; if they are different files, give `prepare` "
            "their full paths; an older merge is best made anew in a new folder."
        )


def _best(rows: dict[Path, _Rows]) -> dict[Path, _Rows]:
    """Without refusals of what another store has: a file's key is not that of its crash."""
    good = {named(row["path"]) for its_rows in rows.values() for row in its_rows if _is_good(row)}
    return {
        store: [row for row in its_rows if _is_good(row) or named(row["path"]) not in good]
        for store, its_rows in rows.items()
    }


def _is_good(row: dict[str, Any]) -> bool:
    return bool(row["status"] == "ok")


def _merge(rows: dict[Path, _Rows], writer: StoreWriter, spec: ClipSpec, known: int) -> MergeResult:
    # Key -> whether it was refused: one that was refused for a crash may be good in another store.
    there = {row["key"]: not _is_good(row) for row in writer.rows}
    inputs: dict[str, tuple[Path, _Rows]] = {}
    for store, its_rows in rows.items():
        for key, of_input in by_key(its_rows).items():
            refused = not _is_good(of_input[0])
            if key in there and (refused or not there[key]):
                known += 1
                continue
            known += key in inputs
            there[key], inputs[key] = refused, (store, of_input)
    waiting: _Rows = []
    linked = copied = clips = 0
    bar = tqdm(inputs.values(), desc="merge", unit="input", disable=None)
    for number, (store, of_input) in enumerate(bar, 1):
        good = [row_clip(row) for row in of_input if _is_good(row)]
        for shard in sorted({clip.shard for clip in good}):
            faults = shard_faults(store, shard, [c for c in good if c.shard == shard], spec)
            if faults:
                raise StoreError(
                    f"{store}: {faults[0]}. See `syncdisc store verify {store}`; what was merged "
                    "until here is whole, and the same command goes on."
                )
            if _place(shard_path(store, shard), shard_path(writer.root, shard)):
                linked += 1
            else:
                copied += 1
        clips += len(good)
        waiting += of_input
        if number % BATCH == 0 or number == len(inputs):
            writer.add(waiting)
            waiting = []
    _add_judged([*rows], writer)
    speakers = {
        store: {row_clip(row).speaker for row in its_rows if _is_good(row)}
        for store, its_rows in rows.items()
    }
    merged_split(speakers, writer.root)
    return MergeResult(len(inputs), clips, known, linked, copied)


def _add_judged(stores: Sequence[Path], writer: StoreWriter) -> None:
    """Put what was found of the clips into one file; of what was found twice the first is kept."""
    judged: dict[str, dict[str, Any]] = {}
    for store in (writer.root, *stores):
        judged = read_judged(store) | judged
    ids = [row["id"] for row in writer.rows if _is_good(row)]
    text = "".join(json.dumps(judged[i]) + "\n" for i in ids if i in judged)
    path = writer.root / JUDGED
    if text and not (path.exists() and path.read_text(encoding="utf-8") == text):
        write_text(path, text)


def _place(source: Path, target: Path) -> bool:
    """Put a shard under its new name, whole or not at all. True: without copying it."""
    temp = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        os.link(os.path.realpath(source), temp)
        os.replace(temp, target)
        return True
    except OSError:
        with replacing(target) as copy:
            shutil.copyfile(source, copy)
        return False
    finally:
        temp.unlink(missing_ok=True)
