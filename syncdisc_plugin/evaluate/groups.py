"""What clips are told apart by: speaker, folder, size and turn of the face, a table's words."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path

from syncdisc_plugin.data.inputs import canonical, read_table
from syncdisc_plugin.data.manifest import Clip
from syncdisc_plugin.errors import StoreError

FACE_PX = (48, 96, 192)
TURN_DEG = (10, 20, 35)
MOST_NAMES = 40  # a column of more different words tells no groups


def group_names(
    clips: Sequence[Clip],
    about: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[str, list[str]]:
    """By property, the group of each clip; "" where it is not known.

    speaker; folder (of the source); face_px (in the source); head_turn (where YuNet was at hand
    when they were prepared); and the columns of a table.

    Args:
        clips: C of them.
        about: what `read_columns` gave for these clips, or for more.
    """
    out = {
        "speaker": [c.speaker for c in clips],
        "folder": [Path(c.source).parent.name for c in clips],
        "face_px": [_between(c.face_px, FACE_PX, " px") for c in clips],
    }
    if any(c.turn_deg is not None for c in clips):
        out["head_turn"] = [_between(c.turn_deg, TURN_DEG, "°") for c in clips]
    for name, words in (about or {}).items():
        out[f"{name} (--about)" if name in out else name] = [words[c.id] for c in clips]
    return out


def _between(value: float | None, bounds: Sequence[int], unit: str) -> str:
    """The range that a value lies in, in words; "" for None."""
    if value is None:
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
        MediaError: it is no such table.
        StoreError: it names none of the clips.
    """
    rows = read_table("--about", path, ("path",))
    found = [rows.get(canonical(c.source), {}) for c in clips]
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
