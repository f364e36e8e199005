"""The clip store: a folder of safetensors shards and a manifest, read by slices.

    STORE/store.json            the ClipSpec and the format version
    STORE/manifest.jsonl        one row for every clip and every refused input
    STORE/split.json            which speakers are held out; made once
    STORE/judged.jsonl          what weights think of each clip; `store judge` makes it
    STORE/lock                  held by the command that writes; no obstacle once that has ended
    STORE/shards/KEY.safetensors    per source video: `<n>.frames`, `<n>.mel`, `<n>.audio`

frames (F, S, S, 3) uint8 RGB with the spec's margin, mel (L, M) float32 time first,
audio (F * 640,) int16.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from syncdisc_plugin.atomic import replacing, write_text
from syncdisc_plugin.data.lock import NAME as LOCK
from syncdisc_plugin.data.lock import Lock
from syncdisc_plugin.data.remote import INCOMING, check_local
from syncdisc_plugin.errors import StoreError
from syncdisc_plugin.spec import ClipSpec
from syncdisc_plugin.timing import n_windows

FORMAT = 1
META, MANIFEST, JUDGED, SPLIT = "store.json", "manifest.jsonl", "judged.jsonl", "split.json"
_OPEN_SHARDS = 128  # file handles kept; a shard is reopened after it falls out


@dataclass(frozen=True)
class Clip:
    """One face track with its audio."""

    id: str
    """KEY/n: the source's content key and the number of the track in it."""
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


def read_judged(root: Path) -> dict[str, dict[str, Any]]:
    """Rows of STORE/judged.jsonl by clip; empty where it was not judged."""
    return {row["clip_id"]: row for row in read_rows(root / JUDGED)}


def unfinished(rows: list[dict[str, Any]]) -> set[str]:
    """Keys of the inputs of which a kill left some rows and not all: they are prepared again."""
    counts = Counter(row["key"] for row in rows)
    return {row["key"] for row in rows if row.get("rows") != counts[row["key"]]}


class StoreWriter:
    """Adds clips and refusals to a store, and keeps other writers out meanwhile.

    Use it in a `with`, or call `close`.
    """

    def __init__(self, root: Path, spec: ClipSpec) -> None:
        """Open a store, or begin one.

        Raises:
            StoreError: `root` is something else, holds clips of another spec, or another process
                is at work on it.
        """
        self.root, self.manifest = root, root / MANIFEST
        _check_place(root, spec)  # before the lock: nothing of ours goes into a foreign folder
        root.mkdir(parents=True, exist_ok=True)
        self._lock = Lock(root)
        try:
            _check_place(root, spec)  # what another process made of it in between
            self._begin(spec)
        except BaseException:
            self._lock.release()
            raise

    def _begin(self, spec: ClipSpec) -> None:
        meta = self.root / META
        (self.root / "shards").mkdir(exist_ok=True)
        if not meta.exists():
            write_text(meta, json.dumps({"format": FORMAT, "spec": json.loads(spec.to_json())}))
        for temp in leftovers(self.root):
            temp.unlink(missing_ok=True)
        rows = list(read_rows(self.manifest))
        cut = unfinished(rows)
        self._rewrite([row for row in rows if row["key"] not in cut])

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let others write."""
        self._lock.release()

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All rows, a copy of the list."""
        return list(self._rows)

    @property
    def done(self) -> set[str]:
        """Keys of the inputs that have their rows."""
        return {row["key"] for row in self._rows}

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Append all rows of one input, or of several; they replace older ones of the same inputs.

        A kill leaves the rows of an input all there, or the input to be done again.
        """
        counts = Counter(row["key"] for row in rows)
        rows = [{**row, "rows": counts[row["key"]]} for row in rows]
        new = _inputs(rows)
        if new.isdisjoint(self._inputs):
            with self.manifest.open("a", encoding="utf-8") as out:
                out.write("".join(json.dumps(row) + "\n" for row in rows))
                out.flush()
                os.fsync(out.fileno())
            self._rows += rows
            self._inputs |= new
            return
        replaced = [row for row in self._rows if not new.isdisjoint(_inputs([row]))]
        kept = [row for row in self._rows if new.isdisjoint(_inputs([row]))]
        self._rewrite(kept + rows)  # at once: a kill between two steps would lose the old and new
        for shard in shard_names(replaced) - shard_names(self._rows):
            shard_path(self.root, shard).unlink(missing_ok=True)

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        # Whole, so that a half-written last line does not swallow the next row.
        write_text(self.manifest, "".join(json.dumps(row) + "\n" for row in rows))
        self._rows, self._inputs = rows, _inputs(rows)


def _inputs(rows: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """What rows are of: the paths, and the keys, for a path can be written in several ways."""
    return {(name, row[name]) for row in rows for name in ("path", "key")}


def shard_names(rows: list[dict[str, Any]]) -> set[str]:
    """Names of the shards that rows name, without suffix."""
    return {row["id"].rsplit("/", 1)[0] for row in rows if row["status"] == "ok"}


def _check_place(root: Path, spec: ClipSpec) -> None:
    check_local("--out", root, "Make the store here; then syncdisc store copy puts it there.")
    if (root / META).exists():
        if read_spec(root) != spec:
            raise StoreError(
                f"--out {root}: holds clips of another spec (size, crop or mel). "
                "Give another folder, or the settings that it was made with."
            )
    elif root.exists():
        # What a store has that was killed before its first file was written.
        begun = {LOCK, "shards", *(temp.name for temp in leftovers(root))}
        if any(path.name not in begun for path in root.iterdir()):
            raise StoreError(f"--out {root}: not empty and not a clip store. Give a new folder.")


def leftovers(root: Path) -> list[Path]:
    """Temporary files of writers that were killed or are at work, fetched videos among them."""
    names = (f".{name}.*.tmp" for name in (META, MANIFEST))
    found = [path for name in names for path in root.glob(name)]
    # The second are those of safetensors, which writes beside our own temporary file.
    for name in (".*.safetensors.*.tmp", ".tmp??????", INCOMING):
        found += (root / "shards").glob(name)
    return sorted(found)


def shard_path(root: Path, shard: str) -> Path:
    """Where the shard of that name lies."""
    return root / "shards" / f"{shard}.safetensors"


def write_shard(root: Path, key: str, tensors: dict[str, np.ndarray]) -> None:
    """Write one shard atomically. Raises OSError where it cannot be, of a full disk too."""
    with replacing(shard_path(root, key)) as temp:
        try:
            save_file(tensors, temp)
        except SafetensorError as error:
            # Its text is all that says so, and a full disk is no fault of the video.
            if found := re.search(r"os error (\d+)", str(error)):
                number = int(found[1])
                path = str(shard_path(root, key))
                raise OSError(number, os.strerror(number), path) from error
            raise


def clip_row(key: str, clip: Clip) -> dict[str, Any]:
    """Manifest row of a clip that was kept."""
    return {"key": key, "path": clip.source, "status": "ok", **asdict(clip)}


def row_clip(row: dict[str, Any]) -> Clip:
    """The clip of such a row. Raises TypeError where a field is missing."""
    names = Clip.__dataclass_fields__
    return Clip(**{name: value for name, value in row.items() if name in names})


def refused_row(key: str, path: Path | str, reason: str) -> dict[str, Any]:
    """Manifest row of an input that was refused."""
    return {"key": key, "path": str(path), "status": "refused", "reason": reason}


def read_spec(root: Path) -> ClipSpec:
    """The spec of the store at `root`. Raises StoreError where there is no store."""
    check_local("store", root, "Bring it here with syncdisc store copy.")
    try:
        raw = json.loads((root / META).read_text(encoding="utf-8"))
        if raw["format"] != FORMAT:
            raise StoreError(f"{root}: store format {raw['format']}, this version reads {FORMAT}.")
        return ClipSpec.from_json(json.dumps(raw["spec"]))
    except FileNotFoundError as error:
        raise StoreError(
            f"{root}: not a clip store (no store.json). Make one: syncdisc prepare VIDEOS --out DIR"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{root}/store.json: damaged ({error}). Prepare into a new folder."
        ) from error


class ClipStore:
    """Read access to a store. Reading a window touches only that window's bytes."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self.spec = read_spec(self.root)
        self.rows = list(read_rows(self.root / MANIFEST))
        clips = (row_clip(row) for row in self.rows if row["status"] == "ok")
        # Not in the order in which a pool of workers happened to finish them.
        self.clips = sorted(clips, key=lambda clip: (clip.source, clip.start_s, clip.id))
        self.refused = [row for row in self.rows if row["status"] != "ok"]
        self._by_id = {clip.id: clip for clip in self.clips}
        self._open: OrderedDict[str, Any] = OrderedDict()
        if not self.clips:
            raise StoreError(
                f"{self.root}: no usable clip ({len(self.refused)} inputs refused; "
                "the reasons are in manifest.jsonl)."
            )

    def __getstate__(self) -> dict[str, Any]:
        """Open files do not travel to worker processes."""
        return {**self.__dict__, "_open": OrderedDict()}

    def __len__(self) -> int:
        """How many clips."""
        return len(self.clips)

    def __getitem__(self, clip_id: str) -> Clip:
        """The clip of that id."""
        return self._by_id[clip_id]

    def windows(self, clip: Clip) -> int:
        """Number of whole windows in the clip."""
        return n_windows(clip.n_frames, clip.n_mels, self.spec)

    def frames(self, clip: Clip, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Frames [start, stop) as (F, S, S, 3) uint8 RGB, margin included."""
        return self._slice(clip, "frames", start, stop)

    def mel(self, clip: Clip, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Mel frames [start, stop) as (L, M) float32."""
        return self._slice(clip, "mel", start, stop)

    def audio(self, clip: Clip, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Samples [start, stop) as (N,) float32 in [-1, 1]."""
        return self._slice(clip, "audio", start, stop).astype(np.float32) / 32768.0

    def _slice(self, clip: Clip, name: str, start: int, stop: int | None) -> np.ndarray:
        try:
            shard = self._open.pop(clip.shard, None)
            if shard is None:
                shard = safe_open(shard_path(self.root, clip.shard), framework="numpy")
            self._open[clip.shard] = shard
            if len(self._open) > _OPEN_SHARDS:
                self._open.popitem(last=False)
            tensor = shard.get_slice(f"{clip.track}.{name}")
            size = tensor.get_shape()[0]  # unlike numpy's, these slices must not overrun
            stop = size if stop is None else min(stop, size)
            return tensor[start:stop] if start < stop else tensor[0:0]
        except (OSError, SafetensorError) as error:
            raise StoreError(
                f"{self.root}: clip {clip.id} ({clip.source}) cannot be read: {error}. "
                "Remove its rows from manifest.jsonl and prepare again."
            ) from error
