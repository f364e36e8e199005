"""`syncdisc run`: videos in, weights and a report out, and the least footage that it may meet."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from syncdisc_plugin import SyncLoss, cli
from syncdisc_plugin.data.manifest import read_rows
from syncdisc_plugin.demo.footage import write_footage

SMALL = [
    *("--detector", "none", "--workers", "1", "--steps", "12", "--precision", "fp32"),
    *("--batch_clips", "2", "--chunk_frames", "16", "--measures", "1"),
    *("--architecture", '{"face_width": 8, "audio_width": 8, "embed_dim": 16}'),
]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    write_footage(folder, speakers=4, clips_per_speaker=1, seconds=2.0)
    (folder / "speaker_1" / "broken.mp4").write_bytes(np.random.default_rng(0).bytes(3000))
    return folder


def test_the_whole_line(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "RUN with spaces"
    assert cli.main(["run", "--videos", str(videos), "--out", str(out), *SMALL]) == 0
    printed = capsys.readouterr()
    assert "speakers held out): true audio told" in printed.out
    assert "stage3.safetensors" in printed.out
    assert "broken.mp4" in printed.err and "Traceback" not in printed.err
    rows = list(read_rows(out / "store" / "manifest.jsonl"))
    assert sorted(row["status"] for row in rows) == ["ok"] * 4 + ["refused"]
    assert "broken.mp4" in (out / "report.html").read_text(encoding="utf-8")
    SyncLoss(out / "stage3.safetensors")

    # The same command refuses the folder; with --resume it finds all done.
    again = ["run", "--videos", str(videos), "--out", str(out), *SMALL]
    assert cli.main(again) == 2
    assert "--resume" in capsys.readouterr().err
    before = (out / "stage3.safetensors").read_bytes()
    assert cli.main([*again, "--resume"]) == 0
    assert (out / "stage3.safetensors").read_bytes() == before


def test_a_folder_of_one_clip(videos: Path, tmp_path: Path) -> None:
    one = next((videos / "heldout_1").glob("*.mp4"))
    assert cli.main(["run", "--videos", str(one), "--out", str(tmp_path / "run"), *SMALL]) == 0
    split = json.loads((tmp_path / "run" / "store" / "split.json").read_text())
    assert "nothing is held out" in split["note"]
    # Strict JSON, though a single clip cannot give every figure.
    text = (tmp_path / "run" / "heldout" / "stage3.json").read_text()
    figures = json.loads(text, parse_constant=lambda name: pytest.fail(name))["figures"]
    assert figures["n_clips"] == 1


def test_footage_too_short_to_train_on(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = [*SMALL[:-2], "--chunk_frames", "60"]
    assert cli.main(["run", "--videos", str(videos), "--out", str(tmp_path / "r"), *small]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "chunk_frames" in error and "60" in error
