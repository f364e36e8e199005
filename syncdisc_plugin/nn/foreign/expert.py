"""What other people's experts have in common: channels are stacked frames, windows come singly."""

from __future__ import annotations

from typing import ClassVar

import torch
from einops import rearrange

from syncdisc_plugin.nn.blocks import unit
from syncdisc_plugin.nn.judge import Judge
from syncdisc_plugin.spec import ClipSpec

# BCE of the cosine has probability .5 at cosine .5; a steepness of 8 takes cosines of 0 and 1 to
# probabilities of .02 and .98, and keeps the gradient bounded where -log(cosine) has a pole.
SCALE, BIAS = 8.0, -4.0


class ForeignExpert(Judge):
    """A net whose face tower wants T frames stacked as channels, t * 3 + c.

    Subclasses give `spec`, `color`, `value_range` and the two towers. Frames come in the package's
    convention (RGB in [0, 1]) and are turned into the net's own here.
    """

    spec: ClipSpec
    color: ClassVar[str] = "rgb"
    value_range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def encode_frames(self, stacked: torch.Tensor) -> torch.Tensor:
        """(B, 3T, h, w) in the net's own colour order and range -> (B, D), not normalised."""
        raise NotImplementedError

    def encode_mel(self, mel: torch.Tensor) -> torch.Tensor:
        """(B, 1, M, L) in [-4, 4] -> (B, D), not normalised."""
        raise NotImplementedError

    def embed_frames(self, frames: torch.Tensor) -> torch.Tensor:
        """As in `Judge`; each window passes the tower by itself."""
        low, high = self.value_range
        x = frames * (high - low) + low
        x = x.flip(2) if self.color == "bgr" else x
        windows = x.unfold(1, self.spec.window_frames, 1)
        stacked = rearrange(windows, "b n c h w t -> (b n) (t c) h w")
        return unit(rearrange(self.encode_frames(stacked), "(b n) d -> b n d", b=len(frames)))

    def embed_mel(self, mel: torch.Tensor, starts: torch.Tensor | None = None) -> torch.Tensor:
        """As in `Judge`; each window passes the tower by itself."""
        windows = mel.unfold(2, self.spec.window_mels, 1)
        if starts is not None:
            index = starts.expand(len(mel), -1)[:, None, :, None]
            windows = windows.gather(2, index.expand(-1, mel.shape[1], -1, windows.shape[-1]))
        heard = rearrange(windows, "b m n l -> (b n) 1 m l")
        return unit(rearrange(self.encode_mel(heard), "(b n) d -> b n d", b=len(mel)))

    def logit(self, similarity: torch.Tensor) -> torch.Tensor:
        """8 * similarity - 4: probability .5 at cosine .5, as BCE of the cosine has it."""
        return SCALE * similarity + BIAS
