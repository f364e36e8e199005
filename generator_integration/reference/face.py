"""The faces of a video: where each one is at any moment, and what it looks like."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from fractions import Fraction

import cv2
import numpy as np

from generator_integration.reference.ticks import Ticks
from syncdisc_plugin.errors import FaceError
from syncdisc_plugin.faces import Detector, TrackSettings, TrackTally, crop_face, follow
from syncdisc_plugin.faces.detect import overlap
from syncdisc_plugin.media.stream import PictureStream

PIECE_TICKS = 250
"""Tracks are cut into pieces of this length on the way, so that their pictures take no memory."""
CANDIDATE_TICKS = 50
"""One picture out of so many is kept as a possible reference, the sharpest."""
MIN_IOU = 0.3
"""Of boxes that follow one another, from which on they are one face's."""
SCAN_PX = 1920
"""Longer side beyond which a video is shrunk to be searched: two dozen frames are held for that,
and detectors look at far fewer pixels anyway."""


@dataclass
class Run:
    """A face without interruption, on the clock of `spec.fps`."""

    start: int
    """Its first tick."""
    boxes: np.ndarray
    """(N, 4) x1, y1, x2, y2 in pixels, smoothed."""
    shot: int = 0
    """Number of the shot that it lies in."""
    candidates: list[tuple[float, np.ndarray]] = field(default_factory=list)
    """(sharpness, crop (S, S, 3) uint8), in time."""
    first_s: float = -math.inf
    """When its first frame is shown; a frame before that lies in front of a cut, or lacks it."""
    last_s: float = math.inf
    """When its last frame is shown."""
    look: tuple[np.ndarray, np.ndarray] | None = None
    """What it looks like, once it was asked (`cast.py`)."""

    def references(self, n: int) -> np.ndarray:
        """At most `n` sharp pictures (R, S, S, 3) uint8, spread over the time it is seen."""
        groups = np.array_split(np.arange(len(self.candidates)), min(n, len(self.candidates)))
        best = [max(group, key=lambda i: self.candidates[i][0]) for group in groups]
        return np.stack([self.candidates[i][1] for i in best])

    @property
    def end(self) -> int:
        """The tick behind its last one."""
        return self.start + len(self.boxes)


@dataclass
class Face:
    """One face of a video."""

    number: int
    """As `syncdisc score` numbers the tracks (but there, those of over a minute are cut)."""
    runs: list[Run]
    """In time; of a video's first reading one."""
    fps: int
    """Ticks per second."""
    also: tuple[int, ...] = ()
    """Numbers of the other tracks that it is seen in."""

    @property
    def side_px(self) -> float:
        """Median side of the box."""
        boxes = np.concatenate([run.boxes for run in self.runs])
        return float(np.median(np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(1))))

    @property
    def seconds(self) -> float:
        """How long it is seen."""
        return sum(len(run.boxes) for run in self.runs) / self.fps

    def seen_before(self, end_s: float | Fraction) -> float:
        """For how many seconds it is seen before a moment."""
        end = float(end_s * self.fps)
        return sum(max(0.0, min(run.end, end) - run.start) for run in self.runs) / self.fps

    def at(self, time_s: Fraction) -> tuple[Run, np.ndarray] | None:
        """The run and the box (4,) of the frame that is shown at a moment.

        Between two ticks it is a mean of both their boxes.
        """
        for run in self.runs:
            if run.first_s <= float(time_s) <= run.last_s:
                last = len(run.boxes) - 1
                at = min(max(float(time_s * self.fps) - run.start, 0.0), float(last))
                low = int(at)
                high = min(low + 1, last)
                return run, run.boxes[low] + (at - low) * (run.boxes[high] - run.boxes[low])
        return None

    def __str__(self) -> str:
        """In words, for a list."""
        start_s = self.runs[0].start / self.fps
        return (
            f"face {self.number} at {start_s:.2f} s for {self.seconds:.2f} s, {self.side_px:.0f} px"
        )


@dataclass(frozen=True)
class Scan:
    """What one pass over a video gives."""

    faces: list[Face]
    """By number."""
    pts: np.ndarray
    """(F,) int64, timestamps of all frames in ticks of the stream's clock; of a photograph none."""
    short: list[Run]
    """Faces that are not seen for long enough to have a number; one of those may go on in them."""


def scan_video(
    stream: PictureStream,
    detect: Detector,
    settings: TrackSettings,
    *,
    fps: int,
    face_px: int,
) -> Scan:
    """Find the faces of a video, as `syncdisc score` does, on a clock of `fps`.

    Raises:
        FaceError: no face; the message says why.
    """
    pts: list[int] = []
    ticks = Ticks(fps)
    tally = TrackTally()
    shrink = -(-max(stream.width, stream.height) // SCAN_PX)
    across, down = (
        stream.width / (stream.width // shrink),
        stream.height / (stream.height // shrink),
    )
    scale = np.array([across, down] * 2, np.float32)
    pieces = follow(
        ticks.read(stream, pts, shrink),
        detect,
        # All of a face, also a short rest behind a piece: what is too short is dropped below.
        replace(
            settings,
            min_frames=1,
            max_frames=PIECE_TICKS,
            min_face_px=max(1, settings.min_face_px // shrink),
        ),
        face_px=face_px,
        margin=0,
        tally=tally,
    )
    runs: list[Run] = []
    ends: dict[int, int] = {}  # of shots
    for piece in pieces:
        shot = tally.cuts
        ends[shot] = tally.frames
        candidates = _candidates(piece.crops)
        before = [
            run
            for run in runs
            if run.end == piece.start_frame
            and run.shot == shot
            and len(run.boxes) % PIECE_TICKS == 0
            and overlap(run.boxes[-1:], piece.boxes[:1])[0, 0] > MIN_IOU
        ]
        if before:
            run = max(before, key=lambda r: overlap(r.boxes[-1:], piece.boxes[:1])[0, 0])
            run.boxes = np.concatenate([run.boxes, piece.boxes])
            run.candidates += candidates
        else:
            runs.append(Run(piece.start_frame, piece.boxes, shot, candidates))
    long_enough = min(settings.min_frames, tally.frames)
    kept = [run for run in runs if len(run.boxes) >= long_enough]
    short = [run for run in runs if len(run.boxes) < long_enough]
    times_s = [float((p - pts[0]) * stream.time_base) for p in pts]
    for run in runs:
        run.boxes = run.boxes * scale
        first, behind = np.searchsorted(ticks.of, [run.start, run.end])
        shown = times_s[first:behind] or [math.inf, -math.inf]
        run.first_s, run.last_s = shown[0], shown[-1]
    if not kept:
        raise FaceError(f"{stream.path}: {_why_no_face(tally, settings)}.")

    # A track is numbered when it is known to have ended, at the latest with its shot.
    patience = (settings.max_gap_detections + 1) * settings.every
    kept.sort(key=lambda run: (min(run.end - 1 + patience, ends[run.shot]), run.start))
    faces = [Face(n, [run], fps) for n, run in enumerate(kept)]
    return Scan(faces, np.array(pts, np.int64), short)


def scan_photo(
    image: np.ndarray, detect: Detector, settings: TrackSettings, *, fps: int, face_px: int
) -> Scan:
    """The faces of one picture (H, W, 3) uint8, best first; they are there at any time.

    Raises:
        FaceError: no face.
    """
    found = detect(image)
    large = found[(found[:, 2:4] - found[:, :2] >= settings.min_face_px).all(axis=1)]
    boxes = large[large[:, 4] >= settings.min_score, :4]
    if not len(boxes):
        why = "no face" if not len(found) else "no face that is large and sure enough"
        raise FaceError(
            f"{why} in the photograph. Try another --detector, or lower --track.min_face_px or "
            "--track.min_score."
        )
    faces = []
    for number, box in enumerate(boxes):
        crop = crop_face(image, box, face_px=face_px, margin=0)
        faces.append(Face(number, [Run(0, box[None], 0, [(0.0, crop)])], fps))
    return Scan(faces, np.empty(0, np.int64), [])


def _candidates(crops: np.ndarray) -> list[tuple[float, np.ndarray]]:
    """The sharpest crop of each stretch of CANDIDATE_TICKS."""
    out = []
    for first in range(0, len(crops), CANDIDATE_TICKS):
        stretch = crops[first : first + CANDIDATE_TICKS]
        grey = [cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY) for crop in stretch]
        sharp = [float(cv2.Laplacian(g, cv2.CV_32F).var()) for g in grey]
        best = int(np.argmax(sharp))
        out.append((sharp[best], stretch[best].copy()))
    return out


def _why_no_face(tally: TrackTally, settings: TrackSettings) -> str:
    if not tally.detections:
        return f"no face in {tally.frames} frames. Try another --detector"
    if tally.tracks:
        return f"no face stays for {settings.min_frames} frames. Lower --track.min_frames"
    return (
        f"faces were seen, {tally.too_small} under {settings.min_face_px} px and "
        f"{tally.too_unsure} under score {settings.min_score}. Lower --track.min_face_px or "
        "--track.min_score"
    )
