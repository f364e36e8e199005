"""wav2lip_288x288: its `hq_wav2lip_sam_train.py`, with the edits of wav2lip_288/README.md."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from generator_integration.footage import Footage
from generator_integration.hosts.checkout import Change, enter, load, load_script, patch
from generator_integration.hosts.host import DROP_IN, OWN, SYNC_LOSS, Batch, Facts, Loader, judge_of
from generator_integration.hosts.wav2lip import (
    IMPORT,
    Inputs,
    from_own_dataset,
    invented,
    mend_mel,
    nothing,
)

LOSS = Change(
    "def get_sync_loss",
    """\
from syncdisc_plugin import SyncLoss
sync = SyncLoss.for_host("wav2lip_288").to(device)
def get_sync_loss(mel, g, syncnet):
    return sync(g, mel)""",
)
# Its train() unpacks four zeros into three names, which ends every run before the first step.
MEND = Change(
    "set running_perceptual_loss",
    "running_sync_loss = running_l1_loss = running_perceptual_loss = 0.",
)
BUILD = Change("call SyncNet", "syncnet = sync")
CHANGES = {OWN: [MEND], SYNC_LOSS: [MEND, LOSS, BUILD], DROP_IN: [MEND, IMPORT]}
SIZE_PX = 384


class Wav2Lip288:
    """See `Host`. All of the step is the host's `train()`, with the line mended that stops it."""

    facts = Facts(
        repository="primepake/wav2lip_288x288",
        files=("hq_wav2lip_sam_train.py", "models/sam.py", "models/syncnet.py", "hparams.py"),
        needs={
            "cv2": "opencv-python",
            "librosa": "librosa",
            "lpips": "lpips",
            "matplotlib": "matplotlib",
            "pandas": "pandas",
            "pytorch_lightning": "pytorch_lightning",
            "torchsummary": "torchsummary",
            "torchvision": "torchvision",
        },
        n_frames=5,
        ways=(OWN, SYNC_LOSS, DROP_IN),
        real="models.Wav2Lip_SAM at 384x384, NLayerDiscriminator, Dataset (with --clips), "
        "get_sync_loss, L1, hinge loss and train() of hq_wav2lip_sam_train.py",
        stand_ins="random weights; LPIPS (it downloads VGG) is an L1; own expert: "
        "models.SyncNet_color_384, since the SyncNet_color that the script imports does not fit "
        "384x384 frames",
    )

    def __init__(self, folder: Path, way: str, device: torch.device) -> None:
        folder = enter(folder, self.facts)
        self._logs = tempfile.TemporaryDirectory(prefix="check_host_")
        self.script = load_script(
            folder / "hq_wav2lip_sam_train.py", CHANGES[way], ["--log_dir", self._logs.name]
        )
        self.notes = [
            "train() mended: it sets three running losses from four numbers",
            "the generator is given the audio encoder of a SyncNet_color_384: run() builds it "
            "without one, and its forward pass then fails for want of audio_refine",
        ]
        self.device = device
        torch.manual_seed(0)
        self.SyncNet_color_384 = load("models").SyncNet_color_384
        # Without an encoder its forward pass lacks audio_refine.
        ears = self.SyncNet_color_384().audio_encoder
        self.generator: nn.Module = self.script.Wav2Lip(audio_encoder=ears).to(device)
        self.disc = self.script.NLayerDiscriminator().to(device)
        self.output = self.generator
        self.sync = getattr(self.script, "sync", None)
        self.weight = 0.03
        self._syncnet = self._build_syncnet(way)
        self.expert: nn.Module | None = judge_of(getattr(self._syncnet, "module", self._syncnet))
        patch(
            self.script,
            {
                "LPIPS": L1InPlaceOfLPIPS,
                "CSVLogger": NoLogger,
                "save_checkpoint": nothing,
                "save_sample_images": nothing,
                "sync_iter_start": -1,  # all losses on from the first step
                "disc_iter_start": -1,
            },
        )
        self.script.hparams.set_hparam("syncnet_wt", self.weight)

    def _build_syncnet(self, way: str) -> nn.Module:
        if self.sync is not None:
            return self.sync
        expert = self.SyncNet_color_384() if way == OWN else self.script.SyncNet()
        # As its run() has it: wrapped, and in eval mode, but not frozen.
        return nn.DataParallel(expert.to(self.device)).eval()

    def batches(self, footage: Footage, steps: int, size: int) -> list[Batch]:
        """See `Host`: (x, indiv_mels, mel, gt, vidname)."""
        if footage.store is not None:
            note = mend_mel(self.script)
            self.notes += [note] if note else []
            loaded = from_own_dataset(
                self.script,
                footage.store,
                "wav2lip_288",
                SIZE_PX,
                steps,
                size,
            )
        else:
            rows = invented(footage, steps, size, SIZE_PX)
            loaded = [(*row, ["invented/clip/0"] * size) for row in rows]
        return [Batch(inputs, inputs[3], {"mel": inputs[2]}) for inputs in loaded]

    def sync_loss(self, frames: torch.Tensor, batch: Batch) -> torch.Tensor:
        """See `Host`."""
        mel = batch.audio["mel"].to(self.device)
        return self.script.get_sync_loss(mel, frames, self._syncnet)

    def train(self, loader: Loader) -> None:
        """See `Host`."""
        rate = self.script.hparams.initial_learning_rate
        optimizers = [
            torch.optim.Adam(net.parameters(), lr=rate, betas=(0.5, 0.999))
            for net in (self.generator, self.disc)
        ]
        self.script.train(
            self.device,
            self.generator,
            self.disc,
            Inputs(loader),
            [],
            *optimizers,
            checkpoint_dir=self._logs.name,
            checkpoint_interval=10**9,
            nepochs=1,
            log_interval=10**9,
            syncnet=self._syncnet,
        )


class L1InPlaceOfLPIPS(nn.Module):
    """What LPIPS is called with, without its weights."""

    def __init__(self, net: str = "vgg") -> None:
        super().__init__()

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Two batches of pictures -> a scalar."""
        return F.l1_loss(a, b)


class NoLogger:
    """In place of a logger that writes files."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def log_metrics(self, *_: Any, **__: Any) -> None:
        """Nothing."""

    def save(self) -> None:
        """Nothing."""
