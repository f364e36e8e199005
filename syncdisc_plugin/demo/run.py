"""The demo: footage of its own, then the same prepare, three stages and SyncLoss as for anyone."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from syncdisc_plugin.atomic import write_text
from syncdisc_plugin.data.manifest import read_rows
from syncdisc_plugin.data.prepare import PrepareSettings, prepare
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.demo.footage import write_footage
from syncdisc_plugin.demo.generator import GeneratorReport, draw, train_generator
from syncdisc_plugin.demo.portrait import Portrait, appearance
from syncdisc_plugin.demo.voice import Voice, speak
from syncdisc_plugin.errors import RunError
from syncdisc_plugin.evaluate.report import write_report
from syncdisc_plugin.nn import Architecture
from syncdisc_plugin.sync_loss import SyncLoss
from syncdisc_plugin.train import TrainSettings, train
from syncdisc_plugin.weights import read_about

SPEAKERS, CLIPS_EACH, SECONDS = 10, 3, 6.0
SETTINGS = TrainSettings(
    steps=350,
    heldout_speakers=("heldout_1", "heldout_2"),
    architecture=Architecture(face_width=16, audio_width=16, embed_dim=128),
    # Short, so that two dozen clips are judged before the net has learnt the false ones by heart.
    stage1=replace(TrainSettings.stage1, share=0.2, learning_rate=2e-3),
    measures=3,
)
GENERATOR_STEPS = 120


def run_demo(out: Path, *, resume: bool = False) -> bool:
    """Make footage, prepare it, train the three stages, use SyncLoss. True when all of it worked.

    Args:
        out: folder for the videos, the store, the run with its report, and the generator's picture.
        resume: go on with a demo that was stopped.

    Raises:
        RunError: `out` holds a run of someone else's.
    """
    began = time.monotonic()
    videos, run = out / "videos", out / "run"
    truth_file = videos / "truth.json"
    if run.exists() and not truth_file.exists():
        raise RunError(f"--out {out}: holds a run that is not the demo's. Give another folder.")
    if not resume:
        shutil.rmtree(run, ignore_errors=True)  # figures of an older demo would be told as new
    _say(1, f"writing {SPEAKERS * CLIPS_EACH} talking-face videos, some out of sync -> {videos}")
    if truth_file.exists():
        truth = json.loads(truth_file.read_text(encoding="utf-8"))
    else:
        truth = write_footage(
            videos, speakers=SPEAKERS, clips_per_speaker=CLIPS_EACH, seconds=SECONDS
        )
    _say(2, "preparing them: decode, find and follow faces, cut crops, mel")
    prepare([videos], run / "store", settings=PrepareSettings(detector="lbp"))
    store = ClipStore(run / "store")
    tqdm.write(f"{len(store)} clips, {len(store.refused)} refused")
    _say(3, "training: stage 1 on all of it, filter, stage 2, stage 3")
    weights = train(store, run, SETTINGS, resume=resume)
    report_page = write_report(run, store, title="syncdisc demo", defaults=asdict(TrainSettings()))
    _say(4, "a small generator, trained by SyncLoss and nothing else that knows of lips")
    generator = _train_small_generator(weights, out)
    figures = read_about(weights)["heldout"]
    planted = _compare_filter(truth, list(read_rows(run / "filter.jsonl")))
    ok = _tell(figures, planted, generator)
    summary = {"heldout": figures, "filter": planted, "generator": _first_and_last(generator)}
    write_text(out / "demo.json", json.dumps(summary | {"ok": ok}, indent=1) + "\n")
    print(f"\nreport     {report_page}\nweights    {weights}\ngenerator  {out / 'generator.svg'}")
    print(f"took {time.monotonic() - began:.0f} s; next: syncdisc run --videos DIR --out RUN")
    return ok


def _say(number: int, text: str) -> None:
    print(f"\n[{number}/4] {text}", flush=True)


def _train_small_generator(weights: Path, out: Path) -> GeneratorReport:
    rng = np.random.default_rng(11)
    voices = [Voice.draw(rng) for _ in range(4)]
    lessons = [speak(SECONDS, rng, voice).audio for voice in voices]
    unheard = [speak(SECONDS, rng, Voice.draw(rng)) for _ in range(2)]
    report = train_generator(
        SyncLoss(weights),
        Portrait(appearance(np.random.default_rng(5))),
        lessons,
        unheard,
        steps=GENERATOR_STEPS,
    )
    draw(report, out / "generator.svg")
    return report


def _compare_filter(truth: list[dict[str, Any]], verdicts: list[dict[str, Any]]) -> dict[str, Any]:
    """What was planted against what the filter said of the training clips."""
    by_source = {os.path.join(*Path(v["source"]).parts[-2:]): v for v in verdicts}
    rows = []
    for clip in truth:
        verdict = by_source.get(os.path.join(*Path(clip["path"]).parts))
        if verdict is None:
            continue  # held out, or refused
        wanted = {"synced": "kept", "shifted": "shifted", "other_audio": "dropped"}[clip["kind"]]
        right = verdict["verdict"] == wanted
        if right and clip["kind"] == "shifted":
            right = abs(verdict["offset_frames"] - clip["offset_frames"]) <= 1
        rows.append(
            {
                "clip": clip["path"],
                "planted": clip["kind"],
                "planted_offset": clip["offset_frames"],
                "verdict": verdict["verdict"],
                "offset_frames": verdict["offset_frames"],
                "right": right,
            }
        )
    return {"clips": len(rows), "right": sum(r["right"] for r in rows), "rows": rows}


def _first_and_last(report: GeneratorReport) -> dict[str, float]:
    first, last = report.rows[0], report.rows[-1]
    return {
        "loss_before": first.loss,
        "loss_after": last.loss,
        "correlation_before": first.truth_correlation,
        "correlation_after": last.truth_correlation,
    }


def _tell(figures: dict[str, Any], planted: dict[str, Any], report: GeneratorReport) -> bool:
    """Print what came out; False when one of the three claims does not hold."""
    bad = [row for row in planted["rows"] if row["planted"] != "synced"]
    found = sum(row["right"] for row in bad)
    moved = _first_and_last(report)
    print("\nWhat came out")
    print(
        f"  discriminator: on two speakers it never saw, true audio told from false in "
        f"{figures['pair_accuracy']:.1%} of pairs (chance 50%)"
    )
    print(f"  filter:        {found} of {len(bad)} planted errors found,", end=" ")
    print(f"{planted['right']} of {planted['clips']} clips judged right")
    for row in bad:
        told = row["verdict"]
        if told == "shifted":
            told += f" by {row['offset_frames']:+d}"
        what = "another clip's audio"
        if row["planted"] == "shifted":
            side = "early" if row["planted_offset"] > 0 else "late"
            what = f"audio {abs(row['planted_offset'])} frames {side}"
        print(f"                 {row['clip']}: planted {what}, filter: {told}")
    print(
        f"  SyncLoss:      mouth against the true one, correlation "
        f"{moved['correlation_before']:.2f} -> {moved['correlation_after']:.2f} on unheard speech "
        f"(loss {moved['loss_before']:.2f} -> {moved['loss_after']:.2f})"
    )
    claims = {
        "the discriminator tells true from false audio": figures["pair_accuracy"] > 0.85,
        "the filter finds most planted errors": found >= 0.75 * len(bad),
        "the filter judges nine of ten clips right": planted["right"] >= 0.9 * planted["clips"],
        "SyncLoss moves the mouth with the audio": moved["correlation_after"] > 0.5,
    }
    for claim, holds in claims.items():
        if not holds:
            print(f"  NOT SHOWN: {claim}")
    return all(claims.values())
