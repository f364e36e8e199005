"""Small stores without videos, and what a store holds down to the byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from syncdisc_plugin.data.manifest import Clip, clip_row, refused_row
from syncdisc_plugin.data.writer import StoreWriter, write_shard
from syncdisc_plugin.spec import ClipSpec

SPEC = ClipSpec(face_px=32)
N_FRAMES, N_MELS = 20, 65


def tensors(key: str, tracks: int, spec: ClipSpec = SPEC) -> dict[str, np.ndarray]:
    """What depends on the key alone, as if it came from a video."""
    rng = np.random.default_rng(list(key.encode()))
    side, out = spec.stored_px, {}
    for n in range(tracks):
        out[f"{n}.frames"] = rng.integers(0, 256, (N_FRAMES, side, side, 3), np.uint8)
        out[f"{n}.mel"] = rng.uniform(-4, 4, (N_MELS, 80)).astype(np.float32)
        out[f"{n}.audio"] = rng.integers(-32768, 32768, N_FRAMES * 640, np.int16)
    return out


def add(
    writer: StoreWriter, key: str, *, tracks: int = 1, path: str = "", **about: Any
) -> list[dict[str, Any]]:
    """Write an input as `prepare` does, shard first; without tracks it is refused."""
    path = path or f"videos/{key}.mp4"
    if not tracks:
        rows = [refused_row(key, path, f"{path}: no audio stream. Give another.")]
    else:
        write_shard(writer.root, f"{key}-0", tensors(key, tracks))
        more = {"speaker": "ann", "start_s": 0.0, "face_px": 80.0, "loudness_db": -20.0} | about
        sizes = {"n_frames": N_FRAMES, "n_mels": N_MELS}
        clips = [Clip(id=f"{key}-0/{n}", source=path, **sizes, **more) for n in range(tracks)]
        rows = [clip_row(key, clip) for clip in clips]
    writer.add(rows)
    return rows


def make(root: Path, inputs: dict[str, int], spec: ClipSpec = SPEC) -> Path:
    """A store of inputs, each a key and its number of tracks."""
    with StoreWriter(root, spec) as writer:
        for key, tracks in inputs.items():
            add(writer, key, tracks=tracks)
    return root


def contents(root: Path) -> tuple[list[str], dict[str, bytes]]:
    """Rows but for their order, and all other files but the lock."""
    rows = sorted((root / "manifest.jsonl").read_text(encoding="utf-8").splitlines())
    files = {str(p.relative_to(root)): p for p in root.rglob("*") if p.is_file()}
    del files["manifest.jsonl"]
    files.pop("lock", None)
    return rows, {name: path.read_bytes() for name, path in files.items()}


def edit_rows(root: Path, **changes: Any) -> None:
    """Change fields of the first row."""
    first, *others = (root / "manifest.jsonl").read_text().splitlines()
    lines = [json.dumps(json.loads(first) | changes), *others]
    (root / "manifest.jsonl").write_text("".join(f"{line}\n" for line in lines))
