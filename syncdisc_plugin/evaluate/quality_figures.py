"""The drawings of an evaluation's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from syncdisc_plugin.evaluate.panel import BLUE, GREY, INK, ORANGE, legend, panel

Ends = Mapping[str, Sequence[float] | None]
WORDS = {"other_clip_same_speaker": "other clip", "other_speaker": "other\nspeaker"}


@panel
def over_context(
    axes: Axes, pm: Mapping[str, float], spread: Ends, chance: Mapping[str, float]
) -> None:
    """PM accuracy over the context in frames, its interval as a band."""
    x = [int(k) for k in pm]
    if all(spread.get(k) for k in pm):
        low, high = np.array([spread[k] for k in pm], dtype=float).T
        axes.fill_between(x, low, high, color=BLUE, alpha=0.18, lw=0, label="95% interval")
    axes.plot(x, list(pm.values()), color=BLUE, marker="o", ms=4, label="within 1 frame")
    axes.plot(x, list(chance.values()), color=GREY, ls="--", lw=1.2, label="chance")
    axes.set(xlabel="context in frames", xticks=x, ylim=(0, 1.02))
    _percent(axes)


@panel
def by_distance(axes: Axes, share: Mapping[str, float | None], spread: Ends) -> None:
    """Pair accuracy over the distance of the false audio, intervals as whiskers."""
    shown = {k: v for k, v in share.items() if v is not None}
    for i, (k, value) in enumerate(shown.items()):
        if ends := spread.get(k):
            axes.plot([i, i], list(ends), color=BLUE, lw=5, alpha=0.25)
        axes.plot(i, value, color=BLUE, marker="o", ms=5)
    axes.axhline(0.5, color=GREY, ls="--", lw=1.2, label="chance")
    labels = [WORDS.get(k, k) for k in shown]
    axes.set(ylim=(0.4, 1.02), xlabel="false audio: frames away, or of another clip")
    axes.set_xticks(range(len(shown)), labels)
    _percent(axes)


@panel
def by_speaker(axes: Axes, groups: Mapping[str, Mapping[str, Any]]) -> None:
    """Pair accuracy and PM at 15 frames of each speaker, the worst first."""
    rows = [g for g in groups.values() if g["pair_accuracy"] is not None]
    rows.sort(key=lambda g: g["pair_accuracy"])
    x = range(len(rows))
    axes.plot(x, [g["pair_accuracy"] for g in rows], "o", ms=4, color=BLUE, label="pairs")
    pm = [g["pm_accuracy"]["15"] for g in rows]
    axes.plot(x, pm, "s", ms=3.5, color=ORANGE, label="PM 15")
    axes.set(ylim=(0, 1.02), xlabel="speakers, the worst first", xticks=[])
    _percent(axes)


@panel
def under_conditions(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """Pair accuracy on the same clips, made worse step by step."""
    base, *rest = rows
    axes.axhline(base["pair_accuracy"], color=INK, ls="--", lw=1.2, label="as it is")
    names = list(dict.fromkeys(r["condition"] for r in rest))
    for i, name in enumerate(names):
        values = [r["pair_accuracy"] for r in rest if r["condition"] == name]
        x = i + np.linspace(-0.3, 0.3, len(values))
        axes.plot(x, values, color=BLUE, marker="o", ms=3.5)
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right", rotation_mode="anchor")
    axes.set(ylim=(0.45, 1.02))
    _percent(axes)


def _percent(axes: Axes) -> None:
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    legend(axes)
