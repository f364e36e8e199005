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
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from syncdisc_plugin.data.manifest import Clip, clips_of, read_rows
from syncdisc_plugin.data.remote import check_local
from syncdisc_plugin.errors import StoreError
from syncdisc_plugin.spec import ClipSpec
from syncdisc_plugin.timing import n_windows

FORMAT = 1
META, MANIFEST, JUDGED, SPLIT = "store.json", "manifest.jsonl", "judged.jsonl", "split.json"
_OPEN_SHARDS = 128  # file handles kept; a shard is reopened after it falls out


class ClipStore:
    """Read access to a store. Reading a window touches only that window's bytes."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self.spec = read_spec(self.root)
        self.rows = list(read_rows(self.root / MANIFEST))
        self.clips = clips_of(self.rows, self.root / MANIFEST)
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
                + _mend(error)
            ) from error


def _mend(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return (
            "Its shard was deleted, or replaced when `prepare` found another video there; a run "
            "goes on without it with --resume."
        )
    return (
        "Remove its rows from manifest.jsonl: `prepare` makes it anew, and a run goes on without "
        "it with --resume."
    )


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


def read_judged(root: Path) -> dict[str, dict[str, Any]]:
    """Rows of STORE/judged.jsonl by clip; empty where it was not judged."""
    return {row["clip_id"]: row for row in read_rows(root / JUDGED)}


def shard_path(root: Path, shard: str) -> Path:
    """Where the shard of that name lies."""
    return root / "shards" / f"{shard}.safetensors"
