"""The lip-sync expert of Wav2Lip: the layers of its `models/syncnet.py` as a table.

Parameter names, shapes and the order of the layers are the original's, so that
lipsync_expert.pth loads into it. 16,435,072 parameters.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from syncdisc_plugin.nn.foreign.expert import ForeignExpert
from syncdisc_plugin.spec import ClipSpec

Activation = Callable[[torch.Tensor], torch.Tensor]

# (in, out, kernel, stride, padding, how many residual layers of that width follow)
FACE = (
    (15, 32, 7, 1, 3, 0),
    (32, 64, 5, (1, 2), 1, 2),
    (64, 128, 3, 2, 1, 3),
    (128, 256, 3, 2, 1, 2),
    (256, 512, 3, 2, 1, 2),
    (512, 512, 3, 2, 1, 0),
    (512, 512, 3, 1, 0, 0),
    (512, 512, 1, 1, 0, 0),
)
AUDIO = (
    (1, 32, 3, 1, 1, 2),
    (32, 64, 3, (3, 1), 1, 2),
    (64, 128, 3, 3, 1, 2),
    (128, 256, 3, (3, 2), 1, 2),
    (256, 512, 3, 1, 0, 0),
    (512, 512, 1, 1, 0, 0),
)


class Block(nn.Module):
    """Convolution, batch norm, optional skip, activation."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int,
        stride: int | tuple[int, int],
        padding: int,
        residual: bool = False,
        activation: Activation = F.relu,
    ) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.Conv2d(c_in, c_out, kernel, stride, padding), nn.BatchNorm2d(c_out)
        )
        self.residual = residual
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, C', H', W')."""
        out = self.conv_block(x)
        return self.activation(out + x if self.residual else out)


def blocks(table: tuple[tuple, ...], activation: Activation = F.relu) -> list[Block]:
    """The layers of a table such as FACE, in the original's order, which numbers its keys."""
    layers: list[Block] = []
    for c_in, c_out, kernel, stride, padding, residuals in table:
        layers.append(Block(c_in, c_out, kernel, stride, padding, activation=activation))
        for _ in range(residuals):
            layers.append(Block(c_out, c_out, 3, 1, 1, residual=True, activation=activation))
    return layers


class Wav2LipExpert(ForeignExpert):
    """Wav2Lip's `SyncNet_color`: both embeddings are non-negative, so their cosine is in [0, 1].

    Source: Rudrabha/Wav2Lip, `models/syncnet.py` (Prajwal et al., 2020).
    """

    color = "bgr"

    def __init__(self) -> None:
        super().__init__()
        self.spec = ClipSpec()
        self.face_encoder = nn.Sequential(*blocks(FACE))
        self.audio_encoder = nn.Sequential(*blocks(AUDIO))

    def encode_frames(self, stacked: torch.Tensor) -> torch.Tensor:
        """Lower halves (B, 15, 48, 96), BGR in [0, 1] -> (B, 512), not negative."""
        return self.face_encoder(stacked).flatten(1)

    def encode_mel(self, mel: torch.Tensor) -> torch.Tensor:
        """(B, 1, 80, 16) in [-4, 4] -> (B, 512), not negative."""
        return self.audio_encoder(mel).flatten(1)
