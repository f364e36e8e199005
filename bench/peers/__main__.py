"""Our `prepare` beside the loops that people copy: those of Wav2Lip and of syncnet_python.

    python bench/peers --clips DIR --wav2lip CHECKOUT --syncnet CHECKOUT [--files 20]

The same files, one process each, one after another, in one run. Both peers' own scripts
(preprocess.py, run_pipeline.py) are run from their checkouts, unchanged, with our detector in place
of theirs, so that it is the loops that are compared, and with `ffmpeg` from the PATH.
syncnet_python's scene cutting is left out, in its favour: the interface that it calls has gone from
today's PySceneDetect; it gets our limits (25 frames, 24 pixels), and how many more files its own
(100 frames, 100 pixels) would lose is said. Prints a table: seconds, times real time, tracks, and
the files of which nothing came that could be trained on.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from syncdisc_plugin.data.store import ClipStore

LEAST_FRAMES, LEAST_PX = 25, 24  # a track's least length and face, as in our `prepare`
ITS_FRAMES, ITS_PX = 100, 100  # the same by syncnet_python's defaults
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Outcome:
    """What one of the three made of the files."""

    name: str
    seconds: float
    peak_mb: float
    """Of its largest process."""
    minutes: float
    """Of footage in tracks."""
    tracks: int
    lost: dict[str, str]
    """Inputs of which there is no track, and why, where that can be told."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=Path, required=True, help="folder with clips.csv")
    parser.add_argument("--wav2lip", type=Path, help="a checkout of Rudrabha/Wav2Lip")
    parser.add_argument("--syncnet", type=Path, help="a checkout of joonson/syncnet_python")
    parser.add_argument("--files", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if not shutil.which("ffmpeg"):
        parser.error("ffmpeg is not on the PATH; both peers call it.")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        videos = _choose(args.clips, args.files, args.seed, root / "videos")
        seconds = sum(float(row["seconds"]) for row in videos.values())
        print(f"{len(videos)} files, {seconds / 60:.1f} minutes", flush=True)
        outcomes = [_ours(root)]
        if args.wav2lip:
            outcomes.append(_wav2lip(args.wav2lip.resolve(), root, videos))
        if args.syncnet:
            outcomes.append(_syncnet(args.syncnet.resolve(), root, videos))
    first = outcomes[0].seconds
    print("\n| | s | x real time | times ours | peak MB | tracks | minutes | files lost |")
    print("|---|---|---|---|---|---|---|---|")
    for o in outcomes:
        print(
            f"| {o.name} | {o.seconds:.0f} | {seconds / o.seconds:.1f} | {o.seconds / first:.1f} | "
            f"{o.peak_mb:.0f} | {o.tracks} | {o.minutes:.1f} | {len(o.lost)} |"
        )
    for o in outcomes:
        for name, reason in sorted(o.lost.items()):
            print(f"{o.name} lost {name}: {reason}")


def _choose(clips: Path, n: int, seed: int, out: Path) -> dict[Path, dict[str, str]]:
    """Links OUT/speaker/name to `n` files, drawn evenly from all folders, with their rows."""
    with (clips / "clips.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    rng = np.random.default_rng(seed)
    folders: dict[str, list[dict[str, str]]] = {}
    for i in rng.permutation(len(rows)):
        folders.setdefault(rows[i]["path"].split("/")[0], []).append(rows[i])
    turns = (group[k] for k in range(len(rows)) for group in folders.values() if k < len(group))
    links: dict[Path, dict[str, str]] = {}
    for row in turns:
        link = out / re.sub(r"\W", "_", row["speaker"]) / Path(row["path"]).name
        if link.exists():
            continue
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to((clips / row["path"]).resolve())
        links[link] = row
        if len(links) == n:
            break
    return links


def _timed(command: list[str], cwd: Path, log: Path) -> tuple[float, float, int]:
    """Seconds, megabytes of its largest process, and exit status."""
    began = time.monotonic()
    with log.open("ab") as file:
        process = subprocess.Popen(command, cwd=cwd, stdout=file, stderr=file)
        _, status, usage = os.wait4(process.pid, 0)
    return time.monotonic() - began, usage.ru_maxrss / 1024, status


def _ours(root: Path) -> Outcome:
    out = root / "store"
    command = [sys.executable, "-m", "syncdisc_plugin", "prepare", str(root / "videos")]
    seconds, peak, _ = _timed([*command, "--out", str(out), "--workers", "1"], root, root / "ours")
    store = ClipStore(out)
    frames = sum(c.n_frames for c in store.clips)
    lost = {Path(row["path"]).name: row["reason"] for row in store.refused}
    return Outcome("syncdisc prepare", seconds, peak, frames / 1500, len(store.clips), lost)


def _wav2lip(checkout: Path, root: Path, videos: dict[Path, dict[str, str]]) -> Outcome:
    """Each video is a folder of numbered pictures and a sound file; a gap ends a track."""
    work, out = root / "wav2lip", root / "wav2lip-out"
    weights = work / "face_detection" / "detection" / "sfd"
    weights.mkdir(parents=True)
    (weights / "s3fd.pth").touch()  # the script asks for the file; the stand-in does not need it
    script = [sys.executable, str(HERE / "wav2lip.py"), str(checkout)]
    options = ["--data_root", str(root / "videos"), "--preprocessed_root", str(out)]
    seconds, peak, _ = _timed([*script, *options], work, root / "wav2lip.log")
    tracks, minutes, lost = 0, 0.0, {}
    for video, row in videos.items():
        folder = out / video.parent.name / video.name.split(".")[0]
        numbers = sorted(int(p.stem) for p in folder.glob("*.jpg"))
        runs = [r for r in _runs(numbers) if r >= LEAST_FRAMES]
        tracks, minutes = tracks + len(runs), minutes + sum(runs) / float(row["fps"]) / 60
        if video.suffix != ".mp4":
            lost[video.name] = "only *.mp4 is looked for"
        elif not runs:
            lost[video.name] = f"{len(numbers)} faces"
        elif not (folder / "audio.wav").exists():
            lost[video.name] = "no audio.wav"
    return Outcome("Wav2Lip preprocess.py", seconds, peak, minutes, tracks, lost)


def _syncnet(checkout: Path, root: Path, videos: dict[Path, dict[str, str]]) -> Outcome:
    work = root / "syncnet"
    limits = ["--min_track", str(LEAST_FRAMES), "--min_face_size", str(LEAST_PX)]
    seconds = peak = minutes = 0.0
    tracks, lost, more = 0, {}, []
    for number, video in enumerate(videos):
        log = root / f"syncnet-{number}.log"
        script = [sys.executable, str(HERE / "syncnet.py"), str(checkout)]
        options = ["--videofile", str(video), "--reference", str(number), "--data_dir", str(work)]
        took, most, status = _timed([*script, *options, *limits], root, log)
        seconds, peak = seconds + took, max(peak, most)
        lines = log.read_text(errors="replace").splitlines()
        found = [
            (int(n), float(px))
            for n, px in re.findall(r"^track (\d+) (\S+)$", "\n".join(lines), re.M)
        ]
        tracks, minutes = tracks + len(found), minutes + sum(n for n, _ in found) / 1500
        if status or not found:
            lost[video.name] = lines[-1] if status else "no track"
        elif not any(n > ITS_FRAMES and px > ITS_PX for n, px in found):
            more.append(video.name)
    print(f"by its own limits syncnet_python would lose {len(more)} more: {', '.join(more)}")
    return Outcome("syncnet_python run_pipeline.py", seconds, peak, minutes, tracks, lost)


def _runs(numbers: list[int]) -> Iterator[int]:
    """Lengths of the runs of consecutive numbers."""
    for part in np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1) if numbers else []:
        yield len(part)


if __name__ == "__main__":
    main()
