"""Scores of generated videos: figures, pictures, repair, and what the command says of them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import torch
from synth import talk
from test_media import write_noise

import syncdisc_plugin
from syncdisc_plugin import weights
from syncdisc_plugin.cli import main
from syncdisc_plugin.data.footage import Footage
from syncdisc_plugin.evaluate import score as scoring
from syncdisc_plugin.evaluate import score_picture
from syncdisc_plugin.evaluate.score import Score, Scorer, Seen, surest
from syncdisc_plugin.evaluate.score_picture import clock, smooth, write_picture
from syncdisc_plugin.media import decode, move_audio, write_video
from syncdisc_plugin.media.phase import frame_leads_s
from syncdisc_plugin.nn import Discriminator
from syncdisc_plugin.nn.curve import CLEAR

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*argv: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main([str(a) for a in argv])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return call


@pytest.fixture
def net(tiny_net: Discriminator, tmp_path: Path) -> Path:
    return weights.save(tiny_net, tmp_path / "tiny.safetensors", stage=3)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    clip = talk(1, n_frames=50)
    return write_video(tmp_path / "talk.mp4", clip.frames, audio=clip.audio)


def seen(lag: int, n: int = 100, noise: float = 1.0, **more: float) -> Seen:
    """A track whose audio is early by `lag` frames, to a net that sees it through `noise`."""
    rng = np.random.default_rng([n, abs(lag)])
    steps = rng.standard_normal((n + 40, 32))
    # Embeddings of neighbours are alike, as those of real windows are.
    voice = sum(np.roll(steps, k, axis=0) for k in range(3))
    lips = voice + noise * rng.standard_normal(voice.shape)
    v, a = lips[20 : 20 + n], voice[20 + lag : 20 + lag + n]
    unit = [torch.nn.functional.normalize(torch.from_numpy(x).float(), dim=1) for x in (v, a)]
    faces = np.zeros((3, 120, 120, 3), np.uint8)
    track = Seen(0, 1.0, n + 4, (1.0, 2.0, 3.0, 4.0), faces, 0.0, unit[0], unit[1])
    return replace(track, **more)


@pytest.fixture
def judge(net: Path) -> Callable[[Seen], Score]:
    return Scorer(net, _no_detector()).judge


def _no_detector() -> object:
    from syncdisc_plugin.data.prepare import PrepareSettings

    return PrepareSettings(detector="none")


# --- the verdict


@pytest.mark.parametrize("lag", [-12, -3, -1, 0, 1, 2, 12])
def test_a_clear_offset(judge: Callable[[Seen], Score], lag: int) -> None:
    found = judge(seen(lag))
    assert found.offset_frames == lag and found.clearness > CLEAR
    assert found.offset_ms == pytest.approx(40 * lag, abs=20)
    assert found.in_sync is (abs(lag) <= 1)
    side = "early" if lag > 0 else "late"
    words = "in sync" if abs(lag) <= 1 else f"audio {abs(lag)} frames {side} "
    assert found.verdict.startswith(words)


@pytest.mark.parametrize("n", [6, 21, 100, 400])
def test_unrelated_sound_is_not_judged(judge: Callable[[Seen], Score], n: int) -> None:
    """Not even a short clip's, where the ends of the curve are means of very few windows."""
    others = [seen(k, n) for k in range(8)]
    mixed = [replace(x, a=y.a) for x in others for y in others if x is not y]
    called = [judge(m).in_sync is not None for m in mixed]
    assert np.mean(called) <= 0.1
    assert "cannot tell" in judge(mixed[called.index(False)]).verdict


def test_the_curves_end_is_not_trusted(judge: Callable[[Seen], Score]) -> None:
    found = judge(seen(15))
    assert found.offset_frames == 15 and found.clearness > CLEAR and found.in_sync is None
    assert found.verdict == "cannot tell, audio seems 15 frames or more early"
    assert judge(seen(-15)).verdict == "cannot tell, audio seems 15 frames or more late"


def test_what_resampling_moved_is_undone(judge: Callable[[Seen], Score]) -> None:
    plain, led = judge(seen(3)), judge(seen(3, lead_s=0.018))
    assert led.offset_ms - plain.offset_ms == pytest.approx(18, abs=0.11)
    assert led.offset_frames == plain.offset_frames


def test_the_surest_face(judge: Callable[[Seen], Score]) -> None:
    long, short = judge(seen(3, 200)), judge(seen(-4, 100))
    silent = replace(long, in_sync=None, confidence=1.0)
    assert surest([short, silent, long]) is long
    assert surest([silent]) is None and surest([]) is None


@pytest.mark.parametrize("start_s", [0.0, 0.01, 0.03, 0.055])
def test_frame_leads(tmp_path: Path, start_s: float) -> None:
    """At 25 fps all frames lead by the same: to the nearest of the grid that the sound sets."""
    frames = (np.full((64, 64, 3), i, np.uint8) for i in range(20))
    sound = np.random.default_rng(0).uniform(-0.1, 0.1, 12800).astype(np.float32)
    path = write_video(tmp_path / "a.mkv", frames, audio=sound, audio_start_s=start_s)
    recording = decode(path)
    leads_s = frame_leads_s(recording)
    expected = round(start_s * 25) / 25 - start_s
    assert len(leads_s) == len(recording.audio) // 640
    np.testing.assert_allclose(leads_s[:15], expected, atol=0.0015)
    first = next(recording.frames()).mean()
    assert first == pytest.approx(round(start_s * 25), abs=2)


def test_frame_leads_of_a_damaged_file(tmp_path: Path) -> None:
    path = write_noise(tmp_path / "a.mp4")
    whole = bytearray(path.read_bytes())
    middle, hole = len(whole) // 2, len(whole) // 8
    whole[middle : middle + hole] = bytes(hole)
    path.write_bytes(whole)
    recording = decode(path)
    n = sum(1 for _ in recording.frames())
    assert recording.note and n > 25
    np.testing.assert_allclose(frame_leads_s(recording)[:n], 0, atol=1e-6)


# --- in Python


def test_the_python_name(video: Path, net: Path, tmp_path: Path) -> None:
    assert syncdisc_plugin.score is scoring.score
    (found,) = syncdisc_plugin.score(video, net, _no_detector(), pictures=tmp_path / "new" / "p")
    assert found.picture == str(tmp_path / "new" / "p" / "talk.mp4.face0.png")
    row = json.loads(json.dumps(asdict(found), allow_nan=False))
    assert len(json.dumps(row)) < 5000, "no pixels and no tables in the JSON"
    assert len(row["probability_over_time"]) == 46 and len(row["similarity_over_offset"]) == 31
    image = matplotlib.image.imread(found.picture)
    assert image.shape[0] > 600 and image.shape[1] > 1000 and image[..., :3].std() > 0.1
    assert not [p for p in (tmp_path / "new" / "p").iterdir() if p.name.startswith(".")]


def test_a_track_too_short_to_judge_costs_no_other(
    video: Path, net: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = Footage.clips

    def with_a_short_one(self: Footage) -> Any:
        for track, tensors in clips(self):
            short = replace(track, boxes=track.boxes[:3], crops=track.crops[:3])
            yield short, tensors | {"frames": tensors["frames"][:3]}
            yield track, tensors

    monkeypatch.setattr(Footage, "clips", with_a_short_one)
    (found,) = syncdisc_plugin.score(video, net, _no_detector())
    assert found.track == 1 and found.seconds == 2.0


# --- pictures


@pytest.mark.parametrize("n", [1, 4, 21, 5000])
@pytest.mark.filterwarnings("error")
def test_pictures_of_any_length(
    judge: Callable[[Seen], Score], tmp_path: Path, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    widest = []
    thin = score_picture._thin
    monkeypatch.setattr(score_picture, "_thin", lambda t: widest.append(len(thin(t))) or thin(t))
    track = seen(2, n)
    name = "a name with $dollars$, ümlauts and 口型, far too long for one line " * 3
    path = write_picture(tmp_path / "p.png", name, judge(track), track, 25)
    assert matplotlib.image.imread(path).shape[1] > 1000
    assert max(widest) <= score_picture.MOST_COLUMNS


def test_smoothing_knows_what_is_missing() -> None:
    table = np.array([[1.0, np.nan], [3.0, np.nan], [5.0, 7.0], [np.nan, 9.0]])
    np.testing.assert_allclose(smooth(table, 1), table)
    middle = smooth(table, 3)
    np.testing.assert_allclose(middle[:, 0], [2, 3, 4, 5])
    np.testing.assert_allclose(middle[:, 1], [np.nan, 7, 8, 8])
    assert np.isnan(smooth(np.full((9, 1), np.nan), 3)).all()


def test_a_clock_never_shows_sixty_seconds() -> None:
    assert [clock(s) for s in (5.2, 59.4, 59.6, 118.5, 119.7)] == [
        *("0:05", "0:59", "1:00", "1:58", "2:00")
    ]
    assert [clock(s, 1) for s in (118.5, 119.97, 5)] == ["1:58.5", "2:00.0", "0:05.0"]


# --- the command


def test_one_json_object_per_video(run: Run, video: Path, net: Path, tmp_path: Path) -> None:
    other = tmp_path / "b" / "talk.mp4"
    other.parent.mkdir()
    other.write_bytes(video.read_bytes())
    gone = tmp_path / "gone.mp4"
    argv = ["--weights", net, "--detector", "none", "--json", "--pictures", tmp_path / "p"]
    status, out, err = run("score", video, gone, other, *argv)
    first, second, third = (json.loads(line) for line in out.splitlines())
    assert (status, err) == (2, "")
    assert "gone.mp4" in second["error"] and second["path"] == str(gone)
    assert "error" not in first and len(first["tracks"]) == 1
    # Two videos of one name, two pictures.
    drawn = [Path(row["tracks"][0]["picture"]) for row in (first, third)]
    assert drawn == [tmp_path / "p" / x / "talk.mp4.face0.png" for x in ("", "b")]
    assert all(path.is_file() for path in drawn)


def give(monkeypatch: pytest.MonkeyPatch, *scores: Score) -> None:
    """Let every video have these scores."""
    monkeypatch.setattr(Scorer, "__call__", lambda self, video, pictures=None: list(scores))


def test_fix(
    run: Run, video: Path, net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    judge: Callable[[Seen], Score],
) -> None:  # fmt: skip
    found = replace(judge(seen(5)), offset_ms=203.4)
    give(monkeypatch, found)
    out = tmp_path / "out.mp4"
    argv = ["score", video, "--weights", net, "--detector", "none", "--fix", out]
    status, printed, err = run(*argv)
    assert (status, err) == (0, "")
    said = printed.splitlines()[-1]
    assert said == f"{out}  audio moved 203 ms later; copied without re-encoding"
    expected = move_audio(video, tmp_path / "expected.mp4", 0.2034)
    np.testing.assert_array_equal(decode(out).audio, decode(expected).audio)
    status, printed, err = run(*argv, "--json")
    assert json.loads(printed)["fixed"] == {"path": str(out), "moved_ms": 203.4, "track": 0}

    give(monkeypatch, replace(found, offset_frames=-5, offset_ms=-203.4))
    assert "moved 203 ms sooner" in run(*argv)[1]
    out.unlink()
    give(monkeypatch, replace(found, offset_frames=0, offset_ms=-12.0))
    assert "nothing to move; copied" in run(*argv)[1]
    np.testing.assert_array_equal(decode(out).audio, decode(video).audio)


def test_fix_of_several_faces(
    run: Run, video: Path, net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    judge: Callable[[Seen], Score],
) -> None:  # fmt: skip
    short, long = judge(seen(5, 60)), replace(judge(seen(2, 200)), track=1)
    listener = replace(long, in_sync=None, offset_frames=-9, track=2)
    argv = ["score", video, "--weights", net, "--detector", "none", "--fix", tmp_path / "o.mkv"]
    give(monkeypatch, short, long, listener)
    status, out, err = run(*argv)
    assert status == 0 and ", by face 1 of 3, the surest; copied" in out
    assert err.count("\n") == 1 and "its faces disagree, by offsets of 2 to 5 frames" in err
    give(monkeypatch, long, replace(short, offset_frames=3))
    assert run(*argv)[2] == ""


def test_fix_refuses(
    run: Run, video: Path, net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    judge: Callable[[Seen], Score],
) -> None:  # fmt: skip
    give(monkeypatch, replace(judge(seen(5)), in_sync=None, clearness=3.2))
    out = tmp_path / "out.mp4"
    argv = ["score", video, "--weights", net, "--detector", "none"]
    status, printed, err = run(*argv, "--fix", out)
    assert status == 2 and "cannot tell" in printed, "the score itself is told all the same"
    assert "no offset stands out (clearness 3.2, 6 is needed); nothing was written" in err
    row = json.loads(run(*argv, "--fix", out, "--json")[1])
    assert "no offset stands out" in row["error"] and len(row["tracks"]) == 1
    give(monkeypatch, judge(seen(15)))
    _, printed, err = run(*argv, "--fix", out)
    assert "audio seems 15 frames or more early, which is as far as is looked; nothing was" in err
    options = ["--weights", net, "--detector", "none", "--fix"]
    for videos, target, words in (
        ([video, video], out, "--fix: expected one video, got 2"),
        ([video], video, "the source itself"),
        ([video], tmp_path / "out.txt", "expected a file that ends in"),
        ([video], tmp_path / "gone" / "out.mp4", "is not a folder"),
    ):
        status, printed, err = run("score", *videos, *options, target)
        assert (status, printed) == (2, "") and words in err and err.count("\n") == 1
    assert not out.exists()


def test_what_was_not_read_of_a_video_is_said(run: Run, net: Path, tmp_path: Path) -> None:
    clip = talk(1, n_frames=100)
    whole = write_video(tmp_path / "talk.mkv", clip.frames, audio=clip.audio).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: 2 * len(whole) // 3])
    argv = ["score", tmp_path / "cut.mkv", "--weights", net, "--detector", "none"]
    status, out, err = run(*argv, "--json")
    assert status == 0 and "truncated" in json.loads(out)["note"]
    assert f"{tmp_path / 'cut.mkv'}: truncated" in err
    (tmp_path / "whole.mkv").write_bytes(whole)
    argv[1] = tmp_path / "whole.mkv"
    assert json.loads(run(*argv, "--json")[1])["note"] is None


def test_a_picture_that_cannot_be_drawn_costs_nothing_else(
    run: Run, video: Path, net: Path, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("")
    argv = ["--weights", net, "--detector", "none", "--pictures", tmp_path / "taken", "--json"]
    status, out, _ = run("score", video, video, *argv)
    rows = [json.loads(line) for line in out.splitlines()]
    assert status == 2 and len(rows) == 2
    for row in rows:
        assert "cannot be written" in row["note"] and "taken" in row["note"]
        (track,) = row["tracks"]
        assert track["picture"] is None and "verdict" not in row and track["probability_over_time"]


def test_a_picture_of_a_video_with_a_long_name(video: Path, net: Path, tmp_path: Path) -> None:
    long = video.with_name("話" * 83 + ".mp4")  # 253 bytes, which its picture's name adds to
    os.rename(video, long)
    (found,) = Scorer(net, _no_detector())(long, tmp_path / "pictures")
    assert found.picture and Path(found.picture).is_file()
    assert Path(found.picture).name.startswith("話" * 60)


def test_scores_go_by_yunets_boxes_wherever_they_are_made(
    net: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from syncdisc_plugin.data.prepare import PrepareSettings

    asked = []
    monkeypatch.setattr("syncdisc_plugin.faces.load_detector", lambda name, **_: asked.append(name))
    Scorer(net, PrepareSettings(device="cuda"))
    Scorer(net, PrepareSettings(detector="sfd", device="cuda"))
    assert asked == ["yunet", "sfd"]
