"""SyncLoss: a discriminator, frozen, as a generator's sync loss."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.autograd.graph import saved_tensors_hooks

from syncdisc_plugin import weights as checkpoints
from syncdisc_plugin.check import SyncCheck, check
from syncdisc_plugin.frames import VALUE_RANGES, Box, Edges, FrameFormat
from syncdisc_plugin.hosts import host
from syncdisc_plugin.looks import Looks
from syncdisc_plugin.mouth import near_mouth
from syncdisc_plugin.nn.frozen import freeze
from syncdisc_plugin.nn.judge import Judge
from syncdisc_plugin.objective import KINDS, WINDOWS, Objective
from syncdisc_plugin.ranges import check_range
from syncdisc_plugin.sound import sound_windows
from syncdisc_plugin.spec import ClipSpec

# Items are judged a few at a time, since each one's gradient is taken at once: the memory of a
# call does not grow with the batch.
WINDOWS_AT_ONCE = {"cpu": 8, "other": 256}
REDUCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "mean": torch.mean,
    "sum": torch.sum,
    "none": lambda x: x,
}


class SyncLoss(nn.Module):
    """How unlikely it is that lips and speech belong together: -log probability, per window.

    The host's frames must be cut as `spec.crop` of the weights says ("box" or "aligned").

    0 is perfect sync, log 2 = 0.69 is "cannot tell"; the logit is calibrated and bounded, so the
    largest value is a little above scale + |bias| (about 20), never infinite.

    The judge inside is not a child module: it has no parameters to optimise, adds nothing to the
    host's checkpoints, stays in eval mode and in fp32 whatever the host calls. `.to(device)` moves
    it, and a call with frames that lie elsewhere makes a copy there. Its graph is freed inside
    `forward`; only the gradient at the frames is kept.

    Args:
        weights: a shipped name, the path of a checkpoint that the trainer wrote, or another
            project's expert: Wav2Lip's lipsync_expert.pth, wav2lip_288's 384 variant, LatentSync's
            stable_syncnet.pt.
        layout: how the frames' axes lie, as an einops pattern: "b c t h w", "b t c h w",
            "b (t c) h w", "b (c t) h w", "(b t) c h w" or "(t b) c h w". None: told by the shape.
        n_frames: T, consecutive frames of one item; needed for flattened frames.
        value_range: of the frames: "0..1", "-1..1" or "0..255".
        color: channel order of the frames, "rgb" or "bgr" (what cv2 reads, as in Wav2Lip).
        region: "face" (whole faces; the lower half is taken), "lower" (cut already), or
            (top, bottom, left, right): where the face detector's box lies in the frame, in ratios.
        fps: of the host's video; frames are picked at 25 fps.
        windows: of an item with more frames than a window: "mean" over its windows, or "worst":
            the mean over the worst quarter.
        kind: "probability" (-log probability) or "similarity" (1 - cosine).
        contrast: weight of the other items' sounds, which the lips should not fit: beside the loss
            of the own sound the mean of -log(1 - probability) over them (a cosine above 0 for
            "similarity"), without those that sound like the own one, as silence does like silence.
            For batches whose items come from different moments; 0 does not look at others.
        mouth_only: whether the gradient fades with the distance from the mouth, so that cheeks,
            outline and background are left to the host's other losses; the loss is the same.
        reduction: "mean", "sum" or "none" over the batch.
        weight: what to multiply the loss with beside an L1 of weight 1; not applied here.
            `SyncWeight` finds it from the gradients.
        max_gradient: largest norm of d loss / d frames of one sample, frames in [0, 1].

    Raises:
        WeightsError: the checkpoint is missing, damaged, or of an unknown architecture.
        ValueError: an unknown word.

    Example:
        >>> sync = SyncLoss()
        >>> frames = torch.rand(2, 3, 5, 96, 96, requires_grad=True)
        >>> sync(frames, torch.zeros(2, 1, 80, 16)).backward()
    """

    def __init__(
        self,
        weights: str | Path = "base",
        *,
        layout: str | None = None,
        n_frames: int | None = None,
        value_range: str = "0..1",
        color: str = "rgb",
        region: str | Box = "face",
        fps: float = 25.0,
        windows: str = "mean",
        kind: str = "probability",
        contrast: float = 0.0,
        mouth_only: bool = False,
        reduction: str = "mean",
        weight: float = 0.03,
        max_gradient: float = 10.0,
    ) -> None:
        super().__init__()
        self.format = FrameFormat(layout, n_frames, value_range, color, region, fps)
        _one_of("windows", windows, WINDOWS)
        _one_of("kind", kind, KINDS)
        _one_of("reduction", reduction, REDUCTIONS)
        others = "1 counts the other sounds of the batch as much as the own one."
        check_range("contrast", contrast, least=0, fix=others)
        check_range("weight", weight, least=0)
        off = "To switch the loss off, multiply it by 0."
        check_range("max_gradient", max_gradient, above=0, fix=off)
        # In a tuple, so that nn.Module does not register it.
        with torch.inference_mode(False):  # else no later step could differentiate through it
            self._judge = (freeze(checkpoints.load_judge(weights)),)
        self._elsewhere: dict[torch.device, Judge] = {}
        self.objective, self.reduction = Objective(kind, windows, contrast), reduction
        self.weight, self.max_gradient, self.mouth_only = weight, max_gradient, mouth_only
        # In one object, which nn.DataParallel's replicas share.
        self._looks = Looks()

    @classmethod
    def for_host(cls, name: str, weights: str | Path = "base", **changes: Any) -> SyncLoss:
        """SyncLoss with the preset of a known generator (`hosts.HOSTS`).

        Args:
            name: "wav2lip", "wav2lip_288", "latentsync", "musetalk", "dinet", "diff2lip",
                "ip_lap", "talklip", "video_retalking" or "ultralight".
            weights: as in `SyncLoss`.
            **changes: any argument of `SyncLoss` that is to differ from the preset.

        Raises:
            ValueError: an unknown host.
        """
        made = cls(weights, **{**vars(host(name).frames), **changes})
        if made.net.home == name and "region" not in changes:
            # The host's own expert knows its frames whole, not the detector's box in them.
            made.format = replace(made.format, region="face")
        return made

    @property
    def net(self) -> Judge:
        """The frozen discriminator, its batch norms folded into the convolutions."""
        return self._judge[0]

    @property
    def spec(self) -> ClipSpec:
        """What the weights were trained on."""
        return self.net.spec

    def forward(
        self,
        frames: torch.Tensor,
        mel: torch.Tensor | None = None,
        *,
        waveform: torch.Tensor | None = None,
        start: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Sync loss of generated frames; lower is better in sync.

        Args:
            frames: T >= 5 consecutive faces per item in the format that was named, any H and W,
                any floating dtype. More than 5 frames are judged window by window.
            mel: (B, 1, 80, L) or (B, 80, L), Wav2Lip's mel in [-4, 4] that starts with the first
                frame; L is 16 for T = 5, 52 for 16, 80 for 25.
            waveform: in place of a mel: (B, S), or (S,) for all items, mono at 16 kHz in [-1, 1].
            start: with a waveform: (B,) index of each item's first frame in its video.

        Returns:
            fp32 scalar, or (B,) for reduction "none". The gradient flows to the frames.

        Raises:
            TypeError, ValueError: whatever does not fit, with what was expected and the fix.
        """
        with torch.autocast(_device_type(frames), enabled=False):
            x, mel, starts = self._read(frames, mel, waveform, start)
            sounds = self._hear(mel, starts)
            if not (torch.is_grad_enabled() and frames.requires_grad):
                loss = self._loss(x, sounds)
            else:
                low, high = VALUE_RANGES[self.format.value_range]
                loss = _Judged.apply(x.float(), sounds, self, self.max_gradient / (high - low))
        return REDUCTIONS[self.reduction](loss)

    @torch.no_grad()
    def similarity(
        self, frames: torch.Tensor, mel: torch.Tensor | None = None, **audio: Any
    ) -> torch.Tensor:
        """(B,) cosine similarity in [-1, 1], mean over windows; arguments as in `forward`."""
        v, a = self.embed(frames, mel, **audio)
        return (v * a).sum(-1).mean(1)

    @torch.no_grad()
    def probability(
        self, frames: torch.Tensor, mel: torch.Tensor | None = None, **audio: Any
    ) -> torch.Tensor:
        """(B,) calibrated probability that the pair is true, mean over windows.

        Arguments as in `forward`.
        """
        v, a = self.embed(frames, mel, **audio)
        return torch.sigmoid(self._net_on(v.device).logit((v * a).sum(-1))).mean(1)

    @torch.no_grad()
    def embed(
        self,
        frames: torch.Tensor,
        mel: torch.Tensor | None = None,
        *,
        waveform: torch.Tensor | None = None,
        start: torch.Tensor | int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Unit embeddings (B, N, D) of the video windows and of their audio, fp32."""
        with torch.autocast(_device_type(frames), enabled=False):
            x, mel, starts = self._read(frames, mel, waveform, start)
            sounds = self._hear(mel, starts)
            seen = _in_pieces(x, sounds.shape[1], lambda part, _: self._see(*self._cut(part)))
            return seen, sounds

    def check(self, batches: Iterable[Any], most_items: int = 256) -> SyncCheck:
        """Do the host's crops, colours and alignment suit the weights? Real batches tell.

        Args:
            batches: of real footage, as the host's loader gives it: (frames, mel) pairs, or
                mappings of `forward`'s arguments (frames, mel, waveform, start). Items of a batch
                should come from different videos.
            most_items: stop after so many.

        Returns:
            Figures, and `advice` in one line; print it.

        Raises:
            TypeError, ValueError: as `forward`; or no two items of one shape.

        Example:
            >>> print(sync.check((gt, mel) for _, _, mel, gt in loader))  # doctest: +SKIP
        """
        with torch.autocast(next(self.net.parameters()).device.type, enabled=False):
            return check(self.net, self.format, batches, most_items, self.objective)

    def _read(
        self,
        frames: torch.Tensor,
        mel: torch.Tensor | None,
        waveform: torch.Tensor | None,
        start: torch.Tensor | int | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Split frames (B, T, 3, H, W) as the host has them, mel (B, M, L), starts (B, N)."""
        x, spec = self.format.split(frames), self.spec
        n = self.format.windows(x, spec)
        audio = mel if mel is not None else waveform
        if isinstance(audio, torch.Tensor) and audio.device != frames.device:
            raise ValueError(
                f"{'mel' if waveform is None else 'waveform'}: expected on {frames.device} like "
                f"the frames, got {audio.device}. Move it there with .to(frames.device)."
            )
        heard, starts = sound_windows(mel, waveform, start, self.format.fps, len(x), n, spec)
        self._looks.look(self.format, frames, heard, waveform, spec)
        return x, heard, starts

    def _net_on(self, device: torch.device) -> Judge:
        """The judge, or a copy of it where the frames lie.

        No parameter tells a host, or nn.DataParallel's replicas, that it must be moved.
        """
        if next(self.net.parameters()).device == device:
            return self.net
        if device not in self._elsewhere:
            with torch.inference_mode(False):  # as it was built
                self._elsewhere[device] = copy.deepcopy(self.net).to(device)
        return self._elsewhere[device]

    def _cut(self, x: torch.Tensor) -> tuple[torch.Tensor, Edges]:
        """What is looked at in split frames (B, T, 3, H, W), and where it lies."""
        return self.format.cut(x, self.spec)

    def _see(self, part: torch.Tensor, edges: Edges) -> torch.Tensor:
        """Embeddings (B, N, D) of what is looked at."""
        return self._net_on(part.device).embed_frames(self.format.read(part, edges, self.spec))

    @torch.no_grad()
    def _hear(self, mel: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
        """Embeddings (B, N, D) of the sounds."""
        net = self._net_on(mel.device)
        return _in_pieces(
            mel, starts.shape[1], lambda part, rows: net.embed_mel(part, starts[rows])
        )

    def _loss(self, x: torch.Tensor, sounds: torch.Tensor) -> torch.Tensor:
        """(B,) of split frames, without a gradient."""
        net = self._net_on(x.device)

        def judge(part: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            return self.objective(net, self._see(*self._cut(part)), sounds, rows)

        return _in_pieces(x, sounds.shape[1], judge)

    def _loss_and_gradient(
        self, x: torch.Tensor, sounds: torch.Tensor, bound: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B,) of split frames, and its gradient at what is looked at, bounded item by item."""
        net, near = self._net_on(x.device), None
        if self.mouth_only:
            height, width = x.shape[-2:]
            whole = near_mouth(height, width, self.format.box, self.spec.crop, x.device)
            near = self._cut(whole)[0]

        def judge(items: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            part, edges = self._cut(items)
            part = part.detach().requires_grad_()
            with torch.enable_grad(), saved_tensors_hooks(_as_it_is, _as_it_is):
                loss = self.objective(net, self._see(part, edges), sounds, rows)
                (gradient,) = torch.autograd.grad(loss.sum(), part)
            norm = gradient.flatten(1).norm(dim=1)[:, None, None, None, None]
            gradient = gradient * (bound / norm.clamp_min(1e-12)).clamp_(max=1.0)
            if near is not None:
                gradient = gradient * near
            # An item whose gradient overflowed gives none.
            return loss.detach(), torch.where(norm.isfinite(), gradient, 0.0)

        return _in_pieces(x, sounds.shape[1], judge)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> SyncLoss:
        """`.to(device)` and `.cuda()` move the judge; `.half()` and the like leave it in fp32."""
        super()._apply(fn, recurse)
        here = next(self.net.parameters()).device
        self.net.to(fn(torch.zeros(1, device=here)).device)
        self._elsewhere.clear()
        return self

    def extra_repr(self) -> str:
        """Shown by print(model)."""
        where = ", mouth_only" if self.mouth_only else ""
        return f"{self.format}, {self.objective}{where}, weight={self.weight}"


def _as_it_is(x: torch.Tensor) -> torch.Tensor:
    """A host's checkpointing would else run its generator again for what is saved in here."""
    return x


class _Judged(torch.autograd.Function):
    """Loss per sample, and its gradient at the frames with the norm bounded per sample.

    The gradient is taken inside forward. It is bounded before anything multiplies it, so a loss
    scaler or a host's weight scales the bounded gradient and never meets the bound itself.
    """

    @staticmethod
    def forward(
        ctx: Any, frames: torch.Tensor, sounds: torch.Tensor, sync: SyncLoss, bound: float
    ) -> torch.Tensor:
        loss, gradient = sync._loss_and_gradient(frames, sounds, bound)
        ctx.save_for_backward(gradient)
        ctx.sync, ctx.shape, ctx.strides = sync, frames.shape, frames.stride()
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        # Axes in the host's own order in memory, so that nobody has to copy.
        order = sorted(range(5), key=lambda axis: -ctx.strides[axis])
        whole = gradient.new_zeros([ctx.shape[axis] for axis in order])
        whole = whole.permute([order.index(axis) for axis in range(5)])
        part, _ = ctx.sync._cut(whole)
        part.copy_(gradient).mul_(grad_outputs[0][:, None, None, None, None])
        return whole, None, None, None


def _in_pieces(
    x: torch.Tensor, n_windows: int, judge: Callable[[torch.Tensor, torch.Tensor], Any]
) -> Any:
    """`judge(items, their rows)` of a few items of a batch at a time, joined along the batch."""
    items = max(1, WINDOWS_AT_ONCE.get(x.device.type, WINDOWS_AT_ONCE["other"]) // n_windows)
    rows = torch.arange(len(x), device=x.device)
    parts = [judge(*part) for part in zip(x.split(items), rows.split(items), strict=True)]
    if isinstance(parts[0], tuple):
        return tuple(torch.cat(column) for column in zip(*parts, strict=True))
    return torch.cat(parts)


def _device_type(frames: torch.Tensor) -> str:
    """For autocast; what is no tensor is refused later, with a message."""
    return frames.device.type if isinstance(frames, torch.Tensor) else "cpu"


def _one_of(name: str, value: str, choices: Any) -> None:
    if value not in choices:
        raise ValueError(f"{name}: expected one of {sorted(choices)}, got {value!r}.")
