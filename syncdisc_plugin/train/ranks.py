"""Several processes, one global batch: what torchrun started, joined.

Each process embeds its share of the batch; similarities are those of the whole batch, and batch
norm sees the whole batch too. So N processes take the steps of one (dropout apart: each process
draws its own).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from syncdisc_plugin.errors import RunError

# Rank 0 measures and filters alone; the others wait for it that long.
PATIENCE = timedelta(hours=4)


@dataclass(frozen=True)
class Ranks:
    """This process among the others; one process alone by default."""

    rank: int = 0
    """Number of this process."""
    world: int = 1
    """How many there are."""
    local: int = 0
    """Number of this process on its machine: its GPU."""

    @property
    def first(self) -> bool:
        """Whether this process measures, logs and saves."""
        return self.rank == 0

    def share(self, n: int) -> range:
        """Which of n rows of the global batch are this process's.

        Raises:
            ValueError: n cannot be divided evenly.
        """
        if n % self.world:
            raise ValueError(
                f"--batch_clips: expected a multiple of the {self.world} processes, got {n}. A run "
                "that is resumed keeps its own: start as many processes as divide it."
            )
        size = n // self.world
        return range(self.rank * size, (self.rank + 1) * size)

    def gather(self, x: torch.Tensor) -> torch.Tensor:
        """(B / world, ...) of each process -> (B, ...), with gradients across processes."""
        return x if self.world == 1 else _Gather.apply(x, self)

    def average_gradients(self, parameters: Iterable[nn.Parameter], flag: bool = False) -> bool:
        """Mean of the gradients over the processes, in place, in one message.

        Returns:
            Whether any process raised `flag`: all of them learn it after the same step.
        """
        if self.world == 1:
            return flag
        grads = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.reshape(-1) for g in grads] + [grads[0].new_tensor([float(flag)])])
        dist.all_reduce(flat)
        flat /= self.world
        at = 0
        for g in grads:
            g.copy_(flat[at : at + g.numel()].view_as(g))
            at += g.numel()
        return bool(flat[-1] > 0)

    def agree(self, value: Any) -> Any:
        """Rank 0's value, everywhere."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def leave(self) -> None:
        """Close the group."""
        if self.world > 1:
            dist.destroy_process_group()


def processes() -> int:
    """How many torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join(device: str) -> Ranks:
    """Join what torchrun started: NCCL on CUDA, else gloo; one process alone without it."""
    world = processes()
    if world == 1:
        return Ranks()
    if missing := [name for name in ("RANK", "LOCAL_RANK") if name not in os.environ]:
        raise RunError(
            f"WORLD_SIZE={world} is set, but not {' and '.join(missing)}: expected all of them, or "
            "none. Start with torchrun, which sets them, or unset WORLD_SIZE for one process."
        )
    ranks = Ranks(int(os.environ["RANK"]), world, int(os.environ["LOCAL_RANK"]))
    if device.startswith("cuda"):
        torch.cuda.set_device(ranks.local)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=PATIENCE)
    return ranks


class _Gather(torch.autograd.Function):
    """All-gather whose gradient is the sum of what all processes want of this one's rows."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, ranks: Ranks) -> torch.Tensor:
        ctx.ranks, ctx.rows = ranks, x.shape[0]
        parts = [torch.empty(x.shape, dtype=x.dtype, device=x.device) for _ in range(ranks.world)]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        at = ctx.ranks.rank * ctx.rows
        return total[at : at + ctx.rows], None


class _Sum(torch.autograd.Function):
    """All-reduce whose gradient is an all-reduce."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        out = x.clone()
        dist.all_reduce(out)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        out = gradients[0].contiguous().clone()
        dist.all_reduce(out)
        return out


class GlobalNorm(nn.BatchNorm2d):
    """Batch norm over all processes' rows; torch's SyncBatchNorm runs on GPUs only."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> the same."""
        if not self.training:
            return super().forward(x)
        wide = x.float()
        n = x.numel() // x.shape[1] * dist.get_world_size()  # all shares are alike
        mean = _Sum.apply(wide.sum((0, 2, 3))) / n
        centred = wide - mean[:, None, None]
        variance = _Sum.apply(centred.square().sum((0, 2, 3))) / n
        running = self.running_mean, self.running_var, self.num_batches_tracked
        if running[0] is not None and running[1] is not None and running[2] is not None:
            with torch.no_grad():
                keep = self.momentum or 0.0
                running[0].lerp_(mean, keep)
                running[1].lerp_(variance * n / (n - 1), keep)
                running[2].add_(1)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


def share_norms(net: nn.Module) -> None:
    """Let every batch norm of the net see all processes' rows; names and weights stay."""
    for module in net.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = GlobalNorm
