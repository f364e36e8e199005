"""Where a net runs, and in which precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def choose_device(name: str) -> str:
    """cuda where there is one for "auto", else what is named.

    Raises:
        ValueError: cuda is named and there is none, or torch knows no such device.
    """
    try:
        torch.device("cpu" if name == "auto" else name)
    except RuntimeError as error:
        raise ValueError(
            f"--device: expected auto, cpu or cuda (cuda:1 is the second GPU), got {name!r}."
        ) from error
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device: {name} was asked for, but torch sees no GPU. Use cpu or auto.")
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def check_precision(name: str) -> None:
    """Raise ValueError for what is no precision of ours."""
    if name not in ("auto", "bf16", "fp32"):
        raise ValueError(f"--precision: expected auto, bf16 or fp32, got {name!r}.")


def choose_precision(name: str, device: torch.device) -> str:
    """bf16 for "auto" where the device is faster with it, else fp32; or what is named.

    Raises:
        ValueError: another name.
    """
    check_precision(name)
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    # AVX-512's bf16 instructions alone are slower than fp32 (bench/precision.py).
    has_tiles = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    return "bf16" if has_tiles else "fp32"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """bf16 autocast where `precision` asks for it, else a context that changes nothing."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


@contextmanager
def denormals_as_zero() -> Iterator[None]:
    """On CPUs, numbers below 1e-38 are 0 meanwhile: arithmetic with them is many times slower."""
    # Large enough for all of torch's threads, which then take over what is set.
    was = not (torch.full((1 << 20,), 1e-39) * 1.0).any()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(was)
