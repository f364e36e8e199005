"""Where in a face the mouth is, softly."""

from __future__ import annotations

import torch

# Middle of the mouth, by how the face was cut: down and right, in heights and widths of the face.
MIDDLE = {"box": (0.75, 0.5), "aligned": (0.722, 0.5)}
SPREAD = (0.13, 0.2)  # standard deviations of what counts as mouth around it
WHOLE_FRAME = (0.0, 1.0, 0.0, 1.0)


def near_mouth(
    rows: int,
    columns: int,
    box: tuple[float, float, float, float] = WHOLE_FRAME,
    crop: str = "box",
    device: torch.device | None = None,
) -> torch.Tensor:
    """How near to the mouth each pixel of a frame lies.

    Args:
        rows: of the frame.
        columns: of the frame.
        box: top, bottom, left and right of the face, in heights and widths of the frame.
        crop: how the face was cut, "box" or "aligned"; see `ClipSpec.crop`.
        device: where the answer lies.

    Returns:
        (rows, columns) fp32: 1 in the middle of the mouth, falling to 0.
    """
    away = []
    for n, low, high, middle, spread in zip(
        (rows, columns), box[::2], box[1::2], MIDDLE[crop], SPREAD, strict=True
    ):
        at = ((torch.arange(n, device=device) + 0.5) / n - low) / (high - low)
        away.append(((at - middle) / spread).square() / 2)
    return torch.exp(-away[0][:, None] - away[1])
