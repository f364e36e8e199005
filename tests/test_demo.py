from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from syncdisc_plugin.demo import footage, generator
from syncdisc_plugin.demo.portrait import (
    Appearance,
    Portrait,
    appearance,
    drift_head,
    to_uint8,
)
from syncdisc_plugin.demo.run import run_demo
from syncdisc_plugin.demo.voice import FPS, SAMPLES_PER_FRAME, Voice, loudness, speak
from syncdisc_plugin.errors import RunError
from syncdisc_plugin.faces.detect import load_detector, overlap

FACE = (42.0, 42.0, 121.0, 149.0)
MOUTHS = torch.tensor([[0.0, 0.0], [1.0, 0.1], [0.3, -1.0], [0.3, 1.0]])


def lag_curve(opening: np.ndarray, audio: np.ndarray, reach: int = 12) -> np.ndarray:
    """Correlation of opening(f) and loudness(f + lag) for lag in -reach..reach."""
    loud = loudness(audio, len(opening))
    seen = opening[reach:-reach]
    heard = [loud[reach + lag : len(loud) - reach + lag] for lag in range(-reach, reach + 1)]
    return np.array([np.corrcoef(seen, part)[0, 1] for part in heard])


@pytest.fixture(scope="module")
def portrait() -> Portrait:
    return Portrait(Appearance(), face_box=FACE)


def test_mouth_and_sound_share_one_clock() -> None:
    rng = np.random.default_rng(0)
    said = [speak(6.0, rng, Voice.draw(rng)) for _ in range(8)]
    curves = np.array([lag_curve(u.mouth[:, 0], u.audio) for u in said])
    assert (curves.argmax(axis=1) == 12).all()
    assert curves[:, 12].min() > 0.85
    assert max(curves[:, 12 - 4].max(), curves[:, 12 + 4].max()) < 0.6


def test_utterance_is_bounded_closes_the_mouth_and_uses_all_of_it() -> None:
    said = speak(8.0, np.random.default_rng(1), Voice())
    assert said.audio.shape == (128000,) and said.audio.dtype == np.float32
    assert said.mouth.shape == (200, 2) and said.mouth.dtype == np.float32
    opening, width = said.mouth.T
    assert opening.min() < 0.02 and 0.7 < opening.max() <= 1
    assert -1 <= width.min() < -0.5 and 0.5 < width.max() <= 1
    assert 0.3 < np.abs(said.audio).max() < 1


def test_speech_follows_its_generator() -> None:
    first, again, other = (speak(2.0, np.random.default_rng(s), Voice()) for s in (3, 3, 4))
    assert np.array_equal(first.audio, again.audio) and np.array_equal(first.mouth, again.mouth)
    assert not np.array_equal(first.audio, other.audio)


def test_pitch_is_the_voices() -> None:
    for pitch_hz in (100.0, 200.0):
        said = speak(6.0, np.random.default_rng(5), Voice(pitch_hz=pitch_hz, breathiness=0.0))
        power = np.abs(np.fft.rfft(said.audio)) ** 2
        correlation = np.fft.irfft(power)
        lags = slice(16000 // 320, 16000 // 65)
        found_hz = 16000 / (lags.start + int(correlation[lags].argmax()))
        assert found_hz == pytest.approx(pitch_hz, rel=0.2)


def test_opening_darkens_the_mouth_and_leaves_the_eyes(portrait: Portrait) -> None:
    with torch.no_grad():
        faces = portrait.render_face(MOUTHS)
    mouth, eyes = faces[:, :, 68:84, 34:60], faces[:, :, 28:44]
    assert mouth[1].mean() < mouth[0].mean() - 0.1
    assert (eyes[1] - eyes[0]).abs().max() < 0.02


def test_rounded_lips_are_narrower_than_spread_ones(portrait: Portrait) -> None:
    with torch.no_grad():
        faces = portrait.render_face(torch.tensor([[0.5, -1.0], [0.5, 1.0]]))
    # The cavity is far redder and darker than skin, and the teeth do not reach its corners.
    is_dark = (faces.mean(dim=1)[:, 68:82, 20:82] < 0.3).any(dim=1)
    columns = torch.arange(62)
    rounded, spread = (int(columns[dark].max() - columns[dark].min()) for dark in is_dark)
    assert 15 < rounded < 0.75 * spread


def test_mouth_parameters_receive_gradients(portrait: Portrait) -> None:
    mouth = MOUTHS[[1, 2]].clone().requires_grad_()
    portrait.render_face(mouth)[:, :, 48:].square().mean().backward()
    assert mouth.grad is not None and torch.isfinite(mouth.grad).all()
    assert (mouth.grad.abs() > 1e-5).all()

    # Against a finite difference: the gradient is that of the picture, not of an approximation.
    nudge = torch.zeros_like(mouth)
    nudge[0, 0] = 5e-3
    with torch.no_grad():
        ends = [
            portrait.render_face(mouth + sign * nudge)[:, :, 48:].square().mean()
            for sign in (1, -1)
        ]
    assert float(ends[0] - ends[1]) / 1e-2 == pytest.approx(float(mouth.grad[0, 0]), rel=0.1)


def test_render_face_is_the_box_of_the_frame(portrait: Portrait) -> None:
    looks = Portrait(portrait.look, face_box=(40.0, 50.0, 136.0, 146.0))
    with torch.no_grad():
        frame, face = looks.render(MOUTHS), looks.render_face(MOUTHS, 96)
    torch.testing.assert_close(face, frame[:, :, 50:146, 40:136], atol=1e-4, rtol=0)


def test_speakers_differ_and_their_faces_are_found() -> None:
    detect = load_detector("lbp")
    rng = np.random.default_rng(6)
    rests, n_found = [], 0
    for _ in range(12):
        look = appearance(rng)
        with torch.no_grad():
            frames = to_uint8(Portrait(look).render(MOUTHS, drift_head(4, rng, look)))
        assert frames.shape == (4, 176, 176, 3)
        best = [detect(frame)[:1] for frame in frames]
        n_found += sum(
            len(box) == 1 and overlap(box, np.array([FACE])).item() > 0.4 for box in best
        )
        rests.append(frames[0].astype(float))
    assert n_found >= 44
    distances = [np.abs(a - b).mean() for i, a in enumerate(rests) for b in rests[:i]]
    assert min(distances) > 4


def test_face_box_is_where_the_face_is() -> None:
    for look in (Appearance(), Appearance(is_mirrored=True, zoom=0.95, roll_deg=3.0)):
        found = np.array([Portrait(look).face_box])
        assert overlap(found, np.array([FACE])).item() > 0.5


def test_takes_are_as_far_out_of_sync_as_the_truth_says() -> None:
    takes = footage.plan_takes(speakers=6, seconds=6.0, out_of_sync=0.7, seed=1)
    assert len(takes) == 18
    kinds = [take.kind for take in takes]
    assert kinds.count("shifted") == 4 and kinds.count("other_audio") == 4
    assert {take.kind for take in takes if take.path.startswith("heldout_")} == {"synced"}
    assert {np.sign(take.offset_frames or 0) for take in takes} == {-1, 0, 1}
    for take in takes:
        assert len(take.audio) == len(take.mouth) * SAMPLES_PER_FRAME == 6 * FPS * 640
        curve = lag_curve(take.mouth[:, 0], take.audio)
        if take.kind == "other_audio":
            assert take.offset_frames is None and curve.max() < 0.75
        else:
            # Early audio is heard before it is seen: at a negative lag.
            assert -(int(curve.argmax()) - 12) == take.offset_frames
            assert 3 <= abs(take.offset_frames) <= 10 or take.kind == "synced"


def test_film_shows_the_takes_mouth() -> None:
    take = footage.plan_takes(speakers=3, clips_per_speaker=1, seconds=3.0, out_of_sync=0.0)[0]
    still = replace(take, look=replace(take.look, bob_px=0.0, roll_deg=0.0))
    frames = np.stack(list(footage.film(still)))
    assert frames.shape == (75, 176, 176, 3) and frames.dtype == np.uint8
    x0, y0, x1, y1 = (round(edge) for edge in Portrait(still.look).face_box)
    face = frames[:, (y0 + 2 * y1) // 3 : y1, (2 * x0 + x1) // 3 : (x0 + 2 * x1) // 3]
    darkness = 255 - face.mean(axis=(1, 2, 3))
    assert np.corrcoef(darkness, still.mouth[:, 0])[0, 1] > 0.8
    again = np.stack(list(footage.film(still)))
    assert np.array_equal(frames, again)


def test_footage_is_written_with_its_truth(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    rows = footage.write_footage(tmp_path, speakers=3, clips_per_speaker=2, seconds=1.2, seed=2)
    assert json.loads((tmp_path / "truth.json").read_text()) == rows
    assert [row["speaker"] for row in rows][::2] == ["speaker_1", "heldout_1", "heldout_2"]
    assert sorted(path.name for path in tmp_path.iterdir())[-1] == "truth.json"
    for row in rows:
        with av.open(str(tmp_path / row["path"])) as video:
            assert sum(1 for _ in video.decode(video=0)) == 30
            assert video.streams.audio[0].rate == 16000


def test_footage_needs_somebody_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="speakers"):
        footage.write_footage(tmp_path, speakers=2)


def darkness_follows_level(faces: Tensor, mels: Tensor) -> Tensor:
    """Stands in for a sync loss: a mouth shall be as dark as the sound is loud."""
    dark = 0.63 - faces[:, :, :, 68:84, 34:60].mean(dim=(1, 3, 4))
    starts = [round(3.2 * frame) for frame in range(5)]
    loud = torch.stack([mels[:, 0, :48, at : at + 3].mean(dim=(1, 2)) for at in starts], dim=1)
    return (10 * dark - (loud + 2.5)).square().mean()


def test_generator_learns_to_lip_sync(portrait: Portrait, tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    audio = [speak(6.0, rng, Voice.draw(rng)).audio for _ in range(4)]
    heldout = [speak(4.0, rng, Voice.draw(rng)) for _ in range(2)]
    report = generator.train_generator(
        darkness_follows_level, portrait, audio, heldout, steps=50, batch=8, log_every=25
    )
    assert [row.step for row in report.rows] == [0, 25, 50]
    first, last = report.rows[0], report.rows[-1]
    assert report.before.std() < 0.02, "it started by moving its mouth"
    assert last.loss < 0.6 * first.loss
    assert last.truth_correlation > 0.6 and first.truth_correlation == 0.0
    assert last.loudness_correlation > 0.6
    assert report.after.std() > 0.1
    assert report.faces.shape == (2, 8, 96, 96, 3)
    generator.draw(report, tmp_path / "report.png")
    generator.draw(report, tmp_path / "report.svg")
    assert (tmp_path / "report.png").stat().st_size > 20_000
    assert b"<svg" in (tmp_path / "report.svg").read_bytes()


def test_generator_is_deterministic_and_leaves_the_global_seed_alone(portrait: Portrait) -> None:
    said = speak(2.0, np.random.default_rng(8), Voice())
    state = torch.get_rng_state()
    reports = [
        generator.train_generator(
            darkness_follows_level, portrait, [said.audio], [said], steps=2, batch=4, seed=seed
        )
        for seed in (0, 0, 1)
    ]
    assert torch.equal(state, torch.get_rng_state())
    assert reports[0].rows == reports[1].rows
    assert reports[0].rows != reports[2].rows


def test_generated_faces_depend_on_the_sound(portrait: Portrait) -> None:
    made = generator.MouthGenerator(portrait)
    mels = torch.randn(2, 1, 80, 16)
    faces = made(mels)
    assert faces.shape == (2, 3, 5, 96, 96)
    faces.square().mean().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert not any(p.requires_grad for p in portrait.parameters())


def test_the_demo_does_not_delete_a_run_of_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "stage3.safetensors").touch()
    with pytest.raises(RunError, match="holds a run that is not the demo's"):
        run_demo(tmp_path)
    assert (tmp_path / "run" / "stage3.safetensors").exists()


def test_the_demo_runs_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A short one: what it claims at full length is told by its exit status, see the README."""
    from syncdisc_plugin.demo import run as demo

    monkeypatch.setattr(demo, "SPEAKERS", 4)
    monkeypatch.setattr(demo, "CLIPS_EACH", 1)
    monkeypatch.setattr(demo, "SECONDS", 2.0)
    monkeypatch.setattr(demo, "GENERATOR_STEPS", 2)
    short = replace(demo.SETTINGS, steps=10, batch_clips=2, chunk_frames=16)
    monkeypatch.setattr(demo, "SETTINGS", short)
    assert demo.run_demo(tmp_path) is False  # nothing can be learnt in ten steps, and it says so
    told = capsys.readouterr().out
    assert "What came out" in told and "NOT SHOWN" in told
    for name in ("demo.json", "generator.svg", "run/report.html", "run/stage3.safetensors"):
        assert (tmp_path / name).is_file()
