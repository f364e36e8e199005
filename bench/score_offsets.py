"""How often `syncdisc score` finds an offset that was planted into real footage.

    python bench/score_offsets.py --clips DIR [--group presenters] [--speakers a,b,c]

Moves the sound of each clip of DIR/clips.csv (path,speaker,seconds,...) by one random offset of
-10..10 frames with `move_audio`, scores the clip as it was and moved, and prints per group (the
first folder of a path) the share within 1 frame of what was planted. Footage has lags of its own,
so the share within 1 frame of planted plus what the same net sees in the clip as it was comes
beside it. Also: how many were too unclear to be called, how many of the called were wrong, and how
many pairs of a face with another speaker's sound were called, which all are wrong.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from syncdisc_plugin.data.prepare import PrepareSettings
from syncdisc_plugin.errors import SyncDiscError
from syncdisc_plugin.evaluate.score import Score, Scorer, Seen
from syncdisc_plugin.media import move_audio

MOST_FRAMES = 10
STRANGERS = 4


@dataclass(frozen=True)
class Result:
    """One clip."""

    speaker: str
    seen: Seen
    """As it was."""
    own: Score
    """The verdict on it as it was."""
    moved: Score
    """And with its sound moved."""
    planted: int
    """> 0: the sound was made early by that many frames."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=Path, required=True, help="folder with clips.csv")
    parser.add_argument("--models", type=Path, help="folder with face detector files")
    parser.add_argument("--weights", default="base", help="shipped name, or a checkpoint")
    parser.add_argument("--group", help="clips of this first folder only")
    parser.add_argument("--speakers", help="clips of these speakers only: a,b,c")
    parser.add_argument("--min_seconds", type=float, default=3.0)
    parser.add_argument("--limit", type=int, help="so many clips only, drawn at random")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rows = pick(args)
    scorer = Scorer(args.weights, PrepareSettings(models=args.models))
    groups: dict[str, list[Result]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for number, row in rows:
            planted = int(
                np.random.default_rng([args.seed, number]).integers(-MOST_FRAMES, MOST_FRAMES + 1)
            )
            source = args.clips / row["path"]
            try:
                moved = move_audio(
                    source, Path(folder) / "moved.mkv", -planted / scorer.net.spec.fps
                )
                before, after = longest(scorer, source), longest(scorer, moved)
            except SyncDiscError as error:
                print(f"left out: {error}", flush=True)
                continue
            result = Result(
                row["speaker"], before, scorer.judge(before), scorer.judge(after), planted
            )
            groups[row["path"].split("/")[0]].append(result)
            print(
                f"{row['path']}: as it was {result.own.offset_frames:+d} "
                f"({result.own.offset_ms:+.0f} ms), planted {planted:+d}, found "
                f"{result.moved.offset_frames:+d} ({result.moved.offset_ms:+.0f} ms), "
                f"clearness {result.moved.clearness:.1f}",
                flush=True,
            )
    for name, results in groups.items():
        report(name, results, scorer, args.seed)


def pick(args: argparse.Namespace) -> list[tuple[int, dict[str, str]]]:
    """The clips that were asked for, each with its number in the table."""
    with (args.clips / "clips.csv").open(newline="", encoding="utf-8") as file:
        rows = list(enumerate(csv.DictReader(file)))
    speakers = set(args.speakers.split(",")) if args.speakers else None
    rows = [
        (number, row)
        for number, row in rows
        if float(row["seconds"]) >= args.min_seconds
        and (args.group is None or row["path"].split("/")[0] == args.group)
        and (speakers is None or row["speaker"] in speakers)
    ]
    if args.limit and args.limit < len(rows):
        chosen = np.random.default_rng(args.seed).choice(len(rows), args.limit, replace=False)
        rows = [rows[i] for i in sorted(chosen)]
    return rows


def longest(scorer: Scorer, video: Path) -> Seen:
    """The longest face track of a video."""
    return max(scorer.look(video), key=lambda seen: seen.n_frames)


def report(name: str, results: list[Result], scorer: Scorer, seed: int) -> None:
    n = len(results)
    misses = np.array([r.moved.offset_frames - r.planted for r in results])
    own = np.array([r.own.offset_frames for r in results])
    near, near_own = np.abs(misses) <= 1, np.abs(misses - own) <= 1
    called = np.array([r.moved.in_sync is not None for r in results])
    errors_ms = np.array([r.moved.offset_ms - r.own.offset_ms - 40 * r.planted for r in results])
    strangers = called_strangers(results, scorer, seed)
    print(f"{name}: {n} clips")
    print(f"  within 1 frame of planted                  {near.sum()} of {n} = {near.mean():.1%}")
    print(
        f"  within 1 frame of planted + the clip's own {near_own.sum()} of {n} = "
        f"{near_own.mean():.1%}, median error {np.median(np.abs(errors_ms)):.1f} ms"
    )
    print(
        f"  clear enough to call                       {called.sum()} of {n}, "
        f"of these wrong {(called & ~near_own).sum()}"
    )
    if strangers:
        print(
            f"  another speaker's sound, called            {sum(strangers)} of {len(strangers)} "
            f"= {np.mean(strangers):.1%}"
        )


def called_strangers(results: list[Result], scorer: Scorer, seed: int) -> list[bool]:
    """Of each clip's face with other speakers' sound: whether an offset was called."""
    rng = np.random.default_rng([seed, 1])
    out = []
    for result in results:
        others = [r.seen for r in results if r.speaker != result.speaker]
        for _ in range(STRANGERS if others else 0):
            other = others[rng.integers(len(others))]
            n = min(len(result.seen.v), len(other.a))
            pair = replace(result.seen, v=result.seen.v[:n], a=other.a[:n])
            out.append(scorer.judge(pair).in_sync is not None)
    return out


if __name__ == "__main__":
    main()
