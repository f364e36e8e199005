"""What there is to prepare, and who speaks in it."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

from syncdisc_plugin.errors import MediaError


def list_inputs(roots: Sequence[Path]) -> list[tuple[Path, Path]]:
    """(root, video) of every file, once, in an order that all jobs of an array agree upon."""
    from syncdisc_plugin.media import list_videos

    found = {os.path.realpath(v): (root, v) for root in roots for v in list_videos([root])}
    if not found:
        names = ", ".join(str(r) for r in roots)
        raise MediaError(f"videos: no video file in {names}. Give files, or folders of videos.")

    def place(item: tuple[Path, Path]) -> tuple[str, str]:
        # By the name below the root first: other machines may see the root elsewhere.
        root, video = item
        return video.relative_to(root if root.is_dir() else root.parent).as_posix(), str(video)

    return sorted(found.values(), key=place)


def read_speakers(path: Path | None, column: str = "speaker") -> dict[Path, str]:
    """A column of the table of speakers by path: who speaks, or in what language.

    {} without a table, "" where it has no such column.

    Raises:
        MediaError: a table without these columns.
    """
    if path is None:
        return {}
    with path.open(newline="", encoding="utf-8-sig") as file:  # Excel writes a BOM
        reader = csv.DictReader(file)
        if not {"path", "speaker"} <= set(reader.fieldnames or ()):
            raise MediaError(f"--speakers {path}: expected the columns path,speaker.")
        return {real(path.parent / row["path"]): row.get(column) or "" for row in reader}


def folder_speaker(root: Path, video: Path) -> str:
    """The first folder below the root that was given, or that root itself."""
    if root.is_dir():
        inside = video.parent.relative_to(root).parts
        return inside[0] if inside else real(root).name
    return real(video).parent.name


def real(path: Path) -> Path:
    """Where a path leads. Unlike `resolve`, it takes a link that leads to itself."""
    return Path(os.path.realpath(path))
