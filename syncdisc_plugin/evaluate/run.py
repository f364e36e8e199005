"""Evaluate a checkpoint on a store, or on videos."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from syncdisc_plugin import weights
from syncdisc_plugin.data.embed import embed_clips
from syncdisc_plugin.data.prepare import PrepareSettings, prepare
from syncdisc_plugin.data.split import Split, split_store
from syncdisc_plugin.data.store import Clip, ClipStore
from syncdisc_plugin.errors import StoreError
from syncdisc_plugin.evaluate.metrics import summary
from syncdisc_plugin.nn import Discriminator
from syncdisc_plugin.nn.precision import choose_device


def evaluate_store(ref: str | Path, store: ClipStore, *, part: str = "all") -> dict[str, Any]:
    """All figures of a checkpoint on a store's clips.

    Args:
        ref: shipped name or path of the weights.
        store: the clips; its spec must be the checkpoint's.
        part: "all", or "heldout": only the speakers that STORE/split.json holds out.

    Raises:
        StoreError: the store was prepared with another spec, or holds no whole window.
    """
    net = load_for(store, ref)
    clips = store.clips if part == "all" else _stored_split(store).heldout
    return _figures(net, store, clips) | {"weights": str(ref), "part": part}


def load_for(store: ClipStore, ref: str | Path) -> Discriminator:
    """Load weights that are to judge the clips of `store`.

    Raises:
        StoreError: they were trained on another spec.
    """
    net = weights.load(ref, choose_device("auto"))
    if store.spec != net.spec:
        raise StoreError(
            f"{store.root}: prepared with another spec (size, crop or mel) than weights {ref}. "
            "Prepare the videos again with the checkpoint's spec."
        )
    return net


def evaluate_videos(
    ref: str | Path, videos: Sequence[Path], settings: PrepareSettings | None = None
) -> dict[str, Any]:
    """The same on videos, which are prepared into a folder that is removed again."""
    net = weights.load(ref, choose_device("auto"))
    with tempfile.TemporaryDirectory(prefix="syncdisc-") as folder:
        result = prepare(videos, Path(folder), net.spec, settings)
        store = ClipStore(folder)
        figures = _figures(net, store, store.clips)
    refused = [{"path": row["path"], "reason": row["reason"]} for row in result.refused]
    return figures | {"weights": str(ref), "part": "all", "refused": refused}


def _figures(net: Discriminator, store: ClipStore, clips: Sequence[Clip]) -> dict[str, Any]:
    embedded = list(embed_clips(net, store, clips))
    if not embedded:
        raise StoreError(f"{store.root}: no clip is as long as a window (0.2 s).")
    return summary(embedded, float(net.scale.detach()), float(net.bias.detach()))


def _stored_split(store: ClipStore) -> Split:
    if not (store.root / "split.json").exists():
        raise StoreError(f"{store.root}: no split yet; train on it first, or evaluate all clips.")
    return split_store(store, stored=True)
