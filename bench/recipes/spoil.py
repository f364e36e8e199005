"""A clip store seen through planted errors: nothing on disk is changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from syncdisc_plugin.data.manifest import Clip
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.mel import log_mel
from syncdisc_plugin.timing import mel_start, sample_of_frame

KINDS = ("shifted", "other_audio", "no_speech", "wrong_face")
SHIFTS = range(3, 13)  # frames, either way


@dataclass(frozen=True)
class Planted:
    """What was done to a clip."""

    kind: str
    """One of KINDS."""
    offset_frames: int = 0
    """How early its audio is now, in frames."""


class Footage(ClipStore):
    """Some clips of a store, a part of them spoiled in equal shares of the four kinds."""

    def __init__(
        self, store: ClipStore, clips: Sequence[Clip], spoil: Sequence[Clip], part: float, seed: int
    ) -> None:
        """Take `clips` of the store; spoil `part` of those that are also in `spoil`."""
        self.__dict__.update(store.__dict__)
        self.planted: dict[str, Planted] = {}
        self._seen: dict[str, tuple[Clip, int]] = {}  # clip -> whose frames, from which on
        self._heard: dict[str, tuple[Clip, int]] = {}
        self._made: dict[str, np.ndarray] = {}  # clip -> samples that replace its own
        rng = np.random.default_rng([seed, 4711])
        order = rng.permutation(len(spoil))[: round(part * len(spoil))]
        changed = {}
        for number, index in enumerate(order):
            clip = spoil[index]
            changed[clip.id] = self._spoil(clip, KINDS[number % 4], spoil, rng)
        self.clips = [changed.get(c.id, c) for c in clips]
        self._by_id = {c.id: c for c in self.clips}

    def _spoil(
        self, clip: Clip, kind: str, others: Sequence[Clip], rng: np.random.Generator
    ) -> Clip:
        offset, length = 0, clip.n_frames
        if kind == "shifted":
            # Trimmed on both sides: all that is left has its own sound, only not in time.
            size = int(rng.choice(SHIFTS))
            offset = size if rng.random() < 0.5 else -size
            length -= size
            self._seen[clip.id] = (clip, max(0, -offset))
            self._heard[clip.id] = (clip, max(0, offset))
        elif kind == "no_speech":
            n = sample_of_frame(clip.n_frames, self.spec)
            self._made[clip.id] = _music(n, rng) if rng.random() < 0.5 else np.zeros(n, np.float32)
        else:
            strangers = [c for c in others if c.speaker != clip.speaker]
            as_long = [c for c in strangers if c.n_frames >= clip.n_frames]
            other = (as_long or strangers)[rng.integers(len(as_long or strangers))]
            length = min(length, other.n_frames)
            (self._heard if kind == "other_audio" else self._seen)[clip.id] = (other, 0)
        self.planted[clip.id] = Planted(kind, offset)
        return replace(clip, n_frames=length, n_mels=mel_start(length, self.spec))

    def frames(self, clip: Clip, start: int = 0, stop: int | None = None) -> np.ndarray:
        """As a store gives them, of the clip whose face is shown."""
        whose, first = self._seen.get(clip.id, (clip, 0))
        stop = clip.n_frames if stop is None else min(stop, clip.n_frames)
        return super().frames(whose, first + start, first + stop)

    def mel(self, clip: Clip, start: int = 0, stop: int | None = None) -> np.ndarray:
        """As a store gives it, of what is heard."""
        stop = clip.n_mels if stop is None else min(stop, clip.n_mels)
        if clip.id in self._made:
            made = log_mel(torch.from_numpy(self._made[clip.id]), self.spec.mel)
            return made.T.numpy()[start:stop]
        whose, first = self._heard.get(clip.id, (clip, 0))
        m0 = mel_start(first, self.spec)
        return super().mel(whose, m0 + start, m0 + stop)

    def audio(self, clip: Clip, start: int = 0, stop: int | None = None) -> np.ndarray:
        """As a store gives it, of what is heard."""
        end = sample_of_frame(clip.n_frames, self.spec)
        stop = end if stop is None else min(stop, end)
        if clip.id in self._made:
            return self._made[clip.id][start:stop]
        whose, first = self._heard.get(clip.id, (clip, 0))
        s0 = sample_of_frame(first, self.spec)
        return super().audio(whose, s0 + start, s0 + stop)


def _music(n: int, rng: np.random.Generator, rate: int = 16000) -> np.ndarray:
    """Chords of decaying tones with a beat: loud, tonal, and deaf to any mouth. (n,) float32."""
    t = np.arange(n) / rate
    out = np.zeros(n)
    beat = rng.uniform(0.3, 0.7)
    for first in np.arange(0, n / rate, beat):
        since = t - first
        on = since >= 0
        root = 110 * 2 ** (rng.integers(0, 24) / 12)
        for ratio in (1, 1.26, 1.5, 2, 3, 4):
            tone = np.sin(2 * np.pi * root * ratio * since + rng.uniform(0, 6))
            out += on * np.exp(-since.clip(0) / 0.4) * tone / ratio
    out += 0.02 * rng.standard_normal(n)
    return (0.5 * out / np.abs(out).max()).astype(np.float32)
