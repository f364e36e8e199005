"""Invented embeddings of clips."""

from __future__ import annotations

import torch

from syncdisc_plugin.data.embed import Embedded
from syncdisc_plugin.data.manifest import Clip


def clip(
    v: torch.Tensor, a: torch.Tensor, name: int = 0, speaker: str = "s", t: int = 5
) -> Embedded:
    about = Clip(f"k{name}/0", speaker, f"{name}.mp4", 0.0, len(v) + t - 1, 0, 96.0, -20.0)
    return Embedded(about, v, a, t)


def units(n: int, seed: int, dim: int = 16) -> torch.Tensor:
    x = torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(x, dim=1)


def perfect(n: int = 40) -> Embedded:
    return clip(torch.eye(n), torch.eye(n))


def random_clips(n: int = 5, windows: int = 60) -> list[Embedded]:
    """Unrelated sound and picture; clips of several lengths."""
    return [
        clip(units(windows + 7 * i, 2 * i), units(windows + 7 * i, 2 * i + 1), i, f"s{i % 2}")
        for i in range(n)
    ]


def noisy_clips(n: int = 4, windows: int = 50, noise: float = 0.5) -> list[Embedded]:
    """In sync, with errors."""
    out = []
    for i in range(n):
        v = units(windows + 3 * i, i)
        a = torch.nn.functional.normalize(v + noise * torch.randn_like(v), dim=1)
        out.append(clip(v, a, i, f"s{i % 2}"))
    return out
