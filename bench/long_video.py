"""Does the memory of `syncdisc prepare` grow with the length of a video?

    python bench/long_video.py VIDEO [--minutes 2 20 120] [--detector NAME]

Repeats the packets of a video (nothing is encoded anew) until it is as long as asked for, prepares
each length with one worker into a fresh store, and prints the peak memory of that worker.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from pathlib import Path

import av

from syncdisc_plugin.data.cost import peak_memory_mb
from syncdisc_plugin.data.prepare import PrepareSettings, prepare


def repeat(video: Path, out: Path, seconds: float) -> None:
    """Write `video` over and over, with the timestamps going on."""
    with av.open(str(video)) as source:
        length_s = float(source.duration / av.time_base)
    with av.open(str(out), "w") as target:
        streams = {}
        for turn in itertools.count():
            if turn * length_s >= seconds:
                return
            with av.open(str(video)) as source:
                picked = [source.streams.video[0], source.streams.audio[0]]
                if not streams:
                    streams = {s.index: target.add_stream_from_template(s) for s in picked}
                for packet in source.demux(*picked):
                    if packet.dts is None:
                        continue
                    later = round(turn * length_s / packet.time_base)
                    packet.pts, packet.dts = packet.pts + later, packet.dts + later
                    packet.stream = streams[packet.stream.index]
                    target.mux(packet)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", type=Path)
    parser.add_argument("--minutes", type=float, nargs="+", default=[2, 20, 120])
    parser.add_argument("--detector", default="auto")
    args = parser.parse_args()
    settings = PrepareSettings(detector=args.detector, workers=1)
    for minutes in args.minutes:
        with tempfile.TemporaryDirectory() as folder:
            video = Path(folder) / "long.mkv"
            repeat(args.video, video, 60 * minutes)
            began = time.monotonic()
            result = prepare([video], Path(folder) / "store", settings=settings)
            took = time.monotonic() - began
        print(
            f"{minutes:g} minutes: {result.clips} clips, {result.seconds / 60:.1f} minutes in "
            f"{took:.0f} s = {result.seconds / took:.1f} x real time; peak memory "
            f"{result.cost.peak_mb:.0f} MB in the worker, {peak_memory_mb():.0f} MB here; "
            f"{[row['reason'] for row in result.refused] or 'none'} refused",
            flush=True,
        )


if __name__ == "__main__":
    main()
