"""No room left while a store is written: the command stops and says so, and loses nothing."""

from __future__ import annotations

import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from check import Line, differences, unsound
from command import run_prepare

WORDS = ("No space left", "File too large")
# Sizes at which the first shard, a later one, or the manifest does not fit.
FILE_KB = (16, 300, 1500)
DISK_KB = (64, 2048, 6000)
N_GOOD = 6


def full_disk(
    good: Sequence[Path], work: Path, whole: Path, options: Sequence[str], limit_s: float,
    file_kb: Sequence[int] = FILE_KB, disk_kb: Sequence[int] = DISK_KB,
) -> tuple[Line, str]:  # fmt: skip
    """Run out of room at several sizes, then go on with room. A line, and what was skipped."""
    line, skipped, good = Line("full disk"), "", good[:N_GOOD]

    def once(name: str, out: Path, before: Callable[[], None] | None, more: Callable[[], None]):
        line.inputs += 1
        faults = run_prepare(good, out, options, limit_s, before).stop_faults(WORDS)
        more()
        faults += run_prepare(good, out, options, limit_s).faults()
        faults += differences(good, out, whole) + unsound(out)
        line.ok += not faults
        line.faults += [f"{name}: {text}" for text in faults]

    for size in file_kb:
        out = work / f"files of {size} kB"
        shutil.rmtree(out, ignore_errors=True)
        limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size << 10, size << 10))
        once(out.name, out, limit, lambda: None)
    for size in disk_kb:
        with small_disk(work / "disk", size) as grow:
            if grow is None:
                skipped = "a small disk: this user may not mount one"
                break
            once(f"a disk of {size} kB", work / "disk" / "store", None, grow)
    return line, skipped


@contextmanager
def small_disk(place: Path, size_kb: int) -> Iterator[Callable[[], None] | None]:
    """A disk in memory at `place`; gives what makes it large. None: it cannot be had."""

    def mount(options: str) -> bool:
        call = ["mount", "-t", "tmpfs", "-o", options, "none", str(place)]
        try:
            return not subprocess.run(call, capture_output=True).returncode
        except OSError:
            return False

    place.mkdir(parents=True, exist_ok=True)
    if not mount(f"size={size_kb}k"):
        yield None
        return
    try:
        yield lambda: mount("remount,size=1g") and None
    finally:
        subprocess.run(["umount", str(place)], check=True)
