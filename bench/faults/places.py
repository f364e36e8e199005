"""Good videos under bad names, behind links, and things in a folder that are no files."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from plan import NO_INPUT, OK, REFUSED, Impossible, Originals, Plan

LOCKED = "no permission"
# Bytes that are no UTF-8 come and go as surrogates: os.fsdecode.
NAMES = [
    "two\nlines",
    "\n",
    "a 'single' quote",
    'a "double" quote',
    "back\\slash",
    "semicolon; rm -rf x",
    "$(date) `date` ${HOME}",
    "-rf",
    "100% %d %05d %s {0}",
    "[0-9]*?",
    "tab\tbell\a escape\x1b[31m",
    os.fsdecode(b"latin \xe9\xe8 \xff\xfe"),
    os.fsdecode(b"\x80"),
    "пример 口型 🎬",
    "left \u202eright",
    "concat:a|b",
    "http:example",
    "  spaces  ",
    "no\u00a0break, nul\u2400",
    "e\u0301 and é",
    "x" * 240,
]


def places(originals: Originals) -> Iterator[Plan]:
    """Plans of this file's kinds."""
    good = originals.real[0]
    for number, name in enumerate(NAMES):
        source = originals.all[number % len(originals.all)]
        yield Plan("name", name + source.suffix, OK, partial(_copy, source))
    yield Plan("link", "to a good file.mp4", OK, partial(_link, _beside(good, "original")))
    yield Plan("link", "second name.mp4", OK, partial(_second_name, good))
    yield Plan("link", "dangling.mp4", REFUSED, partial(_link, "nowhere.mp4"))
    yield Plan("link", "dangling far.mkv", REFUSED, partial(_link, "/nowhere/at/all.mkv"))
    yield Plan("link", "itself.mp4", REFUSED, partial(_link, "itself.mp4"))
    yield Plan("link", "there.mp4", REFUSED, partial(_link, "and back.mp4"))
    yield Plan("link", "and back.mp4", REFUSED, partial(_link, "there.mp4"))
    yield Plan("link", "behind a file.mp4", REFUSED, partial(_link, "z good 0.mp4/x.mp4"))
    yield Plan("link", "long.mp4", REFUSED, partial(_link, "l" * 300))
    yield Plan("folder", "parent.mp4", NO_INPUT, partial(_link, ".."))
    yield Plan("folder", "here", NO_INPUT, partial(_link, "."))
    yield Plan("folder", "a folder.mp4", NO_INPUT, Path.mkdir)
    yield Plan("no file", "pipe.mp4", REFUSED, _pipe)
    yield Plan("no file", "socket.mp4", REFUSED, _socket)
    for device in ("zero", "random", "null", "tty", "full"):
        yield Plan("no file", f"{device}.mp4", REFUSED, partial(_link, f"/dev/{device}"))
    for mode in (0o000, 0o200, 0o100):
        yield Plan(LOCKED, f"{mode:03o}.mp4", REFUSED, partial(_locked, good, mode))


def _copy(source: Path, path: Path) -> None:
    shutil.copyfile(source, path)


def _beside(source: Path, folder: str):
    """Outside the folders that are prepared, so that the link is the only way to it."""

    def target(path: Path) -> str:
        place = path.parents[2] / folder / source.name
        place.parent.mkdir(exist_ok=True)
        shutil.copyfile(source, place)
        return str(place)

    return target


def _link(target, path: Path) -> None:
    path.symlink_to(target(path) if callable(target) else target)


def _second_name(source: Path, path: Path) -> None:
    first = Path(_beside(source, "second name")(path))
    os.link(first, path)


def _pipe(path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        raise Impossible("no pipes here")
    os.mkfifo(path)


def _socket(path: Path) -> None:
    # Sockets take short paths only: bound by its name alone, from its folder.
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(path.parent)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.fchdir(here)
        os.close(here)


def _locked(source: Path, mode: int, path: Path) -> None:
    shutil.copyfile(source, path)
    path.chmod(mode)
