"""LatentSync: the pixel-space step of its `scripts/train_unet.py`, made of its own parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from generator_integration.footage import Footage
from generator_integration.hosts.checkout import Change, changed, enter, load
from generator_integration.hosts.decoder import small_vae
from generator_integration.hosts.host import DROP_IN, OWN, SYNC_LOSS, Batch, Facts, Loader, judge_of
from syncdisc_plugin import SyncLoss
from syncdisc_plugin.hosts import host

# Checked against the script, though only its parts are run here.
IMPORT = Change("import StableSyncNet", "from syncdisc_plugin.compat import StableSyncNet")
CHANGES = {
    OWN: [],
    SYNC_LOSS: [
        Change("import StableSyncNet", "from syncdisc_plugin import SyncLoss"),
        Change("set syncnet", 'sync = SyncLoss.for_host("latentsync").to(device)'),
        Change("set vision_embeds", ""),
        Change("call cosine_loss", "sync_loss = sync(pred_pixel_values, mel)"),
    ],
    DROP_IN: [IMPORT],
}
T, SIZE_PX = 16, 256


class LatentSync:
    """See `Host`."""

    facts = Facts(
        repository="bytedance/LatentSync",
        files=("scripts/train_unet.py", "latentsync/models/stable_syncnet.py", "configs/unet"),
        needs={
            "cv2": "opencv-python",
            "decord": "decord",
            "diffusers": "diffusers",
            "imageio": "imageio",
            "matplotlib": "matplotlib",
            "omegaconf": "omegaconf",
            "torchvision": "torchvision",
            "transformers": "transformers",
        },
        n_frames=T,
        ways=(OWN, SYNC_LOSS, DROP_IN),
        real="UNet3DConditionModel with motion modules, StableSyncNet as configured in "
        "syncnet_16_pixel_attn.yaml, one_step_sampling, cosine_loss, the weights of stage2.yaml",
        stand_ins="main() itself (it needs NCCL and seven downloads); the UNet has narrower layers "
        "than stage2.yaml; a small random VAE; random Whisper features; no LPIPS, no TREPA; fp32",
    )

    def __init__(self, folder: Path, way: str, device: torch.device) -> None:
        folder = enter(folder, self.facts)
        script = folder / "scripts/train_unet.py"
        changed(script.read_text(encoding="utf-8"), CHANGES[way], script.name)
        from diffusers import DDIMScheduler
        from omegaconf import OmegaConf

        load("latentsync.models.unet")
        self.util = load("latentsync.utils.util")
        stage2 = OmegaConf.load("configs/unet/stage2.yaml")
        self.run, self.rate = stage2.run, stage2.optimizer.lr
        self.weight = float(self.run.sync_loss_weight)
        self.device = device
        self.notes: list[str] = []
        self.scheduler = DDIMScheduler.from_pretrained("configs")
        torch.manual_seed(0)
        self.generator: nn.Module = self._small_unet(stage2.model)
        self.vae = small_vae(SIZE_PX).to(device)
        self.output: nn.Module = self.vae.decoder
        self.sync: SyncLoss | None = None
        self.expert: nn.Module | None
        if way == SYNC_LOSS:
            self.sync = SyncLoss.for_host("latentsync").to(device)
            self.expert = self.sync.net
        else:
            self.syncnet = self._syncnet(way).to(device).requires_grad_(False)
            self.expert = judge_of(self.syncnet)

    def _small_unet(self, model: Any) -> nn.Module:
        from omegaconf import OmegaConf

        narrow = {"block_out_channels": [32, 64, 64, 64], "layers_per_block": 1}
        config = OmegaConf.to_container(OmegaConf.merge(model, narrow))
        unet = load("latentsync.models.unet").UNet3DConditionModel.from_config(config)
        for name, parameter in unet.named_parameters():
            parameter.requires_grad = any(part in name for part in self.run.trainable_modules)
        return unet.to(self.device).train()

    def _syncnet(self, way: str) -> nn.Module:
        from omegaconf import OmegaConf

        config = OmegaConf.load("configs/syncnet/syncnet_16_pixel_attn.yaml")
        home = "latentsync.models.stable_syncnet" if way == OWN else "syncdisc_plugin.compat"
        model = OmegaConf.to_container(config.model)
        return load(home).StableSyncNet(model, gradient_checkpointing=True)

    def batches(self, footage: Footage, steps: int, size: int) -> list[Batch]:
        """See `Host`: gt pixels (B, T, 3, S, S) in [-1, 1], reference pixels, Whisper features."""
        torch.manual_seed(1)
        out = []
        for step in range(steps):
            w = footage.windows(step, size, T, (SIZE_PX, SIZE_PX), host("latentsync").frames.box)
            gt, reference = (2 * x - 1 for x in (w.frames, w.reference))
            features = torch.randn(size, T, 50, 384)
            frames = rearrange(gt, "b t c h w -> (b t) c h w").to(self.device)
            audio = {"mel": w.mel.to(self.device)}
            out.append(Batch((gt, reference, features), frames, audio))
        return out

    def sync_loss(self, frames: torch.Tensor, batch: Batch) -> torch.Tensor:
        """See `Host`: frames (B * T, 3, S, S) in [-1, 1]."""
        if self.sync is not None:
            return self.sync(frames, batch.audio["mel"])
        x = rearrange(frames, "(b t) c h w -> b (t c) h w", t=T)
        v, a = self.syncnet(x[..., x.shape[-2] // 2 :, :], batch.audio["mel"])
        true = torch.ones(len(x), 1, device=x.device)
        return self.util.cosine_loss(v.float(), a.float(), true).mean()

    def train(self, loader: Loader) -> None:
        """See `Host`."""
        trained = [p for p in self.generator.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=self.rate)
        for batch in loader:
            gt, reference, features = (x.to(self.device) for x in batch.inputs)
            clean, masked, seen = self._latents(gt, reference)
            noise = torch.randn_like(clean[:, :, :1]).expand_as(clean)
            # Late steps of the diffusion leave nothing to see to a UNet that was never trained.
            t = torch.randint(0, 200, (len(gt),), device=self.device)
            noisy = self.scheduler.add_noise(clean, noise, t)
            mask = torch.zeros_like(clean[:, :1])
            mask[..., : mask.shape[-2] // 2, :] = 1
            # In memory, too: torch 2.13's group_norm backward on a CPU falls over other strides.
            x = torch.cat([noisy, mask, masked, seen], dim=1).contiguous()
            predicted = self.generator(x, t, encoder_hidden_states=features).sample
            latents = self.util.one_step_sampling(self.scheduler, predicted, t, noisy)
            flat = rearrange(latents, "b c t h w -> (b t) c h w")
            pixels = self.vae.decode(flat / self.vae.config.scaling_factor).sample
            loss = self.run.recon_loss_weight * F.mse_loss(predicted, noise)
            loss = loss + self.weight * self.sync_loss(pixels, batch)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()

    @torch.no_grad()
    def _latents(self, gt: torch.Tensor, reference: torch.Tensor) -> list[torch.Tensor]:
        """Of the true, the masked and the reference frames, (B, 4, T, S/8, S/8) each."""
        masked = gt.clone()
        masked[..., SIZE_PX // 2 :, :] = -1
        out = []
        for pixels in (gt, masked, reference):
            flat = self.vae.encode(pixels.flatten(0, 1)).latent_dist.sample()
            scaled = flat * self.vae.config.scaling_factor
            out.append(rearrange(scaled, "(b t) c h w -> b c t h w", t=T))
        return out
