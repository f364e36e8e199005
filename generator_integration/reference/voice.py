"""The sound that a face shall say: its mel, its length, its loudness; read block by block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from syncdisc_plugin.data.footage import SILENT_DB, decibels
from syncdisc_plugin.errors import MediaError
from syncdisc_plugin.media.stream import SoundStream
from syncdisc_plugin.mel import log_mel
from syncdisc_plugin.spec import ClipSpec, MelSpec
from syncdisc_plugin.timing import mel_start

BLOCK_S = 10
"""Seconds of sound in memory."""


@dataclass(frozen=True)
class Voice:
    """What is left of a sound when it has been read: 25 KB for each second."""

    sound: SoundStream
    """Where it comes from, to be read again for the output."""
    spec: ClipSpec
    """Of the generator."""
    mel: np.ndarray
    """(M, L) float32 in [-4, 4]."""
    seconds: Fraction
    """Length."""
    loudness_db: float
    """Mean power; 0 is full scale."""

    @property
    def is_silent(self) -> bool:
        """Nothing can be heard in it."""
        return self.loudness_db < SILENT_DB

    def windows(self, times_s: Sequence[Fraction]) -> torch.Tensor:
        """What is heard around each moment: (T, 1, M=80, L=16), silence (-4) beyond the ends.

        A frame's window begins a frame early, as Wav2Lip's generator has it.
        """
        length = self.spec.window_mels
        out = torch.full((len(times_s), 1, len(self.mel), length), -self.spec.mel.max_abs)
        for window, time_s in zip(out, times_s, strict=True):
            begin = mel_start(time_s * self.spec.fps - 1, self.spec)
            first, last = max(begin, 0), min(begin + length, self.mel.shape[1])
            if first < last:
                window[0, :, first - begin : last - begin] = torch.from_numpy(
                    self.mel[:, first:last]
                )
        return out


def read_voice(path: Path | str, spec: ClipSpec) -> Voice:
    """Read a sound, or the sound of a video.

    Raises:
        MediaError: the file is not readable, or has no sound.
    """
    sound = SoundStream(path)
    n_samples, power = 0, 0.0

    def mono() -> Iterator[np.ndarray]:
        nonlocal n_samples, power
        for block in sound.blocks(spec.mel.sample_rate_hz):
            samples = block.mean(axis=0, dtype=np.float32)
            n_samples += len(samples)
            power += float(np.square(samples, dtype=np.float64).sum())
            yield samples

    parts = list(mel_parts(mono(), spec.mel))
    if not n_samples:
        raise MediaError(f"{path}: no sound can be decoded. Re-encode the file.")
    return Voice(
        sound=sound,
        spec=spec,
        mel=np.concatenate(parts, axis=1),
        seconds=Fraction(n_samples, spec.mel.sample_rate_hz),
        loudness_db=decibels(power / n_samples),
    )


def mel_parts(blocks: Iterable[np.ndarray], spec: MelSpec) -> Iterator[np.ndarray]:
    """`log_mel` of sound that comes in blocks (N,): parts (M, L) that make up the whole one."""
    half = spec.n_fft // 2
    # Frames that are computed again, so that the first new one sees all of its samples and the one
    # before them, which pre-emphasis needs.
    again = half // spec.hop + 1
    held: list[np.ndarray] = []
    n_held = skip = 0
    for block in blocks:
        held.append(block)
        n_held += len(block)
        if n_held < BLOCK_S * spec.sample_rate_hz:
            continue
        samples = np.concatenate(held)
        end = (n_held - half) // spec.hop  # frames before this one need nothing that is to come
        yield log_mel(torch.from_numpy(samples), spec)[:, skip:end].numpy()
        held = [samples[(end - again) * spec.hop :]]
        n_held, skip = len(held[0]), again
    if n_held:
        yield log_mel(torch.from_numpy(np.concatenate(held)), spec)[:, skip:].numpy()
