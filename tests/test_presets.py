"""Every host's preset, on tensors built the way that host builds them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from generator_integration.hosts import musetalk as musetalk_host
from syncdisc_plugin.hosts import HOSTS, host
from syncdisc_plugin.nn import Discriminator
from syncdisc_plugin.sync_loss import SyncLoss
from syncdisc_plugin.weights import save

B = 2
Batch = tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]


def true_faces(t: int, height: int, width: int) -> torch.Tensor:
    """(B, T, 3, H, W) RGB in [0, 1]: what each host's batch shows."""
    return torch.rand(B, t, 3, height, width, generator=torch.Generator().manual_seed(t))


def mel(length: int) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(length)
    return {"mel": torch.rand(B, 1, 80, length, generator=rng) * 8 - 4}


def waveform() -> dict[str, torch.Tensor]:
    """Hosts with learned audio features: the clip's samples and where its frames begin."""
    rng = torch.Generator().manual_seed(9)
    return {
        "waveform": torch.randn(B, 32000, generator=rng) * 0.1,
        "start": torch.tensor([3, 20]),
    }


def wav2lip(side: int = 96) -> Batch:
    """Generator: (5B, ...) all first frames first, split and stacked again to (B, 3, 5, H, W)."""
    x = true_faces(5, side, side)
    out = x.flip(2).transpose(0, 1).flatten(0, 1)  # BGR, time-major
    g = torch.stack(torch.split(out, B, dim=0), dim=2)
    return g, mel(16), x


def latentsync() -> Batch:
    """VAE.decode: ((b f), 3, 256, 256) in [-1, 1], fp16."""
    x = true_faces(16, 256, 256)
    return (x.flatten(0, 1) * 2 - 1).half(), mel(52), x


def musetalk() -> Batch:
    """VAE.decode of predicted latents among true frames, 16 of them, in [-1, 1]."""
    x = true_faces(16, 256, 256)
    return x.flatten(0, 1) * 2 - 1, mel(52), x


def dinet() -> Batch:
    """netG: (B*5, 3, 416, 320), all first frames first (train_DINet_clip.py splits by batch)."""
    x = true_faces(5, 416, 320)
    return x.transpose(0, 1).flatten(0, 1), waveform(), x


def diff2lip() -> Batch:
    x = true_faces(5, 128, 128)
    return x.flatten(0, 1) * 2 - 1, mel(16), x


def ip_lap() -> Batch:
    """One frame a call: five calls, collected."""
    x = true_faces(5, 128, 128)
    calls = [x[:, t].flip(1) for t in range(5)]  # (B, 3, 128, 128) BGR each
    collected = torch.stack(calls, dim=1).flatten(0, 1)
    assert collected.shape == (B * 5, 3, 128, 128)
    return collected, mel(16), x


def talklip() -> Batch:
    x = true_faces(5, 96, 96)
    return x.flip(2).flatten(0, 1), waveform(), x


def video_retalking() -> Batch:
    x = true_faces(5, 384, 384)
    return x.transpose(1, 2), mel(16), x


def ultralight() -> Batch:
    x = true_faces(5, 160, 160)
    calls = [x[:, t].flip(1) for t in range(5)]
    return torch.stack(calls, dim=1).flatten(0, 1), waveform(), x


BATCHES: dict[str, Callable[[], Batch]] = {
    "wav2lip": wav2lip,
    "wav2lip_288": lambda: wav2lip(384),
    "latentsync": latentsync,
    "musetalk": musetalk,
    "dinet": dinet,
    "diff2lip": diff2lip,
    "ip_lap": ip_lap,
    "talklip": talklip,
    "video_retalking": video_retalking,
    "ultralight": ultralight,
}


@pytest.fixture
def path(tiny_net: Discriminator, tmp_path: Path) -> Path:
    return save(tiny_net, tmp_path / "tiny.safetensors")


def test_every_host_is_tried() -> None:
    assert BATCHES.keys() == HOSTS.keys()


@pytest.mark.parametrize("name", BATCHES)
def test_a_preset_reads_its_hosts_tensors(name: str, path: Path) -> None:
    """The same loss as for the faces told one by one in our own words, and a gradient back."""
    given, audio, faces = BATCHES[name]()
    given.requires_grad_()
    sync = SyncLoss.for_host(name, path, reduction="none")
    loss = sync(given, **audio)
    assert loss.shape == (B,) and loss.isfinite().all()
    plain = SyncLoss(path, region=host(name).frames.region, reduction="none")
    torch.testing.assert_close(loss, plain(faces, **audio), rtol=0.02, atol=0.02)
    loss.sum().backward()
    assert given.grad is not None and given.grad.isfinite().all()
    seen = sync.format.split(given.grad).abs().amax((2, 3, 4))
    assert (seen > 0).all()  # every frame of every item


@pytest.mark.parametrize("name", BATCHES)
def test_a_preset_says_how_the_audio_comes(name: str) -> None:
    assert host(name).audio == ("mel" if "mel" in BATCHES[name]()[1] else "waveform")


def test_a_presets_words_can_be_changed(path: Path) -> None:
    sync = SyncLoss.for_host("latentsync", path, n_frames=25, windows="worst", weight=0.05)
    assert sync.format.n_frames == 25 and sync.format.value_range == "-1..1"
    assert sync.objective.windows == "worst" and sync.weight == 0.05


@pytest.mark.parametrize("name", ["ip_lap", "ultralight"])
def test_single_frames_are_told_to_be_collected(name: str, path: Path) -> None:
    given, audio, _ = BATCHES[name]()
    with pytest.raises(ValueError, match=r"t = 5, got \(2, 3"):
        SyncLoss.for_host(name, path)(given[:2], **audio)
    with pytest.raises(ValueError, match="consecutive frames of one video"):
        SyncLoss.for_host(name, path, n_frames=1)(given[:2], **audio)


@pytest.mark.parametrize("n", [5, 8, 12, 16])
def test_musetalks_part_of_the_mel_fits_its_predicted_frames(path: Path, n: int) -> None:
    """Wherever among the 16 frames of a clip they stand."""
    (call,) = (
        c for c in musetalk_host.CHANGES[musetalk_host.SYNC_LOSS] if c.what == "call get_sync_loss"
    )
    sync = SyncLoss.for_host("musetalk", path, n_frames=n)
    for left in range(16 - n + 1):
        scene = {
            "mels": torch.zeros(2, 1, 80, 52),
            "frames_left_index": left,
            "cfg": SimpleNamespace(num_backward_frames=n),
            "image_pred": torch.zeros(2 * n, 3, 64, 64),
            "sync": sync,
        }
        exec(call.lines, scene)
        assert torch.isfinite(scene["sync_loss"])
