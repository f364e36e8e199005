"""What several commands parse alike."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from argparse import Action

    from jsonargparse import ArgumentParser, Namespace

VERBS = {
    "demo": "the whole line on footage that the demo makes itself, offline (about 6 minutes)",
    "run": "videos -> stage-3 weights and a report, in one go",
    "prepare": "videos -> clip store (faces, audio, mel), also in a host's own layout",
    "store": "merge, copy, verify, count or judge clip stores",
    "doctor": "what is wrong with a clip store, before a night is spent on it",
    "train": "clip store -> stage 1, filter, stage 2, stage 3",
    "filter": "let weights judge every clip of a store: in sync, by how much off, unusable",
    "evaluate": "figures of weights on a store or on videos",
    "score": "how well the lips of single videos fit their sound",
    "export": "weights for other programs: ONNX, torch.export",
    "report": "draw the page of a run, or of a clip store: what was kept, and why the rest was not",
}

RESUME = "go on with a run that was stopped, with the settings that are stored in it but --device"
VIDEOS = "videos, folders of videos, or URLs of either (s3://..., as fsspec reads them)"
WEIGHTS = "shipped name, or a checkpoint"
LISTS = ("--heldout_speakers", "--choose.languages")
# Settings of `prepare` that mean nothing where single videos are read in this process.
MANY_VIDEOS = {"workers", "speakers", "engine", "ray_address", "retry"}


def new_parser(verb: str, description: str | None = None, prog: str = "") -> ArgumentParser:
    """The parser of a command; one that another package adds says itself what it is for.

    `prog` is what it is called by, if not `syncdisc VERB`.
    """
    import jsonargparse

    from syncdisc_plugin.data.remote import location

    names: dict[Any, str] = {Path: "Path", location: "Path or URL"}

    class NamesTypes(jsonargparse.DefaultHelpFormatter):
        """Says `Path` where jsonargparse says `<class 'Path'>`."""

        def _get_type_str(self, action: Action) -> str | None:
            kind = getattr(action, "_typehint", None) or action.type
            return names.get(kind) or super()._get_type_str(action)

    class TakesNames(jsonargparse.ArgumentParser):
        """Takes the names in a list as they are typed: YAML reads 1001 and no as other things.

        And switches as they are: --retry is --retry true.
        """

        def parse_args(  # type: ignore[override]
            self, args: Sequence[str] | None = None, **more: Any
        ) -> Any:
            """As jsonargparse does."""
            args = _quoted(sys.argv[1:] if args is None else args)
            return super().parse_args(_switched(args, self._actions), **more)

    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    return TakesNames(
        prog=prog or f"syncdisc {verb}",
        description=description or VERBS[verb],
        formatter_class=NamesTypes,
    )


def _quoted(args: Sequence[str]) -> list[str]:
    """The same arguments, with the values of LISTS as JSON lists of texts."""
    out: list[str] = []
    for arg in args:
        flag, equals, value = arg.partition("=")
        if out and out[-1] in LISTS:
            out.append(_names(arg))
        elif flag in LISTS and equals:
            out.append(f"{flag}={_names(value)}")
        else:
            out.append(arg)
    return out


def _switched(args: Sequence[str], actions: Sequence[Action]) -> list[str]:
    """The same arguments, with "=true" behind switches that are given no value."""
    switches = {
        flag
        for action in actions
        if getattr(action, "_typehint", None) is bool
        for flag in action.option_strings
    }
    values = {"true", "false", "yes", "no", "1", "0"}
    return [
        f"{arg}=true" if arg in switches and after.lower() not in values else arg
        for arg, after in zip_longest(args, args[1:], fillvalue="")
    ]


def _names(text: str) -> str:
    """[1001, anna b], or the same without brackets -> ["1001", "anna b"]."""
    inner = text.strip().removeprefix("[").removesuffix("]")
    names = [name.strip().strip("\"'") for name in inner.split(",")]
    return json.dumps([name for name in names if name])


def add_prepare(parser: ArgumentParser, skip: set[str] | None = None) -> None:
    """The settings of `prepare` but those in `skip`, such as "device" or "track.max_frames"."""
    from syncdisc_plugin.data.prepare import PrepareSettings
    from syncdisc_plugin.faces import TrackSettings

    skip = skip or set()
    of_track = {name for name in skip if name.startswith("track.")}
    parser.add_class_arguments(PrepareSettings, skip={*(skip - of_track), "track"})
    inner = {name.removeprefix("track.") for name in of_track}
    parser.add_class_arguments(TrackSettings, "track", skip=inner)


def add_spec(parser: ArgumentParser) -> None:
    """The part of the spec that can be chosen."""
    from syncdisc_plugin.spec import ClipSpec

    # What the code can do; the rest of the spec is the hosts' and stays.
    fixed = {"fps", "window_frames", "window_mels", "color", "mel"}
    parser.add_class_arguments(ClipSpec, "spec", skip=fixed)


def prepare_settings(parsed: Namespace, device: str | None = None) -> Any:
    """PrepareSettings of what `add_prepare` parsed."""
    from syncdisc_plugin.data.prepare import PrepareSettings
    from syncdisc_plugin.faces import TrackSettings

    return PrepareSettings(
        detector=parsed.detector,
        models=parsed.models,
        device=device or parsed.device,
        speakers=parsed.get("speakers"),
        workers=parsed.get("workers", 0),
        engine=parsed.get("engine", "local"),
        ray_address=parsed.get("ray_address"),
        retry=parsed.get("retry", False),
        track=TrackSettings(**vars(parsed.track)),
    )


def typed(parser: ArgumentParser, args: Sequence[str] | None) -> set[str]:
    """Names of what is given in the arguments, or in a file that they name; no defaults."""
    return set(parser.parse_args(args, defaults=False).as_dict())


def say_what_stays(
    run: Path, settings: Any, given: set[str], free: Sequence[str] = ("device",)
) -> None:
    """A run that is resumed keeps its settings: say so of those that are given now and differ.

    `settings` is a dataclass, `run` the folder with its settings; of `free` ones nothing is said.
    """
    path = run / "settings.json"
    if not path.exists():
        return
    stored = json.loads(path.read_text(encoding="utf-8"))
    asked = json.loads(json.dumps(asdict(settings)))
    now = [n for n in asked if n in given and n not in free and asked[n] != stored.get(n)]
    if now:
        names = ", ".join(f"--{name}" for name in now)
        print(f"{run} goes on with the settings that it began with: {names} of now: not used")
