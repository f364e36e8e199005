"""One choice of clips for training, evaluation and the report."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from small_store import add, make

from syncdisc_plugin.data.choice import Choice, choose
from syncdisc_plugin.data.funnel import funnel
from syncdisc_plugin.data.manifest import Clip, refused_row
from syncdisc_plugin.data.split import Split, chosen_split
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.data.writer import StoreWriter
from syncdisc_plugin.errors import StoreError
from syncdisc_plugin.spec import ClipSpec
from syncdisc_plugin.train import TrainSettings

SPEC = ClipSpec(face_px=32)
GOOD: dict[str, Any] = {"face_px": 120.0, "sharpness": 0.4, "turn_deg": 5.0, "face_score": 0.93}
GOOD |= {"crop_score": 0.93, "loudness_db": -20.0, "source_fps": 30.0, "language": "en"}
SEEN = {"seconds": 40.0, "cuts": 3, "detections": 90, "too_small": 0, "too_unsure": 0}
SEEN |= {"tracks": 3, "too_short": 2, "too_short_seconds": 1.2}
BAD = {
    "min_face_px": ({"face_px": 40.0}, 64),
    "max_turn_deg": ({"turn_deg": 50.0}, 30),
    "min_sharpness": ({"sharpness": 0.1}, 0.2),
    "min_face_score": ({"face_score": 0.7}, 0.85),
    "min_crop_score": ({"crop_score": 0.91}, 0.92),
    "min_loudness_db": ({"loudness_db": -50.0}, -40),
    "min_source_fps": ({"source_fps": 12.0}, 20),
    "languages": ({"language": "es"}, ("en", "de")),
}


def clip(name: str, **about: Any) -> Clip:
    sizes = {"start_s": 0.0, "n_frames": 100, "n_mels": 321}
    return Clip(id=f"{name}-0/0", speaker="s", source=f"{name}.mp4", **sizes, **(GOOD | about))


@pytest.mark.parametrize("name", BAD)
def test_a_threshold_leaves_out_what_fails_it_and_nothing_else(name: str, tmp_path: Path) -> None:
    about, limit = BAD[name]
    clips = [clip("good"), clip("bad", **about)]
    assert choose(clips, tmp_path, 25, Choice()).clips == clips
    found = choose(clips, tmp_path, 25, Choice(**{name: limit}))
    assert found.clips == clips[:1] and found.left_out == [(clips[1], [name])]
    assert found.note == f"1 of 2 clips left out by the choice ({name} 1)"


def test_what_was_not_measured_passes(tmp_path: Path) -> None:
    old = clip("old", sharpness=None, turn_deg=None, face_score=None, source_fps=0.0)
    asked = Choice(max_turn_deg=10, min_sharpness=0.9, min_face_score=0.99, min_source_fps=50)
    assert choose([old], tmp_path, 25, asked).clips == [old]


def test_length_and_two_failures_at_once(tmp_path: Path) -> None:
    clips = [clip("short"), clip("short and small", face_px=30.0)]
    found = choose(clips, tmp_path, 25, Choice(min_seconds=5, min_face_px=64))
    assert found.left_out[1] == (clips[1], ["min_seconds", "min_face_px"])
    assert found.reasons == {"min_seconds": 2, "min_face_px": 1}


def test_choosing_by_the_judge(tmp_path: Path) -> None:
    clips = [clip(name) for name in ("speaks", "silent", "unclear", "late", "new")]
    with pytest.raises(StoreError, match=r"speaking needs judged.jsonl.*syncdisc store judge"):
        choose(clips, tmp_path, 25, Choice(speaking="yes"))
    rows = [
        {"clip_id": c.id, "speaking": said, "confidence": sure, "offset_frames": offset}
        for c, (said, sure, offset) in zip(
            clips, [(True, 0.5, 0), (False, 0.1, 4), (None, 0.1, -1), (True, 0.4, 5)], strict=False
        )
    ]
    (tmp_path / "judged.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(StoreError, match=r"has none on 1 of 5: they were added since. Run it"):
        choose(clips, tmp_path, 25, Choice(min_confidence=0.3))
    assert len(choose(clips, tmp_path, 25, Choice(min_face_px=1)).clips) == 5
    clips.pop()

    def names(**asked: Any) -> list[str]:
        chosen = choose(clips, tmp_path, 25, Choice(**asked)).clips
        return [c.source.removesuffix(".mp4") for c in chosen]

    assert names(speaking="maybe") == ["speaks", "unclear", "late"]
    assert names(speaking="yes") == ["speaks", "late"]
    assert names(speaking="yes", max_offset_frames=2) == ["speaks"]
    assert names(min_confidence=0.3) == ["speaks", "late"]


@pytest.mark.parametrize(
    "asked", [{"speaking": "sure"}, {"max_turn_deg": 180}, {"max_offset_frames": 20}]
)
def test_impossible_choices_name_the_field(asked: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(asked))}: expected"):
        Choice(**asked)


def test_a_run_stores_its_choice_and_runs_from_before_have_none() -> None:
    settings = TrainSettings(choose=Choice(min_face_px=64, languages=("en",)))
    stored = json.loads(json.dumps(asdict(settings)))
    assert TrainSettings.from_dict(stored) == settings
    del stored["choose"]
    assert TrainSettings.from_dict(stored).choose == Choice()


def test_a_split_is_chosen_from_and_never_left_empty(tmp_path: Path) -> None:
    store = ClipStore(make(tmp_path / "s", {"k": 1}))
    train, heldout = [clip("a"), clip("b", face_px=50.0)], [clip("c", face_px=80.0)]
    split = Split(train, heldout, "1 of 3 speakers held out")
    left = chosen_split(split, store, Choice(min_face_px=64))
    assert (left.train, left.heldout) == (train[:1], heldout)
    assert left.note == (
        "1 of 3 speakers held out; 1 of 2 clips left out by the choice (min_face_px 1)"
    )
    with pytest.raises(StoreError, match=r"nothing that is held out is left.*min_face_px 1"):
        chosen_split(split, store, Choice(min_face_px=100))


def test_old_manifests_load(tmp_path: Path) -> None:
    root = make(tmp_path / "s", {"k1": 1})
    row = json.loads((root / "manifest.jsonl").read_text())
    for name in ("face_score", "sharpness", "turn_deg", "language"):
        del row[name]
    (root / "manifest.jsonl").write_text(json.dumps(row) + "\n")
    (old,) = ClipStore(root).clips
    assert (old.face_score, old.sharpness, old.turn_deg, old.language) == (None, None, None, "")


# --- the funnel


def test_the_funnel_counts_minutes_and_reasons(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "s", SPEC) as writer:
        for key, face_px in (("k1", 120.0), ("k2", 40.0)):
            (row,) = add(writer, key, face_px=face_px)
            writer.add([row | {"footage": SEEN}])
        add(writer, "k3")  # as before lengths were recorded
        no_face = refused_row("k4", "d.mp4", "d.mp4: no face in 250 frames. Try another")
        nothing = {"seconds": 10.0, "too_short": 0, "too_short_seconds": 0.0, "cuts": 0}
        writer.add([no_face | {"footage": SEEN | nothing}])
        writer.add([refused_row("k5", "e.mp4", "e.mp4: no audio stream. Give another")])
    store = ClipStore(tmp_path / "s")
    chosen = choose(store.clips, store.root, 25, Choice(min_face_px=64))
    inputs, tracks, clips, kept = funnel(store.rows, chosen, 25)
    assert (inputs.count, inputs.minutes) == (5, pytest.approx((40 + 40 + 0.8 + 10) / 60, abs=1e-3))
    assert {(loss.why, loss.count, loss.minutes) for loss in tracks.lost} == {
        ("no face in N frames", 1, 0.167),
        ("no audio stream", 1, None),
    }
    assert (tracks.count, clips.count, kept.count) == (3 + 4, 3, 2)
    (short,) = clips.lost
    assert (short.count, short.minutes) == (4, 0.04) and "6 scene cuts" in short.why
    assert [(loss.why, loss.count) for loss in kept.lost] == [("min_face_px", 1)]
    assert clips.minutes == pytest.approx(3 * 20 / 25 / 60, abs=1e-3)
