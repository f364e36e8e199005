"""Stand-ins for hosts' own experts: change the import, and leave the rest of the host as it is.

    from syncdisc_plugin.compat import SyncNet_color as SyncNet    # Wav2Lip, wav2lip_288x288
    from syncdisc_plugin.compat import StableSyncNet               # LatentSync

The host goes on to take BCE of the cosine of two embeddings. Here the two are made so that their
cosine is the calibrated probability: both are non-negative and of length 1, BCE never meets a
value outside [0, 1], and what the host computes is -log probability with `SyncLoss`'s bounded
gradient. They mean nothing one by one; `SyncLoss.embed` gives embeddings that do.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from syncdisc_plugin.frames import Box
from syncdisc_plugin.hosts import host
from syncdisc_plugin.sync_loss import SyncLoss

# Largest cosine: sqrt(1 - p^2) has no slope at p = 1, and BCE refuses what rounds to above it.
MOST = 1 - 1e-6


class _StandIn(nn.Module):
    """An expert of a host's shape around a SyncLoss."""

    def __init__(self, sync: SyncLoss) -> None:
        super().__init__()
        self.sync = sync

    def _embeddings(
        self, frames: torch.Tensor, mel: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Video and audio (B, 2), whose cosine is the probability."""
        # Frames that are not finite are no reason for the host's BCE to raise.
        p = torch.exp(-self.sync(frames, mel)).nan_to_num(0.0).clamp(max=MOST)
        v = torch.stack([p, (1 - p.square()).sqrt()], dim=1)
        a = torch.zeros_like(v)
        a[:, 0] = 1
        return v, a

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Ignored, with a warning: hosts load their expert's checkpoint into what they built.

        To use that checkpoint, name it where this is built: weights="lipsync_expert.pth".
        """
        if state_dict:
            warnings.warn(
                f"{type(self).__name__}: the checkpoint of another expert was not loaded; this one "
                "judges with the weights that it was built with.",
                stacklevel=2,
            )
        return super().load_state_dict({}, strict=True, assign=assign)


class SyncNet_color(_StandIn):
    """In place of Wav2Lip's and wav2lip_288x288's `models.SyncNet_color`.

    Source of the call: Wav2Lip `wav2lip_train.py`, `get_sync_loss` and `cosine_loss`.
    """

    def __init__(self, weights: str | Path = "base") -> None:
        super().__init__(
            SyncLoss(
                weights,
                layout="b (t c) h w",
                color="bgr",
                region="lower",
                reduction="none",
            )
        )

    def forward(self, mel: torch.Tensor, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """mel (B, 1, 80, 16), lower halves (B, 15, H/2, W) BGR in [0, 1] -> audio, video (B, 2)."""
        v, a = self._embeddings(frames, mel)
        return a, v


class StableSyncNet(_StandIn):
    """In place of LatentSync's `latentsync.models.stable_syncnet.StableSyncNet`.

    Source of the call: LatentSync `scripts/train_unet.py`.
    """

    def __init__(
        self, config: Any = None, gradient_checkpointing: bool = False, weights: str | Path = "base"
    ) -> None:
        top, bottom, left, right = host("latentsync").frames.box
        # The host cuts the upper half off before it calls, and with it the top of what our
        # weights look at: 22% of the rows are made of repeated edges. SyncLoss on whole frames
        # does better.
        lower: Box = (2 * top - 1, 2 * bottom - 1, left, right)
        sync = SyncLoss(
            weights, layout="b (t c) h w", value_range="-1..1", region=lower, reduction="none"
        )
        if sync.net.home == "latentsync":  # its own expert: trained on what it is called with
            sync.format = replace(sync.format, region="lower")
        super().__init__(sync)

    def forward(self, frames: torch.Tensor, mel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Lower halves (B, 3T, H/2, W) RGB in [-1, 1], mel (B, 1, 80, L) -> video, audio (B, 2)."""
        return self._embeddings(frames, mel)
