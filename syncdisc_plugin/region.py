"""Where the face detector's box lies in a host's frames: SyncLoss's `region`, found by looking."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from syncdisc_plugin.frames import VALUE_RANGES, Box, FrameFormat
from syncdisc_plugin.sync_loss import SyncLoss

# Crops end where the face does, and the detector wants to see around it. With this much of the
# frame repeated on each side its box is nearest to the one in the whole picture.
BORDER = 0.5
FEWEST = 5  # frames with a face
FAR_ABOVE = -0.35  # of the frame's height: the detector has not seen what is there
LEAST_SHARE = 0.5  # of the frames: below that they are hardly faces as the detector knows them


@dataclass(frozen=True)
class Located:
    """What the detector saw."""

    region: Box
    """(top, bottom, left, right) of its box in ratios of the frame, medians; what `SyncLoss(region=
    ...)` takes. Good to about 0.05 where the frame ends at the face, better where it shows more; of
    frames without eyes and brows the upper edge is a guess."""
    spread: float
    """Median distance of single frames' edges from these, the largest of the four; in ratios."""
    found: int
    """Frames with a face."""
    looked: int
    """Frames looked at."""

    def __str__(self) -> str:
        """One line to print."""
        edges = ", ".join(f"{edge:g}" for edge in self.region)
        words = (
            f"locate: say region=({edges}); the detector sees a face in {self.found} of "
            f"{self.looked} frames, its edges vary by ± {self.spread:.2f}"
        )
        if self.region[0] < FAR_ABOVE:
            words += (
                "; most of the face lies above the frame, so the upper edge is a guess: if the "
                'frames are lower halves of faces, say region="lower"'
            )
        return words


def locate(
    sync: SyncLoss,
    batches: Iterable[Any],
    *,
    models: Path | str | None = None,
    most_frames: int = 64,
) -> Located:
    """Find the region of a generator that cuts faces in its own way.

    The weights look at the lower half of YuNet's box, as `syncdisc prepare` cuts it. Ask with
    *true* frames, before training: a new generator draws no faces.

    Args:
        sync: says how the frames are to be read: layout, n_frames, value_range, color. Its own
            region does not matter.
        batches: of real frames: tensors, or what `sync.check` takes, (frames, mel) pairs or
            mappings with frames. One frame of each item is looked at.
        models: a folder with the detector's file; see `syncdisc prepare --models`.
        most_frames: stop after so many.

    Raises:
        TypeError, ValueError: frames that do not fit the format, or in which the detector sees
            hardly any face.
        FaceError: the detector's file is missing and cannot be downloaded.

    Example:
        >>> print(locate(sync, (gt for _, _, _, gt in loader)))  # doctest: +SKIP
    """
    from syncdisc_plugin.faces import load_detector

    if sync.spec.crop != "box":
        raise ValueError(
            f"sync: expected weights of boxes, got of {sync.spec.crop} crops, for which the frames "
            "must be turned and scaled by eyes and mouth. Take other weights."
        )
    detect = load_detector("yunet", models=models)
    found, looked = [], 0
    for image in _images(sync.format, batches):
        looked += 1
        if len(boxes := detect(_bordered(image))):
            found.append(_ratios(boxes[0, :4], image))
        if looked >= most_frames:
            break
    if len(found) < max(FEWEST, LEAST_SHARE * looked):
        raise ValueError(
            f"batches: expected faces, but the detector sees one in {len(found)} of {looked} "
            "frames. Pass true frames, upright and unmasked, and enough of them; look at "
            "value_range, color and layout."
        )
    edges = np.array(found)
    middle = np.median(edges, axis=0)
    spread = np.median(np.abs(edges - middle), axis=0).max()
    top, bottom, left, right = (round(float(edge), 2) for edge in middle)
    return Located((top, bottom, left, right), float(spread), len(found), looked)


def _images(how: FrameFormat, batches: Iterable[Any]) -> Iterable[np.ndarray]:
    """The middle frame of each item, (H, W, 3) uint8 RGB."""
    low, high = VALUE_RANGES[how.value_range]
    for batch in batches:
        frames = batch["frames"] if isinstance(batch, Mapping) else batch
        frames = frames[0] if isinstance(frames, list | tuple) else frames
        x = how.split(torch.as_tensor(frames).detach())
        middle = (x[:, x.shape[1] // 2].float().cpu() - low) / (high - low)
        middle = middle.flip(1) if how.color == "bgr" else middle
        pixels = (middle.clamp(0, 1) * 255).round().byte()
        yield from pixels.permute(0, 2, 3, 1).contiguous().numpy()


def _bordered(image: np.ndarray) -> np.ndarray:
    rows, columns = (round(BORDER * side) for side in image.shape[:2])
    return np.pad(image, ((rows, rows), (columns, columns), (0, 0)), mode="edge")


def _ratios(box: np.ndarray, image: np.ndarray) -> list[float]:
    """A box x1, y1, x2, y2 in the bordered image -> top, bottom, left, right in ratios."""
    height, width = image.shape[:2]
    rows, columns = round(BORDER * height), round(BORDER * width)
    x1, y1, x2, y2 = (float(edge) for edge in box)
    return [
        *((y - rows) / height for y in (y1, y2)),
        *((x - columns) / width for x in (x1, x2)),
    ]
