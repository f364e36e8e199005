"""The report's drawings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter

from syncdisc_plugin.evaluate.panel import BLUE, GREY, INK, LINE, ORANGE, legend, panel
from syncdisc_plugin.nn.curve import MAX_OFFSET

PM_CHANCE = 3 / (2 * MAX_OFFSET + 1)
MOST_POINTS = 400
MOST_CURVES = 150
Rows = Sequence[Mapping[str, Any]]


@panel
def loss(axes: Axes, steps: Rows, starts: Mapping[int, int]) -> None:
    """Training loss of the stages one after another, and the chance level beside it."""
    for stage in starts:
        rows = [r for r in steps if r["stage"] == stage]
        x = [starts[stage] + r["step"] for r in rows]
        axes.plot(*_thin(x, [r["loss"] for r in rows]), color=BLUE, label="loss")
        chance = [r["chance"] for r in rows]
        axes.plot(*_thin(x, chance), color=GREY, ls="--", lw=1.2, label="chance")
    axes.set_ylim(bottom=0)
    _finish_steps(axes, starts)


@panel
def heldout(
    axes: Axes,
    measures: Rows,
    starts: Mapping[int, int],
    names: Mapping[str, str],
    chance: float | None,
) -> None:
    """Held-out figures over the steps; names maps a row's key to its words in the legend."""
    for (key, words), colour in zip(names.items(), (BLUE, ORANGE), strict=False):
        for stage in starts:
            rows = [r for r in measures if r["stage"] == stage]
            x = [starts[stage] + r["step"] for r in rows]
            axes.plot(x, [r[key] for r in rows], color=colour, marker="o", ms=3, label=words)
    if chance is not None:
        axes.axhline(chance, color=GREY, ls="--", lw=1.2, label="chance")
        axes.set(ylim=(0, 1), yticks=[0, 0.25, 0.5, 0.75, 1])
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    _finish_steps(axes, starts)


@panel
def similarities(axes: Axes, histogram: Mapping[str, list[float]]) -> None:
    """Shares of true and of false pairs over their similarity."""
    edges = np.array(histogram["edges"])
    middles = (edges[:-1] + edges[1:]) / 2
    for name, colour in (("false", ORANGE), ("true", BLUE)):
        shares = np.array(histogram[name])
        axes.stairs(shares, edges, fill=True, color=colour, alpha=0.3, lw=0)
        axes.stairs(shares, edges, color=colour, lw=1.2, label=f"{name} pairs")
        axes.axvline(float(middles @ shares), color=colour, ls=":", lw=1.4)
    axes.set(xlim=(-1, 1), xlabel="similarity", xticks=[-1, -0.5, 0, 0.5, 1], yticks=[])
    legend(axes)


@panel
def gap_steps(axes: Axes, measures: Rows, preset: float | None) -> None:
    """Stage 2's controller: the measured gap chases a target that moves on when it is met."""
    x = [r["step"] for r in measures]
    axes.plot(x, [r["gap"] for r in measures], color=BLUE, marker="o", ms=3.5, label="gap")
    targets = [(r["step"], r["target"]) for r in measures if "target" in r]
    if targets:
        axes.step(*zip(*targets, strict=True), where="post", color=ORANGE, label="target")
    if preset is not None:
        axes.axhline(preset, color=GREY, ls="--", lw=1.2, label="preset")
    axes.set(xlabel="step of stage 2")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    legend(axes)


@panel
def offsets(axes: Axes, verdicts: Rows) -> None:
    """How many clips peak at each offset, by what became of them."""
    bins = np.arange(-MAX_OFFSET, MAX_OFFSET + 2) - 0.5
    floor = np.zeros(len(bins) - 1)
    for name, colour in (("kept", BLUE), ("shifted", ORANGE), ("dropped", GREY)):
        here = [r["offset_frames"] for r in verdicts if r["verdict"] == name]
        count = np.histogram(here, bins)[0]
        axes.bar(bins[:-1] + 0.5, count, 0.85, bottom=floor, color=colour, label=name)
        floor += count
    axes.set(xlim=(bins[0], bins[-1]), xlabel="offset in frames (> 0: audio early)", ylabel="clips")
    axes.set_xticks(range(-MAX_OFFSET, MAX_OFFSET + 1, 5))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    legend(axes)


@panel
def strengths(
    axes: Axes, clips: Sequence[float], impostors: Sequence[float], keep: float, shift: float
) -> None:
    """Strengths of clips and of impostors, each as shares, with the two thresholds."""
    top = max([*clips, *impostors, keep, shift, 1e-6]) * 1.02
    edges = np.linspace(min([0.0, *clips, *impostors]), top, 41)
    for values, colour, name in ((impostors, ORANGE, "impostors"), (clips, BLUE, "clips")):
        if values:
            shares = np.histogram(values, edges)[0] / len(values)
            axes.stairs(shares, edges, fill=True, color=colour, alpha=0.3, lw=0)
            axes.stairs(shares, edges, color=colour, lw=1.2, label=name)
    axes.axvline(keep, color=INK, lw=1.4, label="keep")
    axes.axvline(shift, color=INK, lw=1.4, ls="--", label="shift")
    axes.set(xlabel="strength", xlim=(edges[0], top), yticks=[])
    legend(axes)


@panel
def curves(axes: Axes, similarity: Sequence[Sequence[float | None]]) -> None:
    """Similarity over offset: thin lines are clips, the bold one their mean."""
    table = np.array(similarity, dtype=float)
    x = np.arange(-MAX_OFFSET, MAX_OFFSET + 1)
    some = table[:: -(-len(table) // MOST_CURVES)]
    axes.axvline(0, color=INK, lw=1, ls=":")
    axes.plot(x, some.T, color=GREY, lw=0.7, alpha=min(0.6, max(0.25, 8 / len(some))))
    axes.plot([], [], color=GREY, lw=0.9, label="one clip")
    axes.plot(
        x, np.ma.masked_invalid(table).mean(0).filled(np.nan), color=BLUE, lw=2.6, label="mean"
    )
    # The same scale for all stages, so that a flat curve looks flat.
    axes.set(xlim=(x[0], x[-1]), ylim=(min(-0.25, np.nanmin(table)), 1), ylabel="similarity")
    axes.set(xlabel="offset in frames (> 0: audio early)")
    axes.set_xticks(range(-MAX_OFFSET, MAX_OFFSET + 1, 5))
    legend(axes)


def _thin(x: Sequence[float], y: Sequence[float]) -> tuple[list[float], list[float]]:
    """Means of neighbours, so that a long run does not make a heavy page."""
    parts = np.array_split(np.array([x, y], dtype=float), min(MOST_POINTS, max(1, len(x))), axis=1)
    means = [p.mean(1) for p in parts if p.size]
    return [float(m[0]) for m in means], [float(m[1]) for m in means]


def _finish_steps(axes: Axes, starts: Mapping[int, int]) -> None:
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.12 * (high - low))  # room for the stages' names
    for stage, start in starts.items():
        axes.axvline(start, color=LINE, lw=1)
        words = f" stage {stage}" if stage == min(starts) else f" {stage}"
        axes.text(start, 0.99, words, transform=axes.get_xaxis_transform(), fontsize=10.5, va="top")
    axes.set(xlabel="step, stages one after another")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    legend(axes)
