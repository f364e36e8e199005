"""A net that will never be trained again: batch norms folded away, nothing asks for a gradient."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

AnyNet = TypeVar("AnyNet", bound=nn.Module)


@torch.no_grad()
def freeze(net: AnyNet) -> AnyNet:
    """The net itself, in eval mode, each batch norm a part of the convolution before it.

    It computes the same within rounding, keeps fewer activations, and has no running statistics
    that a training loop could move. A norm that follows a convolution in a module's list of
    children is taken to follow it in the computation too; so it is in every net of `nn`.
    """
    net.eval().requires_grad_(False)
    for module in list(net.modules()):
        conv: nn.Module | None = None
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d) and isinstance(conv, nn.Conv2d):
                _fold(conv, child)
                setattr(module, name, nn.Identity())
            conv = child
    return net


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """In place, so that a frozen net needs no more memory than its weights."""
    weight, bias = fuse_conv_bn_weights(
        conv.weight,
        conv.bias,
        norm.running_mean,  # type: ignore[arg-type]
        norm.running_var,  # type: ignore[arg-type]
        norm.eps,
        norm.weight,
        norm.bias,
    )
    conv.weight.copy_(weight)
    conv.bias = bias.requires_grad_(False)
