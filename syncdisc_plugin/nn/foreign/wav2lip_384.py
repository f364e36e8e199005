"""The expert of wav2lip_288x288 for faces of 384 pixels: `SyncNet_color_384` as a table.

Parameter names, shapes and the order of the layers are the original's, so that the checkpoints of
its expert trainer load into it. 65,054,464 parameters.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from syncdisc_plugin.nn.foreign.expert import ForeignExpert
from syncdisc_plugin.nn.foreign.wav2lip import blocks
from syncdisc_plugin.spec import ClipSpec

# Rows as in wav2lip.py. The layers leak, but for those of the second tables, which end in ReLU.
FACE = (
    (15, 16, 7, 1, 3, 0),
    (16, 32, 5, (1, 2), 1, 2),
    (32, 64, 3, 2, 1, 2),
    (64, 128, 3, 2, 1, 2),
    (128, 256, 3, 2, 1, 2),
    (256, 512, 3, 2, 1, 2),
    (512, 1024, 3, 2, 1, 2),
    (1024, 1024, 3, 2, 1, 0),
    (1024, 1024, 3, 1, 0, 0),
)
FACE_END = ((1024, 1024, 1, 1, 0, 0),)
AUDIO = (
    (1, 32, 3, 1, 1, 2),
    (32, 64, 3, (3, 1), 1, 2),
    (64, 128, 3, 3, 1, 2),
    (128, 256, 3, (3, 2), 1, 2),
    (256, 512, 3, 1, 1, 2),
)
AUDIO_END = (
    (512, 1024, 3, 1, 0, 0),
    (1024, 1024, 1, 1, 0, 0),
)
leak = partial(F.leaky_relu, negative_slope=0.2)


class Wav2Lip384Expert(ForeignExpert):
    """wav2lip_288x288's `SyncNet_color_384`: not negative embeddings, cosine in [0, 1].

    Source: primepake/wav2lip_288x288, `models/syncnet.py` and `models/conv.py`.
    """

    color = "bgr"

    def __init__(self) -> None:
        super().__init__()
        self.spec = ClipSpec(face_px=384)
        self.face_encoder = nn.Sequential(*blocks(FACE, leak), *blocks(FACE_END))
        self.audio_encoder = nn.Sequential(*blocks(AUDIO, leak), *blocks(AUDIO_END))

    def encode_frames(self, stacked: torch.Tensor) -> torch.Tensor:
        """Lower halves (B, 15, 192, 384), BGR in [0, 1] -> (B, 1024), not negative."""
        return self.face_encoder(stacked).flatten(1)

    def encode_mel(self, mel: torch.Tensor) -> torch.Tensor:
        """(B, 1, 80, 16) in [-4, 4] -> (B, 1024), not negative."""
        return self.audio_encoder(mel).flatten(1)
