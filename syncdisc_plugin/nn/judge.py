"""What every net that SyncLoss can freeze has in common, ours and other people's."""

from __future__ import annotations

import torch
from torch import nn

from syncdisc_plugin.spec import ClipSpec


class Judge(nn.Module):
    """Two towers whose unit embeddings are compared by their cosine.

    similarity = cosine of the two embeddings, in [-1, 1].
    probability = sigmoid(logit(similarity)).
    """

    spec: ClipSpec
    home: str = ""
    """Name of the host (`hosts.HOSTS`) whose own frames it was trained on, as they are; where it
    is "", a frame is the face detector's box."""

    def embed_frames(self, frames: torch.Tensor) -> torch.Tensor:
        """frames (B, F, 3, h, w) RGB in [0, 1] -> unit embeddings (B, F - T + 1, D), fp32.

        h and w are `spec.input_hw`, T is `spec.window_frames`.
        """
        raise NotImplementedError

    def embed_mel(self, mel: torch.Tensor, starts: torch.Tensor | None = None) -> torch.Tensor:
        """Mel -> unit embeddings of the windows that begin at `starts`.

        Args:
            mel: (B, M, L) in [-4, 4].
            starts: (N,) or (B, N) mel frames at which windows begin; all of them when None.

        Returns:
            (B, N, D), fp32.
        """
        raise NotImplementedError

    def logit(self, similarity: torch.Tensor) -> torch.Tensor:
        """Logit of the probability that the pair is true, linear in the similarity."""
        raise NotImplementedError

    def forward(self, frames: torch.Tensor, mel: torch.Tensor) -> torch.Tensor:
        """Similarity of single windows: frames (B, T, 3, h, w), mel (B, M, L) -> (B,)."""
        v = self.embed_frames(frames)
        a = self.embed_mel(mel)
        return (v * a).sum(-1)[:, 0]
