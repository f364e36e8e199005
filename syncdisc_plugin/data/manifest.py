"""Rows of a store's manifest: one for every clip and every refused input."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from syncdisc_plugin.errors import StoreError

_ID = re.compile(r"[^/\\.][^/\\]*/\d+")


@dataclass(frozen=True)
class Clip:
    """One face track with its audio."""

    id: str
    """KEY-part/n: hash of the source's path, bytes and settings; part of it; number in the part."""
    speaker: str
    """Who speaks, as far as the folder tells; held-out splits never divide a speaker."""
    source: str
    """Path of the video it came from."""
    start_s: float
    """Where the clip begins in the source, in seconds."""
    n_frames: int
    """Video frames at 25 fps."""
    n_mels: int
    """Mel frames at 80 per second."""
    face_px: float
    """Median side of the face in the source, in pixels."""
    loudness_db: float
    """RMS level of the audio in dB below full scale."""
    source_fps: float = 0.0
    """Frames per second of the source; 0 where it was not recorded."""
    note: str = ""
    """What was odd but no reason to refuse."""
    face_score: float | None = None
    """Median score of the face's detections, in [0, 1]. None, here and below: not measured."""
    sharpness: float | None = None
    """Fine detail of the crops as a ratio of their contrast (`faces.quality.sharpness`)."""
    turn_deg: float | None = None
    """How far the head is turned to either side, in degrees; median over some frames."""
    crop_score: float | None = None
    """Median score of YuNet on the crops, in [0, 1]; what covers the mouth lowers it a little."""
    language: str = ""
    """As the speakers' table names it."""

    @property
    def shard(self) -> str:
        """Name of the shard without suffix."""
        return self.id.rsplit("/", 1)[0]

    @property
    def track(self) -> str:
        """Key of the tensors inside the shard."""
        return self.id.rsplit("/", 1)[1]


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a JSONL file; a last line that a kill cut short is skipped."""
    if not path.exists():
        return
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            yield json.loads(line)
        except ValueError as error:
            if number == len(lines) - 1:
                return
            raise StoreError(
                f"{path}: line {number + 1} is not JSON. Delete that line; "
                "the input it described is prepared again."
            ) from error


def clip_row(key: str, clip: Clip) -> dict[str, Any]:
    """Manifest row of a clip that was kept."""
    return {"key": key, "path": clip.source, "status": "ok", **asdict(clip)}


def row_clip(row: dict[str, Any]) -> Clip:
    """The clip of such a row.

    Raises:
        KeyError, TypeError: a field is missing.
        ValueError: an id that names no shard of the store; a foreign one could lead out of it.
    """
    names = Clip.__dataclass_fields__
    if not _ID.fullmatch(row["id"]):
        raise ValueError(f"id: expected KEY/n, got {row['id']}")
    return Clip(**{name: value for name, value in row.items() if name in names})


def clips_of(rows: list[dict[str, Any]], manifest: Path) -> list[Clip]:
    """The clips of rows, not in the order in which a pool of workers happened to finish them.

    Raises:
        StoreError: a row is damaged; `manifest` is the file to name.
    """
    try:
        clips = [row_clip(row) for row in rows if row["status"] == "ok"]
    except (TypeError, ValueError, KeyError) as error:
        raise StoreError(
            f"{manifest}: damaged ({type(error).__name__}: {error}). `syncdisc store verify` names "
            "the row."
        ) from error
    return sorted(clips, key=lambda clip: (clip.source, clip.start_s, clip.id))


def refused_row(key: str, path: Path | str, reason: str) -> dict[str, Any]:
    """Manifest row of an input that was refused."""
    return {"key": key, "path": str(path), "status": "refused", "reason": reason}


def shard_names(rows: list[dict[str, Any]]) -> set[str]:
    """Names of the shards that rows name, without suffix."""
    return {row["id"].rsplit("/", 1)[0] for row in rows if row["status"] == "ok"}


def seen_by(row: dict[str, Any]) -> str:
    """Key of the job that made or confirmed a row; stores of before had no other key."""
    return row.get("seen", row["key"])


def by_key(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The rows of each input."""
    out: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        out.setdefault(row["key"], []).append(row)
    return out


def unfinished(rows: list[dict[str, Any]]) -> set[str]:
    """Keys of the inputs of which a kill left some rows and not all: they are prepared again."""
    counts = Counter(row["key"] for row in rows)
    return {row["key"] for row in rows if row.get("rows") != counts[row["key"]]}
