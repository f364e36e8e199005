"""Sample sheets: what goes in, what comes out, what should have come out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import torch

from syncdisc_plugin.atomic import replacing

LABEL_PX = 16  # height of the line above each row


def write_sheet(path: Path, rows: Mapping[str, torch.Tensor], enlarge: int = 2) -> Path:
    """Write a PNG, atomically: one labelled row of pictures for each name.

    Args:
        path: of the PNG.
        rows: name -> (N, 3, S, S) RGB in [0, 1].
        enlarge: side of a pixel in the sheet.
    """
    strips = []
    for name, pictures in rows.items():
        strip = torch.cat(list(pictures.float().clamp(0, 1)), dim=2).permute(1, 2, 0)
        image = np.rint(strip.cpu().numpy() * 255).astype(np.uint8)
        image = image.repeat(enlarge, axis=0).repeat(enlarge, axis=1)
        label = np.full((LABEL_PX, image.shape[1], 3), 255, np.uint8)
        cv2.putText(label, name, (4, LABEL_PX - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0))
        strips += [label, image]
    sheet = cv2.cvtColor(np.concatenate(strips), cv2.COLOR_RGB2BGR)
    with replacing(path) as temp:
        temp.write_bytes(cv2.imencode(".png", sheet)[1].tobytes())
    return path
