"""Evaluate weights, ours or other people's, on a store or on videos."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from syncdisc_plugin import weights
from syncdisc_plugin.data.choice import Choice, choose
from syncdisc_plugin.data.embed import Embedded, device_of, embed_clips
from syncdisc_plugin.data.manifest import Clip
from syncdisc_plugin.data.prepare import PrepareSettings, prepare
from syncdisc_plugin.data.split import read_split, some_frames
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.errors import StoreError
from syncdisc_plugin.evaluate.groups import group_names, read_columns
from syncdisc_plugin.evaluate.metrics import CONTEXTS
from syncdisc_plugin.evaluate.summary import Tally, known, whole
from syncdisc_plugin.evaluate.views import CONDITIONS, load_with_view, under, view_for
from syncdisc_plugin.nn import Discriminator
from syncdisc_plugin.nn.frozen import freeze
from syncdisc_plugin.nn.judge import Judge
from syncdisc_plugin.nn.precision import check_precision, choose_device, choose_precision


@dataclass(frozen=True)
class EvaluateSettings:
    """What is looked at beside the figures of all clips."""

    condition_minutes: float = 0.0
    """Minutes of clips, of all speakers in turn, to judge again with other crops, blur,
    compression, smaller faces and noise; 0: none."""
    about: Path | None = None
    """CSV with a column path (relative to it) and columns of words, such as language: figures of
    each word's clips."""
    precision: str = "auto"
    """Of the net: fp32, bf16, or auto: bf16 on GPUs that have it and CPUs with AMX."""
    choose: Choice = Choice()
    """Which clips are judged."""

    def __post_init__(self) -> None:
        """Name the setting that is off before anything is prepared."""
        check_precision(self.precision)


def evaluate_store(
    ref: str | Path,
    store: ClipStore,
    *,
    part: str = "all",
    settings: EvaluateSettings | None = None,
) -> dict[str, Any]:
    """All figures of weights on a store's clips.

    Args:
        ref: shipped name or path of the weights, ours or another project's expert.
        store: the clips; its frame rate, crop and mel must be the weights'.
        part: "all", or "heldout": only the speakers that STORE/split.json holds out.
        settings: what else to look at.

    Raises:
        StoreError: the store was prepared with another spec, or holds no whole window.
    """
    net = weights.load_judge(ref, choose_device("auto"))
    clips = store.clips if part == "all" else _heldout(store)
    found = _evaluate(net, store, clips, settings or EvaluateSettings())
    return {"weights": str(ref), "part": part, **found}


def evaluate_videos(
    ref: str | Path,
    videos: Sequence[str | Path],
    footage: PrepareSettings | None = None,
    settings: EvaluateSettings | None = None,
) -> dict[str, Any]:
    """The same on videos, which are prepared into a folder that is removed again.

    Raises:
        StoreError: none of them could be used, each with its reason; or a choice that needs what
            `store judge` finds.
    """
    net = weights.load_judge(ref, choose_device("auto"))
    footage = (footage or PrepareSettings()).by_yunet()
    settings = settings or EvaluateSettings()
    if settings.choose.of_judge:
        raise StoreError(
            f"--choose: {', '.join(settings.choose.of_judge)} needs what `syncdisc store judge` "
            "finds. Prepare the videos, judge that store, and evaluate it with --data."
        )
    with tempfile.TemporaryDirectory(prefix="syncdisc-") as folder:
        result = prepare(videos, Path(folder), net.spec, footage)
        if not result.clips:
            why = "; ".join(f"{row['path']}: {row['reason']}" for row in result.refused)
            raise StoreError(f"--videos: no usable clip in them. {why}")
        store = ClipStore(folder)
        found = _evaluate(net, store, store.clips, settings)
    refused = [{"path": row["path"], "reason": row["reason"]} for row in result.refused]
    return {"weights": str(ref), "part": "all", **found, "refused": refused}


def load_for(store: ClipStore, ref: str | Path) -> tuple[Discriminator, ClipStore]:
    """Load weights that are to judge a store's clips and never to be trained; the store in their
    size.

    Raises:
        StoreError: they were trained on another frame rate, crop, margin or mel.
    """
    net, view = load_with_view(ref, store, choose_device("auto"))
    return freeze(net), view


def _evaluate(
    net: Judge,
    store: ClipStore,
    clips: Sequence[Clip],
    settings: EvaluateSettings,
) -> dict[str, Any]:
    chosen = choose(clips, store.root, store.spec.fps, settings.choose)
    if clips and not chosen.clips:
        raise StoreError(f"--choose: nothing is left: {chosen.note}. Ask for less.")
    # A table that is none is an error now, not behind all the work.
    about = read_columns(settings.about, chosen.clips) if settings.about else None
    clips, store = chosen.clips, view_for(store, net.spec)
    net = freeze(net)
    precision = choose_precision(settings.precision, device_of(net))
    tally = _tally(net, store, clips, "evaluate", precision)
    judged = [e.clip for e in tally.clips]
    names = group_names(judged, about)
    found = {
        "precision": precision,
        **whole(tally),
        "seconds": round(sum(c.n_frames for c in judged) / net.spec.fps, 2),
        "intervals": known(tally.intervals(tally.figures)),
        "groups": {name: tally.group(values) for name, values in names.items()},
        "clips": [_clip_row(e, tally, i, net.spec.fps) for i, e in enumerate(tally.clips)],
    }
    if settings.choose.asked:
        found["left_out"] = len(chosen.left_out)
    if settings.condition_minutes > 0:
        found["conditions"] = _conditions(net, store, judged, settings.condition_minutes, precision)
    return found


def _conditions(
    net: Judge, store: ClipStore, clips: Sequence[Clip], minutes: float, precision: str
) -> list[dict[str, Any]]:
    """Outlines of the same clips, as they are and under each condition."""
    some = some_frames(list(clips), round(minutes * 60 * net.spec.fps))
    rows = []
    for condition in (None, *CONDITIONS):
        name, level = (condition.name, condition.level) if condition else ("as it is", "")
        view = under(store, condition) if condition else store
        tally = _tally(net, view, some, f"{name} {level}".strip(), precision)
        outline = {**tally.outline(np.ones(len(tally.clips))), "ece": tally.figures()["ece"]}
        rows.append({"condition": name, "level": level, **known(outline)})
    return rows


@torch.no_grad()
def _tally(
    net: Judge, store: ClipStore, clips: Sequence[Clip], title: str, precision: str
) -> Tally:
    bar = tqdm(clips, desc=title, unit="clip", disable=None)
    embedded = list(embed_clips(net, store, bar, precision))
    seconds = net.spec.window_frames / net.spec.fps
    if not embedded:
        raise StoreError(f"{store.root}: no clip is as long as a window ({seconds:g} s).")
    zero, one = net.logit(torch.tensor([0.0, 1.0], device=device_of(net))).tolist()
    return Tally(embedded, one - zero, zero)


def _clip_row(e: Embedded, tally: Tally, i: int, fps: int) -> dict[str, Any]:
    curve, c = tally.curves[i], e.clip
    return {
        "clip": c.id,
        "source": c.source,
        "speaker": c.speaker,
        "start_s": c.start_s,
        "seconds": round(c.n_frames / fps, 2),
        "offset_frames": curve.offset_frames,
        "confidence": round(curve.confidence, 4),
        "pm_accuracy_15": round(float(tally.pm[i, CONTEXTS.index(15)]), 4),
        "similarity": curve.listed(),
    }


def _heldout(store: ClipStore) -> list[Clip]:
    split = read_split(store)
    if split is None:
        raise StoreError(f"{store.root}: no split yet; train on it first, or evaluate all clips.")
    if not split.apart:
        raise StoreError(f"{store.root}: {split.note}. Evaluate all clips, or other footage.")
    return split.heldout
