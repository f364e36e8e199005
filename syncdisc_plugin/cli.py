"""The command line: verbs over the package's functions; parsing, calling, printing."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from syncdisc_plugin.errors import RunError, SyncDiscError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from syncdisc_plugin.data.store import ClipStore

VERBS = {
    "demo": "the whole line on footage that the demo makes itself, offline (about 6 minutes)",
    "run": "videos -> stage-3 weights and a report, in one go",
    "prepare": "videos -> clip store (faces, audio, mel)",
    "doctor": "what is wrong with a clip store, before a night is spent on it",
    "train": "clip store -> stage 1, filter, stage 2, stage 3",
    "filter": "let weights judge every clip of a store: in sync, by how much off, unusable",
    "evaluate": "figures of weights on a store or on videos",
    "score": "how well the lips of single videos fit their sound",
    "report": "draw RUN/report.html anew",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `syncdisc`. Returns the exit status.

    0 done, 1 what the demo or the doctor looked for was not so, 2 bad input, 130 stopped.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help"):
        print(_overview())
        return 0
    if args[0] == "--version":
        from syncdisc_plugin import __version__

        print(f"syncdisc {__version__}")
        return 0
    verb, rest = args[0], args[1:]
    if verb not in VERBS:
        print(f"syncdisc: no command {verb!r}. There are: {', '.join(VERBS)}.", file=sys.stderr)
        return 2
    debug = "--debug" in rest
    try:
        return _COMMANDS[verb]([a for a in rest if a != "--debug"])
    except (SyncDiscError, ValueError, OSError) as error:
        if debug:
            raise
        print(f"syncdisc {verb}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        how = " with --resume" if verb in ("train", "run", "demo") else ""
        print(f"\nsyncdisc {verb}: stopped. The same command{how} goes on.", file=sys.stderr)
        return 130


def _overview() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:{width}}  {text}" for name, text in VERBS.items())
    return (
        "usage: syncdisc COMMAND ...\n\n"
        "A lip-sync discriminator: train it on your footage, use it as a generator's sync loss.\n\n"
        f"{verbs}\n\n"
        "syncdisc COMMAND --help lists the settings; --debug shows where an error came from.\n"
        "First steps:  syncdisc demo\n"
        "              syncdisc run --videos MY_VIDEOS --out RUN --minutes 60"
    )


def _parser(verb: str) -> ArgumentParser:
    import jsonargparse

    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    return jsonargparse.ArgumentParser(prog=f"syncdisc {verb}", description=VERBS[verb])


def _add_prepare(parser: ArgumentParser, skip: set[str] | None = None) -> None:
    from syncdisc_plugin.data.prepare import PrepareSettings

    parser.add_class_arguments(PrepareSettings, skip=skip)


def _add_spec(parser: ArgumentParser) -> None:
    from syncdisc_plugin.spec import ClipSpec

    # What the code can do; the rest of the spec is the hosts' and stays.
    fixed = {"fps", "window_frames", "window_mels", "crop", "color", "mel"}
    parser.add_class_arguments(ClipSpec, "spec", skip=fixed)


def _prepare_settings(parsed: Namespace, device: str | None = None) -> Any:
    from syncdisc_plugin.data.prepare import PrepareSettings
    from syncdisc_plugin.faces import TrackSettings

    return PrepareSettings(
        detector=parsed.detector,
        models=parsed.models,
        device=device or parsed.device,
        speakers=parsed.speakers,
        workers=parsed.workers,
        track=TrackSettings(**vars(parsed.track)),
    )


def _train_settings(parsed: Namespace, minutes: float | None = None) -> Any:
    from syncdisc_plugin.train.settings import TrainSettings

    names = TrainSettings.__dataclass_fields__
    raw = {key: value for key, value in parsed.as_dict().items() if key in names}
    return TrainSettings.from_dict(raw | ({} if minutes is None else {"minutes": minutes}))


def _prepare(args: Sequence[str]) -> int:
    parser = _parser("prepare")
    parser.add_argument("paths", nargs="+", type=Path, help="videos, or folders of videos")
    parser.add_argument("--out", type=Path, required=True, help="the store: new, or to add to")
    _add_prepare(parser)
    _add_spec(parser)
    parsed = parser.parse_args(args)
    _run_prepare(parsed.paths, parsed.out, parsed.spec, _prepare_settings(parsed))
    return 0


def _run_prepare(paths: Sequence[Path], out: Path, spec: Namespace, settings: Any) -> None:
    from syncdisc_plugin.data.prepare import prepare
    from syncdisc_plugin.data.store import ClipStore
    from syncdisc_plugin.spec import ClipSpec

    began = time.monotonic()
    result = prepare(paths, out, ClipSpec(**vars(spec)), settings)
    took = time.monotonic() - began
    for row in result.refused:
        print(f"  refused: {row['reason']}", file=sys.stderr)
    print(
        f"prepared {result.clips} clips, {result.seconds / 60:.1f} minutes, from {result.videos} "
        f"videos in {took:.0f} s ({result.seconds / max(took, 1e-9):.0f} x real time); "
        f"{len(result.refused)} refused -> {out}"
    )
    ClipStore(out)  # refuses a store without a clip


def _doctor(args: Sequence[str]) -> int:
    parser = _parser("doctor")
    parser.add_argument("--data", type=Path, required=True, help="a clip store")
    parser.add_argument(
        "--weights", default="base", help="who judges the sync: a shipped name, a checkpoint, none"
    )
    parser.add_argument("--device", default="auto", help="cuda, cpu, or auto")
    parser.add_argument("--json", type=Path, help="write findings and histograms to this file")
    parsed = parser.parse_args(args)
    from dataclasses import asdict

    from syncdisc_plugin.atomic import write_text
    from syncdisc_plugin.data.store import ClipStore
    from syncdisc_plugin.train.doctor import examine

    judge = None if parsed.weights == "none" else parsed.weights
    found = examine(ClipStore(parsed.data), judge, device=parsed.device)
    if parsed.json:
        write_text(parsed.json, json.dumps(asdict(found), indent=1) + "\n")
    for finding in found.findings:
        print(f"{'ok ' if finding.good else 'BAD'}  {finding.name:18} {finding.text}")
    for name, counts in found.histograms.items():
        print(f"\n{name}")
        most = max(counts.values(), default=1)
        for value, n in counts.items():
            print(f"  {value:>12} {'#' * max(1, round(40 * n / most))} {n}")
    bad = sum(not f.good for f in found.findings)
    print(f"\n{'nothing stands in the way' if not bad else f'{bad} to look at'}")
    return 0 if found.good else 1


def _train(args: Sequence[str]) -> int:
    from syncdisc_plugin.data.store import ClipStore
    from syncdisc_plugin.train import train
    from syncdisc_plugin.train.settings import TrainSettings

    parser = _parser("train")
    parser.add_argument("--config", action="config", help="YAML or JSON with any of these")
    parser.add_argument("--data", type=Path, required=True, help="a clip store")
    parser.add_argument("--out", type=Path, required=True, help="the run's folder")
    parser.add_argument("--resume", action="store_true", help=_RESUME)
    parser.add_class_arguments(TrainSettings)
    parsed = parser.parse_args(args)
    store = ClipStore(parsed.data)
    path = train(store, parsed.out, _train_settings(parsed), resume=parsed.resume)
    if int(os.environ.get("RANK", "0")) == 0:  # of what torchrun started
        print(_closing(path, _write_report(parsed.out, store)))
    return 0


_RESUME = "go on with a run that was stopped, with the settings that are stored in it"


def _run(args: Sequence[str]) -> int:
    from syncdisc_plugin.data.store import ClipStore
    from syncdisc_plugin.train import train
    from syncdisc_plugin.train.settings import TrainSettings

    parser = _parser("run")
    parser.add_argument("--config", action="config", help="YAML or JSON with any of these")
    parser.add_argument("--videos", type=Path, nargs="+", required=True, help="files or folders")
    parser.add_argument("--out", type=Path, required=True, help="the run's folder")
    parser.add_argument("--resume", action="store_true", help=_RESUME)
    _add_prepare(parser, skip={"device"})
    _add_spec(parser)
    parser.add_class_arguments(TrainSettings)
    parsed = parser.parse_args(args)
    if (parsed.out / "settings.json").exists() and not parsed.resume:
        raise RunError(f"--out {parsed.out}: holds a run. Add --resume to go on with it.")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RunError(
            "run prepares in one process. Under torchrun use `syncdisc prepare` first, alone, "
            "then `torchrun --nproc-per-node N -m syncdisc_plugin train --data STORE --out RUN`."
        )
    began = time.monotonic()
    device = "cpu" if parsed.device == "auto" else parsed.device
    if not (parsed.out / "settings.json").exists():  # else training has begun on what there is
        settings = _prepare_settings(parsed, device)
        _run_prepare(parsed.videos, parsed.out / "store", parsed.spec, settings)
    store = ClipStore(parsed.out / "store")
    # The minutes are those of the whole job: what prepare took is gone, the report needs a bit.
    left = max(0.2 * parsed.minutes, parsed.minutes * 0.98 - (time.monotonic() - began) / 60)
    settings = _train_settings(parsed, minutes=left)
    path = train(store, parsed.out, settings, resume=parsed.resume)
    print(_closing(path, _write_report(parsed.out, store)))
    return 0


def _write_report(run: Path, store: ClipStore | None) -> Path:
    from dataclasses import asdict

    from syncdisc_plugin.evaluate.report import write_report
    from syncdisc_plugin.train import TrainSettings

    return write_report(run, store, defaults=asdict(TrainSettings()))


def _closing(path: Path, report: Path) -> str:
    from syncdisc_plugin.weights import read_about

    f = read_about(path)["heldout"]
    return (
        f"held-out: true audio told from false in {_share(f['pair_accuracy'])} of pairs (chance "
        f"50%), offset within 1 frame in {_share(f['pm_accuracy']['15'])} of 15-frame contexts "
        "(chance 9.7%)"
        f"\nweights: {path}\nreport:  {report}\n"
        f'use:     SyncLoss("{path}")'
    )


def _share(value: float | None) -> str:
    return "—" if value is None else f"{value:.1%}"


def _filter(args: Sequence[str]) -> int:
    parser = _parser("filter")
    parser.add_argument("--data", type=Path, required=True, help="a clip store")
    parser.add_argument("--weights", default="base", help="shipped name, or a checkpoint")
    parser.add_argument("--out", type=Path, required=True, help="folder for filter.jsonl")
    parsed = parser.parse_args(args)
    from syncdisc_plugin.data.filter import judge_store
    from syncdisc_plugin.data.store import ClipStore
    from syncdisc_plugin.evaluate.run import load_for
    from syncdisc_plugin.train.measure import write_verdicts

    if (parsed.out / "settings.json").exists():
        raise RunError(f"--out {parsed.out}: holds a run, whose own verdicts would be replaced.")
    store = ClipStore(parsed.data)
    net = load_for(store, parsed.weights)
    result = judge_store(net, store, store.clips)
    write_verdicts(parsed.out, result)
    counts = ", ".join(f"{n} {verdict}" for verdict, n in result.counts.items())
    print(f"{counts} -> {parsed.out / 'filter.jsonl'}")
    return 0


def _evaluate(args: Sequence[str]) -> int:
    parser = _parser("evaluate")
    parser.add_argument("--weights", default="base", help="shipped name, or a checkpoint")
    parser.add_argument("--data", type=Path, help="a clip store")
    parser.add_argument("--videos", type=Path, nargs="+", help="or videos, or folders of them")
    parser.add_argument(
        "--part", default="all", choices=["all", "heldout"], help="heldout: by the store's split"
    )
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    _add_prepare(parser)
    parsed = parser.parse_args(args)
    from syncdisc_plugin.atomic import write_text
    from syncdisc_plugin.data.store import ClipStore
    from syncdisc_plugin.evaluate.run import evaluate_store, evaluate_videos

    if (parsed.data is None) == (parsed.videos is None):
        raise RunError("give either --data STORE or --videos DIR.")
    if parsed.data is not None:
        figures = evaluate_store(parsed.weights, ClipStore(parsed.data), part=parsed.part)
    else:
        figures = evaluate_videos(parsed.weights, parsed.videos, _prepare_settings(parsed))
    if parsed.json:
        write_text(parsed.json, json.dumps(figures, indent=1) + "\n")
    for name, value in figures.items():
        print(f"{name:28} {_short(value)}")
    return 0


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, dict):
        return "  ".join(f"{k}: {_short(v)}" for k, v in value.items())
    return "—" if value is None else str(value)


def _score(args: Sequence[str]) -> int:
    parser = _parser("score")
    parser.add_argument("videos", nargs="+", type=Path, help="video files")
    parser.add_argument("--weights", default="base", help="shipped name, or a checkpoint")
    parser.add_argument("--json", action="store_true", help="print one JSON object per video")
    _add_prepare(parser, skip={"workers", "speakers"})
    parsed = parser.parse_args(args)
    parsed.workers, parsed.speakers = 0, None
    from dataclasses import asdict

    from syncdisc_plugin.evaluate.run import score

    failed = 0
    for video in parsed.videos:
        try:
            scores = score(video, parsed.weights, _prepare_settings(parsed))
        except SyncDiscError as error:
            failed += 1
            if parsed.json:
                print(json.dumps({"path": str(video), "error": str(error)}))
            else:
                print(f"syncdisc score: {error}", file=sys.stderr)
            continue
        if parsed.json:
            print(json.dumps({"path": str(video), "tracks": [asdict(s) for s in scores]}))
            continue
        for s in scores:
            lag = f"{abs(s.offset_frames)} frames " + ("early" if s.offset_frames > 0 else "late")
            sync = "in sync" if abs(s.offset_frames) <= 1 else f"audio {lag}"
            print(
                f"{video}  face {s.track} at {s.start_s:.2f} s for {s.seconds:.2f} s: {sync}, "
                f"confidence {s.confidence:.2f}, probability {s.probability:.2f}"
            )
    return 2 if failed else 0


def _report(args: Sequence[str]) -> int:
    parser = _parser("report")
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("--data", type=Path, help="its clip store (RUN/store when left out)")
    parsed = parser.parse_args(args)
    from syncdisc_plugin.data.store import ClipStore

    if not (parsed.run / "settings.json").exists():
        raise RunError(
            f"{parsed.run}: holds no run. Give the --out of a `syncdisc train` or `run`."
        )
    data = parsed.data or parsed.run / "store"
    print(_write_report(parsed.run, ClipStore(data) if data.exists() else None))
    return 0


def _demo(args: Sequence[str]) -> int:
    parser = _parser("demo")
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="folder for its files")
    parser.add_argument("--resume", action="store_true", help=_RESUME)
    parsed = parser.parse_args(args)
    from syncdisc_plugin.demo.run import run_demo

    return 0 if run_demo(parsed.out, resume=parsed.resume) else 1


_COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "demo": _demo,
    "run": _run,
    "prepare": _prepare,
    "doctor": _doctor,
    "train": _train,
    "filter": _filter,
    "evaluate": _evaluate,
    "score": _score,
    "report": _report,
}

if __name__ == "__main__":
    sys.exit(main())
