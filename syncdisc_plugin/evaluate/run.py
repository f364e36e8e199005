"""Evaluate a checkpoint on a store, or score single videos."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from syncdisc_plugin import weights
from syncdisc_plugin.data.embed import embed_clips, embed_frames, embed_mel
from syncdisc_plugin.data.prepare import Footage, PrepareSettings, prepare
from syncdisc_plugin.data.split import Split, split_store
from syncdisc_plugin.data.store import Clip, ClipStore
from syncdisc_plugin.errors import FaceError, StoreError
from syncdisc_plugin.evaluate.metrics import summary
from syncdisc_plugin.nn import Discriminator, offset_curve
from syncdisc_plugin.nn.precision import choose_device
from syncdisc_plugin.timing import n_windows


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


@dataclass(frozen=True)
class Score:
    """The verdict on one face track."""

    track: int
    """Number of the track in the video."""
    start_s: float
    """Where it begins, in seconds of the video."""
    seconds: float
    """How long it is."""
    box: tuple[float, float, float, float]
    """Mean box x1, y1, x2, y2 in pixels."""
    offset_frames: int
    """> 0: the audio is early by that many frames of 1/25 s."""
    confidence: float
    """Maximum minus median of similarity over offset."""
    probability: float
    """Mean probability that the audio fits as it is."""
    probability_over_time: list[float]
    """One per window, that is per frame but for the last four."""
    similarity_over_offset: list[float]
    """31 mean similarities for offsets -15..15."""


@torch.no_grad()
def score(
    video: Path | str, ref: str | Path = "base", settings: PrepareSettings | None = None
) -> list[Score]:
    """How well every face of a video fits its audio.

    Raises:
        MediaError, FaceError: the video cannot be used; the message says why.
    """
    from syncdisc_plugin.faces import load_detector

    settings = settings or PrepareSettings()
    net = weights.load(ref, choose_device("auto"))
    detect = load_detector(settings.detector, models=settings.models, device=settings.device)
    footage = Footage(Path(video), detect, net.spec, settings.track)
    out = []
    for number, (track, tensors) in enumerate(footage.clips()):
        n = n_windows(track.n_frames, len(tensors["mel"]), net.spec)
        if not n:
            raise FaceError(f"{video}: a face track is shorter than a window (0.2 s).")
        v, a = embed_frames(net, tensors["frames"])[:n], embed_mel(net, tensors["mel"], n)
        curve = offset_curve(v, a)
        probability = torch.sigmoid(net.logit((v * a).sum(1).to(net.bias))).cpu().numpy()
        out.append(
            Score(
                track=number,
                start_s=round(footage.recording.start_s + track.start_frame / net.spec.fps, 3),
                seconds=round(track.n_frames / net.spec.fps, 3),
                box=_mean_box(track.boxes),
                offset_frames=curve.offset_frames,
                confidence=round(curve.confidence, 4),
                probability=round(float(probability.mean()), 4),
                probability_over_time=probability.round(4).tolist(),
                similarity_over_offset=np.nan_to_num(curve.similarity).round(4).tolist(),
            )
        )
    return out


def _mean_box(boxes: np.ndarray) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (round(float(v), 1) for v in boxes.mean(0))
    return x1, y1, x2, y2
