"""`kill -9` while `syncdisc prepare` runs, at random moments: is the store afterwards as if not?

    python bench/prepare_kill.py --videos DIR [--times 50] [--detector none] [--seed 0]

Prepares the videos once undisturbed. Then in rounds, each with a new store: kill the command, or
it and its workers, up to four times, starting it again each time, and let it end. After a kill no
process may stay, and all that a reader takes must be as in the undisturbed store; at the end all
of the store must be, byte for byte, with nothing beside it. Exit status 1 where it is not.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from syncdisc_plugin.data.manifest import read_rows
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.data.verify import verify
from syncdisc_plugin.errors import StoreError

KILLS_A_ROUND = 4
LINGER_S = 30  # for workers to notice, on a busy machine
SELDOM = 0.2  # share of kills before there is anything to lose


@dataclass
class Whole:
    """The undisturbed store, and how long it took to make."""

    root: Path
    argv: list[str]
    first_row_s: float
    seconds: float

    @property
    def inputs(self) -> int:
        return len(keys(self.root))

    @property
    def per_input_s(self) -> float:
        return (self.seconds - self.first_row_s) / max(1, self.inputs - 1)


def command(videos: Sequence[Path], out: Path, options: Sequence[str]) -> list[str]:
    argv = [sys.executable, "-m", "syncdisc_plugin", "prepare", *map(str, videos)]
    return [*argv, "--out", str(out), *options]


def start(argv: Sequence[str]) -> subprocess.Popen[bytes]:
    """In a process group of its own, to be killed with all that it starts."""
    return subprocess.Popen(
        argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )


def finish(process: subprocess.Popen[bytes]) -> None:
    _, err = process.communicate()
    if process.returncode:
        raise SystemExit(f"prepare ended with {process.returncode}: {err.decode()[-2000:]}")


def keys(root: Path) -> set[str]:
    return {row["key"] for row in read_rows(root / "manifest.jsonl")}


def undisturbed(videos: Sequence[Path], out: Path, options: Sequence[str]) -> Whole:
    process, began, first = start(command(videos, out, options)), 0.0, 0.0
    while process.poll() is None and not first:
        began = began or ((out / "lock").exists() and time.monotonic()) or 0.0
        first = (bool(keys(out)) and time.monotonic()) or 0.0
        time.sleep(0.005)
    finish(process)
    now = time.monotonic()
    return Whole(out, list(options), (first or now) - began, now - began)


def alive(group: int) -> list[int]:
    """Processes of the group that run; zombies wait for their parent and do nothing."""
    text = subprocess.run(["ps", "-eo", "pid=,pgid=,stat="], capture_output=True, text=True).stdout
    rows = (line.split() for line in text.splitlines())
    return [int(pid) for pid, its, stat in rows if int(its) == group and "Z" not in stat]


def kill_at(
    argv: Sequence[str], root: Path, inputs: int, moment_s: float, everyone: bool
) -> bool | None:
    """Kill -9 `moment_s` after the store is taken and so many inputs are done.

    None: it had ended before; False: workers stayed.
    """
    process = start(argv)
    while process.poll() is None and not (taken(root, process.pid) and len(keys(root)) >= inputs):
        time.sleep(0.002)
    time.sleep(moment_s)
    if process.poll() is not None:
        finish(process)
        return None
    if everyone:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.communicate()
    until = time.monotonic() + LINGER_S
    while left := alive(process.pid):
        if time.monotonic() > until:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            return False
        time.sleep(0.05)
    return True


def taken(root: Path, pid: int) -> bool:
    """Whether the store's lock is that process's: it has begun to write."""
    try:
        return f'"pid": {pid},' in (root / "lock").read_text()
    except OSError:
        return False


def faults_meanwhile(root: Path, whole: Path) -> list[str]:
    """What a reader of the interrupted store would take and should not."""
    if not (root / "store.json").exists():
        return []
    faults = [f.text for f in verify(root).findings if f.kind not in ("left", "manifest")]
    try:
        clips = ClipStore(root).clips
    except StoreError:  # no clip yet
        return faults
    right = ClipStore(whole)
    for clip in clips:
        name = f"shards/{clip.shard}.safetensors"
        if right[clip.id] != clip or (root / name).read_bytes() != (whole / name).read_bytes():
            faults.append(f"clip {clip.id} ({clip.source}) differs")
    return faults


def differences(root: Path, whole: Path) -> list[str]:
    """Where two stores differ: rows but for their order, and every other file."""
    faults = [finding.text for finding in verify(root).findings]
    ours, theirs = (sorted(map(repr, read_rows(s / "manifest.jsonl"))) for s in (root, whole))
    if ours != theirs:
        faults.append(f"{len(ours)} rows, {len(theirs)} expected, or other ones")
    ours, theirs = (sorted(str(p.relative_to(s)) for p in s.rglob("*")) for s in (root, whole))
    faults += [f"{name}: in one of them only" for name in sorted({*ours} ^ {*theirs})]
    for name in sorted({*ours} & {*theirs} - {"manifest.jsonl", "lock"}):
        if (root / name).is_file() and (root / name).read_bytes() != (whole / name).read_bytes():
            faults.append(f"{name}: differs")
    return faults


def one_round(
    videos: Sequence[Path], root: Path, whole: Whole, kills: int, chance: random.Random
) -> tuple[int, list[str]]:
    """Kill up to so many times, then let it end. How often it was killed, and what is wrong."""
    argv, killed, faults = command(videos, root, whole.argv), 0, list[str]()
    while killed < kills:
        done = len(keys(root))
        early, everyone = chance.random() < SELDOM, chance.random() < 0.5
        # Counted in inputs first: how fast they go depends on what else the machine does.
        inputs = done if early else chance.randint(done, max(done, whole.inputs - 1))
        moment_s = chance.uniform(0, whole.first_row_s if early else 1.5 * whole.per_input_s)
        gone = kill_at(argv, root, inputs, moment_s, everyone)
        if gone is None:
            break
        killed += 1
        faults += [] if gone else ["a worker stayed when its parent was killed"]
        faults += faults_meanwhile(root, whole.root)
    finish(start(argv))
    return killed, faults + differences(root, whole.root)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=Path, nargs="+", required=True)
    parser.add_argument("--times", type=int, default=50, help="how many kills in all")
    parser.add_argument("--detector", default="none")
    parser.add_argument("--workers", default="2")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    chance, killed, rounds, bad = random.Random(args.seed), 0, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        options = ["--detector", args.detector, "--workers", args.workers]
        whole = undisturbed(args.videos, Path(folder) / "whole", options)
        size = f"{whole.inputs} inputs, {len(ClipStore(whole.root))} clips"
        print(f"undisturbed: {size}, {whole.seconds:.1f} s, the first row after "
              f"{whole.first_row_s:.1f} s", flush=True)  # fmt: skip
        while killed < args.times:
            rounds += 1
            kills = min(KILLS_A_ROUND, args.times - killed)
            root = Path(folder) / f"round{rounds}"
            n, faults = one_round(args.videos, root, whole, kills, chance)
            killed, bad = killed + n, bad + bool(faults)
            print(f"round {rounds}: {n} kills, {'; '.join(faults) or 'equal'}", flush=True)
    print(f"{killed} kills in {rounds} rounds, {bad} stores differ from the undisturbed one")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
