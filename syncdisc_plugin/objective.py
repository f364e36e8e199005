"""What a sync loss makes of embeddings: of the true pairs, and of frames beside other sounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from syncdisc_plugin.nn.judge import Judge

# (B, N) -> (B,): one number of an item's windows.
WINDOWS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "mean": lambda x: x.mean(1),
    "worst": lambda x: x.topk(-(-x.shape[1] // 4), dim=1).values.mean(1),
}
# From the judge and a similarity: what is to be small of a true pair, and of a false one.
Kind = Callable[[Judge, torch.Tensor], torch.Tensor]
KINDS: dict[str, tuple[Kind, Kind]] = {
    "probability": (
        lambda net, s: F.softplus(-net.logit(s)),
        lambda net, s: F.softplus(net.logit(s)),
    ),
    "similarity": (lambda net, s: 1 - s, lambda net, s: s.clamp_min(0)),
}
ALIKE = 0.5
"""Cosine of two sounds' embeddings from which on the one is not false for the other's lips."""


@dataclass(frozen=True)
class Objective:
    """Embeddings -> the loss of each item."""

    kind: str = "probability"
    """A key of KINDS."""
    windows: str = "mean"
    """A key of WINDOWS."""
    contrast: float = 0.0
    """Weight of the mean over the other items' sounds; 0 does not look at them."""

    def __call__(
        self, net: Judge, v: torch.Tensor, sounds: torch.Tensor, rows: torch.Tensor
    ) -> torch.Tensor:
        """(b,).

        Args:
            net: gives the probability.
            v: (b, N, D) of the frames of some items.
            sounds: (B, N, D) of the sounds of the whole batch.
            rows: (b,) which items of it they are.
        """
        true, false = KINDS[self.kind]
        a = sounds[rows]
        loss = true(net, (v * a).sum(-1))
        if self.contrast:
            others = rows[:, None] != torch.arange(len(sounds), device=rows.device)
            unlike = torch.einsum("bnd,kmd->bnkm", a, sounds) < ALIKE
            counts = (others[:, None, :, None] & unlike).to(loss.dtype)
            beside = false(net, torch.einsum("bnd,kmd->bnkm", v, sounds))
            mean = (beside * counts).sum((2, 3)) / counts.sum((2, 3)).clamp_min(1)
            loss = loss + self.contrast * mean
        return WINDOWS[self.windows](loss)
