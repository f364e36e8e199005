"""Look on while a host trains: losses, gradients at its frames, seconds, memory, frozen or not."""

from __future__ import annotations

import hashlib
import random
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from generator_integration.hosts.host import Batch, Host, HostError
from syncdisc_plugin import SyncLoss
from syncdisc_plugin.data.cost import peak_memory_mb


@dataclass(frozen=True)
class Report:
    """One way of training, measured. Everything is in the order of the steps."""

    way: str
    """Whose sync loss."""
    loss: list[float]
    """Sync loss at the frames that the step made, not weighted; empty without one."""
    gradient: list[float]
    """Norm at those frames of the gradient of the weighted sync loss."""
    rest: list[float]
    """Norm at those frames of the gradient of all other losses."""
    seconds: list[float]
    """Of whole steps, data not counted."""
    sync_seconds: float
    """Of the sync loss alone, forward and backward, once warm."""
    peak_mb: float
    """Most memory in use while training: of the process, or on the GPU."""
    expert_parameters: int
    """Numbers in the expert's weights."""
    state_changed: int
    """Parameters and buffers of the expert that training changed; 0 is right."""
    output_same: bool
    """Whether the expert gives bit for bit the same loss for the same frames afterwards."""
    moved: bool
    """Whether the generator's weights changed."""
    check: str
    """What `SyncLoss.check` says of real frames; "" for invented ones and other ways."""
    notes: list[str]
    """What had to be changed to run the step here."""

    @property
    def step_seconds(self) -> float:
        """Median of the steps after the first, which also warms up."""
        return statistics.median(self.seconds[1:] or self.seconds)


class Watch:
    """Hands out batches, and notes when and what came of them; changes nothing."""

    def __init__(self, output: nn.Module, batches: list[Batch], device: torch.device) -> None:
        self.batches, self.device = batches, device
        self.seconds: list[float] = []
        self.frames: list[torch.Tensor] = []
        self.gradients: dict[int, torch.Tensor] = {}
        output.register_forward_hook(self._seen)

    def __iter__(self) -> Iterator[Batch]:
        """The batches; a step lasts until the next one is asked for."""
        for batch in self.batches:
            _wait(self.device)
            began = time.perf_counter()
            try:
                yield batch
            finally:  # a host that counts its steps leaves its loop in the last one
                _wait(self.device)
                self.seconds.append(time.perf_counter() - began)

    def __len__(self) -> int:
        """How many batches."""
        return len(self.batches)

    def _seen(self, module: nn.Module, inputs: Any, frames: torch.Tensor) -> None:
        if torch.is_grad_enabled() and frames.requires_grad:
            step = len(self.frames)
            self.frames.append(frames.detach())
            # The last one counts: hosts that train a GAN may go back through the frames for it.
            frames.register_hook(lambda g: self.gradients.__setitem__(step, g.detach()))


def measure(
    host: Host,
    way: str,
    batches: list[Batch],
    device: torch.device,
    real: Callable[[], Batch] | None = None,
) -> Report:
    """Train once over the batches and look at what happened.

    Args:
        host: loaded for `way`.
        way: whose sync loss.
        batches: what to train with.
        device: where the host is.
        real: makes a large batch of real footage for `SyncLoss.check`; called when memory has
            been measured.

    Raises:
        HostError: the step did not run to its end, or gave the generator no gradient.
    """
    before = _state(host.expert)
    probe_before = _probe(host, batches[0])
    weights = [p.detach().clone() for p in host.generator.parameters()]
    torch.manual_seed(2)  # building may have drawn more for one way than for another
    random.seed(2)
    watch = Watch(host.output, batches, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    host.train(watch)
    peak_mb = _peak_mb(device)
    done = (len(watch.seconds), len(watch.frames), len(watch.gradients))
    if done != (len(batches),) * 3:
        raise HostError(
            f"{host.facts.repository}: of {len(batches)} steps {done[0]} ended, {done[1]} made "
            f"frames and {done[2]} sent a gradient to them."
        )
    after = _state(host.expert)
    probe_after = _probe(host, batches[0])
    losses, gradients, rests, sync_seconds = _look_back(host, watch)
    now = host.generator.parameters()
    return Report(
        way=way,
        loss=losses,
        gradient=gradients,
        rest=rests,
        seconds=watch.seconds,
        sync_seconds=sync_seconds,
        peak_mb=peak_mb,
        expert_parameters=sum(p.numel() for p in host.expert.parameters()) if host.expert else 0,
        state_changed=sum(before[k] != after[k] for k in before),
        output_same=probe_before == probe_after,
        moved=any(not torch.equal(a, b) for a, b in zip(weights, now, strict=True)),
        check=_check(host, real()) if real else "",
        notes=host.notes,
    )


def _look_back(host: Host, watch: Watch) -> tuple[list[float], list[float], list[float], float]:
    """The sync loss and its gradient at the frames of every step, and the seconds of one.

    Apart from the training, so that nothing of it is in the steps' seconds and memory.
    """
    losses, gradients, rests, seconds = [], [], [], []
    for step, (frames, batch) in enumerate(zip(watch.frames, watch.batches, strict=True)):
        total = watch.gradients[step]
        if host.expert is None:
            rests.append(float(total.norm()))
            continue
        x = frames.clone().requires_grad_()
        _wait(watch.device)
        began = time.perf_counter()
        loss = host.sync_loss(x, batch)
        (gradient,) = torch.autograd.grad(loss, x)
        _wait(watch.device)
        seconds.append(time.perf_counter() - began)
        losses.append(float(loss.detach()))
        gradients.append(float(host.weight * gradient.norm()))
        rests.append(float((total - host.weight * gradient).norm()))
    return losses, gradients, rests, statistics.median(seconds) if seconds else 0.0


def _check(host: Host, real: Batch) -> str:
    """Do the weights suit the host's real frames? Only ours can tell."""
    sync = getattr(host, "sync", None)
    if not isinstance(sync, SyncLoss):
        return ""
    return str(sync.check([{"frames": real.frames, **real.audio}]))


def _state(expert: nn.Module | None) -> dict[str, str]:
    """Digest of every parameter and buffer."""
    if expert is None:
        return {}
    tensors = [*expert.named_parameters(), *expert.named_buffers()]
    return {name: _digest(tensor) for name, tensor in tensors}


def _digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.detach().cpu().numpy().tobytes()).hexdigest()


@torch.no_grad()
def _probe(host: Host, batch: Batch) -> float:
    """The loss of the real frames by the expert in eval mode, which looking does not move."""
    if host.expert is None:
        return 0.0
    training = host.expert.training
    host.expert.eval()
    loss = float(host.sync_loss(batch.frames.to(host.device), batch))
    host.expert.train(training)
    return loss


def _peak_mb(device: torch.device) -> float:
    """Most memory of this process so far, or on its GPU since the last reset; 0: not known."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return peak_memory_mb()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
