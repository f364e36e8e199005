"""Stand-ins for hosts' experts, called as the hosts call theirs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from syncdisc_plugin.compat import StableSyncNet, SyncNet_color
from syncdisc_plugin.hosts import host
from syncdisc_plugin.nn import Discriminator
from syncdisc_plugin.sync_loss import SyncLoss
from syncdisc_plugin.weights import save


@pytest.fixture
def path(tiny_net: Discriminator, tmp_path: Path) -> Path:
    with torch.no_grad():
        tiny_net.log_scale.fill_(3.0)
    return save(tiny_net, tmp_path / "tiny.safetensors")


def faces(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(4))


MEL = torch.rand(3, 1, 80, 16, generator=torch.Generator().manual_seed(5)) * 8 - 4


def bce_of_cosine(a: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """What Wav2Lip, wav2lip_288x288, LatentSync and MuseTalk take of an expert's embeddings."""
    cosine = nn.functional.cosine_similarity(a, v)
    return nn.BCELoss()(cosine.unsqueeze(1), torch.ones(len(a), 1))


def test_the_hosts_own_loss_is_ours(path: Path) -> None:
    whole = faces(3, 3, 5, 96, 96).requires_grad_()
    ours = SyncLoss(path, color="bgr")(whole, MEL)
    (expected,) = torch.autograd.grad(ours, whole)

    lower = torch.cat([whole[:, :, i, 48:] for i in range(5)], dim=1)  # (3, 15, 48, 96)
    a, v = SyncNet_color(path)(MEL, lower)
    loss = bce_of_cosine(a, v)
    torch.testing.assert_close(loss, ours, rtol=1e-4, atol=1e-5)
    (grad,) = torch.autograd.grad(loss, whole)
    torch.testing.assert_close(grad, expected, rtol=1e-3, atol=1e-7)


def test_embeddings_are_unit_and_not_negative(path: Path) -> None:
    a, v = SyncNet_color(path)(MEL, faces(3, 15, 48, 96))
    for x in (a, v):
        assert (x >= 0).all()
        torch.testing.assert_close(x.norm(dim=1), torch.ones(3))


@pytest.mark.parametrize("bias", [-40.0, -10.0, 10.0, 40.0])
def test_bce_stays_valid_at_both_ends(tiny_net: Discriminator, tmp_path: Path, bias: float) -> None:
    """Probabilities of 0 and of 1 within rounding: no assert, no nan, no vanished gradient at 0."""
    with torch.no_grad():
        tiny_net.bias.fill_(bias)
    expert = SyncNet_color(save(tiny_net, tmp_path / "sure.safetensors"))
    lower = faces(3, 15, 48, 96).requires_grad_()
    loss = bce_of_cosine(*expert(MEL, lower))
    (grad,) = torch.autograd.grad(loss, lower)
    assert loss.isfinite() and grad.isfinite().all()
    assert grad.any() or bias > 0


def test_a_hosts_expert_checkpoint_is_not_loaded_silently(path: Path) -> None:
    expert = SyncNet_color(path)
    before = expert(MEL, faces(3, 15, 48, 96))[1]
    with pytest.warns(UserWarning, match="was not loaded"):
        expert.load_state_dict({"face_encoder.0.conv_block.0.weight": torch.zeros(32, 15, 7, 7)})
    assert torch.equal(expert(MEL, faces(3, 15, 48, 96))[1], before)
    assert not list(expert.parameters()) and not expert.state_dict()
    expert.load_state_dict(expert.state_dict(), strict=True)


def test_latentsyncs_order_and_halves(path: Path) -> None:
    """Whole faces through the preset and lower halves through the stand-in are nearly one loss.

    Not wholly: the host cuts away rows of the box, which are repeated edges then.
    """
    torch.manual_seed(0)
    # Smooth as faces are: in noise a box that is half a pixel off shows something else.
    coarse = torch.rand(2 * 16, 3, 8, 8)
    smooth = torch.nn.functional.interpolate(coarse, (64, 64), mode="bicubic").clamp(0, 1)
    whole = (smooth * 2 - 1).requires_grad_()
    mel = torch.rand(2, 1, 80, 52) * 8 - 4
    ours = SyncLoss.for_host("latentsync", path)(whole, mel)
    expert = StableSyncNet({"audio_encoder": {}}, gradient_checkpointing=True, weights=path)
    stacked = whole.unflatten(0, (2, 16)).flatten(1, 2)[:, :, 32:]
    v, a = expert.to(dtype=torch.float16)(stacked, mel)
    assert v.dtype == torch.float32
    # The box lies on whole pixels in both only within rounding.
    torch.testing.assert_close(bce_of_cosine(v, a), ours, rtol=0.05, atol=0.05)
    assert host("latentsync").frames.box[0] < 0.5


def test_frames_that_are_not_finite_do_not_end_the_hosts_bce(path: Path) -> None:
    whole = faces(3, 3, 5, 96, 96)
    expert = SyncNet_color(path)
    half = whole[:, :, :, 48:].transpose(1, 2).flatten(1, 2)
    bce_of_cosine(*expert(MEL, half))
    half[0] = torch.nan
    half.requires_grad_()
    loss = bce_of_cosine(*expert(MEL, half))
    loss.backward()
    assert loss.isfinite() and half.grad is not None and half.grad[1:].isfinite().all()
