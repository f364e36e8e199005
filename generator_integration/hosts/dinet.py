"""DINet: its `train_DINet_clip.py`, with the edits of dinet/README.md."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torch.utils.data
from torch import nn

from generator_integration.footage import Footage
from generator_integration.hosts.checkout import (
    Change,
    enter,
    handing_out,
    load,
    load_script,
    patch,
    without_cuda,
)
from generator_integration.hosts.host import OWN, SYNC_LOSS, Batch, Facts, Loader
from generator_integration.hosts.wav2lip import Inputs
from syncdisc_plugin import SyncLoss
from syncdisc_plugin.hosts import host

CHANGES = {
    OWN: [],
    SYNC_LOSS: [
        Change("import SyncNetPerception", "from syncdisc_plugin import SyncLoss"),
        Change("set net_lipsync", 'sync = SyncLoss.for_host("dinet").cuda()'),
        Change("unpack data", "*data, waveform, start = data\n..."),
        Change("set sync_score", ""),
        Change(
            "set loss_sync",
            "loss_sync = sync(fake_out, waveform=waveform.cuda(), start=start) "
            "* opt.lamb_syncnet_perception",
        ),
    ],
}
T = 5
MOUTH_PX = {"cuda": 256, "cpu": 64}  # the last stage, and the first one, the host's default


class DINet:
    """See `Host`. All of the step is the host's script."""

    facts = Facts(
        repository="MRzzm/DINet",
        files=("train_DINet_clip.py", "models/DINet.py", "models/Syncnet.py"),
        needs={"cv2": "opencv-python", "torchvision": "torchvision"},
        n_frames=T,
        ways=(OWN, SYNC_LOSS),
        real="all that train_DINet_clip.py runs: DINet, both Discriminators, GANLoss, "
        "SyncNetPerception, its losses and three optimisers",
        stand_ins="random weights; VGG19's features (a download) are the pictures themselves; "
        "random DeepSpeech features; on a CPU 104x80 (its first stage) in place of 416x320",
    )

    def __init__(self, folder: Path, way: str, device: torch.device) -> None:
        self.folder, self.way = enter(folder, self.facts), way
        self.device, self.weight = device, 0.1
        self.notes: list[str] = []
        self.mouth_px = MOUTH_PX[device.type]
        torch.manual_seed(0)
        self.generator: nn.Module = load("models.DINet").DINet(3, 15, 29).to(device)
        self.output = self.generator
        self._temp = tempfile.TemporaryDirectory(prefix="check_host_")
        self.temp = Path(self._temp.name)
        self.sync: SyncLoss | None = None
        self.expert: nn.Module | None
        if way == SYNC_LOSS:
            self.sync = SyncLoss.for_host("dinet").to(device)
            self.expert = self.sync.net
        else:
            syncnet = load("models.Syncnet")
            untrained = syncnet.SyncNet(15, 29, 128).state_dict()
            torch.save({"state_dict": {"net": untrained}}, self.temp / "syncnet.pth")
            self.expert = syncnet.SyncNetPerception(self.temp / "syncnet.pth").to(device)

    def batches(self, footage: Footage, steps: int, size: int) -> list[Batch]:
        """See `Host`: DINetDataset's five tensors, for ours with the sound."""
        torch.manual_seed(1)
        box = host("dinet").frames.box
        out = []
        for step in range(steps):
            w = footage.windows(step, size, T, self._frame_hw(), box)
            gt, masked = w.frames, w.frames.clone()
            masked[self._mouth()] = 0
            references = w.reference[:, :1].expand(-1, T, -1, -1, -1).repeat(1, 1, 5, 1, 1)
            speech = torch.randn(size, T, 29, 5), torch.randn(size, 29, 9)
            sound = {"waveform": w.waveform.to(self.device), "start": w.start}
            inputs = [gt, masked, references, *speech]
            if self.way == SYNC_LOSS:
                inputs += [w.waveform, w.start]
            # The script lays first frames first: (T * B, 3, H, W).
            frames = gt.transpose(0, 1).flatten(0, 1).to(self.device)
            out.append(Batch(inputs, frames, sound))
        return out

    def sync_loss(self, frames: torch.Tensor, batch: Batch) -> torch.Tensor:
        """See `Host`: frames (T * B, 3, H, W) in [0, 1]."""
        if self.sync is not None:
            return self.sync(frames, **batch.audio)
        assert self.expert is not None
        x = frames.unflatten(0, (T, -1)).transpose(0, 1).flatten(1, 2)
        score = self.expert(x[self._mouth()], batch.inputs[4].float().to(self.device))
        return F.mse_loss(score, torch.ones_like(score))

    def train(self, loader: Loader) -> None:
        """See `Host`."""
        batches = Inputs(loader)
        patch(load("models.DINet"), {"DINet": lambda *_: self.generator})
        patch(load("models.VGG19"), {"Vgg19": Pictures})
        if self.sync is None:
            patch(load("models.Syncnet"), {"SyncNetPerception": lambda _: self.expert})
        patch(torch.utils.data, {"DataLoader": lambda **_: batches})
        with without_cuda(self.device), handing_out(self.sync):
            load_script(
                self.folder / "train_DINet_clip.py",
                CHANGES[self.way],
                self._argv(len(loader.batches[0].inputs[0])),
                name="__main__",
            )

    def _argv(self, size: int) -> list[str]:
        """One pass over the batches at the size of the last training stage."""
        (self.temp / "videos.json").write_text("{}")
        wrapped = load("sync_batchnorm").convert_model(nn.DataParallel(self.generator))
        frame_stage = {"state_dict": {"net_g": wrapped.state_dict()}}
        torch.save(frame_stage, self.temp / "frame_stage.pth")
        words: dict[str, Any] = {
            "train_data": self.temp / "videos.json",
            "pretrained_frame_DINet_path": self.temp / "frame_stage.pth",
            "batch_size": size,
            "mouth_region_size": self.mouth_px,
            "non_decay": 1,
            "decay": 0,
        }
        return [word for key, value in words.items() for word in (f"--{key}", str(value))]

    def _frame_hw(self) -> tuple[int, int]:
        """Rows and columns of a frame: 416 and 320 for a mouth of 256."""
        half, eighth = self.mouth_px // 2, self.mouth_px // 8
        return 3 * half + eighth, 2 * half + 2 * eighth

    def _mouth(self) -> tuple[Any, slice, slice]:
        half, eighth = self.mouth_px // 2, self.mouth_px // 8
        return ..., slice(half, half + self.mouth_px), slice(eighth, eighth + self.mouth_px)


class Pictures(nn.Module):
    """In place of VGG19: one feature, the picture."""

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """(B, 3, H, W) as it is."""
        return [x]
