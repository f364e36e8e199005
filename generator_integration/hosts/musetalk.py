"""MuseTalk: its `train.py`, stage 2, with the edits of musetalk/README.md."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from einops import rearrange
from torch import nn

from generator_integration.footage import Footage
from generator_integration.hosts.checkout import (
    Change,
    enter,
    handing_out,
    load,
    load_script,
    patch,
)
from generator_integration.hosts.decoder import small_vae
from generator_integration.hosts.host import OWN, SYNC_LOSS, Batch, Facts, Loader
from generator_integration.hosts.wav2lip import Inputs, nothing
from syncdisc_plugin import SyncLoss
from syncdisc_plugin.hosts import host

CHANGES = {
    OWN: [],
    SYNC_LOSS: [
        Change("import get_sync_loss", "from syncdisc_plugin import SyncLoss"),
        Change(
            "call initialize_syncnet",
            'sync = SyncLoss.for_host("musetalk", n_frames=cfg.num_backward_frames)',
        ),
        Change("call get_audio_embed", ""),
        Change(
            "call get_sync_loss",
            """\
first = 16 * frames_left_index // 5
mels_backward = mels[..., first : first - (-16 * cfg.num_backward_frames // 5)]
sync_loss = sync(image_pred, mels_backward)""",
        ),
    ],
}
T, SIZE_PX = 16, 256


class MuseTalk:
    """See `Host`. All of the step is the host's `main()`."""

    facts = Facts(
        repository="TMElyralab/MuseTalk",
        files=("train.py", "musetalk/models/syncnet.py", "configs/training/stage2.yaml"),
        needs={
            "accelerate": "accelerate",
            "cv2": "opencv-python",
            "decord": "decord",
            "diffusers": "diffusers",
            "librosa": "librosa",
            "omegaconf": "omegaconf",
            "tensorboard": "tensorboard",
            "torchvision": "torchvision",
            "transformers": "transformers",
        },
        n_frames=T,
        ways=(OWN, SYNC_LOSS),
        real="main() of train.py with stage2.yaml: Net, L1, get_sync_loss, SyncNet as configured "
        "in syncnet.yaml, accelerate's backward, gradient clipping, AdamW",
        stand_ins="a narrower UNet2DConditionModel and a small VAE with random weights; random "
        "Whisper features; no VGG and GAN losses (they download); gradients not accumulated",
    )

    def __init__(self, folder: Path, way: str, device: torch.device) -> None:
        folder = enter(folder, self.facts)
        from omegaconf import OmegaConf

        self.script = load_script(folder / "train.py", CHANGES[way])
        self.config = OmegaConf.load("configs/training/stage2.yaml")
        self.weight = float(self.config.loss_params.sync_loss)
        self.device = device
        self.notes: list[str] = []
        torch.manual_seed(0)
        self.unet, self.vae = _small_unet().to(device), small_vae(SIZE_PX).to(device)
        self.generator: nn.Module = load("musetalk.utils.training_utils").Net(self.unet)
        self.output: nn.Module = self.vae.decoder
        self.sync: SyncLoss | None = None
        self.expert: nn.Module | None
        if way == SYNC_LOSS:
            self.sync = SyncLoss.for_host("musetalk").to(device)
            self.expert = self.sync.net
        else:
            config = OmegaConf.to_container(OmegaConf.load("configs/training/syncnet.yaml").model)
            syncnet = load("musetalk.models.syncnet").SyncNet(config).to(device)
            self.syncnet = self.expert = syncnet.requires_grad_(False).eval()

    def batches(self, footage: Footage, steps: int, size: int) -> list[Batch]:
        """See `Host`: a dict like PortraitDataset's, with the audio prompts in it."""
        torch.manual_seed(1)
        out = []
        for step in range(steps):
            w = footage.windows(step, size, T, (SIZE_PX, SIZE_PX), host("musetalk").frames.box)
            pixels, mel = (2 * w.frames - 1).to(self.device), w.mel.to(self.device)
            inputs = {
                "pixel_values_vid": pixels,
                "pixel_values_ref_img": 2 * w.reference - 1,
                "pixel_values_face_mask": torch.ones_like(pixels[:, :, :1]),
                "mel": mel,
                "prompts": torch.randn(size, T, 10, 5, 384, device=self.device),
            }
            out.append(Batch(inputs, pixels.flatten(0, 1), {"mel": mel}))
        return out

    def sync_loss(self, frames: torch.Tensor, batch: Batch) -> torch.Tensor:
        """See `Host`: frames (B * T, 3, S, S) in [-1, 1]."""
        if self.sync is not None:
            return self.sync(frames, batch.audio["mel"])
        x = rearrange(frames, "(b t) c h w -> b (t c) h w", t=T)[..., SIZE_PX // 2 :, :]
        sound = self.syncnet.get_audio_embed(batch.audio["mel"])
        loss, _ = load("musetalk.loss.syncnet").get_sync_loss(sound, x, x, self.syncnet, 1)
        return loss

    def train(self, loader: Loader) -> None:
        """See `Host`."""
        rate = self.config.solver.learning_rate
        optimizer = torch.optim.AdamW(self.generator.parameters(), lr=rate)
        models = {
            "unet": self.unet,
            "net": self.generator,
            "vae": self.vae,
            "wav2vec": SimpleNamespace(dtype=torch.float32),
            "optimizer": optimizer,
            "lr_scheduler": torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0),
            "scheduler_max_steps": 1,
            "trainable_params": list(self.generator.parameters()),
        }
        batches = Inputs(loader)
        loaders = {"train_dataloader": batches, "val_dataloader": []}
        patches: dict[str, Any] = {
            "initialize_models_and_optimizers": lambda *_: models,
            "initialize_dataloaders": lambda *_: loaders,
            "process_audio_features": lambda cfg, batch, *_: batch["prompts"],
            "validation": nothing,
            "save_models": nothing,
        }
        if self.sync is None:
            patches["initialize_syncnet"] = lambda *_: self.syncnet
        patch(self.script, patches)
        with tempfile.TemporaryDirectory(prefix="check_host_") as temp, handing_out(self.sync):
            self.script.main(self._stage2(temp, steps=len(batches)))

    def _stage2(self, folder: str, steps: int) -> Any:
        """stage2.yaml without what needs downloads, ending after `steps`."""
        config = self.config.copy()
        config.output_dir, config.resume_from_checkpoint = folder, False
        config.data.train_bs = 1  # only repeats the logged loss
        config.solver.gradient_accumulation_steps, config.solver.max_train_steps = 1, steps
        losses = config.loss_params
        losses.vgg_loss = losses.gan_loss = losses.mouth_gan_loss = 0
        return config


def _small_unet() -> nn.Module:
    """MuseTalk's UNet (8 channels in, 4 out, audio of width 384) with narrow layers."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=SIZE_PX // 8,
        in_channels=8,
        out_channels=4,
        block_out_channels=(32, 64, 64, 64),
        layers_per_block=1,
        cross_attention_dim=384,
        attention_head_dim=8,
    )
