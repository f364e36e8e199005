"""Commands that train."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from syncdisc_plugin.cli.footage import run_prepare
from syncdisc_plugin.cli.parsing import (
    RESUME,
    VIDEOS,
    add_prepare,
    add_spec,
    new_parser,
    prepare_settings,
    say_what_stays,
    typed,
)
from syncdisc_plugin.data.remote import location
from syncdisc_plugin.errors import RunError

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from syncdisc_plugin.data.store import ClipStore
    from syncdisc_plugin.train.settings import TrainSettings


def train(args: Sequence[str]) -> int:
    """`syncdisc train`."""
    from syncdisc_plugin.data.store import ClipStore
    from syncdisc_plugin.train import train
    from syncdisc_plugin.train.settings import TrainSettings

    parser = new_parser("train")
    parser.add_argument("--config", action="config", help="YAML or JSON with any of these")
    parser.add_argument("--data", type=Path, required=True, help="a clip store")
    parser.add_argument("--out", type=Path, required=True, help="the run's folder")
    parser.add_argument("--resume", action="store_true", help=RESUME)
    parser.add_class_arguments(TrainSettings)
    parsed = parser.parse_args(args)
    store, settings = ClipStore(parsed.data), _train_settings(parsed)
    if parsed.resume:
        say_what_stays(parsed.out, settings, typed(parser, args))
    path = train(store, parsed.out, settings, resume=parsed.resume)
    if int(os.environ.get("RANK", "0")) == 0:  # of what torchrun started
        print(_closing(path, _write_report(parsed.out, store)))
    return 0


def run(args: Sequence[str]) -> int:
    """`syncdisc run`."""
    from syncdisc_plugin.data.store import ClipStore
    from syncdisc_plugin.train import train
    from syncdisc_plugin.train.ranks import processes
    from syncdisc_plugin.train.settings import TrainSettings

    parser = new_parser("run")
    parser.add_argument("--config", action="config", help="YAML or JSON with any of these")
    parser.add_argument("--videos", type=location, nargs="+", required=True, help=VIDEOS)
    parser.add_argument("--out", type=Path, required=True, help="the run's folder")
    parser.add_argument("--resume", action="store_true", help=RESUME)
    add_prepare(parser, skip={"device"})
    add_spec(parser)
    parser.add_class_arguments(TrainSettings)
    parsed = parser.parse_args(args)
    if (parsed.out / "settings.json").exists() and not parsed.resume:
        raise RunError(f"--out {parsed.out}: holds a run. Add --resume to go on with it.")
    if processes() > 1:
        raise RunError(
            "run prepares in one process. Under torchrun use `syncdisc prepare` first, alone, "
            "then `torchrun --nproc-per-node N -m syncdisc_plugin train --data STORE --out RUN`."
        )
    began = time.monotonic()
    # YuNet finds the faces, on the CPU, whatever trains: the hosts' presets are of its boxes.
    own = parsed.device == "auto" or parsed.detector in ("auto", "yunet", "lbp", "none")
    device = "cpu" if own else parsed.device
    if not (parsed.out / "settings.json").exists():  # else training has begun on what there is
        _check_ahead(_train_settings(parsed), parsed.out / "store", parsed.spec)
        settings = prepare_settings(parsed, device)
        run_prepare(parsed.videos, parsed.out / "store", parsed.spec, settings)
    else:
        # Its minutes are what prepare left of those that were asked for.
        given = typed(parser, args)
        say_what_stays(parsed.out, _train_settings(parsed), given, free=("device", "minutes"))
        print(f"{parsed.out} goes on with its own clips: --videos of now are not looked at")
    store = ClipStore(parsed.out / "store")
    # The minutes are those of the whole job: what prepare took is gone, the report needs a bit.
    left = max(0.2 * parsed.minutes, parsed.minutes * 0.98 - (time.monotonic() - began) / 60)
    settings = _train_settings(parsed, minutes=left)
    path = train(store, parsed.out, settings, resume=parsed.resume)
    print(_closing(path, _write_report(parsed.out, store)))
    return 0


def _check_ahead(settings: TrainSettings, store: Path, spec: Namespace) -> None:
    """Refuse before a night of preparing what would be refused after it."""
    from syncdisc_plugin import weights
    from syncdisc_plugin.data.store import JUDGED
    from syncdisc_plugin.evaluate.views import can_see
    from syncdisc_plugin.spec import ClipSpec

    asked = ClipSpec(**vars(spec))
    for name, ref in (("reference", settings.reference), ("init_from", settings.init_from)):
        if not ref:
            continue
        net = weights.load(ref)
        if not can_see(asked, net.spec):
            raise RunError(
                f"--{name} {ref}: was trained on another frame rate, crop or mel than --spec asks "
                "for. Leave --spec out, or give other weights."
            )
        if name == "init_from":
            settings.with_architecture(net.arch)
    if settings.choose.of_judge and not (store / JUDGED).exists():
        raise RunError(
            f"--choose: {', '.join(settings.choose.of_judge)} needs what `syncdisc store judge` "
            "finds. Use `syncdisc prepare`, `store judge`, then `train --data STORE`."
        )


def _train_settings(parsed: Namespace, minutes: float | None = None) -> TrainSettings:
    from syncdisc_plugin.train.settings import TrainSettings

    names = TrainSettings.__dataclass_fields__
    raw = {key: value for key, value in parsed.as_dict().items() if key in names}
    return TrainSettings.from_dict(raw | ({} if minutes is None else {"minutes": minutes}))


def _write_report(run: Path, store: ClipStore | None) -> Path:

    from syncdisc_plugin.evaluate.report import write_report
    from syncdisc_plugin.train import TrainSettings

    return write_report(run, store, defaults=asdict(TrainSettings()))


def _closing(path: Path, report: Path) -> str:
    from syncdisc_plugin.weights import read_about

    about = read_about(path)
    f = about["heldout"]
    chance = f.get("pm_accuracy_chance", {})  # which runs of before have not
    return (
        f"measured ({about['split']}): true audio told from false in "
        f"{_share(f['pair_accuracy'])} of pairs (chance 50%), offset within 1 frame in "
        f"{_share(f['pm_accuracy']['15'])} of 15-frame contexts "
        f"(chance {_share(chance.get('15'))})"
        f"\nweights: {path}\nreport:  {report}\n"
        f'use:     SyncLoss("{path}")'
    )


def _share(value: float | None) -> str:
    return "—" if value is None else f"{value:.1%}"


def report(args: Sequence[str]) -> int:
    """`syncdisc report`."""
    from syncdisc_plugin.data.choice import Choice

    parser = new_parser("report")
    parser.add_argument("folder", type=Path, help="a run, or a clip store")
    parser.add_argument("--data", type=Path, help="a run's clip store (RUN/store when left out)")
    parser.add_argument("--out", type=Path, help="a store's page (STORE/report.html)")
    parser.add_class_arguments(Choice, "choose")
    parsed = parser.parse_args(args)
    from syncdisc_plugin.data.store import ClipStore

    folder, choice = parsed.folder, Choice(**vars(parsed.choose))
    if (folder / "store.json").exists():
        from syncdisc_plugin.evaluate.store_report import write_store_report

        if parsed.data:
            raise RunError(f"--data: goes with a run, and {folder} is a clip store. Leave it out.")
        print(write_store_report(folder, choice, parsed.out))
        return 0
    if not (folder / "settings.json").exists():
        raise RunError(
            f"{folder}: holds no run and no clip store. Give the --out of a `syncdisc train`, "
            "`run` or `prepare`."
        )
    if choice.asked or parsed.out:
        raise RunError(
            f"--out, --choose: are for a clip store's page, and {folder} is a run. Name the store "
            f"({parsed.data or folder / 'store'}), or leave them out."
        )
    data = parsed.data or folder / "store"
    is_there = parsed.data or data.exists()  # one that is named and not there is refused
    print(_write_report(folder, ClipStore(data) if is_there else None))
    return 0


def demo(args: Sequence[str]) -> int:
    """`syncdisc demo`."""
    parser = new_parser("demo")
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="folder for its files")
    parser.add_argument("--resume", action="store_true", help=RESUME)
    parsed = parser.parse_args(args)
    from syncdisc_plugin.demo.run import run_demo

    return 0 if run_demo(parsed.out, resume=parsed.resume) else 1
