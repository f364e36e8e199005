"""The face tower and the audio tower: fully convolutional in time, no padding along it.

A clip of F frames gives F - T + 1 embeddings, and each equals what its own window alone gives:

    frames    f0 f1 f2 f3 f4 f5 ...        T = 5
    stem       [f0 f1 f2] [f1 f2 f3] ...   3 neighbouring frames see motion early
    join       [---- window 0 ----]        3 stem positions = 5 frames
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import nn

from syncdisc_plugin.nn.blocks import ConvNorm, Residual, WholeConv
from syncdisc_plugin.spec import ClipSpec

STEM_FRAMES = 3


class FaceTower(nn.Module):
    """Frames -> one embedding per window; every frame passes the 2-D body once."""

    def __init__(self, spec: ClipSpec, width: int, embed_dim: int, dropout: float) -> None:
        super().__init__()
        w = width
        self.join_frames = spec.window_frames - STEM_FRAMES + 1
        self.body = nn.Sequential(
            ConvNorm(3 * STEM_FRAMES, w, 5, 2, 2),
            ConvNorm(w, 2 * w, 3, 2, 1),
            Residual(2 * w, (3, 3), (1, 1)),
            ConvNorm(2 * w, 4 * w, 3, 2, 1),
            Residual(4 * w, (3, 3), (1, 1)),
            ConvNorm(4 * w, 8 * w, 3, 2, 1),
            Residual(8 * w, (3, 3), (1, 1)),
        )
        # A lower half of 96x96 arrives here as 3x6; larger faces are pooled to the same grid.
        rows = 3 if spec.region == "lower" else 6
        self.pool = nn.AdaptiveAvgPool2d((rows, 6))
        self.flatten = ConvNorm(8 * w, 8 * w, (rows, 6), conv=WholeConv)
        self.dropout = nn.Dropout(dropout)
        self.join = ConvNorm(8 * w, 2 * embed_dim, (1, self.join_frames))
        self.head = nn.Conv2d(2 * embed_dim, embed_dim, 1)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """frames (B, F, 3, h, w) RGB in [0, 1] -> (B, F - T + 1, D), not normalised."""
        b, f = frames.shape[:2]
        x = rearrange(frames, "B F C H W -> B F H W C") * 2 - 1
        kind = x.device.type
        if torch.is_autocast_enabled(kind):  # once, not for each frame's three places below
            x = x.to(torch.get_autocast_dtype(kind))
        positions = f - STEM_FRAMES + 1
        # Neighbouring frames side by side as channels: a 3-D stem at the price of a 2-D one.
        x = torch.cat([x[:, i : i + positions] for i in range(STEM_FRAMES)], dim=-1)
        x = rearrange(x, "B N H W C -> (B N) C H W")  # channels last in memory
        x = self.flatten(self.pool(self.body(x)))
        x = rearrange(self.dropout(x), "(B N) C 1 1 -> B C 1 N", B=b)
        return rearrange(self.head(self.join(x)), "B D 1 N -> B N D")


class AudioTower(nn.Module):
    """Mel -> one embedding per mel start; four convolutions along time see 16 mel frames."""

    def __init__(self, spec: ClipSpec, width: int, embed_dim: int, dropout: float) -> None:
        super().__init__()
        w = width
        last = spec.window_mels - 3 * 4  # kernels 5, 5, 5 reach 13 frames
        self.body = nn.Sequential(
            ConvNorm(1, w, (5, 5), (2, 1), (2, 0)),
            ConvNorm(w, 2 * w, (3, 5), (2, 1), (1, 0)),
            Residual(2 * w, (3, 1), (1, 0)),
            ConvNorm(2 * w, 4 * w, (3, 5), (2, 1), (1, 0)),
            Residual(4 * w, (3, 1), (1, 0)),
            ConvNorm(4 * w, 8 * w, (3, last), (2, 1), (1, 0)),
            nn.Dropout(dropout),
            ConvNorm(8 * w, 2 * embed_dim, (-(-spec.mel.n_mels // 16), 1)),
        )
        self.head = nn.Conv2d(2 * embed_dim, embed_dim, 1)

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        """mel (B, M, L) in [-4, 4] -> (B, L - 15, D), one per mel start, not normalised."""
        x = (mel[:, None] * 0.25).contiguous(memory_format=torch.channels_last)
        return rearrange(self.head(self.body(x)), "B D 1 L -> B L D")
