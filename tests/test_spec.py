from __future__ import annotations

import dataclasses
import json

import pytest

from syncdisc_plugin.spec import ClipSpec, MelSpec

ODD = ClipSpec(
    fps=30,
    window_frames=7,
    window_mels=20,
    face_px=128,
    margin=0.25,
    region="face",
    mel=MelSpec(n_mels=40, hop=160, pad_mode="reflect"),
)


def test_defaults_are_those_of_wav2lip() -> None:
    spec, mel = ClipSpec(), MelSpec()
    assert (spec.fps, spec.window_frames, spec.window_mels, spec.face_px) == (25, 5, 16, 96)
    assert (mel.sample_rate_hz, mel.n_fft, mel.hop, mel.n_mels) == (16000, 800, 200, 80)
    assert (mel.fmin_hz, mel.fmax_hz, mel.preemphasis) == (55, 7600, 0.97)
    assert (mel.ref_level_db, mel.min_level_db, mel.max_abs) == (20, -100, 4)
    assert mel.rate_hz == 80


@pytest.mark.parametrize("spec", [ClipSpec(), ODD])
def test_json_round_trip(spec: ClipSpec) -> None:
    assert ClipSpec.from_json(spec.to_json()) == spec
    assert ClipSpec.from_json(spec.to_json()).mel == spec.mel


def test_equal_specs_have_equal_text_and_others_not() -> None:
    assert ClipSpec().to_json() == ClipSpec(face_px=96).to_json()
    assert ODD.to_json() != ClipSpec().to_json()


def test_json_of_another_version_is_refused() -> None:
    raw = json.loads(ClipSpec().to_json())
    with pytest.raises(TypeError, match="lens_mm"):
        ClipSpec.from_json(json.dumps({**raw, "lens_mm": 50}))


@pytest.mark.parametrize(
    ("face_px", "margin", "region", "stored", "input_hw"),
    [
        (96, 0.125, "lower", 120, (48, 96)),
        (96, 0.0, "face", 96, (96, 96)),
        (64, 0.1, "lower", 76, (32, 64)),
        (128, 0.25, "face", 192, (128, 128)),
    ],
)
def test_sizes(
    face_px: int, margin: float, region: str, stored: int, input_hw: tuple[int, int]
) -> None:
    spec = ClipSpec(face_px=face_px, margin=margin, region=region)
    assert spec.stored_px == stored
    assert spec.input_hw == input_hw


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"region": "mouth"}, r"region: expected .*lower.* or .*face.*, got 'mouth'"),
        ({"face_px": 97}, r"face_px: expected an even size .*got 97"),
        ({"face_px": 30}, r"face_px: expected .*at least 32, got 30"),
    ],
)
def test_impossible_values_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClipSpec(**wrong)  # type: ignore[arg-type]


def test_hop_must_divide_the_sample_rate() -> None:
    with pytest.raises(ValueError, match=r"hop: expected a divisor of .*16000, got 300"):
        _ = MelSpec(hop=300).rate_hz


def test_specs_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ClipSpec().fps = 30  # type: ignore[misc]
    assert len({ClipSpec(), ClipSpec(), ODD}) == 2


def test_an_unknown_crop_is_refused() -> None:
    with pytest.raises(ValueError, match="crop: expected"):
        ClipSpec(crop="round")
