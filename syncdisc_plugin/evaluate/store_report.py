"""STORE/report.html: what a clip store holds, what was left out and why, on one offline page."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from syncdisc_plugin.atomic import write_text
from syncdisc_plugin.data.choice import Choice, Chosen, choose
from syncdisc_plugin.data.funnel import Loss, Step, funnel
from syncdisc_plugin.data.manifest import Clip, clips_of, read_rows
from syncdisc_plugin.data.store import MANIFEST, ClipStore, read_judged, read_spec
from syncdisc_plugin.evaluate import store_figures as figures
from syncdisc_plugin.evaluate.mouths import contact_sheet
from syncdisc_plugin.evaluate.page import document, folded, grid, reason, short, table

NAME = "report.html"
Row = Mapping[str, Any]


@dataclass(frozen=True)
class _Measure:
    """Something that a clip has a figure of, or not."""

    name: str
    """Its field of `Clip` or of a judged row; "seconds" is reckoned."""
    label: str
    unit: str = ""
    limit: str = ""
    """The field of `Choice` that bounds it."""
    worst: str = ""
    """low or high: which end of it is shown as the worst mouths; empty: none are shown."""

    def of(self, clip: Clip, row: Row, fps: int) -> float | None:
        """Its figure of a clip; `row` is the clip's judged row, empty where it was not judged."""
        if self.name == "seconds":
            return clip.n_frames / fps
        if self.name == "source_fps":
            return clip.source_fps or None
        return row.get(self.name, getattr(clip, self.name, None))


_MEASURES = (
    _Measure("seconds", "length, s", " s", "min_seconds"),
    _Measure("face_px", "side of the face in the source, px", " px", "min_face_px", "low"),
    _Measure("turn_deg", "turn of the head, degrees", "°", "max_turn_deg", "high"),
    _Measure("sharpness", "sharpness", "", "min_sharpness", "low"),
    _Measure("face_score", "score of the face detector", "", "min_face_score", "low"),
    _Measure("crop_score", "score of the crop (less: covered)", "", "min_crop_score", "low"),
    _Measure("loudness_db", "loudness, dB below full scale", " dB", "min_loudness_db"),
    _Measure("source_fps", "frames per second of the source", "", "min_source_fps"),
    _Measure("offset_frames", "offset in frames (> 0: audio early)"),
    _Measure("confidence", "confidence", "", "min_confidence", "low"),
)


def write_store_report(root: Path, choice: Choice | None = None, out: Path | None = None) -> Path:
    """Write the page of the store at `root` under a choice; nothing is decoded and nothing chosen
    for good: another choice gives another page.

    Args:
        root: the store; also one in work, or one of which every input was refused.
        choice: thresholds that the page applies; none lets all clips through.
        out: the page; STORE/report.html when not given.

    Returns:
        Path of the page.

    Raises:
        StoreError: no store, a damaged manifest, or the choice needs `store judge`.
    """
    choice = choice or Choice()
    fps, rows = read_spec(root).fps, list(read_rows(root / MANIFEST))
    clips = clips_of(rows, root / MANIFEST)
    chosen, judged = choose(clips, root, fps, choice), read_judged(root)
    steps = funnel(rows, chosen, fps)
    sections = {"From inputs to clips": _funnel(steps), "The choice": _choice(choice, chosen)}
    if clips:
        store = ClipStore(root)
        sections |= {
            "How the clips are": _histograms(chosen, judged, fps, choice),
            "Mouths": _mouths(store, clips, judged),
            "Who speaks": _speaking(clips, judged),
            "Speakers": _people(clips, chosen, fps, "Speaker", lambda c: c.speaker),
        }
        if any(clip.language for clip in clips):
            sections["Languages"] = _people(clips, chosen, fps, "Language", lambda c: c.language)
    sections["Refused inputs, left-out clips"] = _left_out(rows, chosen)
    page = document(f"The clip store {root.resolve().name}", _lead(steps), sections)
    path = out or root / NAME
    write_text(path, page)
    return path


def _lead(steps: Sequence[Step]) -> str:
    inputs, _, clips, chosen = steps
    return (
        f"{inputs.count:,} inputs gave {clips.count:,} clips, {_time(clips.minutes)} of faces with "
        f"sound; {chosen.count:,} of them, {_time(chosen.minutes)}, are chosen."
    )


def _funnel(steps: Sequence[Step]) -> str:
    words = {
        "inputs": "inputs",
        "tracks": "face tracks",
        "clips": "long enough",
        "chosen": "chosen",
    }
    drawn = figures.steps(
        "Minutes at each step. Of inputs only what was decoded is counted; from the tracks on, two "
        "faces that are in sight for a minute are two minutes.",
        [words[step.name] for step in steps],
        [step.minutes or 0.0 for step in steps],
    )
    rows = [[words[s.name], f"{s.count:,}", _time(s.minutes)] for s in steps]
    lost = [
        [f"not among: {words[step.name]}", *_loss(loss)] for step in steps for loss in step.lost
    ]
    return (
        grid([drawn, table("Steps", ["Step", "Number", "Length"], rows)])
        + "<p>Why the rest was not:</p>"
        + (
            table("Losses", ["Step", "Why", "Number", "Length"], lost)
            if lost
            else '<p class="later">Nothing was lost.</p>'
        )
    )


def _loss(loss: Loss) -> list[str]:
    return [loss.why, f"{loss.count:,}", _time(loss.minutes)]


def _choice(choice: Choice, chosen: Chosen) -> str:
    asked = [[name, str(value)] for name, value in choice.asked.items()]
    if not asked:
        return (
            "<p>No threshold was given, so every clip is chosen. Try some: <code>syncdisc report "
            "STORE --choose.min_face_px 64</code>. Nothing is decoded again, and <code>train"
            "</code> and <code>evaluate</code> take the same flags.</p>"
        )
    why = chosen.note or "No clip fails them"
    return f"<p>{escape(why)}.</p>{table('Thresholds', ['Threshold', 'Value'], asked)}"


def _histograms(chosen: Chosen, judged: Mapping[str, Row], fps: int, choice: Choice) -> str:
    drawn = []
    for measure in _MEASURES:
        kept = _values(measure, chosen.clips, judged, fps)
        others = _values(measure, [clip for clip, _ in chosen.left_out], judged, fps)
        if not kept and not others:
            continue
        limit = choice.asked.get(measure.limit)
        missing = len(chosen.clips) + len(chosen.left_out) - len(kept) - len(others)
        words = f"{measure.label[0].upper()}{measure.label[1:]}."
        words += f" Not known of {missing:,} clips." if missing else ""
        drawn.append(figures.histogram(words, kept, others, measure.label, limit))
    return grid(drawn)


def _values(
    measure: _Measure, clips: Iterable[Clip], judged: Mapping[str, Row], fps: int
) -> list[float]:
    found = (measure.of(clip, judged.get(clip.id, {}), fps) for clip in clips)
    return [float(value) for value in found if value is not None]


def _mouths(store: ClipStore, clips: Sequence[Clip], judged: Mapping[str, Row]) -> str:
    out = []
    for measure in _MEASURES:
        if not measure.worst:
            continue
        pairs = [(c, measure.of(c, judged.get(c.id, {}), store.spec.fps)) for c in clips]
        known = [(clip, float(value)) for clip, value in pairs if value is not None]
        if known:
            sheet = contact_sheet(
                store,
                [clip for clip, _ in known],
                [value for _, value in known],
                measure.unit,
                measure.worst == "low",
            )
            out.append(f"<h3>By {measure.label.split(',')[0]}</h3>{sheet}")
    return "<p>The middle frame of each clip, below the nose.</p>" + "".join(out)


def _speaking(clips: Sequence[Clip], judged: Mapping[str, Row]) -> str:
    found = [(clip, judged[clip.id]) for clip in clips if clip.id in judged]
    if not found:
        return (
            '<p class="later">Not judged yet: <code>syncdisc store judge STORE</code> finds how '
            "far each clip's sound is off, and which of several faces speaks.</p>"
        )
    counts = Counter(row["speaking"] for _, row in found)
    by = ", ".join(sorted({str(row["weights"]) for _, row in found}))
    words = (
        f"By the weights {by}, {counts[True]:,} clips show a face that is heard, {counts[False]:,} "
        f"one beside which another speaks; of {counts[None]:,} they cannot tell."
    )
    if len(found) < len(clips):
        words += f" {len(clips) - len(found):,} clips are newer than the judging, or too short."
    names = {True: "speaks", False: "does not", None: "cannot tell"}
    several = [
        [short(c.source), f"{c.start_s:.1f} s", names[row["speaking"]], row["reason"]]
        for c, row in found
        if row["beside"]
    ]
    head = ["Video", "From", "This face", "Why"]
    return f"<p>{escape(words)}</p>" + folded("Clips with other faces in sight", head, several)


def _people(
    clips: Sequence[Clip], chosen: Chosen, fps: int, title: str, of: Callable[[Clip], str]
) -> str:
    kept = {clip.id for clip in chosen.clips}
    sums: dict[str, list[float]] = defaultdict(lambda: [0, 0.0, 0.0])
    for clip in clips:
        row, minutes = sums[of(clip) or "not named"], clip.n_frames / fps / 60
        row[0] += 1
        row[1] += minutes
        row[2] += minutes if clip.id in kept else 0.0
    rows = [
        [who, f"{n:.0f}", _time(minutes), _time(left)]
        for who, (n, minutes, left) in sorted(sums.items(), key=lambda item: -item[1][1])
    ]
    return folded(f"{title}s", [title, "Clips", "Length", "Of it chosen"], rows)


def _left_out(rows: Sequence[Row], chosen: Chosen) -> str:
    refused = [[short(r["path"]), reason(r)] for r in rows if r["status"] != "ok"]
    others = [
        [short(clip.source), f"{clip.start_s:.1f} s", ", ".join(names)]
        for clip, names in chosen.left_out
    ]
    return (
        folded("Refused inputs", ["Input", "Why"], refused)
        + folded("Clips that are left out", ["Video", "From", "Fails"], others)
        or '<p class="later">There are none.</p>'
    )


def _time(minutes: float | None) -> str:
    if minutes is None:
        return "not known"
    return f"{minutes:,.1f} min" if minutes >= 1 else f"{minutes * 60:.0f} s"
