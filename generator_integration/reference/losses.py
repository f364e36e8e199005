"""What the generator is trained by: L1, perceptual, adversarial and sync loss, balanced."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generator_integration.reference.generator import Generator
from generator_integration.reference.quality import (
    QualityDiscriminator,
    feature_loss,
    fooling_loss,
    judging_loss,
)
from generator_integration.reference.settings import NONE, GeneratorTrainSettings
from syncdisc_plugin import SyncLoss, SyncWeight
from syncdisc_plugin.errors import RunError
from syncdisc_plugin.mouth import near_mouth
from syncdisc_plugin.nn.precision import autocast
from syncdisc_plugin.spec import ClipSpec

HEARD_AND_SEEN = ("fps", "window_frames", "window_mels", "crop", "mel")


class Losses:
    """The losses of a run, and the weights that balance them.

    Args:
        settings: the run's.
        generator: gives the sizes.
        quality: the visual-quality discriminator.
        device: where all of it lies.
        precision: "bf16" or "fp32", for the discriminator's passes.

    Raises:
        RunError: a judge of another frame rate, window or mel than the generator's.
        WeightsError: the sync loss's weights cannot be read.
    """

    def __init__(
        self,
        settings: GeneratorTrainSettings,
        generator: Generator,
        quality: QualityDiscriminator,
        device: torch.device,
        precision: str,
    ) -> None:
        s = self.s = settings
        self.quality, self.precision = quality, precision
        self.first_row = generator.first_row
        self.map = mouth_map(s.generator.size, self.first_row, s.mouth_weight).to(device)
        self.sync = None
        if s.sync != NONE:
            self.sync = SyncLoss(
                s.sync,
                layout="b t c h w",
                contrast=s.sync_contrast,
                mouth_only=s.sync_mouth_only,
            ).to(device)
            check_spec("--sync", s.sync, self.sync.spec, generator.spec, HEARD_AND_SEEN)
        self.perceptual, self.said = load_lpips(device) if s.perceptual_weight else (None, "off")
        """LPIPS or None, and in words why."""
        self.weights = {
            "gan": SyncWeight(s.gan_ratio, ramp_steps=s.gan_ramp),
            "sync": SyncWeight(
                s.sync_ratio, final_ratio=s.sync_final_ratio, ramp_steps=s.sync_ramp
            ),
        }

    def of_generator(
        self, drawn: Tensor, target: Tensor, window: Tensor, part: float, seed: tuple[int, int]
    ) -> tuple[Tensor, Tensor | None, dict[str, float]]:
        """The generator's loss.

        Args:
            drawn: (B, T, 3, S, S) in [0, 1], with its graph.
            target: the same frames as they were.
            window: (B, 1, M, L), their sound.
            part: of the budget that is used up; decides which losses have joined.
            seed: (seed, step), decides which frames are looked at for quality.

        Returns:
            The scalar to go back from; the discriminator's loss on the same frames, to go back
            from after the generator's optimiser has stepped, or None; and what to log.
        """
        s = self.s
        l1 = self.l1(drawn, target)
        row = {"l1": l1.item()}
        loss, judged = l1, None
        if self.perceptual is not None:
            lpips = self._lpips(drawn, target)
            loss = loss + s.perceptual_weight * lpips
            row["lpips"] = lpips.item()
        if part >= s.gan_from and s.gan_from < 1:
            fooling, matching, judged = self._quality(drawn, target, seed)
            made = fooling + s.feature_weight * matching
            weight = self.weights["gan"](made, loss, drawn)
            loss = loss + weight * made
            row |= {"fooling": fooling.item(), "features": matching.item(), "gan_weight": weight}
            row["judging"] = judged.item()
        if self.sync is not None and part >= s.sync_from and s.sync_from < 1:
            sync = self.sync(drawn, window)
            weight = self.weights["sync"](sync, loss, drawn, part=part)
            loss = loss + weight * sync
            row |= {"sync": sync.item(), "sync_weight": weight}
        return loss, judged, {"loss": loss.item(), **row}

    def l1(self, drawn: Tensor, target: Tensor) -> Tensor:
        """Mean difference in the drawn rows, in [0, 1], the mouth's weighing more."""
        difference = (drawn - target)[..., self.first_row :, :].abs()
        return (difference * self.map).mean()

    @torch.no_grad()
    def figures(self, drawn: Tensor, target: Tensor, window: Tensor) -> dict[str, float]:
        """What is measured on held-out clips.

        l1 and psnr_db over the hidden half; sharpness of the mouth, of 1 as in the truth; the sync
        loss of the drawn and of the true frames, where there is one.
        """
        half = drawn.shape[-1] // 2
        below, true = drawn[..., half:, :], target[..., half:, :]
        error = (below - true).square().mean(dim=(1, 2, 3, 4)).clamp_min(1e-8)
        row = {
            "l1": (below - true).abs().mean().item(),
            "psnr_db": (-10 * error.log10()).mean().item(),
            "sharpness": (_edges(below) / _edges(true).clamp_min(1e-8)).item(),
        }
        if self.sync is not None:
            row["sync"] = self.sync(drawn, window).item()
            row["sync_truth"] = self.sync(target, window).item()
        return row

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Of the balancing weights; plain numbers."""
        return {name: weight.state_dict() for name, weight in self.weights.items()}

    def load_state_dict(self, state: dict[str, dict[str, Any]]) -> None:
        """Go on where `state_dict` was taken."""
        for name, weight in self.weights.items():
            weight.load_state_dict(state[name])

    def _quality(
        self, drawn: Tensor, target: Tensor, seed: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Fooling loss, feature matching, and the discriminator's own loss, of some frames."""
        b, t = drawn.shape[:2]
        rng = np.random.default_rng([*seed, 1])
        count = min(self.s.quality_frames, t)
        picks = np.stack([rng.choice(t, count, replace=False) for _ in range(b)])
        index = torch.from_numpy(picks).to(drawn.device)
        rows = torch.arange(b, device=drawn.device)[:, None]
        fake, real = drawn[rows, index].flatten(0, 1), target[rows, index].flatten(0, 1)
        with autocast(drawn.device, self.precision):
            # Frozen for the generator's pass: its gradient goes through, none stays.
            self.quality.requires_grad_(False)
            fake_scores, fake_features = self.quality(fake)
            self.quality.requires_grad_(True)
            real_scores, real_features = self.quality(real)
            judged = judging_loss(real_scores, self.quality(fake.detach())[0])
        return fooling_loss(fake_scores), feature_loss(real_features, fake_features), judged

    def _lpips(self, drawn: Tensor, target: Tensor) -> Tensor:
        """LPIPS of the middle frames: neighbours look alike, and it costs as much as the net."""
        assert self.perceptual is not None
        middle = drawn.shape[1] // 2
        pair = (2 * x[:, middle, :, x.shape[3] // 3 :] - 1 for x in (drawn, target))
        return self.perceptual(*pair).mean()


def mouth_map(size: int, first_row: int, weight: float) -> Tensor:
    """Weights (size - first_row, size) of mean 1, highest at the mouth, `weight` times the edge's.

    Raises:
        ValueError: a weight below 1.
    """
    if weight < 1:
        raise ValueError(f"weight: expected at least 1, got {weight}.")
    weights = 1 + (weight - 1) * near_mouth(size, size)[first_row:]
    return weights / weights.mean()


def load_lpips(device: torch.device) -> tuple[nn.Module | None, str]:
    """LPIPS (Zhang et al., 2018) where it is there without a download, and words for the log."""
    cached = Path(torch.hub.get_dir()) / "checkpoints"
    if not list(cached.glob("alexnet-*.pth")):
        return None, f"off: AlexNet's weights are not in {cached.name} of torch's hub folder"
    try:
        import lpips
    except ImportError as error:
        return None, f"off: {error} (pip install lpips)"
    net = lpips.LPIPS(net="alex", verbose=False).to(device).eval().requires_grad_(False)
    return net, "on: LPIPS with AlexNet"


def _edges(x: Tensor) -> Tensor:
    """Mean squared Laplacian of the middle columns: how sharp a mouth is."""
    n = x.shape[-1]
    grey = x[..., n // 4 : -(n // 4)].mean(dim=2, keepdim=True).flatten(0, 1)
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]], device=x.device)
    return F.conv2d(grey, kernel[None, None]).square().mean()


def check_spec(flag: str, ref: str, its: ClipSpec, ours: ClipSpec, names: Sequence[str]) -> None:
    """Refuse a discriminator, `flag` and `ref` of the command, that lacks the store's `names`.

    Raises:
        RunError: one of them differs.
    """
    for name in names:
        if (got := getattr(its, name)) != (wanted := getattr(ours, name)):
            raise RunError(
                f"{flag} {ref}: expected a discriminator with {name}={wanted} as the store has it, "
                f"got {got}. Use weights trained on such a store, or {flag} none."
            )
