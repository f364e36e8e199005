"""What a stage leaves for the report: held-out figures, curves, and the filter's verdicts."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from syncdisc_plugin.atomic import write_text
from syncdisc_plugin.data.embed import Embedded, embed_clips
from syncdisc_plugin.data.filter import FilterResult, FilterSettings, judge_clips, judge_store
from syncdisc_plugin.data.manifest import Clip
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.evaluate import metrics
from syncdisc_plugin.evaluate.summary import summary
from syncdisc_plugin.evaluate.views import load_with_view
from syncdisc_plugin.nn import Discriminator, offset_curve
from syncdisc_plugin.train.interrupt import Interrupt

LEAST_TRUSTED = 0.1  # of the windows, below which it is the net that cannot judge yet
HISTOGRAM_EDGES = np.linspace(-1, 1, 101)


@dataclass(frozen=True)
class Heldout:
    """A discriminator measured on held-out clips."""

    summary: dict[str, Any]
    """`evaluate.summary.summary`."""
    pairs: metrics.Pairs
    """Similarities of true and far false pairs."""
    clips: list[Embedded]
    """The clips' embeddings."""


def measure_heldout(
    net: Discriminator,
    store: ClipStore,
    clips: list[Clip],
    settings: FilterSettings,
    precision: str,
    lag: int = 0,
) -> Heldout:
    """Calibrate `net` in place on the clips (scale and bias), and measure it.

    Held-out people's footage is as dirty as the rest: a scale that is fitted to foreign sound as
    true is too low, and the loss flat. So the net, which did not train on these clips, filters them
    first, for the calibration and its error; the other figures are of all clips as they are.

    The calibration error is cross-fitted: each half of the clips with the other half's scale.
    """
    embedded = list(embed_clips(net, store, clips, precision, lag))
    pairs = metrics.far_pairs(embedded)
    trusted = _trusted(embedded, settings)
    scale, bias = metrics.fit_calibration(metrics.far_pairs(trusted))
    with torch.no_grad():
        net.log_scale.fill_(math.log(scale))
        net.bias.fill_(bias)
    figures = summary(embedded, scale, bias)
    figures["calibrated_on_clips"] = len(trusted)
    halves = [trusted[0::2], trusted[1::2]]
    if all(any(len(c.v) > metrics.FAR for c in half) for half in halves):
        figures["ece"] = metrics.crossfitted_ece(*halves)
    return Heldout(figures, pairs, embedded)


def _trusted(clips: list[Embedded], settings: FilterSettings) -> list[Embedded]:
    """What the filter leaves, shifted ones in sync; all clips where the net cannot judge yet."""
    verdicts = judge_clips(clips, settings).verdicts
    left = [
        clip.shifted(v.offset_frames) if v.verdict == "shifted" else clip
        for clip, v in zip(clips, verdicts, strict=True)
        if v.verdict != "dropped"
    ]
    there = sum(map(_far_windows, clips))
    return left if sum(map(_far_windows, left)) > LEAST_TRUSTED * there else clips


def _far_windows(clip: Embedded) -> int:
    """Windows of a clip that is long enough for false pairs."""
    return len(clip.v) if len(clip.v) > metrics.FAR else 0


def write_heldout(run: Path, stage: int, heldout: Heldout) -> None:
    """RUN/heldout/stageN.json: figures, histograms of similarity, the curve of every clip."""
    histogram = {
        name: (np.histogram(values, HISTOGRAM_EDGES)[0] / len(values)).round(5).tolist()
        for name, values in (("true", heldout.pairs.true), ("false", heldout.pairs.false))
    }
    curves = []
    for clip in heldout.clips:
        curve = offset_curve(clip.v, clip.a)
        curves.append(
            {
                "clip": clip.clip.id,
                "source": clip.clip.source,
                "speaker": clip.clip.speaker,
                "offset_frames": curve.offset_frames,
                "confidence": round(curve.confidence, 4),
                "similarity": curve.listed(),
            }
        )
    rows = {
        "stage": stage,
        "figures": heldout.summary,
        "histogram": {"edges": HISTOGRAM_EDGES.round(4).tolist(), **histogram},
        "curves": curves,
    }
    write_text(run / "heldout" / f"stage{stage}.json", json.dumps(rows))


def write_verdicts(run: Path, result: FilterResult, name: str = "filter") -> None:
    """RUN/NAME.jsonl, a row per clip, and RUN/NAME.json, thresholds and impostors."""
    summary = {
        **result.counts,
        "keep_threshold": result.keep_threshold,
        "shift_threshold": result.shift_threshold,
        "least_confidence": result.least_confidence,
        "impostor_strengths": [round(s, 3) for s in result.impostor_strengths],
    }
    write_text(run / f"{name}.json", json.dumps(summary, indent=1))
    # Last: a run that finds this file takes the filter as done.
    rows = "".join(json.dumps(v.row()) + "\n" for v in result.verdicts)
    write_text(run / f"{name}.jsonl", rows)


def measure_lag(
    run: Path,
    reference: str,
    store: ClipStore,
    clips: list[Clip],
    device: torch.device,
    precision: str,
    interrupt: Interrupt,
) -> int:
    """How early the audio of the whole set is, by weights that did not train on it.

    Kept in RUN/reference.json, so that a run that goes on keeps its zero. 0 without a reference, or
    where it was asked to stop before it was known.
    """
    path = run / "reference.json"
    if not reference:
        return 0
    if not path.exists():
        judge, view = load_with_view(reference, store, device)
        title = f"reference {reference}"
        result = judge_store(
            judge, view, clips, precision=precision, title=title, stop=lambda: interrupt.asked
        )
        if interrupt.asked:
            return 0
        sure = len(result.verdicts) - result.count("dropped")
        found = {"weights": reference, "lag_frames": result.common_lag, "clear_clips": sure}
        write_text(path, json.dumps(found, indent=1))
    return int(json.loads(path.read_text(encoding="utf-8"))["lag_frames"])
