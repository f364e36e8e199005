"""The lip-sync discriminator: two towers, cosine similarity, calibrated probability."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from syncdisc_plugin.nn.blocks import unit
from syncdisc_plugin.nn.judge import Judge
from syncdisc_plugin.nn.towers import AudioTower, FaceTower
from syncdisc_plugin.ranges import check_range
from syncdisc_plugin.spec import ClipSpec


@dataclass(frozen=True)
class Architecture:
    """Sizes of the two towers; stored in every checkpoint."""

    face_width: int = 32
    """Channels of the face tower's first layer; doubled at each of three halvings."""
    audio_width: int = 32
    """Channels of the audio tower's first layer; doubled at each of three halvings."""
    embed_dim: int = 256
    """Length D of an embedding."""
    dropout: float = 0.1
    """Share of features dropped before the windows are joined, in training only."""

    def __post_init__(self) -> None:
        """Name the size that is off."""
        for name in ("face_width", "audio_width", "embed_dim"):
            check_range(f"architecture.{name}", getattr(self, name), least=1)
        check_range("architecture.dropout", self.dropout, least=0, below=1)


class Discriminator(Judge):
    """Judges whether lips and speech belong together, window by window.

    Scale and bias of the logit are learnt in stage 3.
    """

    def __init__(self, spec: ClipSpec | None = None, arch: Architecture | None = None) -> None:
        super().__init__()
        self.spec = spec or ClipSpec()
        self.arch = arch or Architecture()
        a = self.arch
        self.face = FaceTower(self.spec, a.face_width, a.embed_dim, a.dropout)
        self.audio = AudioTower(self.spec, a.audio_width, a.embed_dim, a.dropout)
        # exp(2.7) = 15: the usual start of a learnt inverse temperature (CLIP, 2021).
        self.log_scale = nn.Parameter(torch.tensor(2.7))
        self.bias = nn.Parameter(torch.tensor(0.0))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def scale(self) -> torch.Tensor:
        """Scale of the logit, in (0, 60]: above that, softmax over cosines saturates."""
        return self.log_scale.clamp(max=4.1).exp()

    def embed_frames(self, frames: torch.Tensor) -> torch.Tensor:
        """As in `Judge`; any h and w that the tower's strides leave something of."""
        return unit(self.face(frames))

    def embed_mel(self, mel: torch.Tensor, starts: torch.Tensor | None = None) -> torch.Tensor:
        """As in `Judge`: all L - 15 windows when starts is None."""
        dense = self.audio(mel)
        if starts is not None:
            index = starts.expand(dense.shape[0], -1)[..., None].expand(-1, -1, dense.shape[-1])
            dense = dense.gather(1, index)
        return unit(dense)

    def logit(self, similarity: torch.Tensor) -> torch.Tensor:
        """Calibrated logit of a similarity: scale * similarity + bias."""
        return self.scale * similarity + self.bias
