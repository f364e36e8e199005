"""check_host: on a host in miniature, written here, and on real checkouts where there are any."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from generator_integration import check_host
from generator_integration.footage import InventedFootage, StoreFootage, mel_length
from generator_integration.hosts import HOMES, host_class
from generator_integration.hosts.checkout import Change, changed, known
from generator_integration.hosts.host import DROP_IN, OWN, SYNC_LOSS, Batch, Facts, HostError
from generator_integration.measure import measure
from syncdisc_plugin import SyncLoss
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.hosts import HOSTS
from syncdisc_plugin.timing import mel_start

PAGES = Path(check_host.__file__).parent
CPU = torch.device("cpu")
CHECKOUTS = {
    "wav2lip": "Wav2Lip",
    "wav2lip_288": "wav2lip_288x288",
    "latentsync": "LatentSync",
    "musetalk": "MuseTalk",
    "dinet": "DINet",
    "ip_lap": "IP_LAP",
}

# --- a host in miniature: Wav2Lip's names and shapes, a net of a few weights

HPARAMS = """
class HParams:
    img_size, fps, initial_learning_rate, syncnet_wt = 96, 25, 1e-3, 0.0
    def set_hparam(self, name, value):
        setattr(self, name, value)
hparams = HParams()
def get_image_list(root, split):
    raise OSError("a file list of the host was read")
"""
AUDIO = """
def load_wav(path, rate):
    from scipy.io import wavfile
    return wavfile.read(path)[1] / 32768
def melspectrogram(samples):
    raise TypeError("an old call of librosa")
"""
MODELS = """
import torch
from torch import nn

class Wav2Lip(nn.Module):
    def __init__(self):
        super().__init__()
        self.paint, self.hear = nn.Conv3d(6, 3, 3, padding=1), nn.Linear(80 * 16, 1)
    def forward(self, sounds, faces):
        heard = self.hear(sounds.flatten(2))[:, None, :, :, None]
        return torch.sigmoid(self.paint(faces) + heard)

class SyncNet_color(nn.Module):
    def __init__(self):
        super().__init__()
        self.see = nn.Sequential(nn.Conv2d(15, 8, 5, 5), nn.BatchNorm2d(8), nn.ReLU())
        self.hear = nn.Sequential(nn.Conv2d(1, 8, 5, 5), nn.BatchNorm2d(8), nn.ReLU())
    def forward(self, mel, faces):
        return self.hear(mel).mean((2, 3)) + 0.1, self.see(faces).mean((2, 3)) + 0.1
"""
SCRIPT = """
import argparse, os, random
import cv2
import numpy as np
import torch
from torch import nn
from models import SyncNet_color as SyncNet
from models import Wav2Lip
import audio
from hparams import hparams, get_image_list

parser = argparse.ArgumentParser()
for option in ("--data_root", "--checkpoint_dir", "--syncnet_checkpoint_path"):
    parser.add_argument(option, required=True)
args = parser.parse_args()
device = torch.device("cpu")
syncnet = SyncNet().to(device)
for p in syncnet.parameters():
    p.requires_grad = False

class Dataset:
    def __init__(self, split):
        self.folders = get_image_list(args.data_root, split)
    def __getitem__(self, index):
        folder = random.choice(self.folders)
        mel = audio.melspectrogram(audio.load_wav(os.path.join(folder, "audio.wav"), 16000)).T
        first = random.randint(1, 20)
        def pictures(start):
            names = [os.path.join(folder, str(i) + ".jpg") for i in range(start, start + 5)]
            return np.stack([cv2.imread(name) for name in names]).transpose(3, 0, 1, 2) / 255
        def cut(frame):
            return torch.FloatTensor(mel[frame * 16 // 5 :][:16].T.copy())[None]
        gt = torch.FloatTensor(pictures(first))
        masked = gt.clone()
        masked[:, :, 48:] = 0
        x = torch.cat([masked, torch.FloatTensor(pictures(25))])
        return x, torch.stack([cut(first - 1 + i) for i in range(5)]), cut(first), gt

def get_sync_loss(mel, g):
    a, v = syncnet(mel, torch.cat([g[:, :, i, 48:] for i in range(5)], 1))
    p = nn.functional.cosine_similarity(a, v).clamp(0, 1)
    return nn.functional.binary_cross_entropy(p, torch.ones_like(p))

def eval_model(*_):
    raise OSError("700 batches were evaluated")
def save_checkpoint(*_):
    raise OSError("a checkpoint was written")
def save_sample_images(*_):
    raise OSError("pictures were written")

def train(device, model, loader, test_loader, optimizer, checkpoint_dir, checkpoint_interval,
          nepochs):
    for step, (x, indiv_mels, mel, gt) in enumerate(loader):
        optimizer.zero_grad()
        g = model(indiv_mels, x)
        w = hparams.syncnet_wt
        loss = w * get_sync_loss(mel, g) + (1 - w) * (g - gt).abs().mean()
        loss.backward()
        optimizer.step()
        if step == 0:
            save_sample_images(x, g)
            save_checkpoint(model)
            assert eval_model() > 0.75
"""


@pytest.fixture
def small_host(tmp_path: Path) -> Path:
    root = tmp_path / "small_host"
    (root / "models").mkdir(parents=True)
    (root / "hparams.py").write_text(HPARAMS)
    (root / "audio.py").write_text(AUDIO)
    (root / "models/__init__.py").write_text("from models.wav2lip import SyncNet_color, Wav2Lip")
    (root / "models/wav2lip.py").write_text(MODELS)
    (root / "models/syncnet.py").write_text("")
    (root / "wav2lip_train.py").write_text(SCRIPT)
    return root


@pytest.mark.slow
def test_a_host_is_trained_in_all_its_ways(
    small_host: Path, tiny_store: ClipStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in small_host.rglob("*") if path.is_file()}
    out = tmp_path / "figures.json"
    words = ["wav2lip", "--host-dir", str(small_host), "--clips", str(tiny_store.root)]
    assert check_host.main([*words, "--steps", "2", "--json", str(out)]) == 0

    said = capsys.readouterr().out
    own, ours, drop_in = json.loads(out.read_text())["ways"]
    assert [own["way"], ours["way"], drop_in["way"]] == [OWN, SYNC_LOSS, DROP_IN]
    # The host's expert stays in train mode: 2 norms with mean, variance and count each.
    assert own["state_changed"] == 6 and not own["output_same"]
    assert "6 CHANGED" in said and "bit-identical" in said
    for way in (ours, drop_in):
        assert way["state_changed"] == 0 and way["output_same"] and way["moved"]
        assert len(way["seconds"]) == 2 and way["expert_parameters"] > 4e6
    # The same batches, the same weights: one loss by two doors.
    assert ours["loss"] == pytest.approx(drop_in["loss"], rel=1e-4)
    assert ours["gradient"] == pytest.approx(drop_in["gradient"], rel=1e-3)
    assert ours["rest"] == pytest.approx(own["rest"], rel=0.2)
    assert ours["check"].startswith("sync.check: 10 real pairs")
    assert "log_mel instead" in said  # audio.py of this host does not run
    assert before == {path: path.read_bytes() for path in small_host.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_way_that_fails_is_told(small_host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = small_host / "wav2lip_train.py"
    text = script.read_text()
    script.write_text(
        text.replace("    a, v = syncnet(", '    raise ValueError("no")\n    a, v = (')
    )
    assert check_host.main(["wav2lip", "--host-dir", str(small_host), "--steps", "1"]) == 1
    said = capsys.readouterr().out
    assert "own expert did not run: exit status 1" in said and "ValueError: no" in said
    assert "drop-in did not run" in said  # it calls the same function
    assert "x 1.00" not in said  # nothing to compare with
    assert "SyncLoss" in said and "bit-identical" in said


def test_a_wrong_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_host.main(["dinet", "--host-dir", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "no train_DINet_clip.py there" in said
    assert "https://github.com/MRzzm/DINet" in said


def test_missing_packages_are_named_at_once(tmp_path: Path) -> None:
    facts = replace(
        host_class("wav2lip").facts,
        files=(),
        needs={"torch": "torch", "no_such_a": "pip-b", "no_such_b": "pip-a"},
    )
    with pytest.raises(HostError, match=r"pip install pip-a pip-b$"):
        known(tmp_path, facts)


@pytest.mark.parametrize("option", ["--steps", "--batch"])
def test_nothing_to_do_is_refused(
    option: str, small_host: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check_host.main(["wav2lip", "--host-dir", str(small_host), option, "0"]) == 1
    assert "1 or more" in capsys.readouterr().err


# --- the edits


OLD = """\
from a import Net as N
def loss(x):
    return 1
if x:
    net = N(1,
            2)
    a, b = data
    score = net(x)
    y = score * 2
"""


@pytest.mark.parametrize(
    ("what", "lines", "new"),
    [
        ("import Net", "import c", OLD.replace("from a import Net as N", "import c")),
        ("def loss", "k = 1\nl = 2", OLD.replace("def loss(x):\n    return 1", "k = 1\nl = 2")),
        ("call N", "net = 3", OLD.replace("N(1,\n            2)", "3")),
        ("set score", "", OLD.replace("score = net(x)", "pass")),
        ("unpack data", "*data, c = data\n...", OLD.replace("a, b", "*data, c = data\n    a, b")),
    ],
)
def test_an_edit_replaces_one_statement(what: str, lines: str, new: str) -> None:
    assert changed(OLD, [Change(what, lines)], "s.py") == new


@pytest.mark.parametrize("what", ["import M", "def loss2", "call Z", "set y2", "unpack a"])
def test_another_version_is_refused(what: str) -> None:
    with pytest.raises(HostError, match="found 0"):
        changed(OLD, [Change(what, "")], "s.py")
    with pytest.raises(HostError, match="found 2"):
        changed("a = 1\na = 2", [Change("set a", "")], "s.py")


@pytest.mark.parametrize("name", HOMES)
def test_the_pages_show_the_edits_that_are_run(name: str) -> None:
    module = __import__(f"generator_integration.hosts.{HOMES[name][0]}", fromlist=["x"])
    page = (PAGES / name / "README.md").read_text(encoding="utf-8")
    added = {line.strip()[1:].strip() for line in page.splitlines() if line.strip()[:1] == "+"}
    for change in (c for way in getattr(module, "CHANGES", {}).values() for c in way):
        for line in change.lines.splitlines():
            assert line == "..." or line.strip() in added, line
    assert f'SyncLoss.for_host("{name}")' in page


@pytest.mark.parametrize("name", HOMES)
def test_facts_and_presets_agree(name: str) -> None:
    facts, preset = host_class(name).facts, HOSTS[name]
    assert (facts.repository, facts.n_frames) == (preset.repository, preset.frames.n_frames)
    assert facts.ways[0] == OWN and SYNC_LOSS in facts.ways


# --- what is fed and what is measured


def test_invented_windows_have_the_hosts_shapes() -> None:
    w = InventedFootage().windows(0, 2, 16, (64, 48))
    assert w.frames.shape == w.reference.shape == (2, 16, 3, 64, 48)
    assert w.mel.shape == (2, 1, 80, 52) and w.mels.shape == (2, 16, 1, 80, 16)
    assert w.frames.min() >= 0 and w.frames.max() <= 1 and w.mel.abs().max() <= 4
    again = InventedFootage().windows(0, 2, 16, (64, 48))
    assert torch.equal(w.frames, again.frames) and torch.equal(w.waveform, again.waveform)
    assert (mel_length(5), mel_length(16)) == (16, 52)


def test_stored_windows_lie_where_the_host_has_them(tiny_store: ClipStore) -> None:
    footage = StoreFootage(tiny_store.root)
    w = footage.windows(3, 4, 5, (96, 96))
    # Found again in the clip they came from, by their sound.
    item = next(
        c
        for c in tiny_store.clips
        if np.array_equal(tiny_store.audio(c), w.waveform[0].numpy()[: c.n_frames * 640])
    )
    start = int(w.start[0])
    stored = tiny_store.frames(item, start, start + 5)[:, 12:-12, 12:-12]
    assert np.abs(w.frames[0].numpy().transpose(0, 2, 3, 1) - stored / 255).max() < 1e-3
    mel = tiny_store.mel(item)[mel_start(start, tiny_store.spec) :][:16].T
    assert np.array_equal(w.mel[0, 0].numpy(), mel)
    # The waveform and its start say the same as the mel.
    sync = SyncLoss(layout="b t c h w")
    heard = sync.probability(w.frames, waveform=w.waveform, start=w.start)
    assert torch.allclose(heard, sync.probability(w.frames, w.mel), atol=1e-3)
    # A box in the lower right quarter: the face's upper left is at the frame's centre.
    quarter = footage.windows(3, 4, 5, (96, 96), (0.5, 1.5, 0.5, 1.5)).frames
    assert torch.allclose(quarter[0, :, :, 48:, 48:], w.frames[0, :, :, :48, :48], atol=1e-3)


class StubHost:
    """One weight, frames of it, and an expert that may drift."""

    facts = Facts("a/b", (), {}, 5, (OWN,), "", "")
    notes: tuple[str, ...] = ()
    weight = 0.5

    def __init__(self, *, steps: int | None = None, drift: bool = False) -> None:
        self.device, self.steps = CPU, steps
        self.generator = self.output = nn.Linear(4, 4)
        self.expert = nn.BatchNorm1d(4).train(drift).requires_grad_(False)

    def sync_loss(self, frames: torch.Tensor, batch: Batch) -> torch.Tensor:
        return self.expert(frames).square().sum()

    def train(self, loader: Any) -> None:
        optimizer = torch.optim.SGD(self.generator.parameters(), lr=0.1)
        for step, batch in enumerate(loader):
            frames = self.generator(batch.inputs)
            loss = frames.sum() + self.weight * self.sync_loss(frames, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step + 1 == self.steps:
                break


def stub_batches(n: int) -> list[Batch]:
    torch.manual_seed(4)
    return [Batch(torch.randn(6, 4), torch.randn(6, 4), {}) for _ in range(n)]


def test_what_is_measured_is_what_happened() -> None:
    host = StubHost()
    report = measure(host, SYNC_LOSS, stub_batches(3), CPU)  # type: ignore[arg-type]
    assert report.rest == pytest.approx([24**0.5] * 3, rel=1e-4)  # of a sum: all ones
    # Of w * sum(x^2): 2 * w * |x|, and the loss is |x|^2; the norm's eps is a little off.
    assert report.gradient == pytest.approx([x**0.5 for x in report.loss], rel=1e-3)
    assert (report.state_changed, report.output_same, report.moved) == (0, True, True)
    assert len(report.seconds) == 3 and report.peak_mb > 1 and report.check == ""


def test_an_expert_that_drifts_is_seen() -> None:
    report = measure(StubHost(drift=True), OWN, stub_batches(2), CPU)  # type: ignore[arg-type]
    assert report.state_changed == 3 and not report.output_same


def test_a_loop_that_is_left_in_its_last_step_counts() -> None:
    report = measure(StubHost(steps=2), OWN, stub_batches(2), CPU)  # type: ignore[arg-type]
    assert len(report.seconds) == 2
    with pytest.raises(HostError, match="of 3 steps 2 ended"):
        measure(StubHost(steps=2), OWN, stub_batches(3), CPU)  # type: ignore[arg-type]


# --- real checkouts


@pytest.fixture
def checkout() -> Iterator[Callable[[str], Path]]:
    def find(name: str) -> Path:
        root = os.environ.get("SYNCDISC_HOSTS")
        if not root:
            pytest.skip("SYNCDISC_HOSTS is not set: a folder with checkouts of the hosts")
        folder = Path(root) / CHECKOUTS[name]
        if not folder.is_dir():
            pytest.skip(f"{folder} is not there")
        return folder

    yield find


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("name", HOMES)
def test_real_hosts_train_with_it(
    name: str, checkout: Callable[[str], Path], tmp_path: Path
) -> None:
    folder, facts = checkout(name), host_class(name).facts
    try:
        known(folder, facts)
    except HostError as error:
        pytest.skip(str(error))
    args = SimpleNamespace(
        host=name, host_dir=folder, steps=1, batch=2, json=None, clips=None, way=None
    )
    report = check_host._run_way(args, SYNC_LOSS, None, tmp_path)  # type: ignore[arg-type]
    assert check_host._good(report), report
