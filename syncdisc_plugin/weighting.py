"""SyncWeight: when the sync loss is switched on, and how much it weighs."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from syncdisc_plugin.ranges import check_range

# In fp16, gradients of a mean over millions of values vanish, and larger ones overflow: the first
# scale that gives a finite norm is right.
SCALES = (2.0**15, 2.0**10, 2.0**5, 1.0)
FALL = 25.0  # from the first ratio to the last
LATEST = 0.5  # part of the training at which the ratio falls in any case
LEAST_MEASURED = 6  # before a low mean is believed
WHOLE = 2.0  # times the loss of true frames: from here up the weight is whole


class SyncWeight:
    """The weight of a sync loss, from the gradients at the generator's output.

    A fixed weight means something else in every host: it depends on the other losses' scale, the
    size of the frames and how far the generator is. Here the weight is what makes the gradient of
    the sync loss at the frames `ratio` times as long as that of all other losses together, measured
    every few steps and smoothed. It is 0 before `start_step` and rises to its full value over
    `ramp_steps`.

    A ratio far above 1 is right at the frames: the gradient of an L1 is spread evenly over all
    pixels and short, that of a sync loss sits on the lips, and much of it cancels on its way
    through the generator. Wav2Lip's habit, weight 0.03 beside a mean L1, comes to 50 with the
    shipped weights at 96x96 and T = 5; 30 is enough and costs the picture less (bench/tries.md). In
    place of the frames the weight of the generator's last layer can be passed, as in VQGAN's
    adaptive weight (Esser et al., 2021); a ratio near 1 is usual there.

    A weight that is only balanced pushes as hard however small the loss is, and the generator ends
    more in sync than true video, at the picture's cost. With `true_loss` it rests: it falls from
    where the sync loss is twice that to 0 where it is no more (bench/tries.md has both).

    Where the end of the training is known, give each call the `part` of it that has passed: the
    ratio is kept until the lips follow, at the latest until the half, and falls from there along an
    exponential to `final_ratio` at the end, so that the picture has time to settle
    (bench/generator).

    Counts the calls as steps. Save it with the generator: `state_dict` holds plain numbers.
    Under torch.distributed the norms are averaged over the ranks, so that all use one weight.

    Args:
        ratio: length of the weighted sync gradient over length of the others', at the frames. Of a
            SyncLoss with `mouth_only` 20 pushes the lips as hard as 30 of one without.
        final_ratio: what it falls to, for calls that say which part of the training has passed; a
            25th of `ratio` by default.
        following_loss: the mean sync loss below which the lips are taken to follow. As
            -log probability, mouths that say nothing have 1.2 and more. Of a loss on another scale
            say another; 0 is never.
        start_step: first step with a weight above 0.
        ramp_steps: steps from 0 to the whole weight.
        every: steps between measurements; one costs a backward pass from the losses to the
            frames, not through the generator.
        smoothing: of the measured norms, 0 (none) to below 1.
        largest: bound of the weight, for a sync loss whose gradient is nearly gone; a mean L1 of
            weight 1 leaves the weight far below it, other losses of weight 40 or more may want a
            larger one. A warning says so once.
        true_loss: where it rests: the mean sync loss of true frames, of people whom the
            discriminator was not trained on (those it knows by heart have less); 0 is never.

    Raises:
        ValueError: a number outside its range.

    Example:
        >>> weight = SyncWeight()
        >>> frames = torch.rand(2, 3, 5, 96, 96, requires_grad=True)
        >>> rest, sync_loss = frames.abs().mean(), frames.square().sum()
        >>> loss = rest + weight(sync_loss, rest, frames) * sync_loss
    """

    def __init__(
        self,
        ratio: float = 30.0,
        *,
        final_ratio: float | None = None,
        following_loss: float = 1.0,
        start_step: int = 0,
        ramp_steps: int = 1000,
        every: int = 10,
        smoothing: float = 0.9,
        largest: float = 1.0,
        true_loss: float = 0.0,
    ) -> None:
        check_range("ratio", ratio, above=0)
        final_ratio = ratio / FALL if final_ratio is None else final_ratio
        check_range("final_ratio", final_ratio, above=0)
        check_range("following_loss", following_loss, least=0)
        check_range("start_step", start_step, least=0)
        check_range("ramp_steps", ramp_steps, least=0)
        check_range("every", every, least=1)
        check_range("smoothing", smoothing, least=0, below=1)
        check_range("largest", largest, above=0)
        check_range("true_loss", true_loss, least=0)
        self.ratio, self.final_ratio, self.following_loss = ratio, final_ratio, following_loss
        self.start_step, self.ramp_steps = start_step, ramp_steps
        self.every, self.smoothing, self.largest = every, smoothing, largest
        self.true_loss = true_loss
        self.step = 0
        """Calls so far."""
        self.value = 0.0
        """The weight that the last call returned."""
        self._measured, self._warned = 0, False
        self._falls_from: float | None = None  # the part at which the lips followed
        # Running means: norms of the sync loss's gradient and of the others', and the sync loss.
        self._means = [0.0, 0.0, 0.0]

    def __call__(
        self,
        sync_loss: torch.Tensor,
        rest_loss: torch.Tensor,
        frames: torch.Tensor,
        *,
        part: float = 0.0,
    ) -> float:
        """The weight of this step.

        Args:
            sync_loss: scalar, unweighted and unscaled.
            rest_loss: scalar, all other losses of the generator with their weights.
            frames: the generator's output that both were computed from, before any detach; or
                the weight of its last layer.
            part: of the whole training that has passed, from 0 to 1: `step / total_steps`. Left
                out, the ratio never falls; beyond the end, it stays where it is.

        Raises:
            ValueError: a loss that is no scalar, or does not depend on the frames; a part below 0.
        """
        check_range("part", part, least=0, fix="Pass step / total_steps, or leave it out.")
        step, self.step = self.step, self.step + 1
        if step < self.start_step:
            self.value = 0.0
            return 0.0
        if (step - self.start_step) % self.every == 0:
            self._measure(sync_loss, rest_loss, frames)
        ramp = min(1.0, (step - self.start_step + 1) / max(1, self.ramp_steps))
        sync, rest, loss = self._means
        follows = self._measured >= LEAST_MEASURED and loss < self.following_loss
        if self._falls_from is None and part > 0 and (follows or part >= LATEST):
            self._falls_from = min(part, LATEST)
        balanced = self._ratio(part) * rest / sync if sync > 0 else 0.0
        if balanced > self.largest and not self._warned:
            self._warned = True
            warnings.warn(
                f"SyncWeight: the ratio {self._ratio(part):g} asks for a weight of {balanced:.2g} "
                f"and gets largest={self.largest:g}. If the other losses are large, pass a larger "
                "one; if the sync loss's gradient is nearly gone, sync.check says why.",
                stacklevel=2,
            )
        self.value = ramp * min(self.largest, balanced) * self._unrest(loss)
        return self.value

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, for the host's checkpoint."""
        return {
            "step": self.step,
            "measured": self._measured,
            "means": list(self._means),
            "falls_from": self._falls_from,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Raises:
            ValueError: not such a state.
        """
        needed = {"step", "measured", "means"}  # earlier ones hold no more
        if not isinstance(state, dict) or set(state) - {"falls_from"} != needed:
            got = sorted(state) if isinstance(state, dict) else state
            raise ValueError(
                f"state: expected step, measured and means, got {got!r}. Pass what "
                "SyncWeight.state_dict() returned."
            )
        self.step, self._measured = int(state["step"]), int(state["measured"])
        self._means = [float(mean) for mean in state["means"]]
        falls_from = state.get("falls_from")
        self._falls_from = None if falls_from is None else float(falls_from)

    def _ratio(self, part: float) -> float:
        """The first one until the lips follow, then on its way to the last one."""
        if (begin := self._falls_from) is None:
            return self.ratio
        gone = min(1.0, max(0.0, (part - begin) / (1 - begin)))
        return self.ratio * (self.final_ratio / self.ratio) ** gone

    def _unrest(self, loss: float) -> float:
        """Part of the weight that such a sync loss asks for."""
        if not self.true_loss:
            return 1.0
        return min(1.0, max(0.0, (loss / self.true_loss - 1) / (WHOLE - 1)))

    def _measure(
        self, sync_loss: torch.Tensor, rest_loss: torch.Tensor, frames: torch.Tensor
    ) -> None:
        sync = _gradient_norm("sync_loss", sync_loss, frames)
        rest = _gradient_norm("rest_loss", rest_loss, frames)
        found = torch.stack([sync, rest, sync_loss.detach().to(sync)])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(found)
            found /= torch.distributed.get_world_size()
        if not found.isfinite().all():
            return  # an overflow: the means of before serve on
        # As Adam's: the mean of what was seen so far while that is little.
        self._measured += 1
        keep = min(self.smoothing, 1 - 1 / self._measured)
        self._means = [
            keep * mean + (1 - keep) * now
            for mean, now in zip(self._means, found.tolist(), strict=True)
        ]


def _gradient_norm(name: str, loss: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    if loss.ndim:
        raise ValueError(
            f"{name}: expected a scalar, got {tuple(loss.shape)}. Take its mean over the batch."
        )
    if not frames.requires_grad or not loss.requires_grad:
        what, why = ("frames", "were detached") if loss.requires_grad else (name, "has no gradient")
        raise ValueError(
            f"{what}: expected a part of the generator's graph, but {why}. Pass the generator's "
            "output itself, outside torch.no_grad()."
        )
    for scale in SCALES:
        start = torch.full_like(loss, scale)
        try:
            (gradient,) = torch.autograd.grad(
                loss, frames, start, retain_graph=True, allow_unused=True
            )
        except RuntimeError as error:
            if "donated" not in str(error):
                raise
            raise RuntimeError(
                f"{name}: its compiled graph gives its buffers away at the first backward pass, "
                "and a gradient is measured before yours. Set "
                "torch._functorch.config.donated_buffer = False before it is compiled."
            ) from error
        if gradient is None:
            raise ValueError(
                f"{name}: expected to depend on the frames, but it does not. Compute it from the "
                "same tensor that is passed as frames."
            )
        norm = gradient.float().norm() / scale
        if norm.isfinite():
            break
    return norm
