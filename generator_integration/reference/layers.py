"""What the generator is made of: encoders of faces and sound, pose matching, decoder blocks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from syncdisc_plugin.nn.blocks import WholeConv, unit
from syncdisc_plugin.nn.towers import AudioTower
from syncdisc_plugin.spec import ClipSpec

REACH = 0.3  # how far a reference's pixels may be moved, in halves of the face's side
GROUP = 16  # channels that share a norm's statistics


def conv(c_in: int, c_out: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps the shape, or divides it by `stride`."""
    return nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2)


def norm(channels: int) -> nn.GroupNorm:
    """Statistics of each picture alone: nothing differs between training and use."""
    groups = max(1, channels // GROUP)
    return nn.GroupNorm(groups if channels % groups == 0 else 1, channels)


def silence(layer: nn.Module) -> None:
    """Let a layer begin with an output of zeros."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def double(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, 2H, 2W); nearest, so that the convolution behind it smooths evenly."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class Residual(nn.Module):
    """x + conv(silu(norm(x)))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.conv = norm(channels), conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same."""
        return x + self.conv(F.silu(self.norm(x)))


class Modulated(nn.Module):
    """Residual block whose channels a condition scales and shifts (FiLM, Perez et al., 2018)."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.film = nn.Linear(condition, 2 * channels)
        self.first, self.second = conv(channels, channels), conv(channels, channels)
        silence(self.second)  # starts as the identity: the skip connections are learnt from first

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (N, C, H, W), condition (N, E) -> (N, C, H, W)."""
        scale, shift = self.film(condition)[..., None, None].chunk(2, dim=1)
        y = torch.addcmul(shift.to(x.dtype), self.norm(x), 1 + scale.to(x.dtype))
        return x + self.second(F.silu(self.first(F.silu(y))))


class Beside(nn.Module):
    """Mixes each frame's vector with its neighbours' in time; the ends are repeated."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Linear(3 * channels, channels)
        silence(self.mix)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, ..., C) -> the same, any T."""
        before = torch.cat([x[:, :1], x[:, :-1]], dim=1)
        after = torch.cat([x[:, 1:], x[:, -1:]], dim=1)
        return x + self.mix(F.silu(torch.cat([before, x, after], dim=-1)))


class FaceEncoder(nn.Module):
    """Pictures -> features at a half, a quarter, an eighth and a sixteenth of their size."""

    def __init__(self, channels: tuple[int, int, int, int], deep: tuple[bool, ...]) -> None:
        """`deep` says at which of the four sizes a residual block follows."""
        super().__init__()
        sizes = zip((3, *channels), channels, (5, 3, 3, 3), strict=False)
        self.steps = nn.ModuleList(conv(a, b, kernel, 2) for a, b, kernel in sizes)
        self.more = nn.ModuleList(
            Residual(c) if more else nn.Identity() for c, more in zip(channels, deep, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, 3, H, W) in [0, 1] -> four (N, c_i, H / 2^i, W / 2^i)."""
        x = (2 * x - 1).contiguous(memory_format=torch.channels_last)
        features = []
        for step, more in zip(self.steps, self.more, strict=True):
            x = more(F.silu(step(x)))
            features.append(x)
        return features


class SoundEncoder(nn.Module):
    """Mel windows -> one vector per frame, mixed with those of two frames on either side."""

    def __init__(self, width: int, embedding: int, bins: int, length: int) -> None:
        super().__init__()
        w = width
        rows, columns = -(-bins // 16), -(-length // 8)
        self.body = nn.Sequential(
            nn.Conv2d(1, w, 3, (2, 1), 1),
            nn.SiLU(),
            conv(w, 2 * w, stride=2),
            nn.SiLU(),
            conv(2 * w, 4 * w, stride=2),
            nn.SiLU(),
            Residual(4 * w),
            conv(4 * w, 8 * w, stride=2),
            nn.SiLU(),
            WholeConv(8 * w, embedding, (rows, columns)),
        )
        self.beside = nn.Sequential(Beside(embedding), Beside(embedding))

    def forward(self, mel: Tensor) -> Tensor:
        """(B, T, 1, M, L) in [-4, 4] -> (B, T, E)."""
        x = (mel.flatten(0, 1) / 4).contiguous(memory_format=torch.channels_last)
        return self.beside(self.body(x).flatten(1).unflatten(0, mel.shape[:2]))


class Ear(nn.Module):
    """In place of a SoundEncoder: the audio tower of a discriminator, which stays as it is.

    What it hears is what can be told from lips, and close to a face's embedding where they fit: the
    decoder need only learn to draw that. The trainer fills it in.
    """

    def __init__(self, spec: ClipSpec, width: int, length: int, embedding: int) -> None:
        super().__init__()
        self.tower = AudioTower(spec, width, length, dropout=0.0).requires_grad_(False).eval()
        self.given = nn.Linear(length, embedding)
        self.beside = nn.Sequential(Beside(embedding), Beside(embedding))

    def train(self, mode: bool = True) -> Ear:
        """All but the tower, whose batch norms keep their statistics."""
        super().train(mode)
        self.tower.eval()
        return self

    def forward(self, mel: Tensor) -> Tensor:
        """(B, T, 1, M, L) in [-4, 4] -> (B, T, E)."""
        heard = unit(self.tower(mel.flatten(0, 2))[:, 0]) * self.given.in_features**0.5
        return self.beside(self.given(heard).unflatten(0, mel.shape[:2]))


class Matcher(nn.Module):
    """Where in each reference a frame finds its pixels, and how well that reference suits.

    A smooth field of movements, as DINet's and the first-order motion model's generators have one,
    in place of mere stacking: a head that is turned otherwise still lends its texture.
    """

    def __init__(self, channels: int, condition: int, width: int) -> None:
        super().__init__()
        self.frame, self.reference = conv(channels, width, 1), conv(channels, width, 1)
        self.heard = nn.Linear(condition, width)
        self.near = conv(width, width)
        self.far = nn.Sequential(conv(width, width, stride=2), nn.SiLU(), conv(width, width))
        self.out = conv(width, 3)
        silence(self.out)  # at the start nothing moves and all references count alike

    def forward(self, frame: Tensor, reference: Tensor, condition: Tensor) -> Tensor:
        """A field for every pair of a frame and a reference.

        Args:
            frame: (B, T, C, h, w).
            reference: (B, R, C, h, w).
            condition: (B, T, E), what is said and who speaks.

        Returns:
            (B, T, R, 3, h, w) fp32: right, down in halves of the picture, and a score.
        """
        b, t, r = *frame.shape[:2], reference.shape[1]
        seen = self.frame(frame.flatten(0, 1)).unflatten(0, (b, t))
        other = self.reference(reference.flatten(0, 1)).unflatten(0, (b, r))
        both = seen[:, :, None] + other[:, None] + self.heard(condition)[:, :, None, :, None, None]
        x = F.silu(both.flatten(0, 2).contiguous(memory_format=torch.channels_last))
        x = F.silu(self.near(x))
        far = double(self.far(x))[..., : x.shape[2], : x.shape[3]]
        field = self.out(F.silu(x + far)).float().unflatten(0, (b, t, r))
        return torch.cat([REACH * torch.tanh(field[..., :2, :, :]), field[..., 2:, :, :]], dim=3)


def fetch(x: Tensor, field: Tensor, first: int) -> Tensor:
    """Move the references' features as `Matcher` says, and take their weighted mean.

    Args:
        x: (B, R, C, H, W) features or pixels of the references.
        field: (B, T, R, 3, h, w).
        first: the first row that is wanted.

    Returns:
        (B * T, C, H - first, W) fp32.
    """
    b, t, r = field.shape[:3]
    size = x.shape[-2:]
    fine = F.interpolate(field.flatten(0, 2), size, mode="bilinear", align_corners=False)
    fine = fine[..., first:, :].unflatten(0, (b, t, r))
    rows, columns = ((torch.arange(n, device=x.device) * 2 + 1) / n - 1 for n in size)
    here = torch.stack(torch.broadcast_tensors(columns[None], rows[first:, None]))  # (2, H', W)
    # (B, R, T * H', W, 2): the frames below each other, so that no reference is copied for each.
    grid = (fine[:, :, :, :2] + here).permute(0, 2, 1, 4, 5, 3).flatten(2, 3).flatten(0, 1)
    moved = F.grid_sample(
        x.flatten(0, 1).float(), grid, padding_mode="border", align_corners=False
    ).unflatten(0, (b, r))
    moved = moved.unflatten(3, (t, -1))  # (B, R, C, T, H', W)
    mixed = moved[:, 0]
    if r > 1:
        share = fine[:, :, :, 2].softmax(dim=2)[:, None]  # (B, 1, T, R, H', W)
        mixed = sum(
            (moved[:, i] * share[:, :, :, i] for i in range(1, r)), mixed * share[:, :, :, 0]
        )
    return mixed.transpose(1, 2).flatten(0, 1)


class Level(nn.Module):
    """One step of the decoder: twice the size, beside it the frame's and the references' features.

    The references lend half as many channels as there are: moving them costs more than convolving.
    """

    def __init__(self, smaller: int, channels: int, condition: int) -> None:
        super().__init__()
        self.up = conv(smaller, channels, 1)
        self.lend = conv(channels, channels // 2, 1)
        self.merge = conv(channels + channels // 2, channels, 1)
        self.block = Modulated(channels, condition)

    def forward(
        self, x: Tensor, own: Tensor, other: Tensor, field: Tensor, condition: Tensor
    ) -> Tensor:
        """Grow.

        Args:
            x: (N, C', h / 2, w / 2), or its lowest rows.
            own: (N, C, h', w) the frame's features, cut to the h' lowest of h rows.
            other: (B, R, C, h, w) the references' features, whole.
            field: (B, T, R, 3, ...), N = B * T.
            condition: (N, E).

        Returns:
            (N, C, h', w).
        """
        rows = own.shape[2]
        lent = self.lend(other.flatten(0, 1)).unflatten(0, other.shape[:2])
        lent = fetch(lent, field, other.shape[3] - rows).to(own.dtype)
        beside = self.merge(torch.cat([own, lent], dim=1))
        return self.block(double(self.up(x))[:, :, -rows:] + beside, condition)
