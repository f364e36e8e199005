"""The command line: verbs over the package's functions; parsing, calling, printing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from syncdisc_plugin.cli.parsing import VERBS
from syncdisc_plugin.errors import SyncDiscError

# Which file a command lives in; a file is loaded when one of its commands is called.
_HOMES = {
    "footage": ("prepare", "doctor", "filter"),
    "training": ("demo", "run", "train", "report"),
    "judging": ("evaluate", "score", "export"),
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
        return _command(verb)([a for a in rest if a != "--debug"])
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


def _command(verb: str) -> Callable[[Sequence[str]], int]:
    home = next(name for name, verbs in _HOMES.items() if verb in verbs)
    return getattr(import_module(f"{__name__}.{home}"), verb)
