"""An evaluation as one HTML page: figures with their intervals, drawings, groups, clips."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from syncdisc_plugin.evaluate import figures, page, quality_figures

Found = Mapping[str, Any]
OUTLINE = ("pairs", "95%", "PM 5", "PM 15", "PM 25", "offset within 1")


def quality_page(found: Found) -> str:
    """The page, offline and whole. found: what `evaluate_store` or `evaluate_videos` returned."""
    sections = {"In short": _cards(found), "How it errs": _drawings(found)}
    if "conditions" in found:
        sections["On worse footage"] = _conditions(found)
    sections["Figures"] = _figures(found)
    if groups := _groups(found):
        sections["Groups"] = groups
    sections["Clips"] = _clips(found)
    return page.document(f"Weights {found['weights']}", _lead(found), sections)


def _lead(found: Found) -> str:
    held = ", speakers held out" if found["part"] == "heldout" else ""
    left_out = f" {n} clips are left out by --choose." if (n := found.get("left_out")) else ""
    return (
        f"{found['n_clips']} clips of {found['n_speakers']} speakers{held}, "
        f"{found['seconds'] / 60:.1f} minutes, {found['n_windows']:,} windows.{left_out}"
    )


def _cards(found: Found) -> str:
    pm, spread = found["pm_accuracy"], found["intervals"] or {}
    pm_spread, chance = spread.get("pm_accuracy", {}), found["pm_accuracy_chance"]["15"]
    cards = (
        (
            "True audio beats false audio",
            _percent(found["pair_accuracy"]),
            f"{_likely(spread.get('pair_accuracy'))}False: the same clip, 5 frames away or more. "
            "Chance is 50%.",
        ),
        (
            "Offset within 1 frame, 15 frames of context",
            _percent(pm["15"]),
            f"{_likely(pm_spread.get('15'))}PM protocol, 31 shifts; {_percent(pm['5'])} at 5 "
            f"frames, {_percent(pm['25'])} at 25. Chance is {_percent(chance)}.",
        ),
        (
            "Clips placed within 1 frame",
            _percent(found["offset_within_1"]),
            f"{_likely(spread.get('offset_within_1'))}Mean error "
            f"{found['offset_mae_frames']:.2f} frames.",
        ),
        (
            "Calibration error",
            _number(found["ece"]),
            f"{_likely(spread.get('ece'), percent=False)}How far the probability is from what "
            "happens, on average.",
        ),
    )
    inner = "".join(
        f'<div class="card"><h3>{escape(name)}</h3><p class="figure">{value}</p><p>{text}</p></div>'
        for name, value, text in cards
    )
    return f'<div class="cards">{inner}</div>'


def _drawings(found: Found) -> str:
    spread = found["intervals"] or {}
    drawn = [
        quality_figures.over_context(
            "Windows whose best shift is within one frame, over the frames that are averaged.",
            found["pm_accuracy"],
            spread.get("pm_accuracy", {}),
            found["pm_accuracy_chance"],
        ),
        quality_figures.by_distance(
            "True audio against false audio, by where the false audio is from.",
            found["pair_accuracy_by_distance"],
            spread.get("pair_accuracy_by_distance", {}),
        ),
        figures.curves(
            "Similarity over offset, clip by clip. A peak beside 0 is a clip that is out of "
            "sync, or one that the weights misjudge.",
            [c["similarity"] for c in found["clips"]],
        ),
    ]
    if len(found["groups"]["speaker"]) > 1:
        speakers = found["groups"]["speaker"]
        drawn.append(quality_figures.by_speaker("Speaker by speaker.", speakers))
    return page.grid(drawn)


def _conditions(found: Found) -> str:
    rows = found["conditions"]
    words = "The same clips with other crops, blurred, compressed, smaller, or with noise added."
    drawn = quality_figures.under_conditions(words, rows)
    cells = [[f"{r['condition']} {r['level']}".strip(), *_outline(r)] for r in rows]
    head = ("condition", *(name for name in OUTLINE if name != "95%"))
    return page.grid([drawn]) + page.folded("Conditions", head, cells)


def _figures(found: Found) -> str:
    spread, rows = found["intervals"] or {}, []
    for name, value in found.items():
        if isinstance(value, dict) and name not in ("groups", "intervals"):
            inside = spread.get(name, {})
            rows += [
                [f"{name} {k}", _number(v), _ends(inside.get(k), False)] for k, v in value.items()
            ]
        elif isinstance(value, int | float) or value is None:
            rows.append([name, _number(value), _ends(spread.get(name), False)])
    why = (
        "Intervals: 95%, speakers drawn with replacement 1,000 times."
        if spread
        else "No intervals: they need three speakers."
    )
    return (
        f"<p>{why} embedding_distance and embedding_confidence are the formulas of LSE-D and LSE-C "
        "on these weights' own embeddings: not comparable with figures of syncnet_v2.</p>"
        + page.table("Figures", ("figure", "value", "95%"), rows)
    )


def _groups(found: Found) -> str:
    parts = []
    for name, groups in found["groups"].items():
        if len(groups) < 2:
            continue
        rows = [
            [key, f"{g['n_clips']}", *_outline(g, (g["intervals"] or {}).get("pair_accuracy"))]
            for key, g in groups.items()
        ]
        title = f"By {name.replace('_', ' ')}"
        parts.append(page.folded(escape(title), (name, "clips", *OUTLINE), rows))
    return "".join(parts)


def _clips(found: Found) -> str:
    worst = sorted(found["clips"], key=lambda c: (-abs(c["offset_frames"]), c["confidence"]))
    rows = [
        [
            page.short(c["source"]),
            c["speaker"],
            f"{c['start_s']:.1f} s, {c['seconds']:.1f} s long",
            f"{c['offset_frames']:+d}",
            f"{c['confidence']:.2f}",
            _percent(c["pm_accuracy_15"]),
        ]
        for c in worst
    ]
    head = ("source", "speaker", "from", "offset", "confidence", "PM 15")
    refused = [[page.short(r["path"]), page.reason(r)] for r in found.get("refused", [])]
    return page.folded("Clips, the furthest off first", head, rows) + page.folded(
        "Refused", ("path", "reason"), refused
    )


def _outline(row: Found, ends: list[float] | None = None) -> list[str]:
    pm = row["pm_accuracy"]
    known = [_percent(pm[k]) for k in ("5", "15", "25")] + [_percent(row["offset_within_1"])]
    pairs = [_percent(row["pair_accuracy"])]
    return [*pairs, *([_ends(ends)] if "n_clips" in row else []), *known]


def _percent(value: float | None) -> str:
    return "—" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return "—" if value is None else f"{value:.4f}"


def _likely(ends: list[float] | None, percent: bool = True) -> str:
    return f"{_ends(ends, percent)}. " if ends else ""


def _ends(ends: list[float] | None, percent: bool = True) -> str:
    if not ends:
        return ""
    low, high = (f"{e:.1%}" if percent else f"{e:.4f}" for e in ends)
    return f"{low} to {high}"
