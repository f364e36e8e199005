"""Speech-like sound with the mouth movement that made it: a source-filter synthesiser.

Nothing here is language. What matters is that sound and mouth follow one clock and one
articulation, with the irregular rhythm of speech (3 to 6 syllables a second).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import istft, stft

SAMPLE_RATE_HZ = 16000
FPS = 25
SAMPLES_PER_FRAME = SAMPLE_RATE_HZ // FPS
_CONTROL_HZ = 1000
_FFT, _HOP = 400, 80


@dataclass(frozen=True)
class Voice:
    """One speaker's way of talking."""

    pitch_hz: float = 130.0
    """Mean rate of the glottal pulses."""
    formant_scale: float = 1.0
    """Factor on all formants: above 1 for a shorter vocal tract."""
    breathiness: float = 0.1
    """Noise mixed into voiced sound, 0 to 1."""
    syllables_per_s: float = 4.5
    """Mean speaking rate between pauses."""

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Voice:
        """A random speaker."""
        height = rng.uniform()
        return cls(
            pitch_hz=float(95 + 125 * height),
            formant_scale=float(0.94 + 0.2 * height + rng.uniform(-0.03, 0.03)),
            breathiness=float(rng.uniform(0.03, 0.2)),
            syllables_per_s=float(rng.uniform(3.8, 5.2)),
        )


@dataclass(frozen=True)
class Utterance:
    """Sound and mouth on one clock: frame f shows the articulation at f / 25 seconds."""

    audio: np.ndarray
    """(N,) float32 in [-1, 1], 16 kHz."""
    mouth: np.ndarray
    """(F, 2) float32: opening in [0, 1], width in [-1 (rounded), 1 (spread)]."""


@dataclass(frozen=True)
class _Phone:
    """What mouth, voice and noise aim at during one sound."""

    opening: float
    width: float
    formants_hz: tuple[float, float, float]
    voiced: float
    noise: float = 0.0
    noise_hz: float = 4000.0


_VOWELS = (
    _Phone(1.00, 0.10, (800, 1250, 2550), 1.00),  # a
    _Phone(0.80, 0.55, (680, 1750, 2500), 0.85),  # ae
    _Phone(0.50, 0.60, (500, 1900, 2600), 0.70),  # e
    _Phone(0.28, 1.00, (290, 2300, 3000), 0.50),  # i
    _Phone(0.60, -0.65, (500, 900, 2450), 0.70),  # o
    _Phone(0.30, -1.00, (320, 750, 2300), 0.45),  # u
)
_CONSONANTS = (
    _Phone(0.00, 0.00, (250, 1100, 2300), 0.12),  # m: a murmur behind closed lips
    _Phone(0.00, 0.00, (220, 900, 2200), 0.03),  # b
    _Phone(0.00, -0.05, (300, 1000, 2300), 0.00),  # p
    _Phone(0.10, 0.35, (350, 1700, 2600), 0.00, 0.20, 6200.0),  # s
    _Phone(0.05, 0.10, (350, 1200, 2400), 0.00, 0.09, 4000.0),  # f
)
_SILENCE = _Phone(0.0, 0.0, (450, 1400, 2500), 0.0)


def _script(n: int, rng: np.random.Generator, voice: Voice) -> np.ndarray:
    """Targets (n, 8) at 1 kHz: opening, width, three formants, voiced, noise, noise_hz."""
    targets = np.empty((n, 8))
    at = 0

    def say(phone: _Phone, seconds: float, stress: float = 1.0) -> None:
        nonlocal at
        end = min(n, at + max(1, round(seconds * _CONTROL_HZ)))
        # Mouth and voice swell and fade together within a sound, and with its stress.
        swell = stress * (1 - 0.35 * np.linspace(-1, 1, end - at) ** 2)
        targets[at:end, 0] = phone.opening * swell
        targets[at:end, 1:5] = (phone.width, *phone.formants_hz)
        targets[at:end, 5] = phone.voiced * swell**1.5
        targets[at:end, 6:] = (phone.noise, phone.noise_hz)
        at = end

    say(_SILENCE, rng.uniform(0.02, 0.25))
    until_pause = int(rng.integers(3, 9))
    while at < n:
        syllable_s = np.exp(rng.normal(0.0, 0.28)) / voice.syllables_per_s
        consonant_s = np.clip(syllable_s * rng.uniform(0.25, 0.45), 0.05, 0.13)
        if rng.uniform() < 0.88:
            say(_CONSONANTS[rng.integers(len(_CONSONANTS))], consonant_s)
        vowel = _VOWELS[rng.integers(len(_VOWELS))]
        say(vowel, max(0.07, syllable_s - consonant_s), rng.uniform(0.75, 1.1))
        until_pause -= 1
        if until_pause == 0:
            say(_SILENCE, rng.uniform(0.15, 0.5))
            until_pause = int(rng.integers(3, 9))
    return targets


def _at_samples(track: np.ndarray, n_samples: int) -> np.ndarray:
    """A control track (n,) at 1 kHz, read at every audio sample."""
    seconds = np.arange(n_samples) / SAMPLE_RATE_HZ
    return np.interp(seconds * _CONTROL_HZ, np.arange(len(track)), track)


def _glottal_pulses(n_samples: int, rng: np.random.Generator, voice: Voice) -> np.ndarray:
    """Unit-power pulse train (N,) whose pitch drifts, with breath on top."""
    drift = gaussian_filter1d(rng.standard_normal(n_samples // 160 + 2), 25)
    drift *= 0.12 / max(1e-9, drift.std())
    pitch_hz = voice.pitch_hz * np.exp(_at_samples(np.repeat(drift, 10), n_samples))
    cycles = np.floor(np.cumsum(pitch_hz) / SAMPLE_RATE_HZ)
    pulses = np.diff(cycles, prepend=0.0) * np.sqrt(SAMPLE_RATE_HZ / pitch_hz)
    return pulses + voice.breathiness * rng.standard_normal(n_samples)


def _vocal_tract(freq_hz: np.ndarray, formants_hz: np.ndarray) -> np.ndarray:
    """Gain (K, S) at frequencies (K,) of the resonances (S, 4), glottal tilt included."""
    gain = np.ones((len(freq_hz), len(formants_hz)))
    square = freq_hz[:, None] ** 2
    for centre in formants_hz.T:
        bandwidth = 50 + 0.06 * centre
        gain *= centre**2 / np.sqrt((square - centre**2) ** 2 + square * bandwidth**2)
    # -12 dB per octave of the glottis and +6 dB of the lips' radiation.
    return gain * (freq_hz / 300 / (1 + (freq_hz / 300) ** 2))[:, None]


def speak(n_seconds: float, rng: np.random.Generator, voice: Voice) -> Utterance:
    """Babble for `n_seconds`: audio (N,) and the mouth (F, 2) that made it, on one clock."""
    n_samples = round(n_seconds * SAMPLE_RATE_HZ)
    n_frames = n_samples // SAMPLES_PER_FRAME
    n_control = round(n_seconds * _CONTROL_HZ) + 1
    script = _script(n_control, rng, voice)
    # Lips and tongue have mass; the switch of voice and noise is quicker.
    move = gaussian_filter1d(script[:, :5], 18, axis=0, mode="nearest")
    switch = gaussian_filter1d(script[:, 5:], 8, axis=0, mode="nearest")

    def filtered(source: np.ndarray, tract: np.ndarray) -> np.ndarray:
        spectrum = stft(source, SAMPLE_RATE_HZ, nperseg=_FFT, noverlap=_FFT - _HOP)[2]
        sound = istft(
            spectrum * tract[:, : spectrum.shape[1]],
            SAMPLE_RATE_HZ,
            nperseg=_FFT,
            noverlap=_FFT - _HOP,
        )[1]
        return np.pad(sound, (0, max(0, n_samples - len(sound))))[:n_samples]

    freq_hz = np.fft.rfftfreq(_FFT, 1 / SAMPLE_RATE_HZ)
    slices = np.arange(0, n_samples + 2 * _FFT, _HOP) * _CONTROL_HZ // SAMPLE_RATE_HZ
    slices = np.minimum(slices, n_control - 1)
    formants_hz = np.column_stack([move[slices, 2:5], np.full(len(slices), 3600.0)])
    tract = _vocal_tract(freq_hz, formants_hz * voice.formant_scale)
    # The script says how loud a sound is, so the tract must not say it again.
    tract /= np.sqrt((tract**2).mean(axis=0, keepdims=True))
    hiss = np.exp(-((np.log2((freq_hz[:, None] + 1) / switch[slices, 2])) ** 2) / 0.25)

    voiced = filtered(_glottal_pulses(n_samples, rng, voice), tract)
    noise = filtered(rng.standard_normal(n_samples), hiss)
    audio = voiced * _at_samples(switch[:, 0], n_samples)
    audio += noise * _at_samples(switch[:, 1], n_samples) * 2.0
    audio *= 0.09 / max(1e-9, float(np.sqrt(np.mean(audio**2))))
    # A quiet room instead of digital silence, and a microphone that never clips.
    audio = np.tanh(audio + 4e-4 * rng.standard_normal(n_samples))

    frame_at = np.arange(n_frames) * _CONTROL_HZ // FPS
    mouth = np.clip(move[frame_at, :2], (0.0, -1.0), (1.0, 1.0))
    return Utterance(audio.astype(np.float32), mouth.astype(np.float32))


def loudness(audio: np.ndarray, n_frames: int) -> np.ndarray:
    """RMS (F,) of the 40 ms of audio (N,) around each frame's time f / 25 s."""
    half = SAMPLES_PER_FRAME // 2
    padded = np.pad(audio, (half, half + n_frames * SAMPLES_PER_FRAME))
    blocks = padded[: n_frames * SAMPLES_PER_FRAME].reshape(n_frames, SAMPLES_PER_FRAME)
    return np.sqrt((blocks.astype(np.float64) ** 2).mean(axis=1))
