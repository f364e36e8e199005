"""What became of each input, and whether that is as it should be."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plan import EITHER, NO_INPUT, OK, Plan

from syncdisc_plugin.data.manifest import read_rows
from syncdisc_plugin.data.store import shard_path
from syncdisc_plugin.data.verify import verify

# A row that only repeats an exception: nobody worded what is wrong.
UNWORDED = re.compile(r"^\w+: .*\(\w+\.py:\d+\)$", re.DOTALL)
CRASHED = "the decoder crashed"


@dataclass
class Line:
    """One kind's line of the table."""

    kind: str
    inputs: int = 0
    ok: int = 0
    refused: int = 0
    crashed: int = 0
    """Of the refused, those that took a worker down with them."""
    faults: list[str] = field(default_factory=list)


def rows_by_file(store: Path) -> dict[str, list[dict[str, Any]]]:
    """Rows of a store by where their files really lie."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in read_rows(store / "manifest.jsonl"):
        found.setdefault(os.path.realpath(row["path"]), []).append(row)
    return found


def judge(plans: Sequence[tuple[Plan, Path]], store: Path) -> list[Line]:
    """One line per kind, in the order of the plans."""
    rows, lines = rows_by_file(store), dict[str, Line]()
    for plan, path in plans:
        line = lines.setdefault(plan.kind, Line(plan.kind))
        its = rows.get(os.path.realpath(path), [])
        if plan.expects == NO_INPUT:
            continue
        line.inputs += 1
        states = {row["status"] for row in its}
        line.ok += states == {"ok"}
        line.refused += states == {"refused"}
        line.crashed += any(CRASHED in row.get("reason", "") for row in its)
        line.faults += [f"{plan.name!r}: {text}" for text in _row_faults(plan, its, states)]
    return list(lines.values())


def _row_faults(plan: Plan, rows: list[dict[str, Any]], states: set[str]) -> list[str]:
    if not rows:
        return ["no row"]
    if len(states) > 1:
        return ["a row that it is ok, and one that it is refused"]
    (state,) = states
    reasons = [row.get("reason", "") for row in rows if state != OK]
    found = [f"its row has no reason that a reader could use: {text!r}" for text in reasons
             if not text.strip() or UNWORDED.match(text)]  # fmt: skip
    if plan.expects not in (EITHER, state):
        said = reasons[0] if reasons else rows[0].get("note", "")
        found.append(f"expected {plan.expects}, got {state} ({said})")
    return found


def differences(paths: Sequence[Path], store: Path, other: Path) -> list[str]:
    """Where the rows and shards of `paths` in two stores are not the same, byte for byte."""
    ours, theirs, found = rows_by_file(store), rows_by_file(other), []
    for path in paths:
        real = os.path.realpath(path)
        a, b = (sorted(map(repr, rows.get(real, []))) for rows in (ours, theirs))
        if a != b or not a:
            found.append(f"{path.name!r}: its rows differ: {a} and {b}")
            continue
        if any(row["status"] != OK for row in ours[real]):
            found.append(f"{path.name!r}: a good file was refused: {ours[real][0]['reason']}")
            continue
        for shard in sorted({row["id"].rsplit("/", 1)[0] for row in ours[real]}):
            if shard_path(store, shard).read_bytes() != shard_path(other, shard).read_bytes():
                found.append(f"{path.name!r}: shard {shard} differs")
    return found


def unsound(store: Path) -> list[str]:
    """What `syncdisc store verify` finds: shards without rows, rows without shards, leftovers."""
    return [finding.text for finding in verify(store).findings]


def table(lines: Sequence[Line], good: Line) -> str:
    """The table as Markdown."""
    rows = ["| kind | inputs | ok | refused | worker died | wrong |", "|---|--:|--:|--:|--:|--:|"]
    rows += [
        f"| {x.kind} | {x.inputs} | {x.ok} | {x.refused} | {x.crashed} | {len(x.faults)} |"
        for x in (*lines, good)
    ]
    total = [sum(getattr(x, name) for x in lines) for name in ("inputs", "ok", "refused")]
    rows.append("| all but the good | {} | {} | {} | {} | {} |".format(
        *total, sum(x.crashed for x in lines), sum(len(x.faults) for x in lines)))  # fmt: skip
    return "\n".join(rows)
