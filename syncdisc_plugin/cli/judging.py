"""Commands that use weights."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from syncdisc_plugin.cli.parsing import (
    MANY_VIDEOS,
    VIDEOS,
    WEIGHTS,
    add_prepare,
    new_parser,
    prepare_settings,
)
from syncdisc_plugin.data.remote import location
from syncdisc_plugin.errors import RunError, SyncDiscError

if TYPE_CHECKING:
    from syncdisc_plugin.evaluate.score import Score

MOST_GROUPS = 12  # more of them are in the JSON


def evaluate(args: Sequence[str]) -> int:
    """`syncdisc evaluate`."""
    parser = new_parser("evaluate")
    parser.add_argument("--weights", default="base", help=WEIGHTS)
    parser.add_argument("--data", type=Path, help="a clip store")
    parser.add_argument("--videos", type=location, nargs="+", help=f"or {VIDEOS}")
    parser.add_argument(
        "--part", default="all", choices=["all", "heldout"], help="heldout: by the store's split"
    )
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--html", type=Path, help="write a page with figures and drawings")
    from syncdisc_plugin.evaluate.run import EvaluateSettings, evaluate_store, evaluate_videos

    parser.add_class_arguments(EvaluateSettings)
    add_prepare(parser)
    parsed = parser.parse_args(args)
    from syncdisc_plugin.atomic import check_writable, write_text
    from syncdisc_plugin.data.choice import Choice
    from syncdisc_plugin.data.store import ClipStore
    from syncdisc_plugin.evaluate.quality_page import quality_page

    if (parsed.data is None) == (parsed.videos is None):
        raise RunError("give either --data STORE or --videos DIR.")
    if parsed.videos is not None and parsed.part != "all":
        raise RunError(
            "--part heldout: goes by a store's split. Give --data STORE, or leave it out."
        )
    check_writable("--json", parsed.json)
    check_writable("--html", parsed.html)
    names = EvaluateSettings.__dataclass_fields__
    given = {name: parsed[name] for name in names} | {"choose": Choice(**vars(parsed.choose))}
    settings = EvaluateSettings(**given)
    if parsed.data is not None:
        store = ClipStore(parsed.data)
        found = evaluate_store(parsed.weights, store, part=parsed.part, settings=settings)
    else:
        footage = prepare_settings(parsed)
        found = evaluate_videos(parsed.weights, parsed.videos, footage, settings)
    _print_figures(found)
    if parsed.json:
        write_text(parsed.json, json.dumps(found, indent=1) + "\n")
    if parsed.html:
        write_text(parsed.html, quality_page(found))
    return 0


def _print_figures(found: dict[str, Any]) -> None:
    """The figures of all clips with their intervals, then the groups and conditions in brief."""
    spread = found["intervals"] or {}
    for name, value in found.items():
        if name in ("intervals", "groups", "clips", "conditions", "refused"):
            continue
        if isinstance(value, dict):
            print(name)
            for key, single in value.items():
                print(f"  {key:26} {_short(single)}{_interval(spread.get(name, {}).get(key))}")
        else:
            print(f"{name:28} {_short(value)}{_interval(spread.get(name))}")
    if not spread:
        print("No intervals: they need three speakers.")
    for row in found.get("conditions", []):
        words = f"{row['condition']} {row['level']}".strip()
        print(f"{words:28} {_outline(row)}")
    for name, groups in found["groups"].items():
        if 1 < len(groups) <= MOST_GROUPS:
            print(f"by {name}")
            for key, row in groups.items():
                print(f"  {key:26} {_outline(row)}  {row['n_clips']} clips")
    for row in found.get("refused", []):
        print(f"refused: {row['path']}: {row['reason']}", file=sys.stderr)


def _outline(row: dict[str, Any]) -> str:
    pm = row["pm_accuracy"]
    return (
        f"pair {_short(row['pair_accuracy'])}  PM 5 {_short(pm['5'])}  PM 15 {_short(pm['15'])}  "
        f"PM 25 {_short(pm['25'])}  offset within 1 {_short(row['offset_within_1'])}"
    )


def _interval(ends: list[float] | None) -> str:
    return f"   {ends[0]:.4f} .. {ends[1]:.4f}" if ends else ""


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return "—" if value is None else str(value)


def score(args: Sequence[str]) -> int:
    """`syncdisc score`."""
    parser = new_parser("score")
    parser.add_argument("videos", nargs="+", type=Path, help="video files")
    parser.add_argument("--weights", default="base", help=WEIGHTS)
    parser.add_argument("--json", action="store_true", help="print one JSON object per video")
    parser.add_argument("--pictures", type=Path, help="draw each face track into this folder")
    parser.add_argument(
        "--fix", type=Path, help="write one video anew with its audio moved by the found offset"
    )
    add_prepare(parser, skip=MANY_VIDEOS)
    parsed = parser.parse_args(args)
    from dataclasses import asdict

    from syncdisc_plugin.evaluate.score import Scorer

    if parsed.fix:
        from syncdisc_plugin.media.remux import check_target

        if len(parsed.videos) != 1:
            raise RunError(
                f"--fix: expected one video, got {len(parsed.videos)}. Call it for each."
            )
        check_target(parsed.videos[0], parsed.fix)
    scorer = Scorer(parsed.weights, prepare_settings(parsed))
    # Videos of one name in several folders must not share a picture.
    folders = [video.resolve().parent for video in parsed.videos]
    common = os.path.commonpath(folders)
    failed = 0
    for video, folder in zip(parsed.videos, folders, strict=True):
        row: dict[str, Any] = {"path": str(video)}
        try:
            drawn = parsed.pictures and parsed.pictures / folder.relative_to(common)
            scores = scorer(video, drawn)
            row["tracks"] = [asdict(s) for s in scores]
            row["note"] = scorer.note
            if drawn and any(s.picture is None for s in scores):
                failed += 1
            if scorer.note:
                print(f"syncdisc score: {video}: {scorer.note}", file=sys.stderr)
            if not parsed.json:
                _print_scores(video, scores)
            if parsed.fix:
                row["fixed"] = _fix(video, parsed.fix, scores, quiet=parsed.json)
        except (SyncDiscError, OSError) as error:
            failed += 1
            row["error"] = str(error)
            if not parsed.json:
                print(f"syncdisc score: {error}", file=sys.stderr)
        if parsed.json:
            print(json.dumps(row))
    return 2 if failed else 0


def _print_scores(video: Path, scores: Sequence[Score]) -> None:
    for s in scores:
        print(
            f"{video}  face {s.track} at {s.start_s:.2f} s for {s.seconds:.2f} s: {s.verdict}, "
            f"confidence {s.confidence:.2f}, probability {s.probability:.2f}"
            + (f" -> {s.picture}" if s.picture else "")
        )


def _fix(video: Path, out: Path, scores: Sequence[Score], quiet: bool) -> dict[str, Any]:
    """Write `out` by the surest track's offset, and say what was done."""
    from syncdisc_plugin.evaluate.score import surest
    from syncdisc_plugin.media import move_audio
    from syncdisc_plugin.nn.curve import CLEAR

    best = surest(scores)
    if best is None and any(s.is_beyond for s in scores):
        beyond = max((s for s in scores if s.is_beyond), key=lambda s: s.clearness)
        raise RunError(
            f"--fix: {video}: {beyond.verdict.removeprefix('cannot tell, ')}, which is as far as "
            "is looked; nothing was written. Move it by about that first, and score again."
        )
    if best is None:
        raise RunError(
            f"--fix: {video}: no offset stands out (clearness "
            f"{max(s.clearness for s in scores):.1f}, {CLEAR:.0f} is needed); nothing was written. "
            "Take a longer part with the speaker in sight, or weights of such footage."
        )
    clear = [s.offset_frames for s in scores if s.in_sync is not None]
    if max(clear) - min(clear) > 1:
        print(
            f"syncdisc score: {video}: its faces disagree, by offsets of {min(clear)} to "
            f"{max(clear)} frames; one shift cannot suit all of them.",
            file=sys.stderr,
        )
    # Under half a frame the net's own zero is no surer.
    moved_ms = best.offset_ms if abs(best.offset_ms) >= 20 else 0.0
    move_audio(video, out, moved_ms / 1000)
    if not quiet:
        side = "later" if moved_ms > 0 else "sooner"
        done = f"audio moved {abs(moved_ms):.0f} ms {side}" if moved_ms else "nothing to move"
        many = f", by face {best.track} of {len(scores)}, the surest" if len(scores) > 1 else ""
        print(f"{out}  {done}{many}; copied without re-encoding")
    return {"path": str(out), "moved_ms": moved_ms, "track": best.track}


def export(args: Sequence[str]) -> int:
    """`syncdisc export`."""
    parser = new_parser("export")
    parser.add_argument("--weights", default="base", help=WEIGHTS)
    parser.add_argument("--out", type=Path, required=True, help="a file: .onnx, .pt2, .safetensors")
    parsed = parser.parse_args(args)
    from syncdisc_plugin.export import export as write

    print(f"checked against the net -> {write(parsed.weights, parsed.out)}")
    return 0
