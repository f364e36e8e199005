"""Files that are there whole or not at all, however a program ends."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from syncdisc_plugin.errors import RunError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; what is written there takes its place at the end.

    Where the block raises, or is killed, `path` stays as it was. Missing folders are made. A full
    disk and the like are an OSError, whoever writes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temp
        # Some writers keep their files to themselves; these are for whoever may read the folder.
        with suppress(PermissionError):  # some network mounts know no modes
            os.chmod(temp, 0o644)
        # What names this file may be on the disk before it is, when the power goes.
        with open(temp, "rb+") as file:  # Windows takes only what may be written
            os.fsync(file.fileno())
        os.replace(temp, path)
    except SafetensorError as error:
        # Its text is all that tells such a one from a damaged file.
        if found := re.search(r"os error (\d+)", str(error)):
            number = int(found[1])
            raise OSError(number, os.strerror(number), str(path)) from error
        raise
    finally:
        temp.unlink(missing_ok=True)


def check_writable(flag: str, path: Path | None) -> None:
    """Refuse a file that could not be written, before the work that it is to hold.

    Raises:
        RunError: it is a folder, or its own folder cannot be made or written to.
    """
    if path is None:
        return
    if path.is_dir():
        raise RunError(f"{flag} {path}: is a folder. Give the name of a file.")
    there = next(folder for folder in path.absolute().parents if folder.exists())
    if not there.is_dir():
        raise RunError(f"{flag} {path}: {there} is a file. Give a file in a folder.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise RunError(f"{flag} {path}: {there} cannot be written to. Give a file elsewhere.")


def write_text(path: Path, text: str) -> None:
    """Write a text file, UTF-8; what a file name holds that is none is escaped."""
    with replacing(path) as temp:
        temp.write_text(text, encoding="utf-8", errors="backslashreplace")
