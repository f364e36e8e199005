"""Is a store whole: every row's shard there, with what the row says, and nothing that no row names.

Pictures are judged by their shape; a shard that is shorter than its header says does not open.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from tqdm import tqdm

from syncdisc_plugin.data.lock import Lock
from syncdisc_plugin.data.manifest import Clip, read_rows, row_clip, unfinished
from syncdisc_plugin.data.store import MANIFEST, read_spec, shard_path
from syncdisc_plugin.data.writer import leftovers
from syncdisc_plugin.errors import StoreError
from syncdisc_plugin.spec import ClipSpec
from syncdisc_plugin.timing import sample_of_frame

AGAIN = "Delete its rows from manifest.jsonl; the same `prepare` or `store merge` puts them back"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong."""

    kind: str
    """manifest, row, shard, or left (what a kill left: no reader takes it)."""
    text: str
    """What, where, and what to do."""


@dataclass(frozen=True)
class VerifyResult:
    """What `verify` found."""

    findings: list[Finding]
    """What is wrong, in the order of the manifest; empty where the store is whole."""
    inputs: int
    """Inputs that have rows."""
    clips: int
    """Clips looked at."""
    shards: int
    """Shards looked at."""
    removed: int
    """Files that were left by a kill and are deleted now."""


def verify(root: Path, *, clean: bool = False) -> VerifyResult:
    """Look at every row and every shard of the store at `root`. Writers have to wait meanwhile.

    Args:
        root: the store.
        clean: delete shards that no row names, and temporary files; not where the manifest itself
            is damaged, for its lost rows may be theirs.

    Raises:
        StoreError: no store, or another process is writing into it.
    """
    spec = read_spec(root)
    lock = Lock(root, shared=not clean)
    try:
        return _verify(root, spec, clean)
    finally:
        lock.release()


def _verify(root: Path, spec: ClipSpec, clean: bool) -> VerifyResult:
    found, rows, clips = _look_at_rows(root)
    damaged = bool(found)
    by_shard: dict[str, list[Clip]] = {}
    for clip in clips:
        by_shard.setdefault(clip.shard, []).append(clip)
    for shard, inside in tqdm(by_shard.items(), desc="verify", unit="shard", disable=None):
        for fault in shard_faults(root, shard, inside, spec):
            found.append(Finding("shard", f"{fault} ({inside[0].source}). {AGAIN}."))
    there = sorted((root / "shards").glob("[!.]*.safetensors"))
    left = [path for path in there if path.stem not in by_shard] + leftovers(root)
    inputs = len({row["key"] for row in rows})
    if clean and not damaged:
        for path in left:
            path.unlink(missing_ok=True)
        return VerifyResult(found, inputs, len(clips), len(by_shard), len(left))
    clean_it = f"syncdisc store verify {root} --clean removes it"
    todo = "Mend the manifest first" if damaged else clean_it
    for path in left:
        text = f"{path.relative_to(root)}: no row names it, as after a kill. {todo}."
        found.append(Finding("left", text))
    return VerifyResult(found, inputs, len(clips), len(by_shard), 0)


def finished_rows(root: Path) -> list[dict[str, Any]]:
    """All rows of a store on which no `prepare` is still to be ended.

    Raises:
        StoreError: the manifest is missing, damaged, or was cut short by a kill.
    """
    found, rows, _ = _look_at_rows(root)
    if found:
        raise StoreError(f"{root}: {found[0].text}")
    return rows


def _look_at_rows(root: Path) -> tuple[list[Finding], list[dict[str, Any]], list[Clip]]:
    """What is wrong with the manifest, its usable rows, and their clips."""
    path = root / MANIFEST
    try:
        if not path.exists():
            raise StoreError(f"{path.name}: missing. Run the same `prepare` again.")
        raw = list(read_rows(path))
    except StoreError as error:
        return [Finding("manifest", str(error))], [], []
    found, rows, clips = [], [], []
    for row in raw:
        try:
            row["key"], row["path"]
            if row["status"] == "ok":
                clips.append(row_clip(row))
            rows.append(row)
        except (KeyError, TypeError, ValueError) as error:
            what = f"{type(error).__name__}: {error}"
            text = f"{path.name}: {json.dumps(row)[:100]} is no row ({what}). Delete that line."
            found.append(Finding("row", text))
    cut = len(unfinished(rows)) or int(path.read_bytes()[-1:] not in (b"", b"\n"))
    if cut:
        text = f"{path.name}: a run was stopped while it wrote, {cut} input(s) lack rows."
        found.append(Finding("manifest", f"{text} Run the same `prepare` again: it adds them."))
    twice = [name for name, n in Counter(clip.id for clip in clips).items() if n > 1]
    found += [Finding("row", f"{path.name}: {name} is there twice. {AGAIN}.") for name in twice]
    return found, rows, clips


def shard_faults(root: Path, shard: str, clips: Sequence[Clip], spec: ClipSpec) -> list[str]:
    """What is wrong with a shard that should hold these clips and no other; empty when nothing."""
    path = shard_path(root, shard)
    name = path.relative_to(root)
    if not path.exists():
        return [f"{name}: missing, {len(clips)} clip(s) of it are lost"]
    faults = []
    try:
        with safe_open(path, framework="numpy") as file:
            there = set(file.keys())
            for clip in clips:
                for tensor, (kind, shape) in _expected(clip, spec).items():
                    key = f"{clip.track}.{tensor}"
                    if key not in there:
                        faults.append(f"{name}: no tensor {key}")
                        continue
                    there.remove(key)
                    part = file.get_slice(key)
                    got = part.get_dtype(), tuple(part.get_shape())
                    if got != (kind, shape):
                        want = f"{kind} {shape}"
                        faults.append(f"{name}: {key} is {got[0]} {got[1]}, expected {want}")
                    elif tensor == "mel" and not np.isfinite(file.get_tensor(key)).all():
                        faults.append(f"{name}: {key} is not finite")
            if there:
                faults.append(f"{name}: holds {', '.join(sorted(there)[:3])}, which no row names")
    except (OSError, SafetensorError) as error:
        return [f"{name}: cannot be opened ({error})"]
    return faults


def _expected(clip: Clip, spec: ClipSpec) -> dict[str, tuple[str, tuple[int, ...]]]:
    side = spec.stored_px
    return {
        "frames": ("U8", (clip.n_frames, side, side, 3)),
        "mel": ("F32", (clip.n_mels, spec.mel.n_mels)),
        "audio": ("I16", (sample_of_frame(clip.n_frames, spec),)),
    }
