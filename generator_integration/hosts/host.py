"""What check_host needs of any host: its real generator, one batch, its training, two losses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from generator_integration.footage import Footage
from syncdisc_plugin import SyncLoss
from syncdisc_plugin.errors import SyncDiscError

OWN, SYNC_LOSS, DROP_IN = "own expert", "SyncLoss", "drop-in"
"""The ways to train: the host's expert, two lines of ours, or a changed import only."""


class HostError(SyncDiscError):
    """A folder that is not the host, packages that the host lacks, or a step that did not run."""


@dataclass(frozen=True)
class Facts:
    """What check_host says of a host before it runs it."""

    repository: str
    """Where it lives on GitHub."""
    files: tuple[str, ...]
    """Files by which its checkout is known."""
    needs: Mapping[str, str]
    """Modules that its code imports -> the pip package that brings them."""
    n_frames: int
    """Consecutive frames of one item at the sync loss."""
    ways: tuple[str, ...]
    """The ways that it can be trained here, its own first."""
    real: str
    """Which parts of the step are the host's own code."""
    stand_ins: str
    """Which are not, since they would need downloaded weights or a GPU."""


@dataclass(frozen=True)
class Batch:
    """What one training step is given."""

    inputs: Any
    """As the host's own loader yields it."""
    frames: torch.Tensor
    """The real frames, in the form and order of the generator's output."""
    audio: Mapping[str, torch.Tensor]
    """What `SyncLoss` hears: mel (B, 1, 80, L), or waveform (B, N) and start (B,)."""


class Loader(Protocol):
    """What a training step takes its batches from; each step is timed by it."""

    batches: list[Batch]

    def __iter__(self) -> Iterator[Batch]: ...

    def __len__(self) -> int: ...


class Host(Protocol):
    """A host, loaded for one way of training. Built with (folder, way, device)."""

    facts: Facts
    device: torch.device
    generator: nn.Module
    """Its weights are trained."""
    output: nn.Module
    """Its forward pass returns the generated frames; often the generator itself."""
    expert: nn.Module | None
    """What judges sync and must not change; None where the host has no sync loss."""
    weight: float
    """What the step multiplies the sync loss with."""
    notes: list[str]
    """What had to be changed to run the step here."""

    def __init__(self, folder: Path, way: str, device: torch.device) -> None: ...

    def batches(self, footage: Footage, steps: int, size: int) -> list[Batch]:
        """`steps` batches of `size` items."""
        ...

    def sync_loss(self, frames: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The sync loss of this way at generated frames, as the step computes it: a scalar."""
        ...

    def train(self, loader: Loader) -> None:
        """The host's training step, once for each batch."""
        ...


def judge_of(expert: nn.Module) -> nn.Module:
    """What holds an expert's weights: SyncLoss and our drop-ins keep theirs out of sight."""
    sync = getattr(expert, "sync", expert)
    return sync.net if isinstance(sync, SyncLoss) else expert
