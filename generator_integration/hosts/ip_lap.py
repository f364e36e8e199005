"""IP_LAP: its renderer makes single frames and has no sync loss; ip_lap/README.md gives it one."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import nn

from generator_integration.footage import Footage
from generator_integration.hosts.checkout import enter, load, patch
from generator_integration.hosts.host import OWN, SYNC_LOSS, Batch, Facts, Loader
from syncdisc_plugin import SyncLoss
from syncdisc_plugin.hosts import host

T, AROUND, SIZE_PX, REFERENCES = 5, 2, 128, 3


class IPLAP:
    """See `Host`. The step follows `train_video_renderer.py`, whose loop is not a function."""

    facts = Facts(
        repository="Weizhi-Zhong/IP_LAP",
        files=("train_video_renderer.py", "models/video_renderer.py", "loss.py"),
        needs={"cv2": "opencv-python", "librosa": "librosa", "torchvision": "torchvision"},
        n_frames=T,
        ways=(OWN, SYNC_LOSS),
        real="Renderer (flow and translation networks), define_D, GANLoss, the weights of its "
        "losses; it has no expert: the first column is its step without a sync loss",
        stand_ins="the loop itself (at the top level of a script that downloads InceptionV3); "
        "VGG19 losses are L1s; sketches are edges of the frames; random weights",
    )

    def __init__(self, folder: Path, way: str, device: torch.device) -> None:
        enter(folder, self.facts)
        self.device, self.weight = device, 0.03
        self.notes: list[str] = []
        if "lws" not in sys.modules:
            sys.modules["lws"] = ModuleType(
                "lws"
            )  # models/audio.py imports it; nothing here uses it
        patch(load("models.video_renderer"), {"PerceptualLoss": L1InPlaceOfVGG})
        models = load("models")
        torch.manual_seed(0)
        self.generator: nn.Module = models.Renderer().to(device)
        self.output: nn.Module = self.generator.translation  # type: ignore[assignment]
        self.disc = models.define_D(
            input_nc=3, ndf=64, n_layers_D=3, norm="instance", num_D=2, getIntermFeat=True
        ).to(device)
        self.gan = load("loss").GANLoss(tensor=lambda size: torch.zeros(size, device=device))
        self.sync: SyncLoss | None = None
        if way == SYNC_LOSS:
            self.sync = SyncLoss.for_host("ip_lap").to(device)
        self.expert: nn.Module | None = self.sync.net if self.sync else None

    def batches(self, footage: Footage, steps: int, size: int) -> list[Batch]:
        """See `Host`: for each of T frames what the renderer wants for one, as (B * T, ...)."""
        out = []
        for step in range(steps):
            w = footage.windows(
                step, size, T + 2 * AROUND, (SIZE_PX, SIZE_PX), host("ip_lap").frames.box
            )
            bgr, reference = (x.flip(2) for x in (w.frames, w.reference))
            sketches = _edges(bgr)
            centres = bgr[:, AROUND:-AROUND]
            around = torch.stack([sketches[:, i : i + 2 * AROUND + 1] for i in range(T)], 1)
            chosen = torch.stack([reference[:, i] for i in range(REFERENCES)], 1)
            refs = chosen[:, None].expand(-1, T, -1, -1, -1, -1)
            # Its mel begins two frames before the frame; `mels` begins one before each.
            mels = w.mels[:, 1 : T + 1][:, :, None]
            inputs = (centres[:, :, None], around, refs, _edges(refs), mels)
            flat = tuple(x.flatten(0, 1) for x in inputs)
            first = 16 * AROUND // 5  # mel frame of the first centre, since the window's is whole
            mel = w.mel[..., first : first + 16].to(self.device)
            out.append(Batch(flat, centres.flatten(0, 1).to(self.device), {"mel": mel}))
        return out

    def sync_loss(self, frames: torch.Tensor, batch: Batch) -> torch.Tensor:
        """See `Host`: frames (B * T, 3, S, S) BGR in [0, 1]."""
        assert self.sync is not None
        return self.sync(frames, batch.audio["mel"])

    def train(self, loader: Loader) -> None:
        """See `Host`."""
        optimizer = torch.optim.Adam(self.generator.parameters(), lr=1e-4)
        disc_optimizer = torch.optim.Adam(self.disc.parameters(), lr=1e-4, betas=(0.5, 0.999))
        for batch in loader:
            inputs = [x.to(self.device) for x in batch.inputs]
            real = inputs[0][:, 0]
            frames, _, warp, generated = self.generator(*inputs)
            fake, true = self.disc(frames.detach()), self.disc(real)
            disc_loss = (self.gan(fake, False) + self.gan(true, True)).mean() * 0.5
            judged = self.disc(frames)
            loss = 2.5 * warp.sum() + 4 * generated.sum() + 0.25 * self.gan(judged, True).mean()
            if self.sync is not None:
                loss = loss + self.weight * self.sync_loss(frames, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            disc_optimizer.zero_grad()
            disc_loss.backward()
            disc_optimizer.step()


class L1InPlaceOfVGG(nn.Module):
    """What the host's PerceptualLoss is called with, without its weights."""

    def __init__(self, **_: object) -> None:
        super().__init__()

    def forward(self, a: torch.Tensor, b: torch.Tensor, **_: object) -> torch.Tensor:
        """Two batches of pictures -> a scalar."""
        return F.l1_loss(a, b)


def _edges(x: torch.Tensor) -> torch.Tensor:
    """Dark lines on white where the picture changes, in place of drawn landmarks."""
    flat = x.reshape(-1, *x.shape[-3:])
    change = (flat - F.avg_pool2d(flat, 3, 1, 1)).abs().amax(1, keepdim=True)
    return (1 - 8 * change).clamp(0, 1).expand_as(flat).reshape(x.shape)
