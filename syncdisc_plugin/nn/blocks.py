"""Convolution blocks that both towers are made of; nothing here knows about sync."""

from __future__ import annotations

import torch
from torch import nn


class WholeConv(nn.Conv2d):
    """A convolution whose kernel covers the whole input: one matrix product, several times faster.

    Both sides are read channels last, where that is a view.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, C', 1, 1), H and W the kernel's."""
        x, weight = (t.permute(0, 2, 3, 1).flatten(1) for t in (x, self.weight))
        return nn.functional.linear(x, weight, self.bias)[..., None, None]


class ConvNorm(nn.Sequential):
    """Convolution, batch norm, ReLU. The norm folds into the convolution for a frozen net."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        conv: type[nn.Conv2d] = nn.Conv2d,
    ) -> None:
        super().__init__(
            conv(c_in, c_out, kernel, stride, padding, bias=False),
            nn.BatchNorm2d(c_out),
            nn.ReLU(inplace=True),
        )


class Residual(nn.Module):
    """x + conv(x), then ReLU: depth at constant shape. Padding must keep the shape."""

    def __init__(self, channels: int, kernel: tuple[int, int], padding: tuple[int, int]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel, padding=padding, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return self.norm(self.conv(x)).add_(x).relu_()


def unit(x: torch.Tensor, eps: float = 1e-4) -> torch.Tensor:
    """Scale vectors along the last axis to length 1, in fp32, smooth at zero.

    `F.normalize` has a gradient of 1/eps = 1e12 at a zero vector; here it is at most 1/eps = 1e4.
    """
    x = x.float()
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + eps**2)
