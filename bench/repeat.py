"""Whether a training recipe gives the same losses again from its seed.

    python bench/repeat.py --data STORE --config weights/recipe.yaml [--steps 1500] [--losses 100]

Begins the recipe twice, each in a new folder and a process of its own, ends both after so many
steps, and compares what their logs say of every tenth step, bit for bit (each follows from all
before it). The budget is in steps: one in minutes plans its schedule by the clock. Exit status 1
when anything differs.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from syncdisc_plugin.data.manifest import read_rows

TIME = "seconds"  # what no two runs share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500, help="the whole run's budget")
    parser.add_argument("--losses", type=int, default=100, help="end after so many steps")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        first, second = (_begin(Path(folder) / name, args) for name in ("first", "second"))
    equal = [a for a, b in zip(first, second, strict=False) if a == b]
    for a, b in zip(first, second, strict=False):
        print(f"step {a['step']:5}  loss {a['loss']:.9f}  {b['loss']:.9f}  {a == b}")
    print(f"{len(equal)} of {len(first)} logged steps are equal, to step {args.losses}")
    sys.exit(len(equal) != len(first) or len(first) != len(second))


def _begin(out: Path, args: argparse.Namespace) -> list[dict]:
    """Rows of the steps that the log holds when the run has got so far, without their times."""
    command = [sys.executable, "-m", "syncdisc_plugin", "train", "--config", str(args.config)]
    command += ["--data", str(args.data), "--out", str(out), "--steps", str(args.steps)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        rows = [r for r in read_rows(out / "log.jsonl") if r["kind"] == "step"]
        if rows and rows[-1]["step"] >= args.losses:
            process.send_signal(signal.SIGINT)
            process.wait()
            break
        time.sleep(1)
    rows = [r for r in read_rows(out / "log.jsonl") if r["kind"] == "step"]
    return [{k: v for k, v in r.items() if k != TIME} for r in rows if r["step"] <= args.losses]


if __name__ == "__main__":
    main()
