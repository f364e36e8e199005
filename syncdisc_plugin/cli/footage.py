"""Commands that make and look at clip stores."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from syncdisc_plugin.cli.parsing import (
    VIDEOS,
    WEIGHTS,
    add_prepare,
    add_spec,
    new_parser,
    prepare_settings,
)
from syncdisc_plugin.data.remote import location
from syncdisc_plugin.errors import RunError

if TYPE_CHECKING:
    from jsonargparse import Namespace


def prepare(args: Sequence[str]) -> int:
    """`syncdisc prepare`."""
    parser = new_parser("prepare")
    parser.add_argument("paths", nargs="*", type=location, help=VIDEOS)
    parser.add_argument("--out", type=Path, required=True, help="the store: new, or to add to")
    parser.add_argument(
        "--shard",
        metavar="I/N",
        help="prepare the I-th of N parts of the inputs, counted from 1, as an array job does: "
        "1/8 to 8/8 are all of them. Each into a store of its own; then `syncdisc store merge`",
    )
    parser.add_argument(
        "--layout", help="write the clips as a host's training data too: wav2lip, wav2lip_288"
    )
    parser.add_argument("--layout_out", type=Path, help="where to (OUT-LAYOUT when left out)")
    parser.add_argument(
        "--layout_run", type=Path, help="a run, or a folder of `filter`: its verdicts are followed"
    )
    add_prepare(parser)
    add_spec(parser)
    parsed = parser.parse_args(args)
    if not parsed.paths and not parsed.layout:
        raise RunError("prepare: give videos, or --layout for a store that is there.")
    _check_layout(parsed.layout, parsed.layout_out, parsed.layout_run)  # not behind a night's work
    if parsed.paths:
        shard = _shard(parsed.shard)
        run_prepare(parsed.paths, parsed.out, parsed.spec, prepare_settings(parsed), shard)
    if parsed.layout:
        _write_layout(parsed.out, parsed.layout, parsed.layout_out, parsed.layout_run)
    return 0


def _shard(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise RunError(
            f"--shard {text}: expected I/N with I from 1 to N, such as 2/8, the second of eight. "
            "Where a scheduler counts its jobs from 0, add 1."
        )
    return int(match[1]), int(match[2])


def run_prepare(
    paths: Sequence[str | Path],
    out: Path,
    spec: Namespace,
    settings: Any,
    shard: tuple[int, int] | None = None,
) -> None:
    """Prepare, all or a shard of it, and say what came of it."""
    from syncdisc_plugin.data.prepare import prepare
    from syncdisc_plugin.data.store import ClipStore
    from syncdisc_plugin.spec import ClipSpec

    began = time.monotonic()
    result = prepare(paths, out, ClipSpec(**vars(spec)), settings, shard=shard or (1, 1))
    took = time.monotonic() - began
    for row in result.refused:
        print(f"  refused: {row['reason']}", file=sys.stderr)
    print(
        f"prepared {result.clips} clips, {result.seconds / 60:.1f} minutes, from {result.videos} "
        f"videos in {took:.0f} s ({result.seconds / max(took, 1e-9):.0f} x real time); "
        f"{len(result.refused)} refused -> {out}"
    )
    if result.finished:
        print(f"{result.finished} videos were finished before: nothing to do")
    if result.noted:
        print(
            f"{result.noted} videos were not read whole, or are odd otherwise: notes in "
            f"{out / 'manifest.jsonl'}"
        )
    if result.unnamed:
        print(
            f"--speakers: does not name {result.unnamed} of the videos; their folders are taken "
            "for their speakers",
            file=sys.stderr,
        )
    if result.renamed:
        print(
            f"{result.renamed} clips that were there got the speaker or language of --speakers. "
            "Where a split.json was made before, delete it if it is to go by these."
        )
    if result.differ:
        print(
            f"{result.differ} finished clips keep the speakers of an earlier call, whom the "
            "folders of this one would name otherwise. To name them anew: --speakers.",
            file=sys.stderr,
        )
    if result.same:
        print(f"{result.same} finished videos have another time and the same bytes: nothing to do")
    if steps := result.cost.seconds:
        where = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in steps.items())
        print(f"the workers' time: {where}; the largest had {result.cost.peak_mb:.0f} MB")
    if shard is None:  # one job of many may well be without a clip
        store = ClipStore(out)  # refuses a store without a clip
        how = " by folder, right below what was given (or --speakers)"
        if settings.speakers or result.differ:
            how = " by --speakers" if settings.speakers else ""
        print(_said_of_speakers({clip.speaker for clip in store.clips}, how))


def _said_of_speakers(speakers: set[str], how: str, most: int = 5) -> str:
    """Whoever's folders lie deeper sees here that they were taken for one speaker."""
    names = sorted(speakers)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"speakers{how}: {', '.join(names[:most])}{more}"


def _check_layout(layout: str | None, out: Path | None, run: Path | None) -> None:
    from syncdisc_plugin.data.filter import read_verdicts
    from syncdisc_plugin.data.layout import check_name

    if layout:
        check_name(layout)
        if run is not None:
            read_verdicts("--layout_run", run)
    elif out or run:
        raise RunError("--layout_out, --layout_run: expected --layout beside them, got none.")


def _write_layout(data: Path, layout: str, out: Path | None, run: Path | None) -> None:
    from syncdisc_plugin.data.filter import read_verdicts
    from syncdisc_plugin.data.layout import write_layout
    from syncdisc_plugin.data.store import ClipStore

    verdicts, lag = None, 0
    if run is not None:
        path, verdicts, lag = read_verdicts("--layout_run", run)
        print(f"{layout}: by the verdicts of {path}")
    out = out or Path(f"{os.path.abspath(data)}-{layout}")
    result = write_layout(ClipStore(data), out, layout, verdicts=verdicts, lag_frames=lag)
    for reason, n in Counter(row["reason"] for row in result.left_out).items():
        print(f"  left out: {n} x {reason}", file=sys.stderr)
    print(
        f"{layout}: {result.clips} clips, {result.seconds / 60:.1f} minutes ({result.train} train, "
        f"{result.val} val), {len(result.left_out)} left out -> {out}\n{result.note}\n{result.use}"
    )


def doctor(args: Sequence[str]) -> int:
    """`syncdisc doctor`."""
    parser = new_parser("doctor")
    parser.add_argument("--data", type=Path, required=True, help="a clip store")
    parser.add_argument(
        "--weights", default="base", help="who judges the sync: a shipped name, a checkpoint, none"
    )
    parser.add_argument("--device", default="auto", help="cuda, cpu, or auto")
    parser.add_argument("--json", type=Path, help="write findings and histograms to this file")
    parsed = parser.parse_args(args)
    from dataclasses import asdict

    from syncdisc_plugin.atomic import check_writable, write_text
    from syncdisc_plugin.data.store import ClipStore
    from syncdisc_plugin.train.doctor import examine

    check_writable("--json", parsed.json)
    judge = None if parsed.weights == "none" else parsed.weights
    found = examine(ClipStore(parsed.data), judge, device=parsed.device)
    for finding in found.findings:
        print(f"{'ok ' if finding.good else 'BAD'}  {finding.name:18} {finding.text}")
    for name, counts in found.histograms.items():
        print(f"\n{name}")
        most = max(counts.values(), default=1)
        for value, n in counts.items():
            print(f"  {value:>12} {'#' * max(1, round(40 * n / most))} {n}")
    if parsed.json:
        write_text(parsed.json, json.dumps(asdict(found), indent=1) + "\n")
    bad = sum(not f.good for f in found.findings)
    print(f"\n{'nothing stands in the way' if not bad else f'{bad} to look at'}")
    return 0 if found.good else 1


def filter(args: Sequence[str]) -> int:
    """`syncdisc filter`."""
    parser = new_parser("filter")
    parser.add_argument("--data", type=Path, required=True, help="a clip store")
    parser.add_argument("--weights", default="base", help=WEIGHTS)
    parser.add_argument("--out", type=Path, required=True, help="folder for filter.jsonl")
    parsed = parser.parse_args(args)
    from syncdisc_plugin.atomic import check_writable
    from syncdisc_plugin.data.filter import judge_store
    from syncdisc_plugin.data.store import ClipStore
    from syncdisc_plugin.evaluate.run import load_for
    from syncdisc_plugin.train.measure import write_verdicts

    if (parsed.out / "settings.json").exists():
        raise RunError(f"--out {parsed.out}: holds a run, whose own verdicts would be replaced.")
    check_writable("--out", parsed.out / "filter.jsonl")
    net, store = load_for(ClipStore(parsed.data), parsed.weights)
    result = judge_store(net, store, store.clips)
    write_verdicts(parsed.out, result)
    counts = ", ".join(f"{n} {verdict}" for verdict, n in result.counts.items())
    print(f"{counts} -> {parsed.out / 'filter.jsonl'}")
    return 0
