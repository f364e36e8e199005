"""`syncdisc lipsync` on real clips with other people's sound: is it written right, who is believed?

    python bench/lipsync.py --clips DIR --judge WEIGHTS [--speakers a,b,c] [--generator base]

Pieces of the clips of DIR/clips.csv (path,speaker,...) are each given the sound of a piece of
another speaker. Every file that is written is opened again: its length, frame rate and size, and
whether its sound is the new one. Then the judge, which should have had no part in the generator's
training, looks at the faces in it: how similar are they to the new sound, and how similar to what
the person really said? Beside it stands the same for the footage as it was: its own sound is the
ceiling, and somebody else's the floor. Intervals are 95%, bootstrapped over speakers. --out keeps
the files.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import av
import numpy as np
import torch
from score_offsets import longest

from generator_integration.reference import LipsyncResult, lipsync, load_generator
from syncdisc_plugin.data.prepare import PrepareSettings
from syncdisc_plugin.errors import SyncDiscError
from syncdisc_plugin.evaluate.score import Scorer, Seen
from syncdisc_plugin.media import decode, write_video
from syncdisc_plugin.nn.curve import offset_curve

FPS, RATE_HZ = 25, 16000
RESAMPLES = 1000


@dataclass(frozen=True)
class Piece:
    """A stretch of a clip, in a file of its own."""

    speaker: str
    path: Path
    seconds: float
    seen: Seen
    """What the judge sees and hears in it."""


@dataclass(frozen=True)
class Verdict:
    """What the judge says of one written file."""

    speaker: str
    new: float
    """Mean similarity of the drawn lips to the sound that drove them."""
    old: float
    """And to what the person really said."""
    nearer: float
    """Share of windows that are nearer to the new sound."""
    offset_frames: int
    """Of the new sound, as the judge reads it."""
    true_own: float
    """Of the footage: its own sound."""
    true_other: float
    """Of the footage: the sound that was given to it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=Path, required=True, help="folder with clips.csv")
    parser.add_argument("--judge", type=Path, required=True, help="weights that only judge")
    parser.add_argument("--speakers", help="pieces of these speakers only: a,b,c")
    parser.add_argument("--generator", default="base", help="shipped name, or the trainer's file")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of a piece")
    parser.add_argument("--models", type=Path, help="folder with face detector files")
    parser.add_argument("--out", type=Path, help="folder for the written files")
    args = parser.parse_args()
    settings = PrepareSettings(models=args.models)
    judge, generator = Scorer(args.judge, settings), load_generator(args.generator)
    with ExitStack() as held:
        out = args.out or Path(held.enter_context(tempfile.TemporaryDirectory()))
        out.mkdir(parents=True, exist_ok=True)
        pieces = [piece for row in rows(args) for piece in cut(row, args, judge, out)]
        verdicts, wrong = [], 0
        for piece in pieces:
            other = partner(piece, pieces)
            path = out / f"{piece.path.stem} says {other.path.stem}.mp4"
            result = lipsync(
                piece.path,
                other.path,
                path,
                generator=generator,
                settings=settings,
                detect=judge.detect,
            )
            faults = look(path, result, other)
            wrong += bool(faults)
            verdict = judged(judge, path, piece, other)
            verdicts.append(verdict)
            print(
                f"{path.stem}: to the new sound {verdict.new:.3f}, to the old {verdict.old:.3f}; "
                f"offset {verdict.offset_frames:+d}"
                + (f"; WRONG: {', '.join(faults)}" if faults else ""),
                flush=True,
            )
    print(f"{len(verdicts)} files, {wrong} of them not as they should be")
    report(verdicts)


def rows(args: argparse.Namespace) -> list[dict[str, str]]:
    """The clips that were asked for."""
    with (args.clips / "clips.csv").open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    speakers = set(args.speakers.split(",")) if args.speakers else None
    return [row for row in found if speakers is None or row["speaker"] in speakers]


def cut(row: dict[str, str], args: argparse.Namespace, judge: Scorer, out: Path) -> Iterator[Piece]:
    """Whole pieces of a clip in which one face is seen from beginning to end."""
    recording = decode(args.clips / row["path"], fps=FPS, sample_rate_hz=RATE_HZ)
    length = round(args.seconds * FPS)
    frames, sound = recording.frames(), recording.audio
    for number in range(recording.n_frames // length):
        path = out / f"{row['path'].replace('/', '_')}-{number}.mp4"
        samples = sound[number * length * RATE_HZ // FPS :][: length * RATE_HZ // FPS]
        try:
            write_video(path, islice(frames, length), fps=FPS, audio=samples, crf=12)
            seen = list(judge.look(path))
        except (SyncDiscError, ValueError) as error:
            print(f"left out: {path.name}: {error}", flush=True)
            continue
        if len(seen) == 1 and seen[0].n_frames >= length - 2:
            yield Piece(row["speaker"], path, args.seconds, seen[0])
        else:
            print(f"left out: {path.name}: {len(seen)} tracks, not one from end to end", flush=True)


def partner(piece: Piece, pieces: Sequence[Piece]) -> Piece:
    """Whose sound drives a piece: half of the list away, of another speaker."""
    at = pieces.index(piece) + len(pieces) // 2
    around = [pieces[(at + k) % len(pieces)] for k in range(len(pieces))]
    return next(other for other in around if other.speaker != piece.speaker)


def look(path: Path, result: LipsyncResult, other: Piece) -> list[str]:
    """What is wrong with a written file."""
    faults = []
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        if (rate := stream.average_rate) != FPS:
            faults.append(f"{rate} frames per second")
        if (stream.width, stream.height) != (result.width, result.height):
            faults.append("another size")
    again = decode(path, fps=FPS, sample_rate_hz=RATE_HZ)
    shown = sum(1 for _ in again.frames())
    if abs(shown / FPS - other.seconds) > 1.5 / FPS:
        faults.append(f"{shown / FPS:.2f} s of picture")
    if abs(len(again.audio) / RATE_HZ - other.seconds) > 0.1:
        faults.append(f"{len(again.audio) / RATE_HZ:.2f} s of sound")
    wanted = decode(other.path, fps=FPS, sample_rate_hz=RATE_HZ).audio
    n = min(len(wanted), len(again.audio))
    if (alike := float(np.corrcoef(wanted[:n], again.audio[:n])[0, 1])) < 0.9:
        faults.append(f"a sound that is not the new one (correlation {alike:.2f})")
    return faults


def judged(judge: Scorer, path: Path, piece: Piece, other: Piece) -> Verdict:
    """The judge's view of a written file."""
    seen = longest(judge, path)
    first = round(seen.start_s * FPS)
    new = similarities(seen.v, seen.a)
    old = similarities(seen.v, piece.seen.a[first:])
    n = min(len(new), len(old))
    return Verdict(
        speaker=piece.speaker,
        new=float(new.mean()),
        old=float(old.mean()),
        nearer=float((new[:n] > old[:n]).mean()),
        offset_frames=offset_curve(seen.v, seen.a).offset_frames,
        true_own=float(similarities(piece.seen.v, piece.seen.a).mean()),
        true_other=float(similarities(piece.seen.v, other.seen.a).mean()),
    )


def similarities(v: torch.Tensor, a: torch.Tensor) -> np.ndarray:
    """(N,) of each window to the sound beside it."""
    n = min(len(v), len(a))
    return (v[:n] * a[:n]).sum(-1).double().numpy()


def report(verdicts: Sequence[Verdict]) -> None:
    """The figures of all files."""
    lines: dict[str, list[float]] = {
        "similarity to the new sound": [v.new for v in verdicts],
        "similarity to the old sound": [v.old for v in verdicts],
        "new minus old": [v.new - v.old for v in verdicts],
        "windows nearer to the new sound": [v.nearer for v in verdicts],
        "files nearer to the new sound": [float(v.new > v.old) for v in verdicts],
        "files within 1 frame of the new sound": [
            float(abs(v.offset_frames) <= 1) for v in verdicts
        ],
        "the footage and its own sound": [v.true_own for v in verdicts],
        "the footage and the other's sound": [v.true_other for v in verdicts],
    }
    speakers = np.array([v.speaker for v in verdicts])
    print(f"{len(verdicts)} files of {len(set(speakers))} speakers:")
    for name, values in lines.items():
        low, high = interval(np.array(values), speakers)
        print(f"  {name:<40}{np.mean(values):7.3f}  ({low:.3f} to {high:.3f})")


def interval(values: np.ndarray, speakers: np.ndarray) -> tuple[float, float]:
    """95% of the means of resampled speakers."""
    rng = np.random.default_rng(0)
    of = [values[speakers == name] for name in np.unique(speakers)]
    means = [
        np.concatenate([of[i] for i in rng.integers(len(of), size=len(of))]).mean()
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


if __name__ == "__main__":
    main()
