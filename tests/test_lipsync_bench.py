"""`bench/lipsync.py`: what is wrong with a file is found, and the judge's figures are right."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from painted import picture

from generator_integration.reference import LipsyncResult, load_generator
from syncdisc_plugin.data.prepare import PrepareSettings
from syncdisc_plugin.evaluate.score import Scorer, Seen
from syncdisc_plugin.media import write_video

N, RATE = 50, 16000
NOISE = np.random.default_rng(0).uniform(-0.3, 0.3, (2, 2 * RATE)).astype(np.float32)
SEEN = Seen(0, 0.0, N, (0, 0, 1, 1), np.zeros((1, 96, 96, 3), np.uint8), 0.0, *[torch.eye(46)] * 2)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "bench"))
    yield importlib.import_module("lipsync")
    sys.modules.pop("lipsync")


def piece(bench: ModuleType, tmp_path: Path, speaker: str = "ann", **changes: object) -> object:
    path = tmp_path / f"{speaker}.mp4"
    if not path.exists():
        write_video(path, map(picture, range(N)), fps=25, audio=NOISE[0])
    return bench.Piece(
        **{"speaker": speaker, "path": path, "seconds": 2.0, "seen": SEEN, **changes}
    )


@pytest.mark.parametrize(
    ("fps", "frames", "sound", "wrong"),
    [
        (25, N, NOISE[0], None),
        (25, N, NOISE[1], "a sound that is not the new one"),
        (30, 60, NOISE[0], "30 frames per second"),
        (25, 40, NOISE[0], "1.60 s of picture"),
        (25, N, NOISE[0, : RATE * 3 // 2], "s of sound"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(
    bench: ModuleType, tmp_path: Path, fps: int, frames: int, sound: np.ndarray, wrong: str | None
) -> None:
    out = write_video(tmp_path / "out.mp4", map(picture, range(frames)), fps=fps, audio=sound)
    height, width = picture(0).shape[:2]
    result = LipsyncResult(out, frames, frames, 2.0, width, height, 0, ())
    faults = bench.look(out, result, piece(bench, tmp_path))
    assert bool(faults) == bool(wrong) and (not wrong or wrong in "; ".join(faults))
    assert "another size" in bench.look(out, replace(result, width=8), piece(bench, tmp_path))


def test_the_sound_is_another_speakers(bench: ModuleType, tmp_path: Path) -> None:
    pieces = [piece(bench, tmp_path, who) for who in ("ann", "ann", "ann", "bob", "bob")]
    assert all(bench.partner(p, pieces).speaker != p.speaker for p in pieces)


def test_figures_of_lips_that_follow_and_of_lips_that_do_not(
    bench: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    eye, late = torch.eye(46), torch.eye(46).roll(3, 0)
    person, other = (
        piece(bench, tmp_path),
        piece(bench, tmp_path, "bob", seen=replace(SEEN, a=late)),
    )
    for lips, nearer in ((late, 1.0), (eye, 0.0)):
        judge = SimpleNamespace(look=lambda path, v=lips: [replace(SEEN, v=v, a=late)])
        found = bench.judged(judge, tmp_path / "out.mp4", person, other)
        assert (found.new, found.old, found.nearer) == (nearer, 1 - nearer, nearer)
        assert (found.true_own, found.true_other) == (1.0, 0.0)
        assert (found.offset_frames == 0) == bool(nearer)
        bench.report([found, replace(found, speaker="bob", new=found.new / 2)])
        row = next(r for r in capsys.readouterr().out.splitlines() if "to the new sound  " in r)
        assert float(row.split()[5]) == pytest.approx(0.75 * nearer)


@pytest.mark.real
def test_lips_of_real_faces_follow_the_sound(
    bench: ModuleType, clips_dir: Path, models_dir: Path, tmp_path: Path
) -> None:
    """In small, the shipped pair; of people whom neither of them has met."""
    settings = PrepareSettings(models=models_dir)
    judge, generator = Scorer("base", settings), load_generator("base")
    args = SimpleNamespace(clips=clips_dir, speakers="wth_robyn,wth_amy", seconds=4.0)
    rows = {row["speaker"]: row for row in bench.rows(args)}
    found = [next(bench.cut(row, args, judge, tmp_path)) for row in rows.values()]
    for one in found:
        other = bench.partner(one, found)
        out = tmp_path / f"{one.speaker}.out.mp4"
        result = bench.lipsync(
            one.path, other.path, out, generator=generator, settings=settings, detect=judge.detect
        )
        assert bench.look(out, result, other) == []
        verdict = bench.judged(judge, out, one, other)
        assert verdict.true_own > verdict.true_other + 0.1
        assert verdict.new > max(verdict.old, verdict.true_other) + 0.1
