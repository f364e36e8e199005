"""Figures of a store: counted from the manifest, in text and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_store import N_FRAMES, SPEC, add, make

from syncdisc_plugin.data.manifest import refused_row
from syncdisc_plugin.data.stats import reason_class, stats
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.data.writer import StoreWriter
from syncdisc_plugin.errors import StoreError
from syncdisc_plugin.evaluate.store_report import write_store_report


@pytest.fixture
def store(tmp_path: Path) -> Path:
    with StoreWriter(tmp_path, SPEC) as writer:
        add(writer, "k1", tracks=2, face_px=63.9, loudness_db=-70.0, source_fps=25.0)
        add(writer, "k2", speaker="Ольга", face_px=64.0, loudness_db=-21.5, source_fps=29.97)
        add(writer, "k3", speaker="bob", face_px=500.0, loudness_db=-20.0, note="truncated")
        for i, reason in enumerate(["silent", "no face in 50 frames", "no face in 7 frames"]):
            path = f"videos/bad {i}.mp4"
            writer.add([refused_row(f"b{i}", path, f"{path}: {reason}. Try another --detector")])
    return tmp_path


def test_the_figures(store: Path) -> None:
    found = stats(store)
    assert (found.inputs, found.inputs_ok, found.clips, found.speakers) == (6, 3, 4, 3)
    assert found.minutes == round(4 * N_FRAMES / 25 / 60, 3)
    assert list(found.minutes_by_speaker) == ["ann", "Ольга", "bob"]
    assert found.refused == {"no face in N frames": 2, "silent": 1}
    assert found.noted == 1
    assert found.face_px["32..64"] == 2 and found.face_px["64..96"] == 1
    assert found.face_px["256.."] == 1 and found.face_px["128..192"] == 0
    assert found.source_fps == {"25": 2, "29.97": 1, "unknown": 1}
    assert found.loudness_db["-60..-50"] == 2, "what is below the first edge is in the first range"
    assert (found.loudness_db["-25..-20"], found.loudness_db["-20..-15"]) == (1, 1)
    assert found.seconds == {"0..1": 4}


def test_text_and_json(store: Path) -> None:
    found = stats(store)
    text = found.to_text(speakers=2)
    assert "inputs    6 (3 ok, 3 refused)" in text and "clips     4 (1 with a note)" in text
    assert "Ольга" in text and "bob" not in text and "1 more speakers: --json" in text
    assert "no face in N frames" in text and "#" in text
    assert max(map(len, text.splitlines())) < 100
    raw = json.loads(found.to_json())
    assert raw["speakers"] == 3 and raw["refused"]["silent"] == 1
    assert set(raw["minutes_by_speaker"]) == {"ann", "bob", "Ольга"}


def test_a_store_without_a_clip_or_a_row(tmp_path: Path) -> None:
    make(tmp_path / "refused", {"k1": 0})
    found = stats(tmp_path / "refused")
    assert (found.inputs, found.inputs_ok, found.clips, found.minutes) == (1, 0, 0, 0)
    assert found.refused == {"no audio stream": 1} and found.face_px == {}
    make(tmp_path / "empty", {})
    assert "inputs    0" in stats(tmp_path / "empty").to_text()
    with pytest.raises(StoreError, match="not a clip store"):
        stats(tmp_path)


def test_a_damaged_row_is_one_line(store: Path) -> None:
    with (store / "manifest.jsonl").open("a") as file:
        file.write('{"key": "a", "path": "x", "status": "ok"}\n')
    for read in (stats, write_store_report, ClipStore):
        with pytest.raises(StoreError, match=r"manifest.jsonl: damaged .*store verify"):
            read(store)


def test_a_store_in_work_is_counted_too(store: Path) -> None:
    with StoreWriter(store, SPEC):
        assert stats(store).clips == 4


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("{}: no audio stream. Give a file with picture and sound.", "no audio stream"),
        ("{}: the audio is silent (-90 dB). Nothing can be judged; check", "the audio is silent"),
        ("{}: cannot be read as a video (moov; 3.5). Check", "cannot be read as a video"),
        ("{}: no face in 50 frames. Try it; 3 frames missing", "no face in N frames"),
        ("the decoder crashed on this file", "the decoder crashed on this file"),
        (
            "OSError: [Errno 5] Input/output error: '{}' (x.py:12)",
            "OSError: [Errno N] Input/output",
        ),
        (
            "{}: faces were seen, 3 under 40 px and 5 under score 0.25. Lower it",
            "faces were seen, N under N px and N under score N",
        ),
        ("", "no reason given"),
    ],
)
def test_reasons_fall_into_classes(reason: str, kind: str) -> None:
    path = "videos/take 7. (final).mp4"
    row = refused_row("k", path, reason.format(path))
    assert reason_class(row).startswith(kind)
