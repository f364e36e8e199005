"""Training batches: frames once per clip, every pair of the chunk true or false in the batch.

A batch is a pure function of (seed, stage, step): any resume gives the same one, and each of
several processes its own rows of it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import torch
import torch.nn.functional as F

from syncdisc_plugin.data.ahead import made_ahead
from syncdisc_plugin.data.augment import (
    Augment,
    add_artefacts,
    change_look,
    change_sound,
    cut_input,
    random_crop,
    softened,
)
from syncdisc_plugin.data.manifest import Clip
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.timing import mel_start

# Mean distance between two mel windows below which they sound alike (silence, a held vowel):
# 0.2 of 8 units is 2.5 dB. Such a pair cannot be told from a true one, so it is no false one.
ALIKE = 0.2
# The same for two video windows, in levels of 256 over a coarse picture: below it nothing moved
# (a frozen stream, a photograph), so the sound of one fits the other as well.
STILL = 0.25
COARSE = 12  # pixels per cell of that picture
# A speaker is drawn by his footage to this power: between "every speaker alike" (0) and "every
# second alike" (1).
SPEAKER_POWER = 0.5


@dataclass(frozen=True)
class Item:
    """A clip with the lag at which it is to be used."""

    clip: Clip
    """The clip."""
    lag_frames: float = 0.0
    """How early its audio is, also between two frames; the sampler undoes it."""


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
    """(B, N, N) bool: windows that sound or look the same, so no false pair."""
    source: torch.Tensor
    """(B,) number of the video that the clip is from."""
    speaker: torch.Tensor
    """(B,) number of who speaks in it."""


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
    ) -> None:
        self.store, self.spec = store, store.spec
        self.n, self.f, self.augment, self.seed = batch_clips, chunk_frames, augment, seed
        self.items = fitted(store, items, chunk_frames)
        self.skipped = len(items) - len(self.items)
        if not self.items:
            raise ValueError(
                f"chunk_frames: expected a value that some clip can fill, got {chunk_frames}; "
                f"the {len(items)} clips are all shorter, or are by their lag. Lower "
                "--chunk_frames."
            )
        self.sources = _numbers(i.clip.source for i in self.items)
        self.speakers = _numbers(i.clip.speaker for i in self.items)
        by_speaker: dict[str, float] = defaultdict(float)
        for item in self.items:
            by_speaker[item.clip.speaker] += item.clip.n_frames
        weight = np.array(
            [
                i.clip.n_frames * by_speaker[i.clip.speaker] ** (SPEAKER_POWER - 1)
                for i in self.items
            ]
        )
        self.weight = weight / weight.sum()

    def _room(self, item: Item) -> tuple[int, int]:
        """First and one-past-last window whose frames and shifted audio both exist."""
        n = self.store.windows(item.clip)
        lag = item.lag_frames
        return max(0, math.ceil(lag)), min(n, n + math.floor(lag))

    def batches(
        self, stage: int, step: int, rows: Sequence[int] | None = None, threads: int = 1
    ) -> Generator[Batch, None, None]:
        """Batches from that step on, without end; the next ones are made meanwhile by threads.

        Close it when there are enough.
        """
        return made_ahead(lambda at: self.batch(stage, at, rows), step, threads)

    def batch(self, stage: int, step: int, rows: Sequence[int] | None = None) -> Batch:
        """The batch of that step, or only some rows of it."""
        rng = np.random.default_rng([self.seed, stage, step])
        enough = np.count_nonzero(self.weight) >= self.n
        picks = rng.choice(len(self.items), self.n, replace=not enough, p=self.weight)
        seeds = rng.integers(2**63, size=self.n)
        # Stage 1 starts from nothing, the others from a net that can read.
        changes = softened(self.augment, step) if stage == 1 else self.augment
        rows = range(self.n) if rows is None else rows
        items = [self.items[picks[row]] for row in rows]
        # The background is what the batch's row before says: speech, and read anyway.
        heard = {*rows, *((row - 1) % self.n for row in rows)}
        drawn = {row: self._draw(self.items[picks[row]], seeds[row]) for row in sorted(heard)}
        frames, sounds, starts, alike = [], [], [], []
        for row, item in zip(rows, items, strict=True):
            own, start, mel, begins = drawn[row]
            seen = self.store.frames(item.clip, start, start + self.f)
            alike.append(
                _sound_alike(mel, begins, self.spec.window_mels)
                | _look_alike(cut_input(seen, self.spec), self.spec.window_frames)
            )
            seen = cut_input(seen, self.spec, random_crop(own, self.spec, changes))
            seen = change_look(seen, own, changes)
            if stage == 3 and own.random() < changes.artefacts:
                seen = add_artefacts(seen, own)
            frames.append(seen)
            sounds.append(change_sound(mel, drawn[(row - 1) % self.n][2], own, changes))
            starts.append(begins)
        return Batch(
            frames=torch.from_numpy(np.stack(frames)).permute(0, 1, 4, 2, 3),
            mel=torch.from_numpy(np.stack(sounds)).transpose(1, 2),
            starts=torch.from_numpy(np.stack(starts)),
            alike=torch.stack(alike),
            source=torch.tensor([self.sources[i.clip.source] for i in items]),
            speaker=torch.tensor([self.speakers[i.clip.speaker] for i in items]),
        )

    def _draw(
        self, item: Item, seed: int
    ) -> tuple[np.random.Generator, int, np.ndarray, np.ndarray]:
        """A row's randomness, the first frame of its chunk, and its sound as `_sound` gives it."""
        rng = np.random.default_rng(seed)
        first, last = self._room(item)
        start = int(rng.integers(first, last - (self.f - self.spec.window_frames + 1) + 1))
        return rng, start, *self._sound(item, start)

    def _sound(self, item: Item, start: int) -> tuple[np.ndarray, np.ndarray]:
        """Mel (L, M) of the chunk that begins with frame `start`, and where its windows begin."""
        windows = self.f - self.spec.window_frames + 1
        heard = start - Fraction(item.lag_frames).limit_denominator(100)
        m0 = mel_start(heard, self.spec)
        starts = np.array([mel_start(heard + i, self.spec) - m0 for i in range(windows)])
        # The longest phase needs one mel frame more than the shortest: all chunks get that many.
        length = mel_start(windows, self.spec) + 1 + self.spec.window_mels
        mel = self.store.mel(item.clip, m0, m0 + length)
        if len(mel) < length:
            mel = np.pad(mel, ((0, length - len(mel)), (0, 0)), constant_values=-4.0)
        return mel, starts


def fitted(store: ClipStore, items: Iterable[Item], chunk_frames: int) -> list[Item]:
    """Items that can fill a chunk.

    To undo a lag costs windows at a clip's end. Where too few are left and less than a frame would
    help, the lag is cut to that: of a set whose clips are all just as long as a chunk, none would
    be left else.
    """
    windows = chunk_frames - store.spec.window_frames + 1
    out = []
    for item in items:
        spare = store.windows(item.clip) - windows
        lag = max(-spare, min(spare, item.lag_frames))
        if spare >= 0 and abs(lag - item.lag_frames) < 1:
            out.append(replace(item, lag_frames=lag))
    return out


def _numbers(names: Iterable[str]) -> dict[str, int]:
    return {name: i for i, name in enumerate(dict.fromkeys(names))}


def _sound_alike(mel: np.ndarray, starts: np.ndarray, window: int) -> torch.Tensor:
    flat = torch.from_numpy(np.stack([mel[s : s + window].ravel() for s in starts]))
    return torch.cdist(flat, flat, p=1) / flat.shape[1] < ALIKE


def _look_alike(frames: np.ndarray, window: int) -> torch.Tensor:
    """(N, N) bool: windows whose frames differ by less than STILL, over a coarse green picture."""
    green = torch.from_numpy(np.ascontiguousarray(frames[..., 1])).float()[None]
    cells = F.avg_pool2d(green, COARSE).reshape(len(frames), -1)
    flat = cells.unfold(0, window, 1).reshape(len(frames) - window + 1, -1)
    return torch.cdist(flat, flat, p=1) / flat.shape[1] < STILL
