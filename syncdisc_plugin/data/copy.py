"""A store to or from an object store: `syncdisc store copy`, where machines share no disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tqdm import tqdm

from syncdisc_plugin.atomic import replacing
from syncdisc_plugin.data import remote
from syncdisc_plugin.data.inputs import named
from syncdisc_plugin.data.lock import Lock
from syncdisc_plugin.data.manifest import by_key, read_rows, shard_names
from syncdisc_plugin.data.remote import is_url
from syncdisc_plugin.data.store import JUDGED, MANIFEST, META, SPLIT, read_spec, shard_path
from syncdisc_plugin.data.verify import finished_rows
from syncdisc_plugin.data.writer import StoreWriter
from syncdisc_plugin.errors import StoreError, is_machines_fault
from syncdisc_plugin.spec import ClipSpec

AT_ONCE = 8  # transfers; a shard is some MB, and each costs a round trip or two

_Rows = list[dict[str, Any]]
_Sizes = dict[str, int | None]  # bytes of the files below a place, by name


@dataclass(frozen=True)
class CopyResult:
    """What `copy` did."""

    clips: int
    """Clips that the target has now."""
    copied: int
    """Shards that were copied."""
    there: int
    """Shards that were passed over: there already, under that name and of that size."""


def copy(source: str | Path, target: str | Path) -> CopyResult:
    """Make `target` the store that `source` is; each is a folder, or a URL (a str) for fsspec.

    Shards go first and the manifest last: what a stopped copy leaves has no clip yet, or those
    that it had before, and the same call goes on. A target that is an older copy gets what is new
    and loses what was replaced.

    Raises:
        StoreError: the source is no store, unfinished or in use; the target is something else, of
            another spec, in use, or has inputs that the source lacks; or a transfer fails.
        RunError: a URL that nothing here can open.
        OSError: this machine's disk is full.
    """
    if str(source) == str(target):
        raise StoreError(f"copy: {target} is the source itself. Name another place.")
    have = _list(source)
    with _small_files(source, have) as head:
        try:
            spec, rows = read_spec(head), finished_rows(head)
        except StoreError as error:
            raise StoreError(str(error).replace(str(head), str(source))) from error
        if lost := sorted({_file(shard) for shard in shard_names(rows)} - {*have}):
            raise StoreError(
                f"{source}: {lost[0]} is missing, one of {len(lost)}. Prepare what it held again; "
                "`syncdisc store verify` tells more."
            )
        fill = _fill_url if is_url(target) else _fill_folder
        copied = fill(source, have, head, target, rows, spec)
    clips = sum(row["status"] == "ok" for row in rows)
    return CopyResult(clips, copied, len(shard_names(rows)) - copied)


def _fill_folder(
    source: str | Path,
    have: _Sizes,
    head: Path,
    target: str | Path,
    rows: _Rows,
    spec: ClipSpec,
) -> int:
    with StoreWriter(Path(target), spec) as writer:
        _check_inputs(target, writer.rows, rows)
        copied = _copy_shards(source, have, target, rows)
        _copy_small(head, have, target, (JUDGED, SPLIT))
        # What is there under the same key may be older: `prepare --speakers` names speakers anew.
        there, here = by_key(writer.rows), by_key(rows)
        if new := [row for row in rows if there.get(row["key"]) != here[row["key"]]]:
            writer.add(new)
    return copied


def _fill_url(
    source: str | Path,
    have: _Sizes,
    head: Path,
    target: str | Path,
    rows: _Rows,
    spec: ClipSpec,
) -> int:
    """As `_fill_folder`. Object stores have no locks: two copies to one place are on their own."""
    there = _list(target)
    if there and META not in there:
        raise StoreError(f"{target}: not empty and not a clip store. Name a new place.")
    before: _Rows = []
    if there:
        with _small_files(target, there) as its_head:
            if read_spec(its_head) != spec:
                raise StoreError(f"{target}: holds clips of another spec. Name another place.")
            before = list(read_rows(its_head / MANIFEST))
    _check_inputs(target, before, rows)
    _copy_small(head, have, target, (META,))
    copied = _copy_shards(source, have, target, rows)
    _copy_small(head, have, target, (JUDGED, SPLIT, MANIFEST))
    for shard in sorted(shard_names(before) - shard_names(rows)):
        with _explained(target):
            remote.remove(remote.join(str(target), _file(shard)))
    return copied


def _check_inputs(target: str | Path, there: _Rows, rows: _Rows) -> None:
    known = {named(row["path"]) for row in rows}
    if lost := {row["path"] for row in there if named(row["path"]) not in known}:
        raise StoreError(
            f"{target}: has {len(lost)} inputs that the source lacks, such as {min(lost)}. Name "
            "another place; of several stores on one machine `syncdisc store merge` makes one."
        )


def _copy_shards(source: str | Path, have: _Sizes, target: str | Path, rows: _Rows) -> int:
    """Copy those that are not there, in the same size; how many these were."""
    there = _list(target)
    files = [_file(shard) for shard in sorted(shard_names(rows))]
    todo = [file for file in files if file not in there or there[file] != have[file]]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        moves = [pool.submit(_copy_file, source, target, file) for file in todo]
        try:
            for move in tqdm(moves, desc="copy", unit="shard", disable=None):
                move.result()
        finally:
            pool.shutdown(cancel_futures=True)
    return len(todo)


def _copy_small(head: Path, have: _Sizes, target: str | Path, names: tuple[str, ...]) -> None:
    for name in names:
        if name in have:
            _copy_file(head, target, name)


def _copy_file(source: str | Path, target: str | Path, name: str) -> None:
    """Copy a file of one store to its place in another: whole, or (in a folder) not at all."""
    with _explained(f"{source}, {name}"), ExitStack() as held:
        if not is_url(target):
            local = held.enter_context(replacing(Path(target) / name))
        elif is_url(source):
            temp = held.enter_context(TemporaryDirectory(prefix="syncdisc-"))
            local = Path(temp) / "file"
        else:
            local = Path(source) / name
        if is_url(source):
            remote.fetch(remote.join(str(source), name), local)
        elif not is_url(target):
            shutil.copyfile(Path(source) / name, local)
        if is_url(target):
            remote.send(local, remote.join(str(target), name))


@contextmanager
def _small_files(place: str | Path, there: _Sizes) -> Iterator[Path]:
    """A folder with all of a store but its shards, which holds still: itself, or a copy."""
    if is_url(place):
        with TemporaryDirectory(prefix="syncdisc-") as temp:
            for name in (META, MANIFEST, JUDGED, SPLIT):
                if name in there:
                    _copy_file(place, temp, name)
            yield Path(temp)
        return
    lock = Lock(Path(place), shared=True)
    try:
        yield Path(place)
    finally:
        lock.release()


def _list(place: str | Path) -> _Sizes:
    if is_url(place):
        with _explained(place):
            return remote.sizes(str(place))
    files = (path for path in Path(place).rglob("*") if path.is_file())
    return {path.relative_to(place).as_posix(): path.stat().st_size for path in files}


@contextmanager
def _explained(what: str | Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if is_machines_fault(error):
            raise
        raise StoreError(
            f"{what}: cannot be copied or listed ({error.strerror or error}). Check the place and "
            "the credentials; the same command goes on."
        ) from error


def _file(shard: str) -> str:
    return shard_path(Path(), shard).as_posix()
