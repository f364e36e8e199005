"""A small VAE of Stable Diffusion's shape with random weights, for hosts that decode latents."""

from __future__ import annotations

from typing import Any

import torch


def small_vae(size_px: int = 256) -> Any:
    """A frozen AutoencoderKL: pixels (B, 3, S, S) <-> latents (B, 4, S/8, S/8).

    Its last layer is scaled so that pixels lie in about [-1, 1], as a trained one's do.
    """
    from diffusers import AutoencoderKL

    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 16, 16, 16),
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=size_px,
        scaling_factor=0.18215,
    )
    with torch.no_grad():
        pixels = vae.decode(torch.randn(1, 4, size_px // 8, size_px // 8)).sample
        for parameter in vae.decoder.conv_out.parameters():
            parameter.mul_(0.25 / pixels.std())
    return vae.requires_grad_(False).eval()
