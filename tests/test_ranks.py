"""Two processes under torchrun take the steps of one."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from tiny_run import PROGRAM, SETTINGS

from syncdisc_plugin.data.manifest import read_rows
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.errors import RunError
from syncdisc_plugin.train import TrainSettings
from syncdisc_plugin.train.ranks import Ranks, join

# Dropout is drawn by each process for itself; without it the runs are the same but for rounding.
WITHOUT_DROPOUT = replace(
    SETTINGS, steps=40, measures=1, architecture=replace(SETTINGS.architecture, dropout=0.0)
)


def _train(
    store: ClipStore, run: Path, processes: int, settings: TrainSettings
) -> subprocess.CompletedProcess[str]:
    program = run.with_suffix(".py")
    program.write_text(PROGRAM)
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [*start, str(program), str(store.root), str(run), json.dumps(asdict(settings))]
    return subprocess.run(command, capture_output=True, text=True, timeout=400)


def _steps(run: Path) -> list[dict[str, float]]:
    return [r for r in read_rows(run / "log.jsonl") if r["kind"] == "step"]


@pytest.mark.slow
def test_two_processes_equal_one(tiny_store: ClipStore, tmp_path: Path) -> None:
    """All three stages: the same steps; loss and gradient of a step are equal within rounding."""
    for name, processes in (("one", 1), ("two", 2)):
        done = _train(tiny_store, tmp_path / name, processes, WITHOUT_DROPOUT)
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = _steps(tmp_path / "one"), _steps(tmp_path / "two")
    assert [(r["stage"], r["step"]) for r in one] == [(r["stage"], r["step"]) for r in two]
    assert {r["stage"] for r in one} == {1, 2, 3}
    assert two[0]["step"] == 1
    for figure in ("loss", "chance"):
        assert two[0][figure] == pytest.approx(one[0][figure], rel=1e-5, abs=1e-6), figure
    # Cosines are rounded as numbers near 1 are, on some CPUs by a little more than 1e-6.
    for figure in ("similarity_true", "similarity_false"):
        assert two[0][figure] == pytest.approx(one[0][figure], abs=5e-6), figure
    assert two[0]["gradient_norm"] == pytest.approx(one[0]["gradient_norm"], rel=1e-3)
    # From then on Adam blows rounding up: a gradient of zero has either sign.
    assert two[1]["loss"] == pytest.approx(one[1]["loss"], rel=0.02)


@pytest.mark.slow
def test_the_command_under_torchrun_refuses_a_batch_that_cannot_be_shared(
    tiny_store: ClipStore, tmp_path: Path
) -> None:
    """The README's line, with three clips for two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--standalone", "-m", "syncdisc_plugin", "train", "--data", str(tiny_store.root)]
    command += ["--out", str(tmp_path / "run"), "--steps", "20", "--batch_clips", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode != 0
    assert "--batch_clips: expected a multiple of the 2 processes, got 3" in done.stderr
    assert not (tmp_path / "run" / "settings.json").exists()


def test_a_world_without_ranks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Schedulers export it to processes that nobody started together."""
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(RunError, match=r"WORLD_SIZE=4 is set, but not LOCAL_RANK: .*torchrun"):
        join("cpu")


def test_a_process_alone_shares_with_nobody() -> None:
    alone, x = Ranks(), torch.randn(4, 2, requires_grad=True)
    assert alone.gather(x) is x and list(alone.share(4)) == [0, 1, 2, 3]
    assert alone.agree("word") == "word" and alone.first
    assert alone.average_gradients([], flag=True) is True
    assert [list(Ranks(r, 2).share(6)) for r in (0, 1)] == [[0, 1, 2], [3, 4, 5]]
