"""Where one shot ends and the next begins: PySceneDetect's detector on shrunk frames, as they come.

Footage is divided while it is decoded, a few frames behind; nothing is read twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import groupby
from operator import itemgetter

import cv2
import numpy as np

SIDE_PX = 48  # longer side of what is compared
WINDOW = 2  # frames on each side whose changes a frame's own is measured against
AHEAD = 6  # what was seen before a flash of fewer frames is seen again after it
MOST_REPEATS = 4  # of a picture, at 5 frames a second; more are frozen footage, held no longer
WORTH_A_LOOK = 5.0  # mean over red, green and blue, each 0..255
LEAST_CHANGE = 10.0  # mean over hue, saturation and value, each 0..255
SAME_PICTURE = 0.9  # correlation from which two frames show the same, whatever the light


def by_shot(frames: Iterable[np.ndarray], threshold: float) -> Iterator[Iterator[np.ndarray]]:
    """Divide footage at its cuts. A shot is lost once the next one is asked for.

    Args:
        frames: (H, W, 3) uint8 RGB each, all of one size.
        threshold: see `CutFinder`; 0: all of it is one shot.
    """
    if not threshold:
        yield iter(frames)
        return
    for _, shot in groupby(_numbered(frames, CutFinder(threshold)), key=itemgetter(0)):
        yield map(itemgetter(1), shot)


def _numbered(frames: Iterable[np.ndarray], find: CutFinder) -> Iterator[tuple[int, np.ndarray]]:
    """(number of the shot, frame); frames are held until it is known where they belong."""
    held: deque[np.ndarray] = deque()
    cuts: set[int] = set()
    first = shot = 0
    for image in frames:
        held.append(image)
        cuts |= find(image)
        while first < find.known:
            shot += first in cuts
            yield shot, held.popleft()
            first += 1
    cuts |= find.rest()
    for image in held:
        shot += first in cuts
        yield shot, image
        first += 1


class CutFinder:
    """Fed frame by frame; a cut is known AHEAD pictures after it.

    A picture that is repeated, as those of slow footage are to fill 25 frames a second, counts
    once: beside repeats, which do not change, every movement would look like a cut.

    Changes from a frame to the next are measured by PySceneDetect's AdaptiveDetector: at a cut it
    is `threshold` times that of the frames around, in which gestures and camera moves go on as
    well. That is no cut if one of the frames before is found again among those after: a flash.
    """

    def __init__(self, threshold: float) -> None:
        # Late: the package brings its file readers along, and is not needed to follow one shot.
        from scenedetect import FrameTimecode
        from scenedetect.detectors import AdaptiveDetector

        self._detector = partial(
            AdaptiveDetector,
            adaptive_threshold=threshold,
            min_scene_len=0,
            window_width=WINDOW,
            min_content_val=LEAST_CHANGE,
        )
        self._times = [FrameTimecode(i, 25.0) for i in range(2 * AHEAD + 1)]
        self._newest: deque[np.ndarray] = deque(maxlen=2 * AHEAD + 1)
        self._changes: deque[float] = deque(maxlen=AHEAD + WINDOW + 1)
        self._indices: deque[int] = deque(maxlen=2 * AHEAD + 1)  # of the frames in `_newest`
        self._given = self._repeats = self._pushed = 0
        self.known = 0
        """Of all frames before this one it is known whether they begin a shot."""

    def __call__(self, image: np.ndarray) -> set[int]:
        """Indices of the frames that are known now to begin a shot."""
        height, width = image.shape[:2]
        shrink = SIDE_PX / max(height, width)
        size = max(1, round(width * shrink)), max(1, round(height * shrink))
        # Nearest pixels tell cuts as well as means of areas, at a fraction of the time.
        small = cv2.resize(image, size, interpolation=cv2.INTER_NEAREST)
        self._given += 1
        if not self._pushed:
            for _ in range(AHEAD):  # the detector says nothing of the first frames that it sees
                self._push(small)
        elif self._repeats < MOST_REPEATS and np.array_equal(small, self._newest[-1]):
            self._repeats += 1
            return set()
        self._repeats = 0
        return self._push(small)

    def rest(self) -> set[int]:
        """The same, once all frames were given."""
        found: set[int] = set()
        for _ in range(AHEAD if self._pushed else 0):
            found |= self._push(self._newest[-1])
        return found

    def _push(self, small: np.ndarray) -> set[int]:
        before = self._newest[-1] if self._newest else small
        self._changes.append(sum(cv2.mean(cv2.absdiff(small, before))) / 3)
        self._newest.append(small)
        self._indices.append(self._given - 1)
        self._pushed += 1
        if self._pushed <= 2 * AHEAD:
            return set()
        self.known = self._indices[AHEAD + 1]
        if self._is_worth_a_look() and self._is_cut() and not self._is_flash():
            return {self._indices[AHEAD]}
        return set()

    def _is_worth_a_look(self) -> bool:
        # On every frame the detector would cost a good part of all preparing. It is asked about the
        # frame in the middle only if that changed by more than the frames around it.
        here = self._changes[WINDOW]
        around = sum(list(self._changes)[: 2 * WINDOW + 1]) - here
        return here >= WORTH_A_LOOK and here >= 1.5 * around / (2 * WINDOW)

    def _is_cut(self) -> bool:
        detector = self._detector()
        found = [
            cut.frame_num
            for time, small in zip(self._times, self._newest, strict=True)
            for cut in detector.process_frame(time, cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        ]
        return AHEAD in found

    def _is_flash(self) -> bool:
        shown = [_unlit(small) for small in self._newest]
        before, after = np.stack(shown[:AHEAD]), np.stack(shown[AHEAD:])
        if (before @ after.T > SAME_PICTURE).any():
            return True
        # Black, then white: nothing is seen that could be another shot.
        return bool((before == 0).all(axis=1).any() and (after == 0).all(axis=1).any())


def _unlit(small: np.ndarray) -> np.ndarray:
    """Grey levels without their mean and scale, a unit vector; zeros for a flat image."""
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32).ravel()
    grey -= grey.mean()
    length = float(np.linalg.norm(grey))
    return grey / length if length > len(grey) ** 0.5 else np.zeros_like(grey)
