"""The lip-sync expert of Wav2Lip: the layers of its `models/syncnet.py` as a table.

Parameter names, shapes and the order of the layers are the original's, so that
lipsync_expert.pth loads into it. 16,435,072 parameters.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from syncdisc_plugin.nn.foreign.expert import ForeignExpert
from syncdisc_plugin.spec import ClipSpec

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
    """Convolution, batch norm, optional skip, ReLU."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int,
        stride: int | tuple[int, int],
        padding: int,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.Conv2d(c_in, c_out, kernel, stride, padding), nn.BatchNorm2d(c_out)
        )
        self.residual = residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, C', H', W')."""
        out = self.conv_block(x)
        return F.relu(out + x if self.residual else out)


def _tower(table: tuple) -> nn.Sequential:
    layers: list[nn.Module] = []
    for c_in, c_out, kernel, stride, padding, residuals in table:
        layers.append(Block(c_in, c_out, kernel, stride, padding))
        layers += [Block(c_out, c_out, 3, 1, 1, residual=True) for _ in range(residuals)]
    return nn.Sequential(*layers)


class Wav2LipExpert(ForeignExpert):
    """Wav2Lip's `SyncNet_color`: both embeddings are non-negative, so their cosine is in [0, 1].

    Source: Rudrabha/Wav2Lip, `models/syncnet.py` (Prajwal et al., 2020).
    """

    color = "bgr"

    def __init__(self) -> None:
        super().__init__()
        self.spec = ClipSpec()
        self.face_encoder = _tower(FACE)
        self.audio_encoder = _tower(AUDIO)

    def encode_frames(self, stacked: torch.Tensor) -> torch.Tensor:
        """Lower halves (B, 15, 48, 96), BGR in [0, 1] -> (B, 512), not negative."""
        return self.face_encoder(stacked).flatten(1)

    def encode_mel(self, mel: torch.Tensor) -> torch.Tensor:
        """(B, 1, 80, 16) in [-4, 4] -> (B, 512), not negative."""
        return self.audio_encoder(mel).flatten(1)
