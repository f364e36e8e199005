"""Embeddings of whole clips: what the filter, the metrics and the gap controller measure on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from syncdisc_plugin.data.augment import cut_input
from syncdisc_plugin.data.manifest import Clip
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.nn.judge import Judge
from syncdisc_plugin.nn.precision import autocast
from syncdisc_plugin.timing import mel_start

PIECE = 256  # frames encoded at once


@dataclass(frozen=True)
class Embedded:
    """A clip as a net sees it."""

    clip: Clip
    """The clip."""
    v: torch.Tensor
    """(N, D) unit embeddings of the video windows, on the CPU."""
    a: torch.Tensor
    """(N, D) unit embeddings of the audio windows."""
    window_frames: int
    """T: how many video frames a window of the net has."""

    def shifted(self, offset_frames: int) -> Embedded:
        """The clip with its audio delayed by that many frames: windows that have a partner."""
        k = offset_frames
        n = len(self.v) - abs(k)
        return replace(self, v=self.v[max(0, k) :][:n], a=self.a[max(0, -k) :][:n])

    @property
    def similarity(self) -> torch.Tensor:
        """(N, N) similarity of video window i and audio window j."""
        return self.v @ self.a.T


def device_of(net: Judge) -> torch.device:
    """Where the net's parameters are."""
    return next(net.parameters()).device


@torch.no_grad()
def embed_frames(net: Judge, frames: np.ndarray, precision: str = "fp32") -> torch.Tensor:
    """Stored crops (F, S, S, 3) uint8 -> (F - T + 1, D) on the CPU; for a net in eval mode."""
    device, overlap = device_of(net), net.spec.window_frames - 1
    out = []
    for first in range(0, len(frames) - overlap, PIECE):
        piece = cut_input(frames[first : first + PIECE + overlap], net.spec)
        x = torch.from_numpy(np.ascontiguousarray(piece)).to(device).permute(0, 3, 1, 2)[None]
        with autocast(device, precision):
            out.append(net.embed_frames(x.float() / 255)[0].cpu())
    return torch.cat(out)


@torch.no_grad()
def embed_mel(net: Judge, mel: np.ndarray, n: int, precision: str = "fp32") -> torch.Tensor:
    """Mel (L, M) -> (n, D): the audio windows that begin with video frames 0..n-1."""
    device = device_of(net)
    x = torch.from_numpy(np.ascontiguousarray(mel.T)).to(device)[None]
    starts = torch.tensor([mel_start(f, net.spec) for f in range(n)], device=device)
    with autocast(device, precision):
        return net.embed_mel(x, starts)[0].cpu()


def embed_clips(
    net: Judge,
    store: ClipStore,
    clips: Iterable[Clip],
    precision: str = "fp32",
    lag: int = 0,
) -> Iterator[Embedded]:
    """Embed clips one by one in eval mode; clips without a whole window are skipped.

    `lag` is how many frames early the audio of all of them is; it is undone.
    """
    was_training = net.training
    net.eval()
    try:
        for clip in clips:
            n = store.windows(clip)
            if n > abs(lag):
                v = embed_frames(net, store.frames(clip), precision)[:n]
                a = embed_mel(net, store.mel(clip), n, precision)
                yield Embedded(clip, v, a, net.spec.window_frames).shifted(lag)
    finally:
        net.train(was_training)
