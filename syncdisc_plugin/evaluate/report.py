"""RUN/report.html: what a run made, on one page that needs neither network nor scripts."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from syncdisc_plugin.atomic import write_text
from syncdisc_plugin.data.manifest import read_rows
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.evaluate import figures
from syncdisc_plugin.evaluate.page import document, faces, folded, grid, reason, short, table
from syncdisc_plugin.evaluate.records import RunRecords, read_json, read_records

MEANING = {
    "Pair accuracy": "How often the true audio is closer than audio of the same clip that is 5 or "
    "more frames (0.2 s) away. Chance is 50%.",
    "PM at 5 and 15 frames": "How often the best of 31 shifts is right to one frame, from 5 and "
    "from 15 frames of video. Chance is 3 of 31, 9.7%, and more in clips of a few seconds.",
    "Clips within 1 frame": "How many whole clips peak at offset 0, give or take a frame. Chance "
    "is 9.7%, less in clips of a second or two. Clips that really are late or early count against "
    "it.",
    "Calibration error": "How far its probability is from how often it is right. 0 is best; a net "
    "that always says 50% scores 0 too, so read it beside the accuracy.",
}


def write_report(
    run: Path,
    store: ClipStore | None = None,
    title: str = "A lip-sync discriminator",
    defaults: Mapping[str, Any] | None = None,
) -> Path:
    """Write RUN/report.html from what the run has left so far.

    Args:
        run: folder of a run, finished or not.
        store: the clips that it learns from; without it the page has no faces and no refusals.
        title: the page's first line.
        defaults: the usual settings; what differs from them is shown before all settings.

    Returns:
        Path of the page.
    """
    left = read_records(run)
    sections = {
        "How good it is": _headline(left),
        "The data": _data(left, store),
        "How it learnt": _learning(left),
        "True and false pairs": _histograms(left),
        "Stage 2: widening the gap": _gap(left),
        "The filter": _filter(left, store),
        "Similarity over offset": _curves(left),
        "Settings": _settings(left, defaults or {}),
        "Use it": _use(left),
    }
    page = document(title, _lead(left), sections)
    write_text(run / "report.html", page)
    return run / "report.html"


def _lead(left: RunRecords) -> str:
    lengths = left.lengths()
    minutes = max((r.get("seconds", 0) for r in left.log), default=0) / 60
    if left.stage == left.last:
        ends = ("first", "second", "third")[left.stage - 1]
        return (
            f"This run made <code>stage{left.stage}.safetensors</code>, the {ends} discriminator, "
            f"in {sum(lengths.values()):,} steps and {minutes:.0f} minutes."
        )
    if not lengths:
        return "This run has made no step yet."
    at = max(lengths)
    return (
        f"This run is not finished: after {minutes:.0f} minutes it is at step {lengths[at]:,} of "
        f"stage {at}. What exists is shown."
    )


def _headline(left: RunRecords) -> str:
    measures = left.rows("measure")
    now: dict[str, Any] = {}
    whose = "Not yet: nothing has been measured."
    if left.stage:
        now = left.figures[left.stage]
        whose = f"The best weights of stage {left.stage}, on held-out clips."
    elif measures:
        now = measures[-1]
        now = {**now, "pm_accuracy": {k: now[f"pm_accuracy_{k}"] for k in ("5", "15")}}
        whose = f"Stage {now['stage']} at step {now['step']:,}, on a part of the held-out clips."
    pm = now.get("pm_accuracy", {})
    cards = {
        "Pair accuracy": _percent(now.get("pair_accuracy")),
        "PM at 5 and 15 frames": f"{_percent(pm.get('5'))} · {_percent(pm.get('15'))}",
        "Clips within 1 frame": _percent(now.get("offset_within_1")),
        "Calibration error": _number(now.get("ece")),
    }
    shown = "".join(
        f'<div class="card"><h3>{name}</h3><p class="figure">{figure}</p>'
        f"<p>{MEANING[name]}</p></div>"
        for name, figure in cards.items()
    )
    return f'<p>{whose}</p>\n<div class="cards">{shown}</div>\n{_stages(left)}'


def _stages(left: RunRecords) -> str:
    head = ["", "Pairs", "PM 5", "PM 15", "Within 1 frame", "Calibration error", "Gap", "Clips"]
    rows = []
    for stage, name in left.names.items():
        if stage > left.last:
            break
        f = left.figures.get(stage)
        if f is None:
            rows.append([name, "not yet", *[""] * 6])
            continue
        pm = f["pm_accuracy"]
        shares = (f["pair_accuracy"], pm.get("5"), pm.get("15"), f["offset_within_1"])
        rows.append([name, *map(_percent, shares), _number(f["ece"]), _number(f["gap"])])
        rows[-1].append(str(f["n_clips"]))
    last = left.figures[max(left.figures)] if left.figures else {}
    pm = last.get("pm_accuracy_chance", {})  # which runs of before have not
    guess = (_percent(pm.get(k, figures.PM_CHANCE)) for k in ("5", "15"))
    rows.append(["Chance", "50%", *guess, "9.7%", "", "0", ""])
    words = "Held-out figures by stage."
    if left.about.get("split"):
        words += f" Split: {left.about['split']}."
    if 0 in left.figures:
        words += " The first weights are measured on a part of the held-out clips."
    return f"<p>{escape(words)}</p>{table('Figures by stage', head, rows)}"


def _data(left: RunRecords, store: ClipStore | None) -> str:
    out, about = [], left.about
    if about:
        people = _count(about["speakers"], "speaker")
        words = f"It learns from {about['minutes_of_footage']} minutes of {people}"
        if left.stage:
            f, spec = left.figures[left.stage], about["spec"]
            # A clip has window_frames - 1 fewer windows than frames.
            frames = f["n_windows"] + (spec.window_frames - 1) * f["n_clips"]
            people = _count(f["n_speakers"], "speaker")
            words += f"; it is measured on {frames / spec.fps / 60:.1f} minutes of {people}"
        out.append(f"<p>{words}.</p>")
    if store is None:
        return "".join(out) + _later("The clip store was not given, so no clip is shown here.")
    speakers = len({clip.speaker for clip in store.clips})
    out.append(
        f"<p>The store holds {_count(len(store), 'clip')} of {_count(speakers, 'speaker')}, "
        f"{sum(_minutes(store).values()):.1f} minutes; {_count(len(store.refused), 'input')} "
        f"refused.</p>\n{faces(store)}"
    )
    rows = [[short(row["path"]), reason(row)] for row in store.refused]
    out.append(folded("Refused inputs, and why", ["Input", "Why"], rows))
    return "\n".join(out)


def _learning(left: RunRecords) -> str:
    steps, measures, lengths = left.rows("step"), left.rows("measure"), left.lengths()
    if not lengths:
        return _later("Not yet: no step has been made.")
    starts = {stage: sum(n for s, n in lengths.items() if s < stage) for stage in lengths}
    drawn = []
    if steps:
        words = (
            "Training loss. The dashed line is the loss of a net to which all pairs look alike, "
            "margin included. Stage 2 asks for a growing margin: there both may rise while the "
            "net gets better."
        )
        drawn.append(figures.loss(words, steps, starts))
    if measures:
        now = _percent(measures[-1]["pair_accuracy"])
        pm = {"pm_accuracy_5": "5 frames", "pm_accuracy_15": "15 frames"}
        mean = {"similarity_true": "true pairs", "similarity_false": "false pairs"}
        for words, names, chance in (
            (f"Held-out pair accuracy, now {now}.", {"pair_accuracy": "pair accuracy"}, 0.5),
            ("Held-out PM accuracy with 5 and with 15 frames of context.", pm, figures.PM_CHANCE),
            ("Mean similarity of held-out pairs. Between the lines is the gap.", mean, None),
        ):
            drawn.append(figures.heldout(words, measures, starts, names, chance))
    ends = "".join(
        f"<p>Stage {row['stage']} ended at step {row['step']:,}: {escape(row['verdict'])}.</p>"
        for row in left.rows("stage")
    )
    return grid(drawn) + ends


def _gap(left: RunRecords) -> str:
    rows = left.rows("measure", 2)
    if left.last < 2:
        return _later("Not in this run: it was to end with stage 1.")
    if not rows:
        return _later("Not yet: stage 2 comes after the filter.")
    preset = left.settings.get("gap", {}).get("preset")
    gaps = [row["gap"] for row in rows]
    times = len({row["target"] for row in rows if "target" in row})
    verdict = "not yet, it goes on"
    if ends := left.rows("stage", 2):
        verdict = ends[-1]["verdict"]
    elif preset is not None and gaps[-1] > preset:
        verdict = f"reached: gap {gaps[-1]:.3f} is above the preset {preset:.3f}"
    elif 2 in left.figures:
        verdict = f"the step budget ended first, at gap {gaps[-1]:.3f}"
    words = (
        f"The gap went from {gaps[0]:.3f} to {gaps[-1]:.3f} (widest {max(gaps):.3f}) in "
        f"{_count(len(rows), 'measurement')}; the target was set {_count(times, 'time')}."
    )
    return (
        "<p>The gap is the mean similarity of true pairs minus that of false ones. Each time it "
        "meets the target, the target moves up a step, until the gap passes the preset.</p>"
        f"<p>Verdict: <strong>{escape(verdict)}</strong>.</p>"
        + grid([figures.gap_steps(words, rows, preset)])
    )


def _filter(left: RunRecords, store: ClipStore | None) -> str:
    rows, found = list(read_rows(left.run / "filter.jsonl")), read_json(left.run / "filter.json")
    if left.last < 2:
        return _later("Not in this run: it was to end with stage 1.")
    if not rows or not found:
        return _later("Not yet: the first discriminator judges the clips after stage 1.")
    keep, shift = found["keep_threshold"], found["shift_threshold"]
    words = (
        f"Of {_count(len(rows), 'clip')}, {found['kept']} were kept as they are, "
        f"{found['shifted']} kept after shifting the audio, and {found['dropped']} dropped."
    )
    if store is not None:
        minutes = _minutes(store)
        before = sum(minutes.get(r["clip_id"], 0) for r in rows)
        after = sum(minutes.get(r["clip_id"], 0) for r in rows if r["verdict"] != "dropped")
        if before:
            words += f" That leaves {after:.1f} of {before:.1f} minutes."
    if any(row.get("unfiltered") for row in left.rows("data", 2)):
        words += " What is left would fill too few chunks, so stage 2 used all clips."
    passed = left.settings.get("filter", {}).get("false_accept")
    limits = f"A clip is kept above {keep:.2f}, shifted above {shift:.2f}"
    if passed is not None:
        limits += f"; each limit lets at most {_percent(passed)} of impostors through"
    drawn = [
        figures.offsets("Where each clip's similarity is highest, by what became of it.", rows),
        figures.strengths(
            "How clear the peak is: confidence times the root of the number of windows. Impostors "
            f"are videos with other clips' audio. {limits}.",
            [row["strength"] for row in rows],
            found["impostor_strengths"],
            keep,
            shift,
        ),
    ]
    changed = [
        [short(r["source"]), r["verdict"], f"{r['offset_frames']:+d}", r["reason"]]
        for r in rows
        if r["verdict"] != "kept"
    ]
    head = ["Video", "Verdict", "Offset", "Why"]
    return f"<p>{words}{_again(left)}</p>\n<p>{_zero(left)}</p>{grid(drawn)}" + folded(
        "Clips that were shifted or dropped", head, changed
    )


def _again(left: RunRecords) -> str:
    """What the second discriminator, which sees more sharply, changed before stage 3."""
    found = read_json(left.run / "filter-again.json")
    if not found:
        return ""
    return (
        f" Before stage 3 the second discriminator judged them anew: {found['kept']} kept, "
        f"{found['shifted']} shifted, {found['dropped']} dropped."
    )


def _zero(left: RunRecords) -> str:
    """Where the zero of the time axis comes from."""
    found = read_json(left.run / "reference.json")
    if not found:
        return (
            "A lag that the whole set shares cannot be seen from inside: the net learns it as "
            "zero. Look at a few clips yourself, or train with --reference WEIGHTS, which takes "
            "the zero from weights that were trained on other footage."
        )
    lag = found["lag_frames"]
    side = "early" if lag > 0 else "late"
    what = f"{_count(abs(lag), 'frame')} {side}; this was undone" if lag else "in sync"
    return (
        f"By the reference weights {escape(str(found['weights']))}, the audio of the set is {what} "
        f"(median of the {_count(found['clear_clips'], 'clip')} that are clear to them). Offsets "
        "below are relative to that."
    )


def _histograms(left: RunRecords) -> str:
    drawn = []
    for stage, held in left.heldout.items():
        means = [held["figures"][f"similarity_{kind}"] for kind in ("true", "false")]
        words = "mean of true pairs {:.2f}, of false pairs {:.2f}".format(*means)
        words += f", gap {held['figures']['gap']:.2f}."
        words = f"<strong>{left.names[stage]}</strong>: {words}"
        drawn.append(figures.similarities(words, held["histogram"]))
    return _by_stage(
        "How alike the net finds a held-out clip's mouth and its audio: true pairs, and false "
        "pairs 5 or more frames apart in the same clip. The less they overlap, the better. Dotted "
        "lines are the means.",
        drawn,
    )


def _curves(left: RunRecords) -> str:
    drawn = []
    for stage, held in left.heldout.items():
        if rows := held["curves"]:
            near = sum(abs(row["offset_frames"]) <= 1 for row in rows)
            words = f"{near} of {_count(len(rows), 'clip')} peak within 1 frame of zero."
            words = f"<strong>{left.names[stage]}</strong>: {words}"
            drawn.append(figures.curves(words, [row["similarity"] for row in rows]))
    return _by_stage(
        "Held-out clips with their audio shifted by up to 15 frames. A good net has one sharp "
        "peak at 0; a peak elsewhere is a clip out of sync, or one it cannot read.",
        drawn,
    )


def _by_stage(words: str, drawn: list[str]) -> str:
    if not drawn:
        return _later("Not yet: the first held-out measurement draws this.")
    return f"<p>{words}</p>{grid(drawn)}"


def _settings(left: RunRecords, defaults: Mapping[str, Any]) -> str:
    if not left.settings:
        return _later("Not yet: the run has no settings.json.")
    # Through JSON, so that a tuple equals the list that it is stored as.
    usual = dict(_flat(json.loads(json.dumps(defaults))))
    rows = [[name, value, usual.get(name, "—")] for name, value in _flat(left.settings)]
    other = [row for row in rows if defaults and row[1] != row[2]]
    head = ["Setting", "This run", "Default"]
    words = "Other than the defaults:" if other else ""
    shown = table("Settings other than the defaults", head, other) if other else ""
    return f"<p>{words}</p>{shown}{folded('All settings', head, rows)}"


def _use(left: RunRecords) -> str:
    if left.stage < left.last:
        words = f"Not yet: stage {left.last} makes the weights that a generator trains against."
        return _later(words)
    name = f"{left.run.resolve().name}/stage{left.stage}.safetensors"
    ref = json.dumps(name, ensure_ascii=False)
    code = f"from syncdisc_plugin import SyncLoss\nsync = SyncLoss({ref})"
    return (
        f'<pre class="scroll" tabindex="0"><code>{escape(code)}</code></pre>\n'
        "<p>Then add <code>sync.weight * sync(frames, mel)</code> to the generator's loss.</p>"
    )


def _later(words: str) -> str:
    return f'<p class="later">{words}</p>'


def _percent(value: float | None) -> str:
    return "—" if value is None or math.isnan(value) else f"{100 * value:.1f}%"


def _number(value: float | None) -> str:
    return "—" if value is None or math.isnan(value) else f"{value:.3f}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _minutes(store: ClipStore) -> dict[str, float]:
    return {clip.id: clip.n_frames / store.spec.fps / 60 for clip in store.clips}


def _flat(settings: dict[str, Any], above: str = "") -> Iterable[tuple[str, str]]:
    """Dotted names and values as JSON."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield above + name, json.dumps(value)
