"""What clips are told apart by: speaker, folder, size and turn of the face, a table's words."""

from __future__ import annotations

import csv
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from syncdisc_plugin.data.manifest import Clip
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.errors import FaceError, StoreError
from syncdisc_plugin.faces.turn import Look, load_look

LOOKS = 5  # frames of a clip whose turn is measured
FACE_PX = (48, 96, 192)
TURN_DEG = (10, 20, 35)
MOST_NAMES = 40  # a column of more different words tells no groups


def group_names(
    store: ClipStore,
    clips: Sequence[Clip],
    about: Mapping[str, Mapping[str, str]] | None = None,
    models: Path | None = None,
) -> dict[str, list[str]]:
    """By property, the group of each clip; "" where it is not known.

    speaker; folder (of the source); face_px (in the source); head_turn (where YuNet's file is at
    hand); and the columns of a table.

    Args:
        store: where the clips are.
        clips: C of them.
        about: what `read_columns` gave for these clips, or for more.
        models: folder with detector files.
    """
    out = {
        "speaker": [c.speaker for c in clips],
        "folder": [Path(c.source).parent.name for c in clips],
        "face_px": [_between(c.face_px, FACE_PX, " px") for c in clips],
    }
    try:
        look = load_look(models)
    except FaceError:
        pass  # no file, no network: figures do not depend on it
    else:
        out["head_turn"] = [_between(_turn(store, c, look), TURN_DEG, "°") for c in clips]
    for name, words in (about or {}).items():
        out[name] = [words[c.id] for c in clips]
    return out


def _turn(store: ClipStore, clip: Clip, look: Callable[[np.ndarray], Look]) -> float:
    """Median over some frames of how far the head is turned to either side, in degrees."""
    at = np.linspace(0, clip.n_frames - 1, LOOKS).astype(int)
    found = [abs(look(store.frames(clip, i, i + 1)[0]).turn_deg) for i in at]
    found = [x for x in found if np.isfinite(x)]
    return float(np.median(found)) if found else float("nan")


def _between(value: float, bounds: Sequence[int], unit: str) -> str:
    """The range that a value lies in, in words that sort; "" for nan."""
    if not np.isfinite(value):
        return ""
    at = bisect_right(bounds, value)
    if at == len(bounds):
        return f"{bounds[-1]}{unit} and more"
    return f"{bounds[at - 1] if at else 0}-{bounds[at]}{unit}"


def read_columns(path: Path, clips: Sequence[Clip]) -> dict[str, dict[str, str]]:
    """Columns of words of a table, by name and clip id.

    Args:
        path: a CSV with the column path (relative to it) and others of words, such as language.
        clips: whose words are looked up; "" for those that it does not name.

    Raises:
        StoreError: it is no such table, or names none of the clips.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:  # Excel writes a BOM
        reader = csv.DictReader(file)
        if "path" not in (reader.fieldnames or ()):
            raise StoreError(
                f"--about {path}: expected a column path, got {list(reader.fieldnames or ())}."
            )
        rows = {(path.parent / row["path"]).resolve(): row for row in reader}
    found = [rows.get(Path(c.source).resolve(), {}) for c in clips]
    if not any(found):
        raise StoreError(
            f"--about {path}: names none of the {len(clips)} clips. Its paths are relative to the "
            "folder that it lies in."
        )
    out = {}
    for name in next(row for row in found if row):
        if name in (None, "path", "speaker"):  # None: what stands behind the last column
            continue
        words = [row.get(name) or "" for row in found]
        if not all(map(_is_number, words)) and len(set(words)) <= MOST_NAMES:
            out[name] = {c.id: word for c, word in zip(clips, words, strict=True)}
    return out


def _is_number(word: str) -> bool:
    try:
        float(word or "0")
    except ValueError:
        return False
    return True
