"""Does the memory of `syncdisc lipsync` grow with the length of a video?

    python bench/lipsync_long.py VIDEO [--minutes 1 10] [--height 1080] [--models DIR]

The picture of VIDEO is enlarged to 16:9 of that height at 25 fps, black beside it, and repeated
with its sound until it is as long as asked for. Every length is given its own sound again, by a
process of its own whose peak memory is printed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from long_video import repeat

from generator_integration.reference import LipsyncResult, lipsync
from syncdisc_plugin.data.cost import peak_memory_mb
from syncdisc_plugin.data.pool import end_with_parent
from syncdisc_plugin.data.prepare import PrepareSettings
from syncdisc_plugin.media import decode, write_video

FPS, RATE_HZ = 25, 16000
PIECE_S = 60  # of VIDEO at most; the rest is repetition


def enlarge(video: Path, out: Path, height: int) -> None:
    """Its first minute in the middle of a 16:9 picture."""
    width = height * 16 // 9 // 2 * 2
    recording = decode(video, fps=FPS, sample_rate_hz=RATE_HZ)

    def frames() -> Iterator[np.ndarray]:
        for image in islice(recording.frames(), PIECE_S * FPS):
            scale = min(height / image.shape[0], width / image.shape[1])
            size = round(image.shape[1] * scale), round(image.shape[0] * scale)
            large = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
            top, left = (height - size[1]) // 2, (width - size[0]) // 2
            canvas = np.zeros((height, width, 3), np.uint8)
            canvas[top : top + size[1], left : left + size[0]] = large
            yield canvas

    sound = recording.audio[: PIECE_S * RATE_HZ]
    write_video(out, frames(), fps=FPS, audio=sound, sample_rate_hz=RATE_HZ)


def speak(video: Path, out: Path, settings: PrepareSettings) -> tuple[LipsyncResult, float, float]:
    """Result, seconds, and peak memory of this process in MB."""
    began = time.monotonic()
    result = lipsync(video, video, out, settings=settings)
    return result, time.monotonic() - began, peak_memory_mb()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", type=Path)
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 10])
    parser.add_argument("--height", type=int, default=1080)
    parser.add_argument("--models", type=Path, help="folder with face detector files")
    args = parser.parse_args()
    settings = PrepareSettings(models=args.models)
    for minutes in args.minutes:
        with tempfile.TemporaryDirectory() as folder:
            piece, long, out = (Path(folder) / n for n in ("piece.mkv", "long.mkv", "out.mp4"))
            enlarge(args.video, piece, args.height)
            repeat(piece, long, 60 * minutes)
            # Spawned: a fork would begin with the memory of this process.
            with ProcessPoolExecutor(
                1, mp_context=get_context("spawn"), initializer=end_with_parent
            ) as pool:
                result, took, peak_mb = pool.submit(speak, long, out, settings).result()
        print(
            f"{minutes:g} minutes: {result.width}x{result.height}, {result.frames} frames, a new "
            f"mouth in {result.generated}, {took:.0f} s = {result.frames / took:.1f} frames a "
            f"second; peak memory {peak_mb:.0f} MB",
            flush=True,
        )


if __name__ == "__main__":
    main()
