"""Frames <-> seconds <-> mel frames, in exact arithmetic.

Signs: offset_frames > 0 means that the audio is EARLY by that many video frames
(what is seen at frame f is heard at frame f - offset); delaying the audio repairs it.
"""

from __future__ import annotations

from fractions import Fraction

from syncdisc_plugin.spec import ClipSpec


def mel_start(frame: int | Fraction, spec: ClipSpec) -> int:
    """Mel frame at which the window of video frame `frame` starts: floor(80 * f / 25).

    A fraction is a moment between two frames.

    Source: Wav2Lip `wav2lip_train.py`, `crop_audio_window`.
    """
    return (frame * spec.mel.rate_hz) // spec.fps


def n_windows(n_frames: int, n_mels: int, spec: ClipSpec) -> int:
    """How many windows lie wholly inside a clip of `n_frames` video and `n_mels` mel frames."""
    by_video = n_frames - spec.window_frames + 1
    # The last f with floor(f * rate / fps) + window_mels <= n_mels.
    last_start = n_mels - spec.window_mels
    by_audio = ((last_start + 1) * spec.fps - 1) // spec.mel.rate_hz + 1 if last_start >= 0 else 0
    return max(0, min(by_video, by_audio))


def sample_of_frame(frame: int, spec: ClipSpec) -> int:
    """Audio sample that is heard when video frame `frame` is shown (floor)."""
    return (frame * spec.mel.sample_rate_hz) // spec.fps
