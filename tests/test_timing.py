from __future__ import annotations

from fractions import Fraction

import pytest

from syncdisc_plugin.spec import ClipSpec, MelSpec
from syncdisc_plugin.timing import (
    mel_start,
    n_windows,
    sample_of_frame,
)

SPEC = ClipSpec()
THIRTY = ClipSpec(fps=30, window_frames=6)
LONG = ClipSpec(window_frames=16, window_mels=52)
TEN_HOURS = 10 * 3600 * 25


def test_mel_start_is_a_table() -> None:
    got = [mel_start(f, SPEC) for f in range(11)]
    assert got == [0, 3, 6, 9, 12, 16, 19, 22, 25, 28, 32]
    assert [mel_start(f, THIRTY) for f in range(7)] == [0, 2, 5, 8, 10, 13, 16]


def test_mel_start_is_what_hosts_compute() -> None:
    # Wav2Lip wav2lip_train.py: int(80. * (start_frame_num / float(hparams.fps)))
    for frame in range(50_000):
        assert mel_start(frame, SPEC) == int(80.0 * (frame / float(25)))


def test_mel_starts_before_its_frame_by_less_than_one_mel_frame() -> None:
    for frame in (*range(1000), TEN_HOURS - 1, TEN_HOURS):
        early = Fraction(frame, 25) - Fraction(mel_start(frame, SPEC), 80)
        assert 0 <= early < Fraction(1, 80)


@pytest.mark.parametrize("spec", [SPEC, THIRTY, LONG], ids=["25fps", "30fps", "T16"])
def test_windows_are_those_that_fit(spec: ClipSpec) -> None:
    seen = set()
    for n_frames in (0, 1, 4, 5, 6, 15, 16, 17, 40):
        for n_mels in range(130):
            fitting = 0
            while (
                fitting + spec.window_frames <= n_frames
                and mel_start(fitting, spec) + spec.window_mels <= n_mels
            ):
                fitting += 1
            assert n_windows(n_frames, n_mels, spec) == fitting, (n_frames, n_mels)
            seen.add(fitting)
    assert {0, 1, 2} < seen


def test_audio_as_long_as_the_video_gives_every_window() -> None:
    for n_frames in range(5, 300):
        n_mels = sample_of_frame(n_frames, SPEC) // 200 + 1  # what log_mel returns
        assert n_windows(n_frames, n_mels, SPEC) == n_frames - 4


def test_samples_are_exact_for_ten_hours() -> None:
    assert sample_of_frame(TEN_HOURS, SPEC) == 36_000 * 16_000


def test_a_frames_sample_is_the_last_before_it() -> None:
    for spec in (SPEC, ClipSpec(fps=30), ClipSpec(mel=MelSpec(sample_rate_hz=48000, hop=600))):
        for frame in range(500):
            sample = sample_of_frame(frame, spec)
            ratio = Fraction(spec.mel.sample_rate_hz, spec.fps)
            assert sample <= frame * ratio < sample + 1
