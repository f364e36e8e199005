"""Wav2Lip: its `wav2lip_train.py`, run as it is or with the edits of wav2lip/README.md."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from generator_integration.footage import Footage, spread
from generator_integration.hosts.checkout import Change, enter, load_script, patch
from generator_integration.hosts.host import (
    DROP_IN,
    OWN,
    SYNC_LOSS,
    Batch,
    Facts,
    Loader,
    judge_of,
)
from syncdisc_plugin import log_mel
from syncdisc_plugin.data.layout import write_layout
from syncdisc_plugin.data.split import Split
from syncdisc_plugin.data.store import ClipStore

IMPORT = Change(
    "import SyncNet_color", "from syncdisc_plugin.compat import SyncNet_color as SyncNet"
)
LOSS = Change(
    "def get_sync_loss",
    """\
from syncdisc_plugin import SyncLoss
sync = SyncLoss.for_host("wav2lip").to(device)
def get_sync_loss(mel, g):
    return sync(g, mel)""",
)
CHANGES = {OWN: [], SYNC_LOSS: [LOSS], DROP_IN: [IMPORT]}
SIZE_PX = 96


class Wav2Lip:
    """See `Host`. All of the step is the host's `train()`."""

    facts = Facts(
        repository="Rudrabha/Wav2Lip",
        files=("wav2lip_train.py", "models/wav2lip.py", "models/syncnet.py", "hparams.py"),
        needs={"cv2": "opencv-python", "librosa": "librosa", "scipy": "scipy", "tqdm": "tqdm"},
        n_frames=5,
        ways=(OWN, SYNC_LOSS, DROP_IN),
        real="models.Wav2Lip, Dataset (with --clips), get_sync_loss, L1 and train() of "
        "wav2lip_train.py; SyncNet_color as the own expert, in train mode as there",
        stand_ins="random weights; the evaluation of 700 batches after step 1 is left out",
    )

    def __init__(self, folder: Path, way: str, device: torch.device) -> None:
        folder = enter(folder, self.facts)
        argv = ["--data_root", ".", "--checkpoint_dir", ".", "--syncnet_checkpoint_path", "none"]
        self.script = load_script(folder / "wav2lip_train.py", CHANGES[way], argv)
        self.notes: list[str] = []
        self.device = device
        torch.manual_seed(0)
        self.generator: nn.Module = self.script.Wav2Lip().to(device)
        self.output = self.generator
        self.sync = getattr(self.script, "sync", None)
        self.expert: nn.Module | None = judge_of(self.sync or self.script.syncnet)
        self.weight = 0.03
        # Step 1 would save a checkpoint and evaluate; 1 is above the limit that sets the weight.
        left_out = {"eval_model": lambda *_: 1.0, "save_checkpoint": nothing}
        patch(self.script, {**left_out, "save_sample_images": nothing})
        self.script.hparams.set_hparam("syncnet_wt", self.weight)

    def batches(self, footage: Footage, steps: int, size: int) -> list[Batch]:
        """See `Host`: (x, indiv_mels, mel, gt)."""
        if footage.store is not None:
            note = mend_mel(self.script)
            self.notes += [note] if note else []
            loaded = from_own_dataset(self.script, footage.store, "wav2lip", SIZE_PX, steps, size)
        else:
            loaded = invented(footage, steps, size, SIZE_PX)
        return [Batch(inputs, inputs[3], {"mel": inputs[2]}) for inputs in loaded]

    def sync_loss(self, frames: torch.Tensor, batch: Batch) -> torch.Tensor:
        """See `Host`."""
        return self.script.get_sync_loss(batch.audio["mel"].to(self.device), frames)

    def train(self, loader: Loader) -> None:
        """See `Host`."""
        optimizer = torch.optim.Adam(
            self.generator.parameters(), lr=self.script.hparams.initial_learning_rate
        )
        self.script.train(
            self.device,
            self.generator,
            Inputs(loader),
            None,
            optimizer,
            checkpoint_dir=".",
            checkpoint_interval=10**9,
            nepochs=1,
        )


class Inputs:
    """A loader of what the host's loader would yield."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        """Inputs of each batch."""
        return (batch.inputs for batch in self.loader)

    def __len__(self) -> int:
        """How many batches."""
        return len(self.loader)


def invented(footage: Footage, steps: int, size: int, size_px: int) -> list[tuple[Any, ...]]:
    """(x (B, 6, 5, S, S), indiv_mels (B, 5, 1, 80, 16), mel (B, 1, 80, 16), gt (B, 3, 5, S, S))."""
    out = []
    for step in range(steps):
        w = footage.windows(step, size, 5, (size_px, size_px))
        gt, wrong = (x.flip(2).transpose(1, 2).contiguous() for x in (w.frames, w.reference))
        masked = gt.clone()
        masked[..., size_px // 2 :, :] = 0
        out.append((torch.cat([masked, wrong], 1), w.mels, w.mel, gt))
    return out


def mend_mel(script: ModuleType) -> str:
    """Give the host a mel that runs, where its own does not; what was done, or ""."""
    try:
        script.audio.melspectrogram(np.zeros(16000, dtype=np.float32))
    except Exception as error:  # its loader would swallow this, and wait forever
        script.audio.melspectrogram = lambda wav: log_mel(torch.from_numpy(wav)).numpy()
        why = f"{type(error).__name__} in its melspectrogram()"
        return f"audio.py does not run with this librosa ({why}); syncdisc_plugin.log_mel instead"
    return ""


def from_own_dataset(
    script: ModuleType,
    store: ClipStore,
    layout: str,
    size_px: int,
    steps: int,
    size: int,
) -> list[tuple[Any, ...]]:
    """Batches that the host's Dataset reads from folders made of some of the store's clips."""
    clips = spread(store)
    with tempfile.TemporaryDirectory(prefix="check_host_") as temp:
        root = Path(temp) / "layout"
        few = Split(clips, clips, "some clips, for a check")
        write_layout(store, root, layout, size_px=size_px, split=few)
        names = (root / "filelists/train.txt").read_text(encoding="utf-8").split("\n")
        folders = [str(root / name) for name in names if name]
        random.seed(0)
        rows = []
        for row in range(steps * size):
            # It draws a video itself: of a list of one, so that those of a batch differ.
            one = [folders[row % len(folders)]]
            patch(script, {"get_image_list": lambda *_, one=one: one})
            rows.append(script.Dataset("train")[0])
    return list(DataLoader(rows, batch_size=size))  # type: ignore[arg-type]


def nothing(*_: Any, **__: Any) -> None:
    """In place of what a check leaves out."""
