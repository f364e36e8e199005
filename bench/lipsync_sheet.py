"""A contact sheet of `syncdisc lipsync`: faces as they were, with new lips, the sound below.

    python bench/lipsync_sheet.py --video VIDEO_OR_PHOTO --audio AUDIO --out SHEET.png

Without --video, scikit-image's portrait of an astronaut (NASA, public domain), whom no training has
seen.
"""

from __future__ import annotations

import argparse
import tempfile
from fractions import Fraction
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure

from generator_integration.reference import lipsync
from generator_integration.reference.playback import PhotoPlayback, is_photo
from syncdisc_plugin.data.prepare import PrepareSettings
from syncdisc_plugin.media import decode

COLUMNS, EVERY = 12, 2  # frames of 1/25 s
CODEC = 24  # steps of 255 that writing alone may change a pixel by
PORTRAIT = (slice(10, 250), slice(120, 360))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--video", type=Path, help="a video or a photograph")
    parser.add_argument("--audio", type=Path, required=True, help="a file that has sound")
    parser.add_argument("--out", type=Path, required=True, help="of the .png")
    parser.add_argument("--generator", default="base", help="shipped name, or the trainer's file")
    parser.add_argument("--start_s", type=float, default=0.5, help="where the sheet begins")
    parser.add_argument("--models", type=Path, help="folder with face detector files")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        video = args.video or portrait(Path(folder))
        said = Path(folder) / "said.mp4"
        settings = PrepareSettings(models=args.models)
        lipsync(video, args.audio, said, generator=args.generator, settings=settings, crf=12)
        first = round(25 * args.start_s)
        after = shown(said, first)
        if is_photo(video):
            before = [PhotoPlayback(video, Fraction(1)).image] * len(after)
        else:
            before = shown(video, first)
        sound = decode(said).audio
    height, width = before[0].shape[:2]  # odd sides get one row or column more
    after = [frame[:height, :width] for frame in after]
    here = where(before, after)
    before, after = ([frame[here] for frame in frames] for frames in (before, after))
    draw(before, after, sound[first * 640 :][: len(after) * EVERY * 640], args.out)


def portrait(folder: Path) -> Path:
    """The astronaut's head, as a file."""
    from skimage import data

    path = folder / "portrait.png"
    cv2.imwrite(str(path), cv2.cvtColor(data.astronaut()[PORTRAIT], cv2.COLOR_RGB2BGR))
    return path


def shown(video: Path, first: int) -> list[np.ndarray]:
    """Frames of a video for the sheet."""
    return list(islice(decode(video).frames(), first, first + COLUMNS * EVERY, EVERY))


def where(before: list[np.ndarray], after: list[np.ndarray]) -> tuple[slice, slice]:
    """The face: a square around what has changed, which is its lower half."""
    pairs = zip(before, after, strict=True)
    changes = [np.abs(b.astype(int) - a).max(axis=2) for b, a in pairs]
    weight = np.maximum(0, np.max(changes, axis=0) - CODEC).astype(float) + 1e-9
    height, width = weight.shape
    rows, columns = np.average(np.mgrid[:height, :width], axis=(1, 2), weights=weight)
    apart = np.abs(np.mgrid[:height, :width] - [[[rows]], [[columns]]]).max(axis=0)
    half = round(min(3 * np.average(apart, weights=weight), height / 2, width / 2))
    top = int(np.clip(rows - 1.3 * half, 0, height - 2 * half))
    left = int(np.clip(columns - half, 0, width - 2 * half))
    return slice(top, top + 2 * half), slice(left, left + 2 * half)


def draw(before: list[np.ndarray], after: list[np.ndarray], sound: np.ndarray, out: Path) -> None:
    """Write the sheet."""
    figure = Figure(figsize=(12, 3), layout="constrained")
    grid = figure.add_gridspec(3, len(after), height_ratios=(3, 3, 1), wspace=0, hspace=0)
    for row, (name, frames) in enumerate((("as it was", before), ("new lips", after))):
        for column, frame in enumerate(frames):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(frame)
            axes.set_xticks([])
            axes.set_yticks([])
            if column == 0:
                axes.set_ylabel(name)
    axes = figure.add_subplot(grid[2, :])
    axes.plot(np.arange(len(sound)) / 16000, sound, linewidth=0.5, color="black")
    axes.set_xlim(0, len(sound) / 16000)
    axes.set_yticks([])
    axes.set_ylabel("sound")
    axes.set_xlabel("seconds")
    figure.savefig(out, dpi=100)


if __name__ == "__main__":
    main()
