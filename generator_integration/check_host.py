"""Train a real host for a few steps with its own expert and with ours, and compare.

    python -m generator_integration.check_host wav2lip --host-dir ../Wav2Lip --clips STORE

Nothing is written into the host's folder or into the clips.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from generator_integration.footage import Footage, InventedFootage, StoreFootage, spread
from generator_integration.hosts import HOMES, host_class
from generator_integration.hosts.checkout import known
from generator_integration.hosts.host import OWN, SYNC_LOSS, Facts, HostError
from generator_integration.measure import Report, measure
from syncdisc_plugin.atomic import write_text
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.errors import SyncDiscError

PAIRS = 16  # items of real footage that SyncLoss.check looks at
VIDEOS = 8  # of a folder of videos, no more are prepared for a check


@dataclass(frozen=True)
class Failure:
    """A way that did not run."""

    way: str
    """Whose sync loss."""
    reason: str
    """The last lines that it said."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run and print; 0 when every way with our expert ran and left it as it was."""
    args = _parser().parse_args(argv)
    try:
        if args.way:
            report = check_way(args)
            write_text(args.json, json.dumps(asdict(report)))
            return 0
        return _check(args)
    except SyncDiscError as error:
        print(f"check_host {args.host}: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("check_host", description=__doc__.split("\n")[0])
    parser.add_argument("host", choices=sorted(HOMES))
    parser.add_argument("--host-dir", type=Path, required=True, help="checkout of the host")
    parser.add_argument("--clips", type=Path, help="prepared store, or videos; invented if absent")
    parser.add_argument("--steps", type=int, default=3, help="training steps of each way")
    parser.add_argument("--batch", type=int, default=2, help="items of a batch")
    parser.add_argument("--json", type=Path, help="write what was measured there")
    parser.add_argument("--way", help=argparse.SUPPRESS)  # one way, in this process
    return parser


def check_way(args: argparse.Namespace) -> Report:
    """Measure one way in this process.

    Raises:
        HostError: the folder is another one, packages are missing, or the step does not run.
        StoreError: --clips is no store.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    footage: Footage = StoreFootage(args.clips.resolve()) if args.clips else InventedFootage()
    if args.json:
        args.json = args.json.resolve()  # the host's folder becomes the current one
    host = host_class(args.host)(args.host_dir, args.way, device)
    batches = host.batches(footage, args.steps, args.batch)
    real = None
    if footage.store is not None and args.way == SYNC_LOSS:
        pairs = min(PAIRS, len(spread(footage.store)))  # from different videos
        real = (lambda: host.batches(footage, 1, pairs)[0]) if pairs > 1 else None
    return measure(host, args.way, batches, device, real)


def _check(args: argparse.Namespace) -> int:
    facts = host_class(args.host).facts
    known(args.host_dir, facts)
    if min(args.steps, args.batch) < 1:
        raise HostError("--steps and --batch must be 1 or more.")
    with tempfile.TemporaryDirectory(prefix="check_host_") as temp:
        store = _store(args.clips, Path(temp))
        clips = f"{len(ClipStore(store))} clips of {args.clips}" if store else ""
        said = clips or InventedFootage.said
        reports = [_run_way(args, way, store, Path(temp)) for way in facts.ways]
    failed = [r for r in reports if isinstance(r, Failure)]
    if len(failed) == len(reports):
        raise HostError(failed[0].reason)
    if args.json:
        figures = {"host": args.host, "batch": args.batch, "footage": said}
        text = json.dumps({**figures, "ways": [asdict(r) for r in reports]}, indent=1)
        write_text(args.json, text + "\n")
    print("\n".join(_page(args, facts, said, reports)))
    return 0 if all(_good(r) for r in reports if r.way != OWN) else 1


def _store(clips: Path | None, temp: Path) -> Path | None:
    """The store, made of a few videos where those were given."""
    if clips is None or (clips / "store.json").exists():
        return clips
    from syncdisc_plugin.data.prepare import prepare
    from syncdisc_plugin.media import list_videos

    prepare(list_videos([clips])[:VIDEOS], temp / "store")
    return temp / "store"


def _run_way(
    args: argparse.Namespace, way: str, store: Path | None, temp: Path
) -> Report | Failure:
    """In a process of its own: a host's modules and peak memory cannot be taken back."""
    out = temp / f"{way}.json"
    command = [sys.executable, "-m", "generator_integration.check_host", args.host, "--way", way]
    command += ["--host-dir", args.host_dir.expanduser().resolve(), "--json", out]
    command += ["--steps", str(args.steps), "--batch", str(args.batch)]
    command += ["--clips", store.resolve()] if store else []
    print(f"{args.host}: {way} ...", file=sys.stderr, flush=True)
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return Report(**json.loads(out.read_text(encoding="utf-8")))
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    named = [line for line in said if line.startswith(f"check_host {args.host}: ")]
    if named:
        return Failure(way, named[-1].split(": ", 1)[1])
    return Failure(way, f"exit status {done.returncode}: " + " | ".join(said[-3:]))


def _good(report: Report | Failure) -> bool:
    """Whether it ran, left the expert as it was, and moved the generator."""
    if isinstance(report, Failure):
        return False
    return report.output_same and not report.state_changed and report.moved


def _page(
    args: argparse.Namespace, facts: Facts, said: str, reports: list[Report | Failure]
) -> list[str]:
    """What is printed."""
    ran = [r for r in reports if isinstance(r, Report)]
    page = [
        f"{facts.repository} ({args.host}), {facts.n_frames} frames per item, batch {args.batch}, "
        f"{args.steps} steps",
        f"frames:      {said}",
        f"host's code: {facts.real}",
        f"not its own: {facts.stand_ins}",
        *(f"note:        {note}" for note in dict.fromkeys(n for r in ran for n in r.notes)),
        "",
    ]
    page += _table(ran)
    page += [f"{r.way} did not run: {r.reason}" for r in reports if isinstance(r, Failure)]
    page += [f"{r.way}: {r.check}" for r in ran if r.check]
    return page


def _table(ran: list[Report]) -> list[str]:
    rows: dict[str, Callable[[Report], Any]] = {
        "sync loss, first and last step": lambda r: _ends(r.loss),
        "its gradient at the frames, weighted": lambda r: _ends(r.gradient),
        "gradient of the other losses there": lambda r: _ends(r.rest),
        "seconds per step": lambda r: f"{r.step_seconds:.3f}",
        "seconds of the sync loss": lambda r: f"{r.sync_seconds:.3f}" if r.loss else "-",
        "peak memory in MB": lambda r: f"{r.peak_mb:.0f}",
        "weights of the expert, in millions": lambda r: _millions(r.expert_parameters),
        "expert's weights and buffers": lambda r: _kept(r.state_changed) if r.loss else "-",
        "expert's verdict on the same frames": _verdict,
        "generator moved": lambda r: "yes" if r.moved else "NO",
    }
    if ran and ran[0].way == OWN and len(ran) > 1:
        own = ran[0]
        rows["time of a step against its own"] = lambda r: _ratio(r.step_seconds, own.step_seconds)
        rows["time of the sync loss against its own"] = lambda r: _ratio(
            r.sync_seconds, own.sync_seconds
        )
        rows["memory against its own"] = lambda r: _ratio(r.peak_mb, own.peak_mb)
    first = max(map(len, rows))
    heads = [r.way if r.expert_parameters else "no sync loss" for r in ran]
    lines = [" " * first + "".join(f"  {head:>22}" for head in heads)]
    return lines + [
        f"{name:<{first}}" + "".join(f"  {value(r):>22}" for r in ran)
        for name, value in rows.items()
    ]


def _ends(values: list[float]) -> str:
    return f"{values[0]:.3g} .. {values[-1]:.3g}" if values else "-"


def _kept(changed: int) -> str:
    return f"{changed} CHANGED" if changed else "bit-identical"


def _millions(parameters: int) -> str:
    return f"{parameters / 1e6:.1f}" if parameters else "-"


def _verdict(report: Report) -> str:
    if not report.loss:
        return "-"
    return "same" if report.output_same else "changed"


def _ratio(value: float, own: float) -> str:
    return f"x {value / own:.2f}" if own else "-"


if __name__ == "__main__":
    sys.exit(main())
