"""The doctor names what is planted, and passes what is sound."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from synth import talk

from syncdisc_plugin.cli import main
from syncdisc_plugin.data.manifest import Clip, clip_row, refused_row
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.data.writer import StoreWriter, write_shard
from syncdisc_plugin.mel import log_mel
from syncdisc_plugin.spec import ClipSpec
from syncdisc_plugin.train import doctor

SPEC = ClipSpec()


def build(root: Path, change: Callable[[dict], None] = lambda parts: None, n: int = 8) -> ClipStore:
    """n speakers with a clip of 2.4 s each; `change` may alter parts of every clip."""
    writer, rows = StoreWriter(root, SPEC), []
    for number in range(n):
        made = talk(number, speaker=number, n_frames=60, side_px=SPEC.stored_px)
        parts = {
            "number": number,
            "frames": made.frames,
            "audio": made.audio,
            "speaker": f"s{number}",
            "fps": 30.0,
            "face_px": 120.0,
            "source": f"k{number}.mp4",
        }
        change(parts)
        mel = log_mel(torch.from_numpy(parts["audio"]), SPEC.mel).T.contiguous().numpy()
        key = f"k{number}"
        pcm = np.round(parts["audio"] * 32767).astype(np.int16)
        write_shard(root, key, {"0.frames": parts["frames"], "0.mel": mel, "0.audio": pcm})
        level = float(10 * np.log10(np.mean(parts["audio"] ** 2) + 1e-12))
        clip = Clip(
            id=f"{key}/0",
            speaker=parts["speaker"],
            source=parts["source"],
            start_s=0.0,
            n_frames=60,
            n_mels=len(mel),
            face_px=parts["face_px"],
            loudness_db=level,
            source_fps=parts["fps"],
        )
        rows.append(clip_row(key, clip))
    writer.add(rows)
    return ClipStore(root)


def findings(store: ClipStore) -> dict[str, doctor.Finding]:
    return {f.name: f for f in doctor.examine(store, None).findings}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "MIN_MINUTES", 0.1)


def test_a_sound_store_passes_and_can_be_overfitted(tmp_path: Path) -> None:
    found = findings(build(tmp_path / "s"))
    assert [f.name for f in found.values() if not f.good] == []
    assert found["amount"].text.startswith("0.3 minutes in 8 clips")
    assert "30 (8)" in found["frame rates"].text


def _silent(parts: dict) -> None:
    parts["audio"] = np.zeros_like(parts["audio"])


def _frozen_noise(parts: dict) -> None:
    """Nothing to learn: a still picture beside the clip's sound."""
    parts["frames"][:] = parts["frames"][0]


def _twice(parts: dict) -> None:
    if parts["number"] == 1:
        parts["audio"] = 0.5 * talk(0, speaker=0, n_frames=60, side_px=SPEC.stored_px).audio


def _interview(parts: dict) -> None:
    """Two faces in sight of one video, and one sound."""
    if parts["number"] == 1:
        made = talk(0, speaker=0, n_frames=60, side_px=SPEC.stored_px)
        parts.update(audio=made.audio, source="k0.mp4", speaker="s0")


def test_two_faces_of_one_video_are_no_copies(tmp_path: Path) -> None:
    found = findings(build(tmp_path / "s", _interview))
    assert found["duplicates"].good and found["duplicates"].text.startswith("0 videos")
    assert not found["several faces"].good
    assert "syncdisc store judge" in found["several faces"].text


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        (lambda p: p.update(speaker="one"), "speakers", "1, the largest with 100%"),
        (lambda p: p.update(fps=12.5), "frame rates", "fewer than 20 frames a second"),
        (lambda p: p.update(face_px=40.0), "face sizes", "100% below 64 px"),
        (_silent, "silence", "100% of the time"),
        (_frozen_noise, "overfits one batch", "frozen pictures"),
        (_twice, "duplicates", "1 videos sound like another one"),
    ],
)
def test_what_is_planted_is_named(
    tmp_path: Path, change: Callable[[dict], None], name: str, words: str
) -> None:
    finding = findings(build(tmp_path / "s", change))[name]
    assert not finding.good and words in finding.text


def _quiet_openings(parts: dict) -> None:
    if parts["number"] < 2:
        parts["audio"] = np.zeros_like(parts["audio"])


def test_silence_is_no_copy_of_silence(tmp_path: Path) -> None:
    assert findings(build(tmp_path / "s", _quiet_openings))["duplicates"].good


def test_refused_inputs_are_compared_with_inputs(tmp_path: Path) -> None:
    """Not with clips, of which one long video gives many."""
    store = build(tmp_path / "s", lambda p: None)
    with StoreWriter(store.root, SPEC) as writer:
        writer.add([refused_row("bad", "bad.mp4", "bad.mp4: no face.")])
    clips = [row | {"key": "k0", "path": "k0.mp4"} for row in store.rows]
    one = clips + [row for row in ClipStore(store.root).rows if row["status"] != "ok"]
    (store.root / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in one))
    finding = findings(ClipStore(store.root))["refused inputs"]
    assert not finding.good and finding.text.startswith("1 of 2 ")


def test_footage_that_the_judge_cannot_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut otherwise than what it was trained on: nothing is said about its sync."""
    monkeypatch.setattr(doctor, "_overfit", lambda *_: None)
    store = build(tmp_path / "s", n=6)
    store.spec = replace(store.spec, crop="aligned")
    found = {f.name: f for f in doctor.examine(store, "base").findings}
    assert "common lag" not in found and found["sync"].text.startswith("not looked at")


def test_too_little_footage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "MIN_MINUTES", 10)
    finding = findings(build(tmp_path / "s", n=6))["amount"]
    assert not finding.good and "Below 10 minutes" in finding.text


def test_the_command_prints_findings_and_histograms(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = build(tmp_path / "s")
    path = tmp_path / "found.json"
    status = main(["doctor", "--data", str(store.root), "--json", str(path)])
    out = capsys.readouterr().out
    for words in ("overfits one batch", "common lag", "offset_frames", "fps", "face_px"):
        assert words in out
    # Drawn faces are no real ones: the shipped judge need not understand them.
    assert status in (0, 1) and ("to look at" in out) == (status == 1)
    assert path.read_text().startswith("{")
