"""`syncdisc store ...` and `prepare --shard`: what they print, and their exit statuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_store import contents, make

from syncdisc_plugin.cli import main
from syncdisc_plugin.data.lock import Lock


def refused(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """The one line of a command that ends with status 2."""
    capsys.readouterr()
    assert main([str(a) for a in argv]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    return printed.err


def test_merge(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    parts = [make(tmp_path / "a", {"k1": 1, "k2": 0}), make(tmp_path / "b", {"k3": 2})]
    argv = ["store", "merge", *map(str, parts), "--out", str(tmp_path / "out")]
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert out.startswith("merged 3 clips of 3 inputs from 2 stores (0 were there already; 2 shar")
    assert main(argv) == 0
    assert "merged 0 clips of 0 inputs from 2 stores (3 were there" in capsys.readouterr().out
    assert contents(tmp_path / "out") == contents(make(tmp_path / "w", {"k1": 1, "k2": 0, "k3": 2}))
    held = Lock(parts[0])
    assert f"{parts[0]}: expected no other process at work on this store" in refused(capsys, *argv)
    held.release()


def test_merging_what_holds_no_clip(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    part = make(tmp_path / "a", {"k1": 0})
    assert main(["store", "merge", str(part), "--out", str(tmp_path / "out")]) == 2
    assert "no usable clip (1 inputs refused" in capsys.readouterr().err


def test_verify(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    store = make(tmp_path / "s", {"k1": 1, "k2": 2})
    argv = ["store", "verify", str(store)]
    assert main(argv) == 0
    assert capsys.readouterr().out == "whole: 3 clips of 2 inputs in 2 shards\n"
    (store / "shards" / "k9-0.safetensors").write_bytes(b"x")
    assert main(argv) == 1
    out = capsys.readouterr().out
    assert out.startswith("left      ") and "1 to look at: 3 clips" in out
    assert main([*argv, "--clean"]) == 0
    assert "removed 1 files that a kill had left\nwhole: " in capsys.readouterr().out
    (store / "shards" / "k1-0.safetensors").unlink()
    assert main(argv) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("shard     ") and "k1-0.safetensors: missing" in lines[0]
    assert len(lines) == 2


def test_stats(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    store = make(tmp_path / "s", {"k1": 1, "k2": 0})
    assert main(["store", "stats", str(store)]) == 0
    assert capsys.readouterr().out.startswith("inputs    2 (1 ok, 1 refused)\nclips     1 (0 ")
    assert main(["store", "stats", str(store), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["inputs"], found["clips"], found["refused"]) == (2, 1, {"no audio stream": 1})


def test_what_store_can_do(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    said = refused(capsys, "store")
    assert "expected one of merge, copy, verify, stats, judge; got nothing" in said
    assert "got 'mend'" in refused(capsys, "store", "mend", tmp_path)
    for command in ("verify", "stats", "judge"):
        line = refused(capsys, "store", command, tmp_path / "gone")
        assert line.startswith("syncdisc store: ") and "not a clip store" in line
    for command in ("merge", "verify", "stats", "judge"):
        with pytest.raises(SystemExit) as stop:
            main(["store", command, "--help"])
        assert stop.value.code == 0
        assert f"usage: syncdisc store {command}" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "1/0", "a/b", "-1/2", "1/2/3", "1.0/2", ""])
def test_a_shard_that_is_none(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str
) -> None:
    (tmp_path / "a.mp4").touch()
    line = refused(capsys, "prepare", tmp_path, "--out", tmp_path / "s", f"--shard={text}")
    assert "expected I/N with I from 1 to N" in line and "add 1" in line
    assert not (tmp_path / "s").exists()


def test_a_shard_may_be_without_a_clip(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    argv = ["prepare", str(tmp_path / "a.mp4"), "--detector", "none", "--out", str(tmp_path / "s")]
    assert main([*argv, "--shard", "2/2"]) == 0
    assert "prepared 0 clips" in capsys.readouterr().out
