"""Frames and sound for check_host: windows of prepared clips, or invented ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F

from syncdisc_plugin import ClipSpec, log_mel
from syncdisc_plugin.data.manifest import Clip
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.errors import StoreError
from syncdisc_plugin.frames import Box
from syncdisc_plugin.timing import mel_start, sample_of_frame

SPEC = ClipSpec()
WHOLE: Box = (0.0, 1.0, 0.0, 1.0)
GRID = 5  # every fifth frame falls on a whole mel frame: the windows need no rounding


def mel_length(n_frames: int) -> int:
    """Mel frames of a window: 16 for 5 frames, 52 for 16."""
    return math.ceil(n_frames / 5 * 16)


@dataclass(frozen=True)
class Windows:
    """B windows of T consecutive frames with their sound."""

    frames: torch.Tensor
    """(B, T, 3, H, W) RGB in [0, 1], the face where the host has it."""
    reference: torch.Tensor
    """(B, T, 3, H, W), other frames of the same clips."""
    mel: torch.Tensor
    """(B, 1, 80, L) that starts with the first frame."""
    mels: torch.Tensor
    """(B, T, 1, 80, 16), one for each frame, begun a frame early as Wav2Lip's generator has it."""
    waveform: torch.Tensor
    """(B, N) of the whole clips, 16 kHz in [-1, 1], zeros behind the shorter ones."""
    start: torch.Tensor
    """(B,) first frames in their clips."""


class Footage(Protocol):
    """Where windows come from."""

    said: str
    """In a few words, for the output."""
    store: ClipStore | None
    """The clips, for hosts whose own loaders can be used."""

    def windows(
        self, step: int, batch: int, n_frames: int, hw: tuple[int, int], box: Box = WHOLE
    ) -> Windows:
        """A batch, the same for the same step.

        Args:
            step: which one.
            batch: B.
            n_frames: T.
            hw: H and W of the host's frames.
            box: top, bottom, left and right of the detector's box in them, in their heights and
                widths; what lies further out than a store's margin is its edge, repeated.
        """
        ...


class StoreFootage:
    """Windows of a clip store, each item of a batch from another clip."""

    def __init__(self, root: Path) -> None:
        self.store: ClipStore | None = ClipStore(root)
        self.clips = spread(self.store)
        self.said = f"{len(self.store)} clips of {root}"

    def windows(
        self, step: int, batch: int, n_frames: int, hw: tuple[int, int], box: Box = WHOLE
    ) -> Windows:
        """See `Footage`."""
        rng = np.random.default_rng((7, step))
        clips = [c for c in self.clips if c.n_frames >= n_frames + 2 * GRID]
        if not clips:
            raise StoreError(f"{self.said}: none is as long as {n_frames + 2 * GRID} frames.")
        items = []
        for row in range(batch):
            clip = clips[(step * batch + row) % len(clips)]
            last = min(clip.n_frames - n_frames, clip.n_mels * 5 // 16 - n_frames - 1) // GRID
            items.append((clip, GRID * int(rng.integers(1, max(2, last)))))
        return _stack([self._item(clip, start, n_frames) for clip, start in items], hw, box)

    def _item(self, clip: Clip, start: int, n_frames: int) -> _Item:
        assert self.store is not None
        far = 0 if start > clip.n_frames // 2 else clip.n_frames - n_frames
        spec = self.store.spec
        return _Item(
            self.store.frames(clip, start, start + n_frames),
            self.store.frames(clip, far, far + n_frames),
            (spec.stored_px - spec.face_px) / 2 / spec.stored_px,
            self.store.mel(clip).T,
            self.store.audio(clip),
            start,
        )


class InventedFootage:
    """Moving noise and modulated noise: good for shapes, cost and gradients, not for sync."""

    said = "synthetic frames and sound: cost and gradients only, nothing about sync"
    store: ClipStore | None = None

    def windows(
        self, step: int, batch: int, n_frames: int, hw: tuple[int, int], box: Box = WHOLE
    ) -> Windows:
        """See `Footage`."""
        rng = np.random.default_rng((7, step))
        return _stack([self._item(rng, n_frames) for _ in range(batch)], hw, box)

    def _item(self, rng: np.random.Generator, n_frames: int) -> _Item:
        start, length = GRID, n_frames + 3 * GRID
        coarse = torch.from_numpy(rng.random((1, 3, max(2, length // 3), 8, 8), dtype=np.float32))
        smooth = F.interpolate(coarse, (length, 96, 96), mode="trilinear")[0]
        faces = (smooth.movedim(0, -1) * 255).byte().numpy()
        samples = sample_of_frame(length, SPEC)
        knots = np.arange(0, samples, 1600)
        loud = np.interp(np.arange(samples), knots, rng.random(len(knots)))
        audio = (0.3 * loud * rng.standard_normal(samples).clip(-3, 3)).astype(np.float32)
        mel = log_mel(torch.from_numpy(audio)).numpy()
        return _Item(faces[start : start + n_frames], faces[:n_frames], 0.0, mel, audio, start)


@dataclass(frozen=True)
class _Item:
    faces: np.ndarray  # (T, H, W, 3) uint8 RGB
    reference: np.ndarray
    border: float  # around the detector's box, as a ratio of H and W
    mel: np.ndarray  # (80, L) of the whole clip
    audio: np.ndarray
    start: int


def spread(store: ClipStore, most: int = 16) -> list[Clip]:
    """Some clips of different sources."""
    by_source = {clip.source: clip for clip in store.clips}
    clips = sorted(by_source.values(), key=lambda clip: clip.id)
    return clips[:: max(1, len(clips) // most)][:most]


def _stack(items: list[_Item], hw: tuple[int, int], box: Box) -> Windows:
    def faces(pictures: list[np.ndarray]) -> torch.Tensor:
        x = torch.from_numpy(np.stack(pictures)).movedim(-1, 2).float() / 255
        return _place(x.flatten(0, 1), items[0].border, hw, box).unflatten(0, x.shape[:2])

    def cut(item: _Item, first: int, length: int) -> np.ndarray:
        begin = mel_start(first, SPEC)
        piece = item.mel[:, begin : begin + length]
        missing = length - piece.shape[1]
        return np.pad(piece, ((0, 0), (0, missing)), constant_values=-SPEC.mel.max_abs)

    n = len(items[0].faces)
    mel = np.stack([cut(i, i.start, mel_length(n)) for i in items])[:, None]
    mels = np.stack([[cut(i, i.start - 1 + f, 16)[None] for f in range(n)] for i in items])
    longest = max(len(i.audio) for i in items)
    audio = np.stack([np.pad(i.audio, (0, longest - len(i.audio))) for i in items])
    return Windows(
        faces([i.faces for i in items]),
        faces([i.reference for i in items]),
        torch.from_numpy(mel.copy()),
        torch.from_numpy(mels.copy()),
        torch.from_numpy(audio),
        torch.tensor([i.start for i in items]),
    )


def _place(x: torch.Tensor, border: float, hw: tuple[int, int], box: Box) -> torch.Tensor:
    """Pictures (N, 3, S, S) with a border around the detector's box -> (N, 3, H, W) with `box`."""
    top, bottom, left, right = box
    axes = []
    for size, low, high in ((hw[0], top, bottom), (hw[1], left, right)):
        in_box = ((torch.arange(size) + 0.5) / size - low) / (high - low)
        axes.append(2 * (border + in_box * (1 - 2 * border)) - 1)
    y, x_axis = torch.meshgrid(*axes, indexing="ij")
    grid = torch.stack([x_axis, y], -1)[None].expand(len(x), -1, -1, -1)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)
