"""Training batches: frames once per clip, every pair of the chunk true or false in the batch.

A batch is a pure function of (seed, stage, step): any resume and any rank gives the same one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from syncdisc_plugin.data.augment import (
    Augment,
    change_look,
    change_sound,
    cut_input,
    random_crop,
    softened,
)
from syncdisc_plugin.data.store import Clip, ClipStore
from syncdisc_plugin.timing import mel_start

# Mean distance between two mel windows below which they sound alike (silence, a held vowel):
# 0.2 of 8 units is 2.5 dB. Such a pair cannot be told from a true one, so it is no false one.
ALIKE = 0.2


@dataclass(frozen=True)
class Item:
    """A clip with the lag at which it is to be used."""

    clip: Clip
    """The clip."""
    offset_frames: int = 0
    """How early its audio is; the sampler undoes it."""


@dataclass(frozen=True)
class Batch:
    """B chunks of F frames, with N = F - T + 1 windows each."""

    frames: torch.Tensor
    """(B, F, 3, h, w) uint8 RGB; the trainer scales to [0, 1] on its device."""
    mel: torch.Tensor
    """(B, M, L) in [-4, 4]."""
    starts: torch.Tensor
    """(B, N) mel frame of each window."""
    alike: torch.Tensor
    """(B, N, N) bool: audio windows that sound the same, so no false pair."""
    group: torch.Tensor
    """(B,) number of the video that the clip is from."""


class Sampler:
    """Draws batches from a set of clips."""

    def __init__(
        self,
        store: ClipStore,
        items: Sequence[Item],
        *,
        batch_clips: int,
        chunk_frames: int,
        augment: Augment,
        seed: int,
        speaker_power: float = 0.5,
    ) -> None:
        self.store, self.spec = store, store.spec
        self.n, self.f, self.augment, self.seed = batch_clips, chunk_frames, augment, seed
        windows = chunk_frames - self.spec.window_frames + 1
        self.items = [i for i in items if self._room(i)[1] - self._room(i)[0] >= windows]
        self.skipped = len(items) - len(self.items)
        if not self.items:
            raise ValueError(
                f"chunk_frames: expected a value that some clip can fill, got {chunk_frames}; "
                f"the {len(items)} clips are all shorter. Lower --chunk_frames."
            )
        self.sources = {name: i for i, name in enumerate({i.clip.source: 0 for i in self.items})}
        by_speaker: dict[str, float] = defaultdict(float)
        for item in self.items:
            by_speaker[item.clip.speaker] += item.clip.n_frames
        # Between "every speaker alike" (power 0) and "every second alike" (power 1).
        weight = np.array(
            [
                i.clip.n_frames * by_speaker[i.clip.speaker] ** (speaker_power - 1)
                for i in self.items
            ]
        )
        self.weight = weight / weight.sum()

    def _room(self, item: Item) -> tuple[int, int]:
        """First and one-past-last window whose frames and shifted audio both exist."""
        n = self.store.windows(item.clip)
        return max(0, item.offset_frames), min(n, n + item.offset_frames)

    def batch(self, stage: int, step: int) -> Batch:
        """The batch of that step."""
        rng = np.random.default_rng([self.seed, stage, step])
        enough = np.count_nonzero(self.weight) >= self.n
        picks = rng.choice(len(self.items), self.n, replace=not enough, p=self.weight)
        # Stage 1 starts from nothing, the others from a net that can read.
        changes = softened(self.augment, step) if stage == 1 else self.augment
        chunks = [
            self._chunk(self.items[p], np.random.default_rng(rng.integers(2**63)), changes)
            for p in picks
        ]
        mels = [c[1] for c in chunks]
        # Each chunk's background is its neighbour's speech: no further reading.
        sounds = [
            change_sound(mels[i], mels[i - 1], np.random.default_rng(rng.integers(2**63)), changes)
            for i in range(self.n)
        ]
        return Batch(
            frames=torch.from_numpy(np.stack([c[0] for c in chunks])).permute(0, 1, 4, 2, 3),
            mel=torch.from_numpy(np.stack(sounds)).transpose(1, 2),
            starts=torch.from_numpy(np.stack([c[2] for c in chunks])),
            alike=torch.stack([_alike(m, s, self.spec.window_mels) for _, m, s in chunks]),
            group=torch.tensor([self.sources[self.items[p].clip.source] for p in picks]),
        )

    def _chunk(
        self, item: Item, rng: np.random.Generator, changes: Augment
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        windows = self.f - self.spec.window_frames + 1
        first, last = self._room(item)
        start = int(rng.integers(first, last - windows + 1))
        frames = self.store.frames(item.clip, start, start + self.f)
        frames = cut_input(frames, self.spec, random_crop(rng, self.spec, changes))
        frames = change_look(frames, rng, changes)
        heard = start - item.offset_frames
        m0 = mel_start(heard, self.spec)
        starts = np.array([mel_start(heard + i, self.spec) - m0 for i in range(windows)])
        # The longest phase needs one mel frame more than the shortest: all chunks get that many.
        length = mel_start(windows, self.spec) + 1 + self.spec.window_mels
        mel = self.store.mel(item.clip, m0, m0 + length)
        if len(mel) < length:
            mel = np.pad(mel, ((0, length - len(mel)), (0, 0)), constant_values=-4.0)
        return frames, mel, starts


def _alike(mel: np.ndarray, starts: np.ndarray, window: int) -> torch.Tensor:
    flat = torch.from_numpy(np.stack([mel[s : s + window].ravel() for s in starts]))
    return torch.cdist(flat, flat, p=1) / flat.shape[1] < ALIKE
