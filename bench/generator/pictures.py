"""generator.svg: sync beside picture, and who is fooled. sheet.png: the arms' frames."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from experts import JUDGES
from matplotlib.axes import Axes
from measure import Drawer, Heldout
from report import ARMS, NAMES, way
from takes import faces_of, references_of, sound_of, windows_of

from generator_integration.reference.sheet import write_sheet
from syncdisc_plugin.data.manifest import read_rows

COLOURS = dict(zip(ARMS, ("#777777", "#b2182b", "#92c5de", "#053061"), strict=True))
COLUMNS = 12


def draw_figures(out: Path) -> None:
    """One panel for the figures of the ends, two for the way there."""
    rows = list(read_rows(out / "rows.jsonl"))
    if not any(r["arm"] in ARMS for r in rows):
        return
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.8), layout="constrained")
    _trade(axes[0], rows)
    for axis, kind, words in (
        (axes[1], "own", "driven by its own sound"),
        (axes[2], "other", "driven by another clip's sound"),
    ):
        _fooled(axis, rows, kind)
        axis.set(xlabel="steps", ylabel="similarity, 0 a still mouth, 1 the true one", title=words)
    handles = axes[1].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    figure.savefig(out / "generator.svg")
    plt.close(figure)


def write_frames(out: Path, heldout: Heldout, ways: Mapping[str, Drawer]) -> None:
    """Arms by name -> sheet.png: a take driven by another clip's sound, beside who made it."""
    at = int(np.argmax([take.clip.face_px for take in heldout.takes]))
    take, other = heldout.takes[at], heldout.others[at]
    n = other.n_frames
    faces = faces_of(heldout.store, take, heldout.size)[:n]
    references = references_of(heldout.store, take, heldout.size)
    windows = windows_of(sound_of(heldout.store, other), n, heldout.store.spec)
    rows = {
        "true footage": faces,
        "who said the sound": faces_of(heldout.store, other, heldout.size),
        **{NAMES[arm]: draw(faces, references, windows) for arm, draw in ways.items()},
    }
    # Neighbouring frames look alike: every second one of the middle.
    step = 2 if n >= 2 * COLUMNS else 1
    first = max(0, (n - step * COLUMNS) // 2)
    picked = slice(first, first + step * COLUMNS, step)
    write_sheet(
        out / "sheet.png",
        {
            name: torch.from_numpy(frames[picked]).permute(0, 3, 1, 2).float() / 255
            for name, frames in rows.items()
        },
    )


def _trade(axis: Axes, rows: list[dict]) -> None:
    """Sync with another clip's sound over likeness with its own."""

    def sync(row: dict) -> float:
        return row["other"][JUDGES[0]]["pm_accuracy"]["15"]

    for arm, name in ARMS.items():
        mine = [r for r in rows if r["arm"] == arm]
        if not mine:
            continue
        points = np.array([[r["picture"]["ssim"], sync(r)] for r in mine])
        middle = points.mean(0)
        spread = np.abs(np.stack([middle - points.min(0), points.max(0) - middle]))
        axis.errorbar(
            *middle,
            xerr=spread[:, :1],
            yerr=spread[:, 1:],
            color=COLOURS[arm],
            marker="o",
            capsize=3,
            ls="",
            label=f"{name} ({len(mine)})",
        )
    for arm, style in (("truth", "--"), ("frozen", ":")):
        for row in (r for r in rows if r["arm"] == arm):
            axis.axhline(sync(row), color="0.5", lw=0.8, ls=style, label=NAMES[arm])
    axis.set(xlabel="SSIM, its own sound", ylabel="PM accuracy, 15 frames, another clip's sound")
    axis.legend(frameon=False, fontsize=8)


def _fooled(axis: Axes, rows: list[dict], kind: str) -> None:
    """Along the training: by the expert that it is trained with, dashed, and by the judge."""
    for arm, name in ARMS.items():
        mine = [r for r in rows if r["arm"] == arm and r["curve"]]
        for net, style, who in (("expert", "--", "its expert"), (JUDGES[0], "-", "the judge")):
            lines = [
                [(p["step"], way(p[kind], r, net)) for p in r["curve"] if net in p[kind]]
                for r in mine
            ]
            for number, line in enumerate(line for line in lines if line):
                axis.plot(
                    *np.array(line).T,
                    color=COLOURS[arm],
                    ls=style,
                    marker=".",
                    lw=1,
                    label=None if number else f"{name}, by {who}",
                )
    axis.axhline(1, color="0.7", lw=0.8, ls=":")
