"""SyncLoss: the third discriminator, frozen, as a generator's sync loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from syncdisc_plugin import weights as checkpoints
from syncdisc_plugin.nn import Discriminator

VALUE_RANGES = {"0..1": (0.0, 1.0), "-1..1": (-1.0, 1.0), "0..255": (0.0, 255.0)}
REDUCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "mean": torch.mean,
    "sum": torch.sum,
    "none": lambda x: x,
}


class SyncLoss(nn.Module):
    """How unlikely it is that lips and speech belong together: -log probability, per window.

    0 is perfect sync, log 2 = 0.69 is "cannot tell"; the logit is calibrated and bounded, so the
    largest value is a little above scale + |bias| (about 20), never infinite.

    The judge inside is not a child module: it has no parameters to optimise, adds nothing to the
    host's checkpoints, stays in eval mode and in fp32 whatever the host calls. `.to(device)` moves
    it, and so does a call with frames that lie elsewhere. Its graph is freed inside `forward`; only
    the gradient at the frames is kept.

    Args:
        weights: a shipped name, or the path of a checkpoint that the trainer wrote.
        value_range: of the frames: "0..1", "-1..1" or "0..255".
        color: channel order of the frames, "rgb" or "bgr" (what cv2 reads, as in Wav2Lip).
        reduction: "mean", "sum" or "none" over the batch.
        weight: what to multiply the loss with beside an L1 of weight 1; not applied here.
        max_gradient: largest norm of d loss / d frames of one sample, frames in [0, 1].

    Raises:
        WeightsError: the checkpoint is missing or not one of ours.
        ValueError: an unknown word for value_range, color or reduction.

    Example:
        >>> sync = SyncLoss()
        >>> frames = torch.rand(2, 3, 5, 96, 96, requires_grad=True)
        >>> sync(frames, torch.zeros(2, 1, 80, 16)).backward()
    """

    def __init__(
        self,
        weights: str | Path = "base",
        *,
        value_range: str = "0..1",
        color: str = "rgb",
        reduction: str = "mean",
        weight: float = 0.03,
        max_gradient: float = 10.0,
    ) -> None:
        super().__init__()
        _one_of("value_range", value_range, VALUE_RANGES)
        _one_of("color", color, ("rgb", "bgr"))
        _one_of("reduction", reduction, REDUCTIONS)
        net = checkpoints.load(weights).requires_grad_(False)
        # In a tuple, so that nn.Module does not register it.
        self._judge = (net,)
        self.value_range, self.color, self.reduction = value_range, color, reduction
        self.weight, self.max_gradient = weight, max_gradient
        self._checked = False

    @property
    def net(self) -> Discriminator:
        """The frozen discriminator."""
        return self._judge[0]

    def forward(self, frames: torch.Tensor, mel: torch.Tensor) -> torch.Tensor:
        """Sync loss of generated windows; lower is better in sync.

        Args:
            frames: (B, 3, T=5, H, W) whole faces in `value_range` and `color`, any H and W.
            mel: (B, 1, 80, 16) or (B, 80, 16) Wav2Lip mel in [-4, 4] that starts with the first
                frame.

        Returns:
            fp32 scalar, or (B,) for reduction "none". The gradient flows to the frames.
        """
        with torch.autocast(frames.device.type, enabled=False):
            if not (torch.is_grad_enabled() and frames.requires_grad):
                return REDUCTIONS[self.reduction](F.softplus(-self._logit(frames.detach(), mel)))
            low, high = VALUE_RANGES[self.value_range]
            loss = _Judged.apply(
                frames.float(), lambda x: self._logit(x, mel), self.max_gradient / (high - low)
            )
        return REDUCTIONS[self.reduction](loss)

    def _logit(self, frames: torch.Tensor, mel: torch.Tensor) -> torch.Tensor:
        return self.net.logit(self.net(*self._prepare(frames, mel)))

    @torch.no_grad()
    def similarity(self, frames: torch.Tensor, mel: torch.Tensor) -> torch.Tensor:
        """(B,) cosine similarity in [-1, 1]; arguments as in `forward`."""
        with torch.autocast(frames.device.type, enabled=False):
            return self.net(*self._prepare(frames, mel))

    @torch.no_grad()
    def probability(self, frames: torch.Tensor, mel: torch.Tensor) -> torch.Tensor:
        """(B,) calibrated probability that the pair is true; arguments as in `forward`."""
        return torch.sigmoid(self.net.logit(self.similarity(frames, mel)))

    def _prepare(
        self, frames: torch.Tensor, mel: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The host's tensors -> (B, T, 3, h, w) RGB in [0, 1] and (B, M, 16), fp32."""
        spec = self.net.spec
        t, bins, length = spec.window_frames, spec.mel.n_mels, spec.window_mels
        if frames.ndim != 5 or frames.shape[1] != 3 or frames.shape[2] != t:
            hint = "Transpose axes 1 and 2" if frames.ndim == 5 else f"Collect {t} frames per item"
            raise ValueError(
                f"frames: expected (B, 3, {t}, H, W), got {tuple(frames.shape)}. {hint}."
            )
        if mel.ndim == 4 and mel.shape[1] == 1:
            mel = mel[:, 0]
        if mel.shape != (frames.shape[0], bins, length):
            hint = (
                "Transpose the last two axes"
                if mel.shape[-2:] == (length, bins)
                else ("Cut the 16 mel frames from floor(80 * frame / fps) on")
            )
            raise ValueError(
                f"mel: expected ({frames.shape[0]}, 1, {bins}, {length}), "
                f"got {tuple(mel.shape)}. {hint}."
            )
        if spec.region == "lower" and frames.shape[-1] > 1.8 * frames.shape[-2]:
            raise ValueError(
                f"frames: expected whole faces, got {tuple(frames.shape[-2:])} rows and columns, "
                "which look like lower halves. Pass the faces before they are cut."
            )
        low, high = VALUE_RANGES[self.value_range]
        self._check_values(frames, mel, low, high)
        if self.net.log_scale.device != frames.device:
            self.net.to(frames.device)  # no parameter tells a host that this must be moved
        x = (frames.float() - low) / (high - low)
        if self.color == "bgr":
            x = x.flip(1)
        x = x.transpose(1, 2)
        if spec.region == "lower":
            x = x[..., x.shape[-2] // 2 :, :]
        if tuple(x.shape[-2:]) != spec.input_hw:
            flat = F.interpolate(
                x.flatten(0, 1), spec.input_hw, mode="bilinear", antialias=True, align_corners=False
            )
            x = flat.unflatten(0, x.shape[:2])
        return x, mel.detach().to(x)

    def _check_values(
        self, frames: torch.Tensor, mel: torch.Tensor, low: float, high: float
    ) -> None:
        """Look at the values once: a wrong range is the commonest mistake, and a silent one."""
        if self._checked:
            return
        least, most = (float(v) for v in frames.detach().float().aminmax())
        slack = 0.1 * (high - low)
        if least < low - slack or most > high + slack:
            raise ValueError(
                f"frames: expected values in {self.value_range}, got {least:.3g}..{most:.3g}. "
                f"Name the range: SyncLoss(value_range=...), one of {sorted(VALUE_RANGES)}."
            )
        most_mel, limit = float(mel.detach().abs().max()), self.net.spec.mel.max_abs
        if most_mel > 1.1 * limit:
            raise ValueError(
                f"mel: expected values in [-{limit:g}, {limit:g}], got up to {most_mel:.3g}. "
                "Pass Wav2Lip's normalised mel; syncdisc_plugin.log_mel makes it from a waveform."
            )
        self._checked = True

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> SyncLoss:
        """`.to(device)` and `.cuda()` move the judge; `.half()` and the like leave it in fp32."""
        super()._apply(fn, recurse)
        self.net.to(fn(torch.zeros(1)).device)
        return self

    def extra_repr(self) -> str:
        """Shown by print(model)."""
        return f"value_range={self.value_range!r}, color={self.color!r}, weight={self.weight}"


class _Judged(torch.autograd.Function):
    """Loss per sample, and its gradient at the frames with the norm bounded per sample.

    The gradient is taken inside forward. It is bounded before anything multiplies it, so a loss
    scaler or a host's weight scales the bounded gradient and never meets the bound itself.
    """

    @staticmethod
    def forward(
        ctx: Any, frames: torch.Tensor, logit: Callable[[torch.Tensor], torch.Tensor], bound: float
    ) -> torch.Tensor:
        with torch.set_grad_enabled(ctx.needs_input_grad[0]):
            x = frames.detach().requires_grad_(ctx.needs_input_grad[0])
            loss = F.softplus(-logit(x))
            if ctx.needs_input_grad[0]:
                (gradient,) = torch.autograd.grad(loss.sum(), x)
                gradient = torch.nan_to_num(gradient, posinf=0.0, neginf=0.0)
                norm = gradient.flatten(1).norm(dim=1).clamp_min(1e-12)
                shrink = (bound / norm).clamp(max=1.0)
                ctx.save_for_backward(gradient * shrink[:, None, None, None, None])
        return loss.detach()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_outputs[0][:, None, None, None, None], None, None


def _one_of(name: str, value: str, choices: Any) -> None:
    if value not in choices:
        raise ValueError(f"{name}: expected one of {sorted(choices)}, got {value!r}.")
