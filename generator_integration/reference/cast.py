"""Whose mouth gets the new words: which tracks of a video are one face, also behind cuts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import cv2
import numpy as np
import torch

from generator_integration.reference.face import MIN_IOU, Face, Run, Scan
from syncdisc_plugin.errors import FaceError
from syncdisc_plugin.faces.detect import overlap

REUNION_TICKS = 50
"""A face that is lost for less than this, and found again in its place, is the same."""
PICTURES = 3
"""By so many, spread over its time, it is told what a run looks like."""
CELLS, BINS = 12, (8, 12, 12)
"""Of the coarse picture, on each side, and of the histogram of its upper part; L*a*b* both."""
UPPER = 0.625
"""Part of the face that the histogram is of: the mouth moves."""
ALIKE = 0.71
"""Likeness from which on two runs are one face wherever they are. Of 121 pairs from the ends of one
video 98% are that much alike, of 12,452 pairs of different people 0.1% (presenters and wild clips;
the coarse picture alone: 93%)."""
UNLIKE = 0.3
"""Likeness below which a face in the same place behind a cut is another one. Of 196 pairs from two
videos of one person 5% are, of the pairs of different people 77%."""


def choose_face(
    scan: Scan, numbers: Sequence[int] | None, end_s: float | Fraction, *, only: bool = False
) -> Face:
    """The face of a number, or by default the one that fills most of the picture for longest.

    Only what is seen before `end_s` counts. It goes on where it is lost and found again in its
    place within two seconds, and wherever somebody looks as it does: behind scene cuts, after
    pictures of something else, closer or farther away; with `only` nowhere else. Several numbers
    are one face, whatever they look like.

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
    named = [_joined([known[n] for n in dict.fromkeys(numbers)])] if numbers else list(scan.faces)
    if not only:
        tracks = _Tracks(scan)
        named = [tracks.gone_on(face) for face in named]
    chosen = max(named, key=lambda face: face.side_px * face.seen_before(end_s))
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


def likeness(first: Run, second: Run) -> float:
    """How much two runs look like each other by their most similar pictures; 1 is the same."""
    return float(_likeness([first], [second])[0])


class _Tracks:
    """All runs of a video, and which of them may be one face."""

    def __init__(self, scan: Scan) -> None:
        numbered = [(run, face.number) for face in scan.faces for run in face.runs]
        both = [*numbered, *((run, -1) for run in scan.short)]
        both.sort(key=lambda pair: pair[0].start)
        self.runs, self.numbers = [run for run, _ in both], [number for _, number in both]
        self.at = {id(run): i for i, run in enumerate(self.runs)}
        self.start = np.array([run.start for run in self.runs])
        self.end = np.array([run.end for run in self.runs])
        self.again = [(i, j) for i in range(len(self.runs)) for j in self._found_again(i)]
        """Pairs of which the second one is found in the first one's place, a moment later."""
        self.again.sort(key=lambda pair: pair[1])

    def gone_on(self, face: Face) -> Face:
        """A face with the runs that it goes on in."""
        like = _likeness(face.runs, self.runs)
        chosen = [self.at[id(run)] for run in face.runs]
        for i in np.argsort(-like, kind="stable"):
            if like[i] < ALIKE:
                break
            self._add(chosen, int(i))
        for pairs, known, new in ((self.again, 0, 1), (self.again[::-1], 1, 0)):
            for pair in pairs:
                is_cut = self.runs[pair[0]].shot != self.runs[pair[1]].shot
                is_other = is_cut and like[pair[new]] < UNLIKE
                if pair[known] in chosen and not is_other:
                    self._add(chosen, pair[new])
        numbers = {self.numbers[i] for i in chosen} - {-1, face.number}
        runs = [self.runs[i] for i in sorted(chosen)]
        return replace(face, runs=runs, also=tuple(sorted(numbers)))

    def _add(self, chosen: list[int], i: int) -> None:
        """Unless one of them is seen at the same time, or it is one."""
        start, end = self.start[chosen], self.end[chosen]
        if ((self.end[i] <= start) | (end <= self.start[i])).all():
            chosen.append(i)

    def _found_again(self, i: int) -> list[int]:
        first, last = np.searchsorted(self.start, [self.end[i], self.end[i] + REUNION_TICKS])
        box = self.runs[i].boxes[-1:]
        return [j for j in range(first, last) if _meet(box, self.runs[j].boxes[:1])]


def _meet(box: np.ndarray, other: np.ndarray) -> bool:
    return bool(overlap(box, other)[0, 0] > MIN_IOU)


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
    return replace(faces[0], runs=runs, also=tuple(face.number for face in faces[1:]))


def _likeness(own: Sequence[Run], others: Sequence[Run]) -> np.ndarray:
    """(len(others),) likeness of each to the run of `own` that is most like it."""
    grid, histogram = (np.concatenate(column) for column in zip(*map(_look, own), strict=True))
    out = np.empty(len(others))
    for i, (other, bins) in enumerate(map(_look, others)):
        apart = torch.cdist(torch.from_numpy(grid), torch.from_numpy(other), p=1).numpy()
        # Levels of difference, and overlap of colours (Bhattacharyya), as they tell most together.
        out[i] = (histogram @ bins.T - apart / grid.shape[1] / 42).max()
    return out


def _look(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """What a run looks like: (P, CELLS * CELLS * 3) coarse pictures, (P, bins) histograms."""
    if run.look is None:
        pictures = [
            cv2.cvtColor(picture, cv2.COLOR_RGB2LAB) for picture in run.references(PICTURES)
        ]
        coarse = [cv2.resize(lab, (CELLS, CELLS), interpolation=cv2.INTER_AREA) for lab in pictures]
        # Skin, hair and walls lie in the middle of a* and b*.
        ranges = [0, 256, 80, 180, 80, 180]
        counts = [
            cv2.calcHist([lab[: round(UPPER * len(lab))]], [0, 1, 2], None, BINS, ranges).ravel()
            for lab in pictures
        ]
        shares = [np.sqrt(count / max(1.0, float(count.sum()))) for count in counts]
        grid = np.stack(coarse).reshape(len(pictures), -1).astype(np.float32)
        run.look = grid, np.stack(shares).astype(np.float32)
    return run.look
