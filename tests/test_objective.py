"""What SyncLoss makes of similarities, and the contrast with the other items' sounds."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from syncdisc_plugin.nn import Discriminator
from syncdisc_plugin.objective import ALIKE, Objective
from syncdisc_plugin.sync_loss import SyncLoss


def unit(*shape: int, seed: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=rng), dim=-1)


def test_other_sounds_count_as_false(tiny_net: Discriminator) -> None:
    v, sounds, rows = unit(2, 3, 16, seed=0), unit(5, 3, 16, seed=1), torch.tensor([1, 4])
    sounds[0] = sounds[1]  # each sound of item 1 has one that is alike
    plain = Objective("probability", "mean", 0.0)(tiny_net, v, sounds, rows)
    half = Objective("probability", "mean", 0.5)(tiny_net, v, sounds, rows)
    for i, row in enumerate(rows.tolist()):
        beside = []
        for n in range(3):
            false = [
                F.softplus(tiny_net.logit(v[i, n] @ sound))
                for other in range(5)
                for sound in sounds[other]
                if other != row and sounds[row, n] @ sound < ALIKE
            ]
            assert false and (row != 1 or len(false) < 12)
            beside.append(torch.stack(false).mean())
        torch.testing.assert_close(half[i] - plain[i], 0.5 * torch.stack(beside).mean())


def test_alike_sounds_and_a_batch_of_one_have_no_contrast(tiny_net: Discriminator) -> None:
    v, sound = unit(4, 1, 16, seed=0), unit(1, 1, 16, seed=1)
    for kind in ("probability", "similarity"):
        plain, full = (Objective(kind, "mean", weight) for weight in (0.0, 1.0))
        silent, rows = sound.expand(4, 1, 16), torch.arange(4)
        assert torch.equal(full(tiny_net, v, silent, rows), plain(tiny_net, v, silent, rows))
        one = v[:1], sound, rows[:1]
        assert torch.equal(full(tiny_net, *one), plain(tiny_net, *one))


def test_lips_are_pushed_from_other_sounds(tiny_net: Discriminator) -> None:
    """Frames that fit two sounds alike: only with the contrast do they move to their own."""
    sounds = F.normalize(torch.tensor([[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]]), dim=-1)
    with torch.no_grad():
        tiny_net.log_scale.fill_(2.0)

    def pull(contrast: float, kind: str) -> torch.Tensor:
        v = torch.tensor([[[0.6, 0.6, 0.5]]], requires_grad=True)
        loss = Objective(kind, "mean", contrast)(tiny_net, v, sounds, torch.tensor([0]))
        (gradient,) = torch.autograd.grad(loss.sum(), v)
        return gradient[0, 0]

    for kind in ("probability", "similarity"):
        assert pull(0.0, kind)[0] < 0 and pull(0.0, kind)[1] == 0
        assert pull(1.0, kind)[0] < 0 < pull(1.0, kind)[1]


def mels(batch: int) -> torch.Tensor:
    """(B, 1, 80, 16): bands of noise, each somewhere else and in another rhythm."""
    rng = torch.Generator().manual_seed(3)
    out = torch.full((batch, 1, 80, 16), -3.0)
    for i in range(batch):
        low = 7 * i % 60
        beat = (torch.arange(16) // (1 + i % 5)) % 2
        out[i, 0, low : low + 20] += 5 * beat + torch.rand(20, 16, generator=rng)
    return out


@pytest.mark.parametrize("grad", [True, False])
def test_the_whole_batch_is_the_contrast(grad: bool) -> None:
    """More items than are judged at a time: their sounds are others', too."""
    rng = torch.Generator().manual_seed(0)
    frames = torch.rand(12, 3, 5, 96, 96, generator=rng).requires_grad_(grad)
    mel = mels(12)
    plain, full = (SyncLoss(reduction="none", contrast=c) for c in (0.0, 1.0))
    v, a = (e[:, 0] for e in plain.embed(frames, mel))
    counts = (a @ a.T < ALIKE) & ~torch.eye(12, dtype=torch.bool)
    assert counts.any() and not counts.all()
    false = F.softplus(plain.net.logit(v @ a.T)) * counts
    expected = plain(frames, mel).detach() + false.sum(1) / counts.sum(1).clamp_min(1)
    loss = full(frames, mel)
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-4, atol=1e-5)
    if grad:
        loss.sum().backward()
        assert frames.grad is not None and frames.grad.isfinite().all()
        assert (frames.grad.flatten(1).norm(dim=1) > 0).all()


def test_the_gradient_is_that_of_the_whole_loss() -> None:
    rng = torch.Generator().manual_seed(0)
    frames = torch.rand(9, 3, 5, 96, 96, generator=rng)
    mel, sync = mels(9), SyncLoss(contrast=1.0, max_gradient=1e6)
    (gradient,) = torch.autograd.grad(sync(given := frames.clone().requires_grad_(), mel), given)
    step = 1e-2 * gradient / gradient.norm()
    rise = sync(frames + step, mel) - sync(frames - step, mel)
    assert rise.item() == pytest.approx(2e-2 * gradient.norm().item(), rel=0.05)


def test_a_contrast_below_0_is_refused() -> None:
    with pytest.raises(ValueError, match=r"contrast: expected a number of at least 0, got -1"):
        SyncLoss(contrast=-1.0)


def test_lips_are_not_rewarded_for_being_opposite_to_another_sound(tiny_net: Discriminator) -> None:
    """Of kind "similarity" a false pair below 0 is far enough."""
    sounds = torch.eye(3)[:2][:, None]
    v = torch.tensor([[[0.6, -0.8, 0.0]]], requires_grad=True)
    loss = Objective("similarity", "mean", 1.0)(tiny_net, v, sounds, torch.tensor([0]))
    assert loss.item() == pytest.approx(0.4)
    (gradient,) = torch.autograd.grad(loss.sum(), v)
    assert gradient[0, 0, 1] == 0
