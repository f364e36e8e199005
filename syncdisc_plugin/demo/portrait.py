"""One photograph whose mouth moves: a differentiable renderer, and how to make speakers of it.

The photograph is NASA's portrait of Eileen Collins, which scikit-image carries. She smiles with
visible teeth, so the lips are first closed over them and then opened again by the parameters.
All mouth geometry is in pixels of the photograph; a view maps output pixels onto it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from syncdisc_plugin.errors import FaceError
from syncdisc_plugin.faces.detect import load_detector

SIZE_PX = 176
_HEAD_XY = (227.0, 108.0)
# The corners of the mouth, and how far the edges of the lips hang below the line between them.
_CORNERS = ((203.5, 139.6), (244.4, 141.2))
_UPPER_LIP_PX, _LOWER_LIP_PX, _CLOSED_PX = 2.8, 10.2, 4.6
_MIDDLE_XY = ((_CORNERS[0][0] + _CORNERS[1][0]) / 2, (_CORNERS[0][1] + _CORNERS[1][1]) / 2)
_HALF_PX = (_CORNERS[1][0] - _CORNERS[0][0]) / 2
_CAVITY_RGB, _TONGUE_RGB, _SEAM_RGB = (0.13, 0.04, 0.04), (0.45, 0.17, 0.17), (0.42, 0.2, 0.18)


def _lip_edges(u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The photograph's y of the line through the corners, the upper lip's and the lower lip's edge.

    `u` runs across the mouth, -1 and 1 at its corners.
    """
    line = _MIDDLE_XY[1] + (_CORNERS[1][1] - _CORNERS[0][1]) / 2 * u
    arch = (1 - u**2).clamp_min(0.0)
    return line, line + _UPPER_LIP_PX * arch, line + _LOWER_LIP_PX * arch


@dataclass(frozen=True)
class Appearance:
    """What makes another speaker out of the one photograph."""

    is_mirrored: bool = False
    """Left and right swapped."""
    gain_rgb: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Colour of the light."""
    saturation: float = 1.0
    """0 is grey, 1 as photographed."""
    brightness: float = 0.0
    """Added to all channels, in [0, 1] units."""
    contrast: float = 1.0
    """Factor around mid grey."""
    gamma: float = 1.0
    """Exponent; above 1 is darker."""
    roll_deg: float = 0.0
    """Rest rotation of the head."""
    zoom: float = 1.0
    """Output pixels per pixel of the photograph."""
    aspect: float = 1.0
    """Width over height; above 1 is a broader face."""
    blur_px: float = 0.0
    """Standard deviation of the lens blur."""
    bob_px: float = 1.5
    """How far the head drifts, standard deviation."""
    jaw_px: float = 12.0
    """How far the jaw drops at opening 1, in pixels of the photograph."""


def appearance(rng: np.random.Generator) -> Appearance:
    """A random speaker, within what a face detector still calls a frontal face."""
    return Appearance(
        is_mirrored=bool(rng.uniform() < 0.5),
        gain_rgb=(
            float(rng.uniform(0.8, 1.12)),
            float(rng.uniform(0.88, 1.06)),
            float(rng.uniform(0.75, 1.2)),
        ),
        saturation=float(rng.uniform(0.4, 1.3)),
        brightness=float(rng.uniform(-0.07, 0.05)),
        contrast=float(rng.uniform(0.8, 1.15)),
        gamma=float(rng.uniform(0.8, 1.5)),
        roll_deg=float(rng.uniform(-4.0, 4.0)),
        zoom=float(rng.uniform(0.92, 1.03)),
        aspect=float(rng.uniform(0.92, 1.08)),
        blur_px=float(rng.uniform(0.0, 0.9)),
        bob_px=float(rng.uniform(0.5, 1.8)),
        jaw_px=float(rng.uniform(10.0, 13.0)),
    )


def drift_head(n_frames: int, rng: np.random.Generator, look: Appearance) -> Tensor:
    """Slow head movement (F, 3): x and y in output pixels, roll in radians."""
    seconds = np.arange(n_frames)[:, None] / 25.0
    rate_hz = rng.uniform(0.08, 0.6, (3, 1, 3))
    phase = rng.uniform(0.0, 2 * math.pi, (3, 1, 3))
    waves = np.sin(2 * math.pi * rate_hz * seconds + phase).mean(axis=0)
    return torch.from_numpy(waves * look.bob_px * np.array([2.0, 1.4, 0.02])).float()


class Portrait(nn.Module):
    """Renders the photograph of one appearance with any mouth; differentiable in the mouth."""

    photo: Tensor
    teeth: Tensor

    def __init__(
        self, look: Appearance, face_box: tuple[float, float, float, float] | None = None
    ) -> None:
        """Prepare the photograph; `face_box` overrules the detector's (x0, y0, x1, y1)."""
        super().__init__()
        from skimage import data, filters

        self.look = look
        if face_box is not None:
            self.face_box = face_box
        pixels = data.astronaut()[:256, 64:384].astype(np.float32) / 255.0
        self._origin = (64.0, 0.0)
        teeth = pixels * 0.85
        pixels = self._without_teeth(pixels)
        if look.blur_px > 0:
            pixels = filters.gaussian(pixels, look.blur_px, channel_axis=-1)
            teeth = filters.gaussian(teeth, look.blur_px, channel_axis=-1)
        self.register_buffer("photo", self._grade(torch.from_numpy(pixels).float()))
        self.register_buffer("teeth", self._grade(torch.from_numpy(teeth).float()))

    def _without_teeth(self, pixels: np.ndarray) -> np.ndarray:
        """Paint over the smile's teeth (H, W, 3), or they would shine through closed lips."""
        rows, columns = pixels.shape[:2]
        y = torch.arange(rows)[:, None] + self._origin[1]
        u = (torch.arange(columns)[None] + self._origin[0] - _MIDDLE_XY[0]) / _HALF_PX
        _, upper, lower = _lip_edges(u)
        hidden = torch.sigmoid((y - upper) / 0.4) * torch.sigmoid((lower - y) / 0.4)
        hidden = hidden * torch.sigmoid((1.0 - u.abs()) * _HALF_PX)
        share = hidden.numpy()[..., None]
        return pixels * (1 - share) + np.array(_SEAM_RGB, np.float32) * share

    def _grade(self, rgb: Tensor) -> Tensor:
        """Light and camera of this appearance: (H, W, 3) -> (1, 3, H, W) in [0, 1]."""
        look = self.look
        rgb = rgb.clamp(0, 1) ** look.gamma * torch.tensor(look.gain_rgb)
        grey = rgb.mean(dim=-1, keepdim=True)
        rgb = grey + look.saturation * (rgb - grey)
        rgb = (rgb - 0.5) * look.contrast + 0.5 + look.brightness
        return rgb.clamp(0, 1).permute(2, 0, 1)[None]

    @cached_property
    def face_box(self) -> tuple[float, float, float, float]:
        """The cascade's mean box (x0, y0, x1, y1) on the rest face, in output pixels."""
        # The cascade searches on a coarse grid; small moves of the head average its steps out,
        # as smoothing a track does.
        moves = self.photo.new_zeros(25, 3)
        moves[:, :2] = torch.cartesian_prod(*[torch.linspace(-4, 4, 5)] * 2)
        with torch.no_grad():
            frames = to_uint8(self.render(self.photo.new_zeros(1, 2).expand(25, -1), moves))
        detect = load_detector("lbp")
        shifts = moves[:, [0, 1, 0, 1]].cpu().numpy()
        found = [
            boxes[0, :4] - shift
            for boxes, shift in zip(map(detect, frames), shifts, strict=True)
            if len(boxes)
        ]
        if not found:
            raise FaceError("face_box: no face found in the rest picture. Pass face_box.")
        x0, y0, x1, y1 = (float(edge) for edge in np.mean(found, axis=0))
        return x0, y0, x1, y1

    def render(self, mouth: Tensor, head: Tensor | None = None) -> Tensor:
        """Whole frames (F, 3, SIZE_PX, SIZE_PX) RGB in [0, 1].

        Args:
            mouth: (F, 2) opening in [0, 1] and width in [-1, 1].
            head: (F, 3) of `drift_head`; at rest by default.
        """
        return self._render(mouth, head, (0.0, 0.0, SIZE_PX, SIZE_PX), SIZE_PX)

    def render_face(self, mouth: Tensor, size_px: int = 96) -> Tensor:
        """Only `face_box` of the resting head, resized: (F, 3, size_px, size_px) in [0, 1]."""
        return self._render(mouth, None, self.face_box, size_px)

    def _render(
        self,
        mouth: Tensor,
        head: Tensor | None,
        box: tuple[float, float, float, float],
        size_px: int,
    ) -> Tensor:
        head = mouth.new_zeros(1, 3) if head is None else head
        x, y = self._view(head, box, size_px)
        opening, width = mouth[:, 0, None, None], mouth[:, 1, None, None]

        # Across: a rounded mouth is narrow, so the photograph is read further out.
        across, down = x - _MIDDLE_XY[0], y - _MIDDLE_XY[1]
        stretch = 0.22 - 0.42 * width
        near = torch.exp(-((across / 33) ** 2) - ((down - 6) / 22) ** 2)
        across = across * (1 + stretch * near)
        source_x = across + _MIDDLE_XY[0]
        u = across / _HALF_PX

        # Down: where the edges of both lips are in the photograph, and where they shall be.
        line, upper_from, lower_from = _lip_edges(u)
        arch = (1 - u**2).clamp_min(0.0)
        # A mouth that does not spread loses the smile: its corners hang, its middle rises.
        smile = 0.65 + 0.35 * width
        closed = line + _CLOSED_PX * (smile * arch + (1 - smile) * 0.6)
        beside = torch.exp(-(F.relu(u.abs() - 1) ** 2) / 0.1)
        closed = line + (closed - line) * beside
        # Ellipse-like opening; the small constant keeps the root's slope finite at the corners.
        lens = torch.sqrt(arch + 0.01) - 0.1
        jaw = self.look.jaw_px * opening
        upper_to = closed - 0.16 * jaw * lens
        lower_to = closed + 0.84 * jaw * lens

        above, below = F.relu(upper_to - y), F.relu(y - lower_to)
        # The jaw carries the whole chin, the lip only its own surroundings.
        chin = 0.84 * jaw * torch.exp(-((u / 1.9) ** 4))
        lip = lower_from - lower_to + chin
        rise = (upper_from - upper_to) * torch.exp(-((above / 9.0) ** 2))
        drop = lip * torch.exp(-((below / 12.0) ** 2)) - chin * torch.exp(-((below / 42.0) ** 2))
        is_below = torch.sigmoid((y - (upper_to + lower_to) / 2) / 0.4)
        source_y = y + rise + (drop - rise) * is_below
        skin = self._sample(self.photo, source_x, source_y)

        # Between the lips: dark, the upper teeth where the skull holds them, tongue at the bottom.
        inside = torch.sigmoid((y - upper_to) / 0.6) * torch.sigmoid((lower_to - y) / 0.6)
        inside = inside * torch.sigmoid((1 - u.abs()) * _HALF_PX / 0.8)
        bite = torch.sigmoid((lower_from - 1.2 - y) / 0.6) * torch.sigmoid((0.8 - u.abs()) * 12)
        bite = bite * 0.8 * (0.55 + 0.45 * width)
        tongue = torch.exp(-(((lower_to - y) / (0.35 * jaw + 1.0)) ** 2)) * 0.7 * (opening + 0.1)
        cavity = self._paint(_CAVITY_RGB).lerp(self._paint(_TONGUE_RGB), tongue[:, None])
        cavity = cavity.lerp(self._sample(self.teeth, source_x, y), bite[:, None])
        return skin.lerp(cavity, inside[:, None])

    def _view(
        self, head: Tensor, box: tuple[float, float, float, float], size_px: int
    ) -> tuple[Tensor, Tensor]:
        """Photograph coordinates x, y (F or 1, size_px, size_px) of the pixels of `box`."""
        x0, y0, x1, y1 = box
        unit = (torch.arange(size_px, device=head.device) + 0.5) / size_px
        shift_x, shift_y, roll = head.T[:, :, None, None]
        x = (x0 + unit * (x1 - x0) - SIZE_PX / 2)[None, None] - shift_x
        y = (y0 + unit * (y1 - y0) - SIZE_PX / 2)[None, :, None] - shift_y
        angle = roll + math.radians(self.look.roll_deg)
        root = math.sqrt(self.look.aspect)
        sign = -1.0 if self.look.is_mirrored else 1.0
        across = (x * angle.cos() + y * angle.sin()) * sign / (self.look.zoom * root)
        down = (y * angle.cos() - x * angle.sin()) * root / self.look.zoom
        return across + _HEAD_XY[0], down + _HEAD_XY[1]

    def _sample(self, picture: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Read a picture (1, 3, H, W) at photograph coordinates (F, h, w)."""
        height, width = picture.shape[-2:]
        across = (x - self._origin[0] + 0.5) * (2 / width) - 1
        down = (y - self._origin[1] + 0.5) * (2 / height) - 1
        grid = torch.stack(torch.broadcast_tensors(across, down), dim=-1)
        return F.grid_sample(
            picture.expand(len(grid), -1, -1, -1),
            grid,
            padding_mode="border",
            align_corners=False,
        )

    def _paint(self, rgb: tuple[float, float, float]) -> Tensor:
        """A colour under this appearance's light: (1, 3, 1, 1)."""
        return self._grade(torch.tensor([[rgb]])).to(self.photo.device)


def to_uint8(frames: Tensor) -> np.ndarray:
    """(F, 3, H, W) in [0, 1] -> (F, H, W, 3) uint8."""
    pixels = (frames.clamp(0, 1) * 255).round().byte()
    return pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
