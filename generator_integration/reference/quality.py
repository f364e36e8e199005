"""The visual-quality discriminator: do patches of a lower face look photographed or drawn?"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

LAYERS = 3  # each halves the picture: at 96 a score stands for 46 pixels' surroundings


class QualityDiscriminator(nn.Module):
    """A PatchGAN (Isola et al., 2017) with spectral norm (Miyato et al., 2018) on single frames.

    It sees the lower two thirds: mouth, jaw, and enough of the real cheeks to find a seam. It
    knows nothing of sound; that is the sync loss's matter.

    Args:
        width: channels of the first layer; four times as many at the end.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        sizes = [3, *(width * 2**i for i in range(LAYERS))]
        self.layers = nn.ModuleList(
            spectral_norm(nn.Conv2d(a, b, 4, 2, 1)) for a, b in pairwise(sizes)
        )
        self.score = spectral_norm(nn.Conv2d(sizes[-1], 1, 3, 1, 1))

    def forward(self, frames: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Judge frames (N, 3, S, S) in [0, 1]: scores (N, 1, h, w), high is real, and features."""
        x = 2 * frames[:, :, frames.shape[2] // 3 :] - 1
        x = x.contiguous(memory_format=torch.channels_last)
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            features.append(x)
        return self.score(x).float(), features


def judging_loss(real: Tensor, drawn: Tensor) -> Tensor:
    """Hinge loss of the discriminator, from its scores of both (Lim and Ye, 2017).

    2 is what one that knows nothing gets; 0 is the best.
    """
    return F.relu(1 - real).mean() + F.relu(1 + drawn).mean()


def fooling_loss(drawn: Tensor) -> Tensor:
    """Loss of the generator, from the discriminator's scores of what it drew."""
    return -drawn.mean()


def feature_loss(real: Sequence[Tensor], drawn: Sequence[Tensor]) -> Tensor:
    """Mean L1 between the discriminator's features of both (Wang et al., 2018), layer by layer."""
    parts = [F.l1_loss(d.float(), r.detach().float()) for r, d in zip(real, drawn, strict=True)]
    return torch.stack(parts).mean()
