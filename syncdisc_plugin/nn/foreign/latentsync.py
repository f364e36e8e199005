"""LatentSync's StableSyncNet: the layers of its `models/stable_syncnet.py` as two tables.

Parameter names and shapes are the original's, so that its checkpoints load into it: about 401
million parameters as `syncnet_16_pixel_attn.yaml` has it, 372 million as `syncnet_16_pixel.yaml`.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from syncdisc_plugin.nn.foreign.expert import ForeignExpert
from syncdisc_plugin.spec import ClipSpec

# Per block: channels, and by what (rows, columns) it divides its input.
FACE_WIDTHS = (64, 128, 256, 256, 512, 1024, 2048, 2048)
FACE_STRIDES = ((1, 2), (2, 2), (2, 2), (2, 2), (2, 2), (2, 2), (2, 2), (2, 2))
AUDIO_WIDTHS = (32, 64, 128, 256, 512, 1024, 2048)
AUDIO_STRIDES = ((2, 1), (2, 2), (2, 2), (1, 1), (2, 2), (2, 2), (2, 3))
# The blocks that attention follows where there is any, counted from 0.
FACE_ATTENTION = (4, 5)
AUDIO_ATTENTION = (3, 4)
GROUPS = 32
HEADS = 8
FRAMES = 16


class ResidualBlock(nn.Module):
    """x + two convolutions, norms and SiLUs before them, then a convolution that may divide."""

    def __init__(self, c_in: int, c_out: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, c_in, eps=1e-6)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.norm2 = nn.GroupNorm(GROUPS, c_out, eps=1e-6)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else None
        divides = stride != (1, 1)
        self.downsample_conv = nn.Conv2d(c_out, c_out, 3, stride) if divides else None
        # An axis that is kept gets a zero on both sides; one that is divided, only at its end.
        top, left = (int(step == 1) for step in stride)
        self.pad = (left, 1, top, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, C', H / rows, W / columns)."""
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        y = y + (x if self.conv_shortcut is None else self.conv_shortcut(x))
        return y if self.downsample_conv is None else self.downsample_conv(F.pad(y, self.pad))


class Attention(nn.Module):
    """Eight heads of self-attention."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, N, C) -> (B, N, C)."""
        q, k, v = (
            rearrange(layer(x), "b n (heads c) -> b heads n c", heads=HEADS)
            for layer in (self.to_q, self.to_k, self.to_v)
        )
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.to_out[0](rearrange(mixed, "b heads n c -> b n (heads c)"))


class Gate(nn.Module):
    """One half of a projection, gated by the GELU of the other."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, 2 * hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, N, C) -> (B, N, hidden)."""
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """diffusers' feed-forward of the kind "geglu"; its `net.1` is a dropout of 0."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = 4 * channels
        self.net = nn.Sequential(Gate(channels, hidden), nn.Identity(), nn.Linear(hidden, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, N, C) -> (B, N, C)."""
        return self.net(x)


class AttentionBlock(nn.Module):
    """x + a transformer layer over all places of the map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, channels, eps=1e-6)
        self.norm2 = nn.LayerNorm(channels)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels)
        self.conv_in = nn.Conv2d(channels, channels, 1)
        self.conv_out = nn.Conv2d(channels, channels, 1)
        self.attn = Attention(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        y = rearrange(self.conv_in(self.norm1(x)), "b c h w -> b (h w) c")
        y = y + self.attn(self.norm2(y))
        y = y + self.ff(self.norm3(y))
        return x + self.conv_out(rearrange(y, "b (h w) c -> b c h w", h=x.shape[2]))


class Tower(nn.Module):
    """A convolution, the blocks of a table with attention after some, norm, ReLU."""

    def __init__(
        self,
        c_in: int,
        widths: tuple[int, ...],
        strides: tuple[tuple[int, int], ...],
        attention: Collection[int],
    ) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(c_in, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        before = widths[0]
        for i, (width, stride) in enumerate(zip(widths, strides, strict=True)):
            self.down_blocks.append(ResidualBlock(before, width, stride))
            if i in attention:
                self.down_blocks.append(AttentionBlock(width))
            before = width
        self.norm_out = nn.GroupNorm(GROUPS, before, eps=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, D), not negative; the strides bring H and W to 1."""
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return F.relu(self.norm_out(x)).flatten(1)


class StableSyncNet(ForeignExpert):
    """LatentSync's StableSyncNet on pixels: not negative embeddings, cosine in [0, 1].

    Source: bytedance/LatentSync, `latentsync/models/stable_syncnet.py` (Li et al., 2024).

    Args:
        face_widths: channels of the 8 blocks that see the frames, multiples of 32.
        audio_widths: channels of the 7 blocks that hear the mel, likewise; the last is the same.
        face_attention: blocks, counted from 0, that attention follows; () for the net without.
        audio_attention: the same of the audio tower.
    """

    value_range = (-1.0, 1.0)
    # `train_syncnet.py` and `train_unet.py` cut the lower half off the whole aligned frame.
    home = "latentsync"

    def __init__(
        self,
        face_widths: tuple[int, ...] = FACE_WIDTHS,
        audio_widths: tuple[int, ...] = AUDIO_WIDTHS,
        face_attention: Collection[int] = FACE_ATTENTION,
        audio_attention: Collection[int] = AUDIO_ATTENTION,
    ) -> None:
        super().__init__()
        # 52 mel frames: 16 for every 5 video frames, rounded up, as LatentSync cuts them.
        self.spec = ClipSpec(face_px=256, window_frames=FRAMES, window_mels=52)
        self.audio_encoder = Tower(1, audio_widths, AUDIO_STRIDES, audio_attention)
        self.visual_encoder = Tower(3 * FRAMES, face_widths, FACE_STRIDES, face_attention)

    def encode_frames(self, stacked: torch.Tensor) -> torch.Tensor:
        """Lower halves (B, 48, 128, 256), RGB in [-1, 1] -> (B, 2048), not negative."""
        return self.visual_encoder(stacked)

    def encode_mel(self, mel: torch.Tensor) -> torch.Tensor:
        """(B, 1, 80, 52) in [-4, 4] -> (B, 2048), not negative."""
        return self.audio_encoder(mel)
