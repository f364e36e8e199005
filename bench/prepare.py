"""How fast `syncdisc prepare` is, where its time goes, and what a second process brings.

    python bench/prepare.py VIDEOS [--workers 1 2] [--engine local] [--detector NAME]

Decodes the videos once with PyAV and nothing else: machines differ, this tells by how much. Then
prepares them once for each number of workers, each time into a fresh store, and prints the
seconds by step (summed over the workers; "start and idle" is what they leave of workers times
wall-clock), the peak memory of the largest worker and of this process, and at the end how many
times as fast more workers are than the first number of them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import av

from syncdisc_plugin.data.cost import peak_memory_mb
from syncdisc_plugin.data.prepare import PrepareResult, PrepareSettings, prepare
from syncdisc_plugin.media import list_videos


def decode_alone(videos: list[Path]) -> float:
    """Seconds for what any tool does first: each frame an RGB array, the sound decoded; a thread
    of this process, nothing kept. Files end where PyAV cannot go on."""
    began = time.monotonic()
    for video in list_videos(videos):
        try:
            with av.open(str(video)) as container:
                container.streams.video[0].codec_context.thread_count = 1
                for frame in container.decode(video=0, audio=0):
                    if isinstance(frame, av.VideoFrame):
                        frame.to_ndarray(format="rgb24")
        except (av.FFmpegError, IndexError):
            continue
    return time.monotonic() - began


def timed(videos: list[Path], settings: PrepareSettings) -> tuple[PrepareResult, float]:
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        result = prepare(videos, Path(folder) / "store", settings=settings)
        return result, time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", type=Path, nargs="+")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--engine", default="local", choices=["local", "ray"])
    parser.add_argument("--detector", default="auto")
    args = parser.parse_args()
    bare = decode_alone(args.videos)
    print(f"decoding alone: {bare:.1f} s", flush=True)
    took: dict[int, float] = {}
    for workers in args.workers:
        settings = PrepareSettings(detector=args.detector, workers=workers, engine=args.engine)
        result, took[workers] = timed(args.videos, settings)
        spent, steps = workers * took[workers], result.cost.seconds
        shares = {**steps, "start and idle": spent - sum(steps.values())}
        print(
            f"{workers} workers: {result.clips} clips, {result.seconds:.0f} s of footage in "
            f"{took[workers]:.1f} s = {result.seconds / took[workers]:.1f} x real time, "
            f"{took[workers] / bare:.2f} x as long as decoding alone; "
            f"{len(result.refused)} refused; peak memory {result.cost.peak_mb:.0f} MB in the "
            f"largest worker, {peak_memory_mb():.0f} MB here"
        )
        for name, seconds in shares.items():
            print(f"  {name:15} {seconds:8.1f} s {seconds / spent:7.1%}", flush=True)
    first, *more = took
    for workers in more:
        print(f"from {first} to {workers} workers: {took[first] / took[workers]:.2f} x as fast")


if __name__ == "__main__":
    main()
