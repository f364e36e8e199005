"""At least 300 broken inputs among good ones: no crash, no hang, a row with a reason for each.

    python bench/faults --clips DIR --out WORK [--limit N]

Mutates a few short videos of DIR and films made here, lays good files among them, runs
`syncdisc prepare` over all of it and over the good files alone, and checks that

- the command ends by itself, in time, without a traceback;
- every input has a row: clips, or a refusal whose reason somebody worded, as its kind expects;
- the good files' rows and shards are the same as without the others, byte for byte;
- the store is sound (`syncdisc store verify`);
- a full disk stops the command with one line, and the same command goes on when there is room.

Prints a table per kind, leaves it in WORK/table.md, and exits 1 where something was wrong. What is
made is a function of DIR and the seed. WORK/inputs and WORK/stores are made anew.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from changing import Restless, changing
from check import Line, differences, judge, rows_by_file, table, unsound
from command import run_prepare, unprivileged
from damaged import damaged
from disk import DISK_KB, FILE_KB, full_disk
from film import Film, shoot
from odd import MJPEG, OPUS, VP9, odd
from places import LOCKED, places
from plan import Impossible, Originals, Plan

N_REAL = 3
LARGEST_BYTES = 400_000  # longer videos cost time and show no more


def originals(clips: Path, work: Path) -> Originals:
    """The smallest videos of as many folders, and a film in each other container."""
    found: dict[Path, list[Path]] = {}
    for path in sorted(clips.rglob("*.mp4")):
        if path.stat().st_size <= LARGEST_BYTES:
            found.setdefault(path.parent, []).append(path)
    small = sorted((min(p, key=lambda f: (f.stat().st_size, f)) for p in found.values()),
                   key=lambda f: (f.stat().st_size, f))  # fmt: skip
    more = (path for paths in found.values() for path in paths if path not in small)
    real = [*small, *more][:N_REAL]
    if not real:
        raise SystemExit(f"--clips {clips}: no .mp4 below {LARGEST_BYTES} bytes. Give short ones.")
    films = {
        "film.mkv": Film(),
        "film.ts": Film(),
        "film.webm": Film(sounds=(OPUS,), **VP9),
        "film.avi": MJPEG,
    }
    folder = work / "originals"
    folder.mkdir(parents=True, exist_ok=True)
    for name, film in films.items():
        shoot(folder / name, film)
    return Originals(tuple(real), tuple(folder / name for name in films))


def all_plans(source: Originals, seed: int) -> Iterator[Plan]:
    yield from damaged(source, seed)
    yield from odd()
    yield from places(source)
    yield from changing(source)


def thinned(plans: Sequence[Plan], limit: int | None) -> list[Plan]:
    """At most so many of each kind, evenly chosen."""
    by_kind: dict[str, list[Plan]] = {}
    for plan in plans:
        by_kind.setdefault(plan.kind, []).append(plan)
    if limit is not None:
        for kind, its in by_kind.items():
            n = min(limit, len(its))
            by_kind[kind] = [its[(2 * i + 1) * len(its) // (2 * n)] for i in range(n)]
    return [plan for its in by_kind.values() for plan in its]


def lay_out(
    plans: Sequence[Plan], source: Originals, root: Path
) -> tuple[list[tuple[Plan, Path]], list[Path], dict[str, str]]:
    """Make the inputs below `root`. They with their paths, the good files, what is impossible."""
    made, good, skipped = [], [], {}
    for plan in plans:
        path = root / plan.kind / plan.name
        if not path.parent.exists():
            path.parent.mkdir(parents=True)
            turn = len(good) // 2 % len(source.all)
            other = source.all[turn]
            # In the middle and at the end, whichever names the others have.
            for name, its in (("z good 0.mp4", source.real[0]), (f"m good{other.suffix}", other)):
                good.append(path.parent / name)
                shutil.copyfile(its, good[-1])
        try:
            plan.make(path)
            made.append((plan, path))
        except Impossible as reason:
            skipped[plan.kind] = str(reason)
    return made, good, skipped


def as_another_user(
    plans: Sequence[Plan], source: Originals, work: Path, options: Sequence[str], limit_s: float,
    before: Callable[[], None] | None,
) -> Line:  # fmt: skip
    """Prepare files that may not be read, in a run of their own: the superuser reads them all."""
    place = work / "locked"
    shutil.rmtree(place, ignore_errors=True)
    made, good, _ = lay_out(plans, source, place / "inputs")
    place.chmod(0o777)
    outcome = run_prepare([place / "inputs"], place / "store", options, limit_s, before)
    (line,) = judge(made, place / "store")
    rows = rows_by_file(place / "store")
    lost = [p.name for p in good if [r["status"] for r in rows.get(str(p), [])] != ["ok"]]
    line.faults += outcome.faults() + [f"{name!r}: a good file is not ok" for name in lost]
    return line


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int, help="at most so many inputs of each kind")
    parser.add_argument("--detector", default="none")
    parser.add_argument("--workers", default="2")
    parser.add_argument("--minutes", type=float, default=20.0, help="after which a run has hung")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    work = args.out.resolve()
    root, stores = work / "inputs", work / "stores"
    for folder in (root, stores):
        shutil.rmtree(folder, ignore_errors=True)
    options = ["--detector", args.detector, "--workers", args.workers]
    limit_s = 60 * args.minutes

    source = originals(args.clips, work)
    plans = thinned(list(all_plans(source, args.seed)), args.limit)
    locked = [plan for plan in plans if plan.kind == LOCKED]
    made, good, skipped = lay_out([p for p in plans if p.kind != LOCKED], source, root)
    print(f"{len(made)} inputs of {len({p.kind for p, _ in made})} kinds, {len(good)} good files")
    with Restless(root, stores / "mixed"):
        mixed = run_prepare([root], stores / "mixed", options, limit_s)
    print(f"all of them: {mixed.seconds:.0f} s", flush=True)
    alone = run_prepare(good, stores / "alone", options, limit_s)
    print(f"the good ones alone: {alone.seconds:.0f} s", flush=True)

    lines = judge(made, stores / "mixed")
    if (before := unprivileged()) is Impossible:
        skipped[LOCKED] = "no user here who may run Python and not read everything"
    else:
        lines.append(as_another_user(locked, source, work, options, limit_s, before))
    good_line = Line("good files among them", len(good))
    good_line.faults = differences(good, stores / "mixed", stores / "alone")
    good_line.ok = sum(str(path) in rows_by_file(stores / "mixed") for path in good)
    if args.limit is None or args.limit > 1:
        few = {"file_kb": FILE_KB, "disk_kb": DISK_KB}
    else:
        few = {"file_kb": FILE_KB[:1], "disk_kb": ()}
    disk, no_disk = full_disk(good, stores, stores / "alone", options, limit_s, **few)
    skipped |= {disk.kind: no_disk} if no_disk else {}
    lines.append(disk)
    command = Line("the command itself")
    command.faults = mixed.faults() + alone.faults() + unsound(stores / "mixed")

    text = table(lines, good_line)
    notes = [f"skipped: {kind}: {why}" for kind, why in skipped.items()]
    wrong = [f"{x.kind}: {text}" for x in (*lines, good_line, command) for text in x.faults]
    report = "\n".join([text, "", *notes, *(f"WRONG {x}" for x in wrong)])
    (work / "table.md").write_text(report + "\n", encoding="utf-8", errors="backslashreplace")
    print(report.encode(errors="backslashreplace").decode())
    print(f"{len(made)} inputs, {len(wrong)} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
