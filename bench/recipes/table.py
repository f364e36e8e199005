"""Rows of runs -> table.md and recipes.svg beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from split import DRAW

from syncdisc_plugin.atomic import write_text
from syncdisc_plugin.data.manifest import read_rows

matplotlib.rcParams["svg.hashsalt"] = "recipes"  # the same rows, the same file

CONTEXTS = (5, 9, 15, 25)  # frames, of the PM protocol
NAMES = {
    "field": "a  Wav2Lip expert and recipe",
    "field-loss": "b  our net, that objective",
    "control": "   our stage 1, all the time",
    "stage1": "c  stage 1",
    "stage2": "d  stage 2",
    "stage3": "e  stage 3",
}
_COUNTS = ("clips", "found", "right", "shifted", "within_1", "within_1_of_planted")
FILTERS = (
    ("stage3", "filter", "after stage 1"),
    ("stage3", "filter_again", "after stage 2"),
    ("control", "filter", "after stage 1 for the whole time"),
)
COLOURS = dict(
    zip(NAMES, ("#b2182b", "#ef8a62", "#999999", "#92c5de", "#4393c3", "#053061"), strict=True)
)


def write_table(path: Path) -> None:
    """Mean over the seeds, with the least and the greatest where there are several."""
    rows = list(read_rows(path))
    text = []
    for *setting, part in sorted({(*_setting(r), r["spoil"]) for r in rows}):
        mine = [r for r in rows if [*_setting(r), r["spoil"]] == [*setting, part]]
        text += [f"\n## {_said(*setting)}, {part:.0%} of the training clips spoiled\n"]
        text += _accuracies(mine)
        for arm, key, words in FILTERS:
            text += _filters([r[key] for r in mine if r["arm"] == arm and key in r], words)
    write_text(path.with_name("table.md"), "\n".join(text).strip() + "\n")
    if rows:
        _draw(rows, path.with_name("recipes.svg"))


def _setting(row: dict) -> tuple[int, float, int]:
    return row["draw"], row["minutes"], row["cores"]


def _said(draw: int, minutes: float, cores: int) -> str:
    whom = "" if draw == DRAW else f", other people held out (draw {draw})"
    return f"{minutes:g} minutes on {cores} core{'s' * (cores > 1)}{whom}"


def _accuracies(rows: list[dict]) -> list[str]:
    head = ["arm", "seeds", "steps", "pairs/s", "pair", *(f"PM {k}" for k in CONTEXTS)]
    head += ["ECE", "wild pair", "wild PM 15"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for arm, name in NAMES.items():
        mine = [r for r in rows if r["arm"] == arm]
        if not mine:
            continue
        cells = [_spread(mine, lambda r: r["test"]["pair_accuracy"])]
        for k in CONTEXTS:
            cells.append(_spread(mine, lambda r, k=k: r["test"]["pm_accuracy"][str(k)]))
        ece = [r for r in mine if r["test"]["ece"] is not None]
        cells.append(_spread(ece, lambda r: r["test"]["ece"]) if ece else "")
        cells.append(_spread(mine, lambda r: r["wild"]["pair_accuracy"]))
        cells.append(_spread(mine, lambda r: r["wild"]["pm_accuracy"]["15"]))
        steps = round(np.mean([r["steps"] for r in mine]))
        pace = round(np.mean([r["pairs"] / r["seconds"] for r in mine]))
        lines.append(f"| {name} | {len(mine)} | {steps} | {pace} | " + " | ".join(cells) + " |")
    return lines


def _filters(found: list[dict], words: str) -> list[str]:
    """Planted errors and good clips, added up over the seeds."""
    if not found:
        return []
    lines = [
        f"\nThe filter {words}:\n",
        "| planted | clips | not kept | dropped or mended | shifted | within 1 frame of planted "
        "plus own lag | of planted alone |",
        "|---|---|---|---|---|---|---|",
    ]
    total = dict.fromkeys(_COUNTS, 0)
    for kind in [*found[0]["kinds"], "all"]:
        n = total
        if kind != "all":
            n = {k: sum(f["kinds"][kind][k] for f in found) for k in total}
            total = {k: total[k] + n[k] for k in total}
        lines.append(
            f"| {kind} | {n['clips']} | {_ratio(n['found'], n['clips'])} | "
            f"{_ratio(n['right'], n['clips'])} | {n['shifted']} | "
            f"{_ratio(n['within_1'], n['shifted'])} | "
            f"{_ratio(n['within_1_of_planted'], n['shifted'])} |"
        )
    good = {k: sum(f[k] for f in found) for k in ("good", "good_dropped", "good_shifted")}
    lines.append(
        f"\nGood clips: {good['good']}, of which dropped "
        f"{_ratio(good['good_dropped'], good['good'])}, shifted "
        f"{_ratio(good['good_shifted'], good['good'])}."
    )
    return lines


def _spread(rows: list[dict], value: Callable[[dict], float]) -> str:
    found = [value(r) for r in rows]
    mean = f"{np.mean(found):.3f}"
    return mean if len(found) == 1 else f"{mean} ({min(found):.3f}-{max(found):.3f})"


def _ratio(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else ""


def _draw(rows: list[dict], path: Path) -> None:
    """Accuracy over time, beside the field's where it ran, and over the share of spoiled clips."""
    beside = {_setting(r) for r in rows if r["arm"] == "field"}
    timed = _most(rows, lambda b: not beside or b in beside)
    shares = {b: len({r["spoil"] for r in rows if _setting(r) == b}) for b in map(_setting, rows)}
    spoiled = _most(rows, lambda b: shares[b] > 1)
    panels = [(_over_time, timed), *([(_over_spoiled, spoiled)] if spoiled else [])]
    width = 5.5 * len(panels)
    figure, axes = plt.subplots(1, len(panels), figsize=(width, 4), layout="constrained")
    drawn = {}
    for (panel, shown), axis in zip(panels, np.atleast_1d(axes), strict=True):
        panel(axis, shown)
        axis.set_title(_said(*_setting(shown[0])), fontsize=9)
        axis.set_ylim(0, 1)
        handles, labels = axis.get_legend_handles_labels()
        drawn |= dict(zip(labels, handles, strict=True))
    names = [name.strip() for name in NAMES.values() if name.strip() in drawn]
    figure.legend(
        [drawn[name] for name in names],
        names,
        loc="outside lower center",
        ncols=3 * len(panels),
        frameon=False,
        fontsize=8,
    )
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _most(rows: list[dict], fits: Callable[[tuple[float, int]], bool]) -> list[dict]:
    """Rows of the budget with most of them, among those that fit."""
    found = Counter(b for b in map(_setting, rows) if fits(b)).most_common(1)
    return [r for r in rows if found and _setting(r) == found[0][0]]


def _over_time(axis: Axes, rows: list[dict]) -> None:
    for arm in ("field", "field-loss", "control", "stage3"):
        for number, r in enumerate(r for r in rows if r["arm"] == arm and r["spoil"] == 0):
            axis.plot(
                [p["seconds"] / 60 for p in r["curve"]],
                [p["pm_accuracy_15"] for p in r["curve"]],
                color=COLOURS[arm],
                marker=".",
                label=None if number else NAMES[arm].strip(),
            )
    axis.axhline(3 / 31, color="0.7", lw=0.8, ls=":")
    axis.set(xlabel="minutes, loading and measuring included", ylabel="PM accuracy, 15 frames, dev")


def _over_spoiled(axis: Axes, rows: list[dict]) -> None:
    for arm, name in NAMES.items():
        parts = sorted({r["spoil"] for r in rows if r["arm"] == arm})
        values = [
            [r["test"]["pm_accuracy"]["15"] for r in rows if (r["arm"], r["spoil"]) == (arm, p)]
            for p in parts
        ]
        if parts:
            mean = np.array([np.mean(v) for v in values])
            spread = [mean - [min(v) for v in values], [max(v) for v in values] - mean]
            axis.errorbar(
                [100 * p for p in parts],
                mean,
                yerr=np.abs(spread),
                color=COLOURS[arm],
                marker="o",
                capsize=3,
                label=name.strip(),
            )
    axis.set(xlabel="training clips spoiled, %", ylabel="PM accuracy, 15 frames, test speakers")
