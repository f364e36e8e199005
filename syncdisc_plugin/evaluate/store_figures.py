"""The drawings of a store's page."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from syncdisc_plugin.evaluate.panel import BLUE, GREY, INK, legend, panel

BINS = 24


@panel
def steps(axes: Axes, names: Sequence[str], minutes: Sequence[float]) -> None:
    """Minutes at each step of the funnel, from above to below."""
    y = range(len(names))
    axes.barh(y, minutes, 0.7, color=[GREY, GREY, BLUE, BLUE][: len(names)])
    for at, value in zip(y, minutes, strict=True):
        axes.text(value, at, f" {value:,.1f}", va="center")
    axes.set(yticks=list(y), xlim=(0, 1.18 * max([*minutes, 1e-3])), xlabel="minutes")
    axes.set_yticklabels(names)
    axes.invert_yaxis()
    axes.grid(visible=False)


@panel
def histogram(
    axes: Axes,
    chosen: Sequence[float],
    others: Sequence[float],
    label: str,
    limit: float | None = None,
) -> None:
    """How many clips have which value: the chosen ones, the others above them, and the limit."""
    values = np.array([*chosen, *others], dtype=float)
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BINS + 1)
    floor = np.zeros(BINS)
    for name, part, colour in (("chosen", chosen, BLUE), ("left out", others, GREY)):
        counts = np.histogram(part, edges)[0]
        if len(part):
            axes.bar(edges[:-1], counts, np.diff(edges), floor, align="edge", color=colour)
            axes.bar([low], [0], 0, color=colour, label=name)
        floor += counts
    if limit is not None:
        axes.axvline(limit, color=INK, ls="--", lw=1.2, label="limit")
    axes.set(xlabel=label, ylabel="clips")
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_locator(MaxNLocator(6))
    if len(others) or limit is not None:
        legend(axes)
