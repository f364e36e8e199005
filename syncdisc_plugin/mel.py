"""The Wav2Lip mel in torch: differentiable, any device, equal to librosa to 1e-4 (tested)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from syncdisc_plugin.spec import MelSpec

_MEL_BREAK_HZ, _MEL_PER_HZ, _LOG_STEP = 1000.0, 3.0 / 200.0, np.log(6.4) / 27.0


def _hz_to_mel(hz: np.ndarray) -> np.ndarray:
    """Slaney's scale: linear below 1 kHz, logarithmic above (Auditory Toolbox, 1998)."""
    above = np.maximum(hz, _MEL_BREAK_HZ)
    log_part = _MEL_BREAK_HZ * _MEL_PER_HZ + np.log(above / _MEL_BREAK_HZ) / _LOG_STEP
    return np.where(hz < _MEL_BREAK_HZ, hz * _MEL_PER_HZ, log_part)


def _mel_to_hz(mel: np.ndarray) -> np.ndarray:
    break_mel = _MEL_BREAK_HZ * _MEL_PER_HZ
    log_part = _MEL_BREAK_HZ * np.exp(_LOG_STEP * (mel - break_mel))
    return np.where(mel < break_mel, mel / _MEL_PER_HZ, log_part)


@lru_cache(maxsize=8)
def _filterbank(spec: MelSpec) -> torch.Tensor:
    """Triangular filters (M, n_fft//2+1), each of unit area, as `librosa.filters.mel` builds."""
    lo, hi = _hz_to_mel(np.array([spec.fmin_hz, spec.fmax_hz]))
    edges = _mel_to_hz(np.linspace(lo, hi, spec.n_mels + 2))
    bins = np.linspace(0.0, spec.sample_rate_hz / 2, spec.n_fft // 2 + 1)
    rising = (bins[None] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins[None]) / (edges[2:] - edges[1:-1])[:, None]
    area = 2.0 / (edges[2:] - edges[:-2])
    weights = np.maximum(0.0, np.minimum(rising, falling)) * area[:, None]
    with torch.inference_mode(False):  # it is kept, also for those who differentiate
        return torch.from_numpy(weights.astype(np.float32))


def log_mel(audio: torch.Tensor, spec: MelSpec | None = None) -> torch.Tensor:
    """Mel of a waveform, as every Wav2Lip-style host computes it.

    Args:
        audio: (N,) or (B, N), mono in [-1, 1] at `spec.sample_rate_hz`.
        spec: constants of the mel; the Wav2Lip ones by default.

    Returns:
        (M, L) or (B, M, L) in [-4, 4], L = N // hop + 1; silence is -4.

    Raises:
        TypeError: not a tensor of floats.
        ValueError: for other ranks, or an empty waveform.

    Source: Wav2Lip `audio.py` (`melspectrogram`); pre-emphasis, magnitude, Slaney mel, dB.
    """
    spec = spec or MelSpec()
    if not isinstance(audio, torch.Tensor) or not audio.is_floating_point():
        got = audio.dtype if isinstance(audio, torch.Tensor) else type(audio).__name__
        raise TypeError(
            f"audio: expected a tensor of floats in [-1, 1], got {got}. Wrap it, "
            "torch.from_numpy(samples), and divide 16-bit samples by 32768."
        )
    if audio.ndim not in (1, 2) or audio.shape[-1] == 0:
        raise ValueError(
            f"audio: expected (N,) or (B, N) with N > 0, got {tuple(audio.shape)}. "
            "Mix channels down to one first."
        )
    wave = (audio if audio.ndim == 2 else audio[None]).float()
    previous = torch.nn.functional.pad(wave, (1, 0))[:, :-1]
    wave = wave - spec.preemphasis * previous
    half = spec.n_fft // 2
    if spec.pad_mode == "constant":
        padded = torch.nn.functional.pad(wave, (half, half))
    else:
        padded = torch.nn.functional.pad(wave[:, None], (half, half), mode=spec.pad_mode)[:, 0]
    spectrum = torch.stft(
        padded,
        n_fft=spec.n_fft,
        hop_length=spec.hop,
        window=torch.hann_window(spec.n_fft, dtype=wave.dtype, device=wave.device),
        center=False,
        return_complex=True,
    )
    magnitude = spectrum.abs()
    with torch.autocast(magnitude.device.type, enabled=False):
        mel = _filterbank(spec).to(magnitude) @ magnitude
    level_db = (
        20.0 * torch.log10(mel.clamp_min(10.0 ** (spec.min_level_db / 20))) - spec.ref_level_db
    )
    scaled = 2 * spec.max_abs * (level_db - spec.min_level_db) / -spec.min_level_db - spec.max_abs
    scaled = scaled.clamp(-spec.max_abs, spec.max_abs)
    return scaled if audio.ndim == 2 else scaled[0]
