"""Whose mouth gets the new words: which tracks of a video are one face, also behind cuts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import cv2
import numpy as np

from generator_integration.reference.face import MIN_IOU, Face, Run, Scan
from syncdisc_plugin.errors import FaceError
from syncdisc_plugin.faces.detect import overlap

REUNION_TICKS = 50
"""A face that is lost for less than this, and found again in its place, is the same."""
PICTURES = 6
"""By so many, spread over its time, it is told what a run looks like."""
CELLS = 12
"""On each side of the coarse picture that is compared."""
ALIKE = 7.0
"""Distance of the two nearest pictures, mean over cells and the channels of 8-bit L*a*b*, up to
which two runs are one face wherever they are. Of 117 pairs from one video 97% are that near, of
6,226 pairs of different people 0.06% (presenters and wild clips)."""
UNLIKE = 14.0
"""Distance beyond which a face in the same place behind a cut is another one. Of 98 pairs from two
videos of one person 6% are farther, of the pairs of different people 72%."""


def choose_face(scan: Scan, numbers: Sequence[int] | None, end_s: float | Fraction) -> Face:
    """The face of a number, or by default the one that fills most of the picture for longest.

    Only what is seen before `end_s` counts. It goes on where it is lost and found again in its
    place within two seconds, and wherever somebody looks as it does: behind scene cuts, after
    pictures of something else, closer or farther away. Several numbers are one face, whatever they
    look like.

    Raises:
        FaceError: no such number, not seen before `end_s`, or two that are seen at the same time.
    """
    known = {face.number: face for face in scan.faces}
    unknown = [n for n in numbers or () if n not in known]
    if unknown:
        raise FaceError(
            f"face: expected one of {sorted(known)}, got {unknown[0]}. There are: "
            f"{list_faces(scan.faces)}."
        )
    looks = {id(run): look_of(run) for run in _runs(scan)}
    if numbers:
        named = _joined([known[n] for n in dict.fromkeys(numbers)])
        chosen = _gone_on(named, scan, looks)
    else:
        chosen = max(
            (_gone_on(face, scan, looks) for face in scan.faces),
            key=lambda face: face.side_px * face.seen_before(end_s),
        )
    if not chosen.seen_before(end_s):
        raise FaceError(
            f"face: {chosen} is not seen while the sound lasts ({float(end_s):.2f} s). There are: "
            f"{list_faces(scan.faces)}."
        )
    return chosen


def list_faces(faces: Sequence[Face], most: int = 12) -> str:
    """In words, in time."""
    more = f"; and {len(faces) - most} more" if len(faces) > most else ""
    return "; ".join(map(str, faces[:most])) + more


def _joined(faces: Sequence[Face]) -> Face:
    """Some faces as one."""
    runs = sorted((run for face in faces for run in face.runs), key=lambda run: run.start)
    for before, after in pairwise(runs):
        if after.start < before.end:
            two = " and ".join(str(f) for f in faces if before in f.runs or after in f.runs)
            raise FaceError(
                f"face: {two} are seen at the same time, and one mouth speaks at a time. Name one "
                "of them, and the other in a second run on what the first one wrote."
            )
    return replace(faces[0], runs=runs)


def _gone_on(face: Face, scan: Scan, looks: dict[int, np.ndarray]) -> Face:
    """A face with the runs that it goes on in."""
    runs = list(face.runs)
    look = np.concatenate([looks[id(run)] for run in runs])
    distance = {id(run): looks_apart(look, looks[id(run)]) for run in _runs(scan)}
    others = [run for run in _runs(scan) if not any(run is own for own in runs)]

    def add(run: Run) -> None:
        if all(run.end <= own.start or own.end <= run.start for own in runs):
            runs.append(run)
            runs.sort(key=lambda r: r.start)

    for run in sorted(others, key=lambda r: distance[id(r)]):
        if distance[id(run)] <= ALIKE:
            add(run)

    others.sort(key=lambda r: r.start)
    for run in others:
        is_other = distance[id(run)] > UNLIKE
        if any(_is_again(own, run, is_other) for own in runs):
            add(run)
    for run in reversed(others):
        is_other = distance[id(run)] > UNLIKE
        if any(_is_again(run, own, is_other) for own in runs):
            add(run)
    also = [f.number for f in scan.faces if any(f.runs[0] is run for run in runs)]
    return replace(face, runs=runs, also=tuple(n for n in also if n != face.number))


def _is_again(before: Run, after: Run, is_other: bool) -> bool:
    """Whether a face is lost and a moment later found in its place; somebody else behind a cut."""
    return (
        0 <= after.start - before.end < REUNION_TICKS
        and bool(overlap(before.boxes[-1:], after.boxes[:1])[0, 0] > MIN_IOU)
        and not (is_other and before.shot != after.shot)
    )


def _runs(scan: Scan) -> list[Run]:
    return [run for face in scan.faces for run in face.runs] + scan.short


def look_of(run: Run) -> np.ndarray:
    """(P, cells * cells * 3) float32: what a run looks like, coarsely."""
    small = [
        cv2.cvtColor(
            cv2.resize(picture, (CELLS, CELLS), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2LAB
        )
        for picture in run.references(PICTURES)
    ]
    return np.stack(small).reshape(len(small), -1).astype(np.float32)


def looks_apart(look: np.ndarray, other: np.ndarray) -> float:
    """Of the two nearest pictures."""
    return float(min(np.abs(other - picture).mean(1).min() for picture in look))
