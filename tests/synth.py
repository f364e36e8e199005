"""Talking faces of which the sync is known: the mouth opens as far as the voice is loud.

numpy only, no package code: what is tested here must not share its mistakes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FPS = 25
RATE_HZ = 16000
PER_FRAME = RATE_HZ // FPS
SPARE = 16  # frames of sound kept on both sides, so that audio can be moved


@dataclass(frozen=True)
class TalkingClip:
    """Frames and sound of one clip."""

    frames: np.ndarray
    """(F, S, S, 3) uint8 RGB."""
    audio: np.ndarray
    """(F * 640,) float32 in [-1, 1]."""
    opening: np.ndarray
    """(F,) how far the mouth is open, in [0, 1]."""


def talk(
    seed: int,
    *,
    speaker: int = 0,
    n_frames: int = 75,
    side_px: int = 120,
    offset_frames: int = 0,
) -> TalkingClip:
    """A clip that depends on its arguments only.

    With offset_frames > 0 the audio is early by so many frames; the frames stay the same.
    """
    rng = np.random.default_rng([seed, speaker])
    total = n_frames + 2 * SPARE
    loudness = _syllables(rng, total)
    opening = loudness[SPARE : SPARE + n_frames]
    voice = _voice(rng, np.random.default_rng(speaker), loudness)
    first = (SPARE + offset_frames) * PER_FRAME
    audio = voice[first : first + n_frames * PER_FRAME]
    frames = _draw(np.random.default_rng(speaker), rng, opening, side_px)
    return TalkingClip(frames, audio.astype(np.float32), opening)


def _syllables(rng: np.random.Generator, n_frames: int) -> np.ndarray:
    """Loudness per frame in [0, 1]: bumps of 3 to 7 frames, and pauses."""
    out = np.zeros(n_frames + 8)
    at = 0
    while at < n_frames:
        length = int(rng.integers(3, 8))
        if rng.random() > 0.15:
            bump = np.sin(np.pi * (np.arange(length) + 0.5) / length)
            out[at : at + length] = rng.uniform(0.4, 1.0) * bump[: len(out) - at]
        at += length
    return out[:n_frames]


def _voice(rng: np.random.Generator, who: np.random.Generator, loudness: np.ndarray) -> np.ndarray:
    """Harmonics and breath, 40 dB between loud and quiet."""
    n = len(loudness) * PER_FRAME
    time_s = np.arange(n) / RATE_HZ
    pitch_hz, tilt = who.uniform(100, 240), who.uniform(0.6, 1.2)
    harmonics = np.arange(1, 25)
    harmonics = harmonics[harmonics * pitch_hz < 7000]
    tone = sum(np.sin(2 * np.pi * pitch_hz * h * time_s + h * h) / h**tilt for h in harmonics)
    sound = tone + 0.3 * rng.standard_normal(n)
    # Frame f is shown from f/25 s on; its loudness is that of the frame's middle.
    middles = (np.arange(len(loudness)) + 0.5) * PER_FRAME
    level = np.interp(np.arange(n), middles, loudness)
    return 0.1 * sound * 10.0 ** (2 * (level - 1))


def _draw(
    who: np.random.Generator, rng: np.random.Generator, opening: np.ndarray, side_px: int
) -> np.ndarray:
    """A flat face with eyes, and a dark mouth in the lower half that grows with `opening`."""
    y, x = np.mgrid[0:side_px, 0:side_px] / side_px - 0.5
    skin = who.uniform([150, 90, 60], [240, 190, 160])
    mouth_y, mouth_w = who.uniform(0.2, 0.25), who.uniform(0.14, 0.2)
    face = np.broadcast_to(skin * (1 - 0.8 * (x**2 + y**2))[..., None], (side_px, side_px, 3))
    face = face.copy()
    for eye_x in (-0.17, 0.17):
        face[(x - eye_x) ** 2 + (y + 0.15) ** 2 < 0.002] = 40
    frames = np.empty((len(opening), side_px, side_px, 3), np.uint8)
    for frame, open_ in zip(frames, opening, strict=True):
        height = 0.015 + 0.13 * open_
        inside = (x / mouth_w) ** 2 + ((y - mouth_y) / height) ** 2 < 1
        noise = rng.normal(0, 2, (side_px, side_px, 1))
        frame[:] = np.clip(np.where(inside[..., None], [70, 20, 25], face) + noise, 0, 255)
    return frames
