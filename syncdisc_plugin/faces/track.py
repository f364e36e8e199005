"""Follow faces through footage and cut them out, in one pass with a short buffer."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np

from syncdisc_plugin.errors import FaceError
from syncdisc_plugin.faces.crop import crop_aligned, crop_face
from syncdisc_plugin.faces.detect import Batch, Detector, overlap
from syncdisc_plugin.faces.shots import by_shot


@dataclass(frozen=True)
class Track:
    """One face through consecutive frames."""

    start_frame: int
    """Index of the first frame in the footage."""
    boxes: np.ndarray
    """(N, 4) float32, smoothed x1, y1, x2, y2 in pixels of the frames."""
    scores: np.ndarray
    """(N,) float32, score of the nearest detection in time."""
    crops: np.ndarray
    """(N, S, S, 3) uint8, see `crop_face`."""

    @property
    def n_frames(self) -> int:
        """Frames N in the track."""
        return len(self.boxes)


@dataclass(frozen=True)
class TrackSettings:
    """How faces are followed."""

    every: int = 5
    """Detect on every k-th frame, and on the last one; boxes between are interpolated."""
    min_iou: float = 0.3
    """Intersection over union from which two successive detections are the same face."""
    min_frames: int = 25
    """Shorter tracks are dropped."""
    max_frames: int = 1500
    """Longer tracks are cut into contiguous pieces of this many frames."""
    max_gap_detections: int = 2
    """Missed detections in a row that are bridged by interpolation."""
    min_face_px: int = 24
    """Detections with a side of fewer pixels are ignored."""
    min_score: float = 0.6
    """Detections with a lower score are ignored."""
    smooth_frames: int = 5
    """Frames on each side whose boxes are averaged with a frame's own; 0 is no smoothing."""
    cut_ratio: float = 4.0
    """A scene cut ends a track: where a frame differs from the one before by so many times what
    the frames around it do (PySceneDetect's AdaptiveDetector); 0: cuts are not looked for."""

    def __post_init__(self) -> None:
        """Refuse settings that no footage could meet."""
        if self.every < 1:
            raise ValueError(f"every: expected at least 1 frame, got {self.every}.")
        if not 0 < self.min_iou <= 1:
            raise ValueError(f"min_iou: expected more than 0 and at most 1, got {self.min_iou}.")
        if not 1 <= self.min_frames <= self.max_frames:
            raise ValueError(
                f"min_frames: expected 1 to max_frames={self.max_frames}, got {self.min_frames}."
            )
        if self.max_gap_detections < 0 or self.smooth_frames < 0:
            raise ValueError("max_gap_detections, smooth_frames: expected 0 or more.")
        if self.cut_ratio != 0 and not self.cut_ratio > 1:
            raise ValueError(
                f"cut_ratio: expected more than 1, or 0 for none, got {self.cut_ratio}."
            )


@dataclass
class TrackTally:
    """What `follow` met, so that the caller can word why footage gave no track."""

    frames: int = 0
    """Frames read."""
    detections: int = 0
    """Faces found, over all frames on which detection ran."""
    too_small: int = 0
    """Of these, ignored for `min_face_px`."""
    too_unsure: int = 0
    """Of these, ignored for `min_score`."""
    too_short: int = 0
    """Tracks, or last pieces of tracks, dropped for `min_frames`."""
    too_short_frames: int = 0
    """Frames in these."""
    cuts: int = 0
    """Scene cuts, each of which ends all tracks."""
    tracks: int = 0
    """Tracks yielded."""


def follow(
    frames: Iterable[np.ndarray],
    detect: Detector,
    settings: TrackSettings,
    *,
    face_px: int,
    margin: float,
    crop: str = "box",
    batch: Batch | None = None,
    tally: TrackTally | None = None,
) -> Iterator[Track]:
    """Yield the face tracks of some footage, each as soon as it ends or reaches max_frames.

    A track starts and ends on frames where its face was detected, and lies in one shot. Frames are
    held only until the smoothed boxes on them are known, (max_gap_detections + 1) * every +
    smooth_frames at most, those few more that the search for cuts looks ahead, and with a batch
    those until it is full.

    Args:
        frames: (H, W, 3) uint8 RGB each, all of one size.
        face_px: see `crop_face`.
        margin: see `crop_face`.
        crop: "box", or "aligned" by the detector's points; see `ClipSpec.crop`.
        batch: how to detect on several frames at once; None: `detect` on one after the other.
        tally: counts what was met, also when nothing is yielded.

    Raises:
        FaceError: the crop is aligned, and the detector gives no points.
    """
    tally = TrackTally() if tally is None else tally
    how = _aligned if crop == "aligned" else crop_face
    cut = partial(how, face_px=face_px, margin=margin)
    for number, shot in enumerate(by_shot(frames, settings.cut_ratio)):
        tally.cuts += number > 0
        seen = _looked_at(shot, detect, settings.every, batch)
        yield from _follow_shot(seen, tally.frames, detect, settings, cut, tally)


def _aligned(image: np.ndarray, row: np.ndarray, *, face_px: int, margin: float) -> np.ndarray:
    if len(row) < 11:
        raise FaceError(
            'detector: the crop "aligned" needs rows of 11 columns, with the points of eyes and '
            f"mouth, got {len(row)}. Use --detector yunet."
        )
    return crop_aligned(image, row[5:11], face_px=face_px, margin=margin)


def _looked_at(
    frames: Iterable[np.ndarray], detect: Detector, every: int, batch: Batch | None
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """(frame, what is found on it) of a shot; None for those between every k-th."""
    if batch is None:
        for index, image in enumerate(frames):
            yield image, None if index % every else detect(image)
        return
    frames = iter(frames)
    while waiting := list(islice(frames, batch.size * every)):
        found = batch.find(waiting[::every])
        for index, image in enumerate(waiting):
            yield image, None if index % every else found[index // every]


def _follow_shot(
    seen: Iterable[tuple[np.ndarray, np.ndarray | None]],
    start: int,
    detect: Detector,
    settings: TrackSettings,
    crop: Callable[[np.ndarray, np.ndarray], np.ndarray],
    tally: TrackTally,
) -> Iterator[Track]:
    """The tracks of one shot, `seen` by `_looked_at`, that begins with frame `start`.

    Its last frame is looked at too.
    """
    live: list[_LiveTrack] = []
    held: deque[np.ndarray] = deque()  # the newest frames
    index = start - 1

    for index, (image, found) in enumerate(seen, start):
        tally.frames += 1
        held.append(image)
        if found is None:
            continue
        _link(live, index, _usable(found, settings, tally), settings.min_iou)
        for track in list(live):
            is_over = track.misses > settings.max_gap_detections
            if is_over:
                live.remove(track)
            yield from _emit(track, is_over, held, index, crop, settings, tally)
        needed_from = min((track.next_frame for track in live), default=index + 1)
        for _ in range(len(held) - (index - needed_from + 1)):
            held.popleft()

    if live and (index - start) % settings.every:
        _link(live, index, _usable(detect(held[-1]), settings, tally), settings.min_iou)
    for track in live:
        yield from _emit(track, True, held, index, crop, settings, tally)


class _LiveTrack:
    """A face that is being followed, and its piece that is being cut."""

    def __init__(self, frame: int, detection: np.ndarray) -> None:
        self.first = self.last = frame  # confirmed by detections
        self.newest = detection.astype(np.float64)
        self.misses = 0
        self.rows = {frame: self.newest}  # interpolated x1, y1, x2, y2, score, points, while needed
        self.next_frame = frame  # the first without a crop
        self.boxes: list[np.ndarray] = []
        self.scores: list[float] = []
        self.crops: list[np.ndarray] = []

    def extend(self, frame: int, detection: np.ndarray) -> None:
        """Confirm the track up to `frame`; the boxes on the way are interpolated."""
        before, after = self.newest, detection.astype(np.float64)
        for between in range(self.last + 1, frame + 1):
            part = (between - self.last) / (frame - self.last)
            row = before + part * (after - before)
            row[4] = before[4] if part < 0.5 else after[4]
            self.rows[between] = row
        self.last, self.newest, self.misses = frame, after, 0

    def smoothed(self, reach: int) -> np.ndarray:
        """Average the row of `next_frame` with its neighbours, as many on either side: no lag."""
        frame = self.next_frame
        reach = min(reach, frame - self.first, self.last - frame)
        window = [self.rows[frame + i] for i in range(-reach, reach + 1)]
        return sum(window[1:], window[0]) / len(window)

    def take(self) -> Track:
        """Hand over the piece and begin the next one."""
        track = Track(
            start_frame=self.next_frame - len(self.crops),
            boxes=np.array(self.boxes, np.float32),
            scores=np.array(self.scores, np.float32),
            crops=np.stack(self.crops),
        )
        self.boxes, self.scores, self.crops = [], [], []
        return track


def _usable(found: np.ndarray, settings: TrackSettings, tally: TrackTally) -> np.ndarray:
    """Keep the detections that are large and sure enough."""
    is_small = ((found[:, 2:4] - found[:, :2]) < settings.min_face_px).any(axis=1)
    is_unsure = ~is_small & (found[:, 4] < settings.min_score)
    tally.detections += len(found)
    tally.too_small += int(is_small.sum())
    tally.too_unsure += int(is_unsure.sum())
    return found[~is_small & ~is_unsure]


def _link(live: list[_LiveTrack], index: int, found: np.ndarray, min_iou: float) -> None:
    """Give each live track its best detection, best pairs first; the others begin new tracks."""
    tracks, free = list(live), list(range(len(found)))
    iou = overlap(np.array([track.newest[:4] for track in tracks]).reshape(-1, 4), found)
    for pair in np.argsort(-iou, axis=None, kind="stable"):
        i, j = divmod(int(pair), len(found))
        if iou[i, j] < min_iou:
            break
        if tracks[i].last != index and j in free:
            tracks[i].extend(index, found[j])
            free.remove(j)
    for track in tracks:
        track.misses += track.last != index
    live.extend(_LiveTrack(index, found[j]) for j in free)


def _emit(
    track: _LiveTrack,
    is_over: bool,
    held: deque[np.ndarray],
    index: int,
    crop: Callable[[np.ndarray, np.ndarray], np.ndarray],
    settings: TrackSettings,
    tally: TrackTally,
) -> Iterator[Track]:
    """Cut the frames whose smoothed box is known; yield the pieces that are complete."""
    reach = settings.smooth_frames
    stop = track.last if is_over else track.last - reach
    while track.next_frame <= stop:
        row = track.smoothed(reach)
        track.boxes.append(row[:4])
        track.scores.append(track.rows[track.next_frame][4])
        track.crops.append(crop(held[track.next_frame - index - 1], row))
        track.rows.pop(track.next_frame - reach, None)
        track.next_frame += 1
        if len(track.crops) == settings.max_frames:
            tally.tracks += 1
            yield track.take()
    if is_over and len(track.crops) >= settings.min_frames:
        tally.tracks += 1
        yield track.take()
    elif is_over and track.crops:
        tally.too_short += 1
        tally.too_short_frames += len(track.crops)
