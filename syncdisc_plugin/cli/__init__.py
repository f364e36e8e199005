"""The command line: verbs over the package's functions; parsing, calling, printing."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from io import TextIOWrapper

from syncdisc_plugin.cli.parsing import VERBS
from syncdisc_plugin.errors import SyncDiscError

# Which file a command lives in; a file is loaded when one of its commands is called.
_HOMES = {
    "footage": ("prepare", "doctor", "filter"),
    "stores": ("store",),
    "training": ("demo", "run", "train", "report"),
    "judging": ("evaluate", "score", "export"),
}
# Packages beside this one add commands here: functions like ours, whose docstring says what for.
ENTRY_POINTS = "syncdisc.commands"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `syncdisc`. Returns the exit status.

    0 done, 1 what the demo, the doctor or `store verify` looked for was not so, 2 bad input, 130
    stopped.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # names of files may be no text
            stream.reconfigure(errors="backslashreplace")
    if not args or args[0] in ("-h", "--help"):
        print(_overview())
        return 0
    if args[0] == "--version":
        from syncdisc_plugin import __version__

        print(f"syncdisc {__version__}")
        return 0
    verb, rest = args[0], args[1:]
    if verb not in VERBS and verb not in (joined := _joined()):
        known = ", ".join([*VERBS, *joined])
        print(f"syncdisc: no command {verb!r}. There are: {known}.", file=sys.stderr)
        return 2
    debug = "--debug" in rest
    try:
        with _ended_as_by_ctrl_c():
            return _command(verb)([a for a in rest if a != "--debug"])
    except (SyncDiscError, ValueError, OSError) as error:
        if debug:
            raise
        print(f"syncdisc {verb}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nsyncdisc {verb}: stopped.{_afterwards(verb, rest)}", file=sys.stderr)
        return 130


@contextmanager
def _ended_as_by_ctrl_c() -> Iterator[None]:
    """SIGTERM, which schedulers and containers send, stops a command as Ctrl-C does.

    By itself it would end the process at once, with half-written files left beside the whole ones.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may take signals over
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _afterwards(verb: str, rest: Sequence[str]) -> str:
    """What becomes of a command that was stopped."""
    if verb in ("train", "run", "demo"):
        return " The same command with --resume goes on."
    if verb == "prepare" or (verb == "store" and rest[:1] in (["copy"], ["merge"])):
        return " The same command goes on."
    return ""


def _overview() -> str:
    described = {**VERBS, **{name: _description(point) for name, point in _joined().items()}}
    width = max(map(len, described))
    verbs = "\n".join(f"  {name:{width}}  {text}" for name, text in described.items())
    return (
        "usage: syncdisc COMMAND ...\n\n"
        "A lip-sync discriminator: train it on your footage, use it as a generator's sync loss.\n\n"
        f"{verbs}\n\n"
        "syncdisc COMMAND --help lists the settings; --debug shows where an error came from.\n"
        "First steps:  syncdisc demo\n"
        "              syncdisc run --videos MY_VIDEOS --out RUN --minutes 60"
    )


def _joined() -> dict[str, EntryPoint]:
    """Commands of other packages by name; ours cannot be replaced."""
    points = entry_points(group=ENTRY_POINTS)
    return {point.name: point for point in sorted(points) if point.name not in VERBS}


def _description(point: EntryPoint) -> str:
    try:
        text = (point.load().__doc__ or point.value).strip().splitlines()[0].rstrip(".")
        return text[:1].lower() + text[1:]
    except Exception as error:  # whatever another package does when it is imported
        return f"cannot be loaded ({type(error).__name__}: {error})"


def _command(verb: str) -> Callable[[Sequence[str]], int]:
    if verb not in VERBS:
        point = _joined()[verb]
        try:
            return point.load()
        except (ImportError, AttributeError) as error:
            raise SyncDiscError(
                f"{point.value} cannot be loaded ({error}). Install the package that brings this "
                "command again, with what it needs."
            ) from error
    home = next(name for name, verbs in _HOMES.items() if verb in verbs)
    return getattr(import_module(f"{__name__}.{home}"), verb)
