"""What there is to prepare, and who speaks in it."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from syncdisc_plugin.data import remote
from syncdisc_plugin.errors import MediaError


@dataclass(frozen=True)
class Input:
    """One video to prepare."""

    place: str
    """Path as `named` gives it, or URL."""
    below: str
    """Its name below what was given; of a file that was itself given, its own name."""
    folder: str
    """The first folder below what was given, or that itself: who speaks, if nothing else says."""
    version: list[Any]
    """What changes when the file changes."""


def list_inputs(roots: Sequence[str | Path]) -> list[Input]:
    """Every file once, in an order that all jobs of an array agree upon.

    Args:
        roots: files, folders of videos, and URLs of either, which have to be str.

    Raises:
        MediaError: one does not exist, or none holds a video.
        RunError: a URL that cannot be opened or listed.
    """
    found: dict[str, Input] = {}
    for root in roots:
        if isinstance(root, str) and remote.is_url(root):
            inside = [_of_url(root, *each) for each in remote.list_videos(root)]
        else:
            remote.check_local("videos", Path(root), "Give it as a str: Path drops a slash.")
            inside = _below(Path(root))
        found |= {canonical(video.place): video for video in inside}
    if not found:
        names = ", ".join(str(r) for r in roots)
        raise MediaError(f"videos: no video file in {names}. Give files, or folders of videos.")
    # By the name below the root first: other machines may see the root elsewhere.
    return sorted(found.values(), key=lambda video: (video.below, video.place))


def _below(root: Path) -> list[Input]:
    from syncdisc_plugin.media import list_videos

    out = []
    for video in list_videos([root]):
        if root.is_dir():
            below = video.relative_to(root)
            folder = below.parts[0] if len(below.parts) > 1 else Path(canonical(root)).name
        else:
            below, folder = Path(video.name), Path(canonical(video)).parent.name
        place = named(str(video))
        out.append(Input(place, below.as_posix(), folder, version(place)))
    return out


def _of_url(root: str, url: str, below: str, version: list[Any]) -> Input:
    inside, outside = PurePosixPath(below).parts[:-1], remote.parts(root)
    if url == root:  # a single file
        outside.pop()
    return Input(url, below, (inside[:1] or outside[-1:] or ("",))[0], version)


def version(place: str) -> list[Any]:
    """What changes when the file or object changes, of what cannot be looked at too."""
    try:
        if remote.is_url(place):
            return remote.version(place)
        stat = Path(place).stat()
        return [stat.st_size, stat.st_mtime_ns]
    except OSError as error:
        return unreadable(error)


def unreadable(error: OSError) -> list[Any]:
    """The version of what cannot be looked at; it is tried again when it can be."""
    return [0, -(error.errno or 1)]


def named(place: str) -> str:
    """One name for a file, from wherever it is called; a URL as it is.

    Unlike `canonical`, a link to a file is a file of its own.
    """
    if remote.is_url(place):
        return place
    folder, name = os.path.split(place)
    return os.path.join(_real_folder(folder, os.getcwd()), name)


@lru_cache(maxsize=1 << 16)
def _real_folder(folder: str, here: str) -> str:
    return os.path.realpath(os.path.join(here, folder))


def canonical(place: str | Path) -> str:
    """One name for a file, by whatever links it is reached; a URL as it is.

    Unlike `Path.resolve`, it takes a link that leads to itself.
    """
    return str(place) if remote.is_url(place) else os.path.realpath(place)


def read_speakers(path: Path | None, column: str = "speaker") -> dict[str, str]:
    """A column of the table of speakers by `canonical` place: who speaks, or in what language.

    {} without a table, "" where it has no such column.

    Raises:
        MediaError: a table without these columns, or a row without a path.
    """
    if path is None:
        return {}
    rows = read_table("--speakers", path, ("path", "speaker"))
    return {place: row.get(column) or "" for place, row in rows.items()}


def read_table(flag: str, path: Path, columns: Sequence[str]) -> dict[str, dict[str, str]]:
    """Rows of a CSV about videos, by the `canonical` place of what its column path names.

    Args:
        flag: to name in messages.
        path: of the table; its paths are relative to its folder, absolute, or URLs.
        columns: that it must have, path among them.

    Raises:
        MediaError: a table without these columns, or a row without a path.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # Excel writes a BOM
    except UnicodeDecodeError as error:
        raise MediaError(
            f"{flag} {path}: expected UTF-8, got a byte {error.object[error.start]:#x} at "
            f"{error.start}. Save it as UTF-8; in Excel: CSV UTF-8."
        ) from error
    with io.StringIO(text, newline="") as file:
        reader = csv.DictReader(file)
        names = list(reader.fieldnames or ())
        if not set(columns) <= set(names):
            semicolons = " Separate them by commas." if len(names) == 1 and ";" in names[0] else ""
            raise MediaError(
                f"{flag} {path}: expected the columns {','.join(columns)}, got {names}.{semicolons}"
            )
        rows = {}
        for row in reader:
            if not any(row.values()):  # spreadsheets write such ones
                continue
            if not row["path"]:
                raise MediaError(f"{flag} {path}: no path in line {reader.line_num}. Add it.")
            rows[_place(path, row["path"])] = row
        return rows


def _place(table: Path, text: str) -> str:
    return text if remote.is_url(text) else canonical(table.parent / text)
