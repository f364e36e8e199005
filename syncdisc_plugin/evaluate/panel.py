"""A drawing of a page: matplotlib's SVG in the page's colours, with its caption.

A drawing is an SVG of 380 units' width, so that its text stays readable on a phone that shows it
at 0.8 and on a desktop that shows two beside each other at 1.2; `page.CSS` gives its colours.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# matplotlib draws with these; the SVG then names CSS variables, which know light and dark.
INK, LINE, BLUE, ORANGE, GREY = "#010101", "#020202", "#030303", "#040404", "#050505"
THEME = {INK: "ink", LINE: "line", BLUE: "blue", ORANGE: "orange", GREY: "grey"}
SIZE = (380 / 72, 232 / 72)
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 12,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 11.5,
    "ytick.labelsize": 11.5,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 11.5,
}
_P = ParamSpec("_P")


def panel(draw: Callable[Concatenate[Axes, _P], None]) -> Callable[Concatenate[str, _P], str]:
    """Turn `draw(axes, ...)` into `(caption, ...)` -> a <figure>; the caption is HTML."""

    @wraps(draw)
    def render(caption: str, *args: _P.args, **kwargs: _P.kwargs) -> str:
        # The salt keeps the ids of one page's figures apart, and the same from run to run.
        with matplotlib.rc_context({**STYLE, "svg.hashsalt": caption}):
            figure = Figure(figsize=SIZE, layout="constrained")
            axes = figure.subplots()
            draw(axes, *args, **kwargs)
            text = io.StringIO()
            figure.savefig(text, format="svg", transparent=True)
        svg = text.getvalue()
        svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
        svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # "axes_1" would be in every figure
        for colour, name in THEME.items():
            svg = svg.replace(colour, f"var(--{name})")
        words = re.sub("<[^>]*>", "", caption).split(". ")[0].replace('"', "&quot;")
        # Without a size of its own the drawing is as wide as its place on the page.
        svg = re.sub(
            r' width="\S*" height="\S*"', f' role="img" aria-label="{words}"', svg, count=1
        )
        return f"<figure>{svg.strip()}<figcaption>{caption}</figcaption></figure>"

    return render


def legend(axes: Axes) -> None:
    """One entry per label, above the axes where it covers nothing."""
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    axes.legend(
        once.values(),
        once.keys(),
        loc="lower left",
        bbox_to_anchor=(-0.02, 0.99),
        ncols=4,
        handlelength=1.3,
        handletextpad=0.5,
        columnspacing=1.2,
        borderaxespad=0.1,
    )
