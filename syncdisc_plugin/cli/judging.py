"""Commands that use weights."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from syncdisc_plugin.cli.parsing import WEIGHTS, add_prepare, new_parser, prepare_settings
from syncdisc_plugin.errors import RunError, SyncDiscError


def evaluate(args: Sequence[str]) -> int:
    """`syncdisc evaluate`."""
    parser = new_parser("evaluate")
    parser.add_argument("--weights", default="base", help=WEIGHTS)
    parser.add_argument("--data", type=Path, help="a clip store")
    parser.add_argument("--videos", type=Path, nargs="+", help="or videos, or folders of them")
    parser.add_argument(
        "--part", default="all", choices=["all", "heldout"], help="heldout: by the store's split"
    )
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    add_prepare(parser)
    parsed = parser.parse_args(args)
    from syncdisc_plugin.atomic import write_text
    from syncdisc_plugin.data.store import ClipStore
    from syncdisc_plugin.evaluate.run import evaluate_store, evaluate_videos

    if (parsed.data is None) == (parsed.videos is None):
        raise RunError("give either --data STORE or --videos DIR.")
    if parsed.data is not None:
        figures = evaluate_store(parsed.weights, ClipStore(parsed.data), part=parsed.part)
    else:
        figures = evaluate_videos(parsed.weights, parsed.videos, prepare_settings(parsed))
    if parsed.json:
        write_text(parsed.json, json.dumps(figures, indent=1) + "\n")
    for name, value in figures.items():
        print(f"{name:28} {_short(value)}")
    return 0


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, dict):
        return "  ".join(f"{k}: {_short(v)}" for k, v in value.items())
    return "—" if value is None else str(value)


def score(args: Sequence[str]) -> int:
    """`syncdisc score`."""
    parser = new_parser("score")
    parser.add_argument("videos", nargs="+", type=Path, help="video files")
    parser.add_argument("--weights", default="base", help=WEIGHTS)
    parser.add_argument("--json", action="store_true", help="print one JSON object per video")
    add_prepare(parser, skip={"workers", "speakers"})
    parsed = parser.parse_args(args)
    parsed.workers, parsed.speakers = 0, None
    from dataclasses import asdict

    from syncdisc_plugin.evaluate.score import score

    failed = 0
    for video in parsed.videos:
        try:
            scores = score(video, parsed.weights, prepare_settings(parsed))
        except SyncDiscError as error:
            failed += 1
            if parsed.json:
                print(json.dumps({"path": str(video), "error": str(error)}))
            else:
                print(f"syncdisc score: {error}", file=sys.stderr)
            continue
        if parsed.json:
            print(json.dumps({"path": str(video), "tracks": [asdict(s) for s in scores]}))
            continue
        for s in scores:
            lag = f"{abs(s.offset_frames)} frames " + ("early" if s.offset_frames > 0 else "late")
            sync = "in sync" if abs(s.offset_frames) <= 1 else f"audio {lag}"
            print(
                f"{video}  face {s.track} at {s.start_s:.2f} s for {s.seconds:.2f} s: {sync}, "
                f"confidence {s.confidence:.2f}, probability {s.probability:.2f}"
            )
    return 2 if failed else 0


def export(args: Sequence[str]) -> int:
    """`syncdisc export`."""
    parser = new_parser("export")
    parser.add_argument("--weights", default="base", help=WEIGHTS)
    parser.add_argument("--out", type=Path, required=True, help="a file: .onnx, .pt2, .safetensors")
    parsed = parser.parse_args(args)
    from syncdisc_plugin.export import export as write

    print(f"checked against the net -> {write(parsed.weights, parsed.out)}")
    return 0
