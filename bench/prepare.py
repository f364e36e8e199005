"""How fast `syncdisc prepare` is: seconds of footage per second, everything included.

    python bench/prepare.py VIDEOS [--workers N] [--detector NAME]

Prints one line per number of workers (1 and all cores), each into a fresh store.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

from syncdisc_plugin.data.prepare import PrepareSettings, prepare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", type=Path, nargs="+")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    parser.add_argument("--detector", default="auto")
    args = parser.parse_args()
    for workers in args.workers:
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            result = prepare(
                args.videos,
                Path(folder) / "store",
                settings=PrepareSettings(detector=args.detector, workers=workers),
            )
            took = time.monotonic() - began
        peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(
            f"{workers} workers: {result.clips} clips, {result.seconds:.0f} s of footage in "
            f"{took:.1f} s = {result.seconds / took:.1f} x real time; "
            f"largest process {peak_mb:.0f} MB; {len(result.refused)} refused"
        )


if __name__ == "__main__":
    main()
