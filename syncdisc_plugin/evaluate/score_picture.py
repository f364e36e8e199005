"""One picture per face track: the face, similarity over offset and time, probability over time."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from syncdisc_plugin.atomic import replacing
from syncdisc_plugin.nn.curve import MAX_OFFSET

if TYPE_CHECKING:
    from syncdisc_plugin.evaluate.score import Score, Seen

INK, GREY, PALE, BLUE, ORANGE = "#222222", "#767676", "#e4e4e4", "#0072b2", "#d55e00"
# Even steps of lightness, and told apart with any kind of colour blindness.
COLOURS = "viridis"
# The same range for all pictures, so that a clip without a ridge looks flat.
LOW, HIGH = -0.2, 0.6
CONTEXT_S = 1.0
MOST_COLUMNS = 700
LONGEST_NAME = 40
SIZE, DPI = (12.0, 7.6), 110
STYLE: dict[Any, Any] = {
    "font.size": 11,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.8,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}


def write_picture(path: Path, name: str, score: Score, seen: Seen, fps: int) -> Path:
    """Draw one face track as a PNG; missing folders are made.

    Args:
        path: the file.
        name: of the video, for the title.
        score: the verdict on the track.
        seen: the track itself.
        fps: frames per second of the track.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)  # type: ignore[union-attr, call-arg]
        rows = figure.add_gridspec(
            4, 2, height_ratios=(0.62, 0.95, 4, 1.3), width_ratios=(5.4, 1), hspace=0.02
        )
        heat = figure.add_subplot(rows[2, 0])
        curve = figure.add_subplot(rows[2, 1], sharey=heat)
        chance = figure.add_subplot(rows[3, 0], sharex=heat)
        _title(figure.add_subplot(rows[0, :]), name, score)
        _faces(figure.add_subplot(rows[1, 0]), seen.faces)
        image = _heat(heat, score, smooth(seen.similarity, round(CONTEXT_S * fps)), fps)
        _curve(curve, score, fps)
        _probability(chance, score, fps)
        _scale(figure.add_subplot(rows[3, 1]), image)
        with replacing(path) as temp, warnings.catch_warnings():
            # A name in a script that the font lacks is drawn with boxes; no reason to shout.
            warnings.filterwarnings("ignore", message="Glyph")
            figure.savefig(temp, format="png", dpi=DPI)
    return path


def smooth(table: np.ndarray, windows: int) -> np.ndarray:
    """Mean over time of as many windows around each; (N, O) with nan -> the same shape.

    Nan where less than a third of those is known: the mean of a few only flickers.
    """
    known = np.isfinite(table)
    n, half = len(table), windows // 2
    at = np.arange(n)
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, n)

    def total(values: np.ndarray) -> np.ndarray:
        sums = np.concatenate([np.zeros((1, table.shape[1])), np.cumsum(values, axis=0)])
        return sums[high] - sums[low]

    count = total(known.astype(float))
    sums = total(np.where(known, table, 0.0))
    enough = count >= max(1, min(windows, n) / 3)
    return np.divide(sums, count, out=np.full(table.shape, np.nan), where=enough)


def _title(axes: Axes, name: str, score: Score) -> None:
    axes.set_axis_off()
    if len(name) > LONGEST_NAME:
        name = f"{name[: LONGEST_NAME // 2]}…{name[-LONGEST_NAME // 2 :]}"
    verdict = score.verdict[0].upper() + score.verdict[1:]
    found = "offset" if score.in_sync is not None else "best guess"
    figures = "   ·   ".join(
        (
            f"{found} {_signed(score.offset_frames)} frames, {_signed(round(score.offset_ms))} ms",
            f"confidence {score.confidence:.2f}",
            f"probability {score.probability:.2f}",
        )
    )
    # parse_math: a $ in a file's name is no formula.
    axes.text(0, 1, verdict, fontsize=19, weight="bold", va="top", parse_math=False)
    axes.text(0, 0, f"{name}, face {score.track}", fontsize=12, va="bottom", parse_math=False)
    axes.text(1, 0, figures, fontsize=12, va="bottom", ha="right")


def _faces(axes: Axes, faces: np.ndarray) -> None:
    """Thumbnails, each above its own time."""
    axes.set_axis_off()
    for i, face in enumerate(faces):
        place = axes.inset_axes((i / len(faces), 0, 0.97 / len(faces), 1))
        place.imshow(face)
        place.set_axis_off()


def _scale(axes: Axes, image: Any) -> None:
    axes.set_axis_off()
    bar = axes.figure.colorbar(
        image, cax=axes.inset_axes((0, 0.5, 1, 0.16)), orientation="horizontal"
    )
    bar.outline.set_visible(False)
    bar.set_ticks([LOW, 0, HIGH])
    bar.set_label(f"similarity, {CONTEXT_S:.0f} s mean")


def _heat(axes: Axes, score: Score, table: np.ndarray, fps: int) -> Any:
    """Similarity over offset (up) and time (right), with the found offset and 0 as lines."""
    start, end = score.start_s, score.start_s + score.seconds
    # A window's place is its middle.
    first = start + (score.seconds - len(table) / fps) / 2
    image = axes.imshow(
        _thin(table).T,
        origin="lower",
        aspect="auto",
        extent=(first, first + len(table) / fps, -MAX_OFFSET - 0.5, MAX_OFFSET + 0.5),
        cmap=COLOURS,
        vmin=LOW,
        vmax=HIGH,
        interpolation="nearest",
    )
    axes.set_facecolor(PALE)
    rim = [withStroke(linewidth=3.2, foreground=INK)]
    axes.axhline(0, color="white", lw=1.2, ls=(0, (2, 3)), path_effects=rim)
    # Two lines, so that the ridge between them can be seen.
    found = score.offset_ms * fps / 1000
    style = "-" if score.in_sync is not None else (0, (5, 3))
    for edge in (-0.9, 0.9):
        axes.axhline(found + edge, color="white", lw=1.3, ls=style, path_effects=rim)
    axes.text(
        start + 0.01 * (end - start),
        found + (1.1 if found < MAX_OFFSET - 3 else -1.1),
        "found" if score.in_sync is not None else "best guess",
        color="white",
        va="bottom" if found < MAX_OFFSET - 3 else "top",
        path_effects=rim,
    )
    axes.set(xlim=(start, end), ylim=(-MAX_OFFSET - 0.5, MAX_OFFSET + 0.5))
    axes.set_yticks(range(-MAX_OFFSET, MAX_OFFSET + 1, 5))
    axes.yaxis.set_major_formatter(lambda offset, _: _signed(round(offset)))
    axes.set_ylabel("offset in frames\n← audio late      audio early →")
    axes.tick_params(labelbottom=False)
    for side in axes.spines.values():
        side.set_visible(False)
    return image


def _curve(axes: Axes, score: Score, fps: int) -> None:
    """The mean over the whole track, on the same offsets; milliseconds on the right."""
    offsets = np.arange(-MAX_OFFSET, MAX_OFFSET + 1)
    similarity = np.array(score.similarity_over_offset, float)
    axes.axhline(0, color=GREY, lw=1, ls=(0, (2, 3)))
    axes.axvline(float(np.nanmedian(similarity)), color=GREY, lw=0.8, ls=(0, (1, 3)))
    axes.plot(similarity, offsets, color=BLUE, lw=2)
    at = score.offset_frames
    axes.plot(similarity[at + MAX_OFFSET], at, "o", color=ORANGE, ms=8)
    least, most = np.nanmin(similarity), np.nanmax(similarity)
    axes.set_xlim(min(LOW, float(least) - 0.05), max(HIGH, float(most) + 0.05))
    axes.set_xticks([0, 0.3, 0.6])
    axes.set_title("whole track", fontsize=11, color=INK)
    axes.tick_params(labelleft=False, left=False)
    per_frame = 1000 / fps
    ms = axes.secondary_yaxis(
        "right", functions=(lambda f: np.multiply(f, per_frame), lambda t: np.divide(t, per_frame))
    )
    ms.set_ylabel("offset in ms")
    for side in ("top", "left"):
        axes.spines[side].set_visible(False)


def _probability(axes: Axes, score: Score, fps: int) -> None:
    """Probability that the sound fits as it is: each window pale, the mean of a second bold."""
    values = np.array(score.probability_over_time)[:, None]
    mean = smooth(values, round(CONTEXT_S * fps))
    first = score.start_s + (score.seconds - len(values) / fps) / 2

    def draw(line: np.ndarray, **look: Any) -> None:
        thin = _thin(line)[:, 0]
        axes.plot(first + (np.arange(len(thin)) + 0.5) / len(thin) * len(line) / fps, thin, **look)

    axes.axhline(0.5, color=GREY, lw=1, ls=(0, (2, 3)))
    draw(values, color=BLUE, lw=0.8, alpha=0.4)
    draw(mean, color=BLUE, lw=2.2)
    axes.set(ylim=(0, 1), yticks=[0, 0.5, 1], ylabel="probability\nas it is")
    axes.set_xlabel("time in the video" if score.start_s + score.seconds >= 100 else "seconds")
    if score.start_s + score.seconds >= 100:
        digits = 0 if score.seconds >= 10 else 1  # ticks of a short track lie within a second
        axes.xaxis.set_major_formatter(lambda s, _: clock(s, digits))
    axes.xaxis.set_major_locator(MaxNLocator(9, steps=[1, 2, 3, 5, 6, 10]))
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def clock(seconds: float, digits: int = 0) -> str:
    """Minutes and seconds, 1:58.5."""
    minutes, rest = divmod(round(seconds, digits), 60)
    return f"{minutes:.0f}:{rest:0{3 + digits if digits else 2}.{digits}f}"


def _thin(table: np.ndarray) -> np.ndarray:
    """Means of neighbouring rows, at most MOST_COLUMNS; nan where all of them are."""
    step = -(-len(table) // MOST_COLUMNS)
    return smooth(table, step)[step // 2 :: step] if step > 1 else table


def _signed(number: int) -> str:
    return f"{number:+d}".replace("-", "−") if number else "0"
