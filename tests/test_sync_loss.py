from __future__ import annotations

import copy
import math
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from syncdisc_plugin.faces.crop import TEMPLATE
from syncdisc_plugin.mel import _filterbank, log_mel
from syncdisc_plugin.mouth import MIDDLE
from syncdisc_plugin.nn import Architecture, Discriminator
from syncdisc_plugin.spec import ClipSpec
from syncdisc_plugin.sync_loss import SyncLoss
from syncdisc_plugin.weights import save

LOG_2 = math.log(2)


@pytest.fixture
def path(tiny_net: Discriminator, tmp_path: Path) -> Path:
    """A net with a steep scale, so that the bound on the gradient has work to do."""
    with torch.no_grad():
        tiny_net.log_scale.fill_(math.log(20))
        tiny_net.bias.fill_(-4.0)
    return save(tiny_net, tmp_path / "tiny.safetensors")


def pair(batch: int = 3, size: tuple[int, int] = (96, 96), seed: int = 0):
    """Frames (B, 3, 5, H, W) in [0, 1] that need a gradient, and mel (B, 1, 80, 16)."""
    rng = torch.Generator().manual_seed(seed)
    frames = torch.rand(batch, 3, 5, *size, generator=rng, requires_grad=True)
    return frames, torch.rand(batch, 1, 80, 16, generator=rng) * 8 - 4


def gradient(loss: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    (grad,) = torch.autograd.grad(loss, frames)
    return grad


def norms(grad: torch.Tensor) -> torch.Tensor:
    return grad.float().flatten(1).norm(dim=1)


# --- the gradient

PICTURES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "random": lambda x: x,
    "black": torch.zeros_like,
    "white": torch.ones_like,
    "constant": lambda x: torch.full_like(x, 0.3),
    "saturated": lambda x: (x > 0.5).float(),
}


@pytest.mark.parametrize("bound", [10.0, 1e-3])
@pytest.mark.parametrize("picture", PICTURES)
def test_gradient_arrives_finite_and_bounded(path: Path, picture: str, bound: float) -> None:
    sync = SyncLoss(path, reduction="sum", max_gradient=bound)
    frames, mel = pair()
    frames = PICTURES[picture](frames.detach()).requires_grad_()
    grad = gradient(sync(frames, mel), frames)
    assert grad.isfinite().all()
    assert (norms(grad) > 0).all()
    assert (norms(grad) <= bound * 1.0001).all()


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e38])
def test_an_item_that_overflows_gives_no_gradient_and_spares_its_mates(
    path: Path, value: float
) -> None:
    sync = SyncLoss(path, reduction="sum")
    frames, mel = pair()
    expected = gradient(sync(frames, mel), frames)
    broken = frames.detach().clone()
    broken[1, :, :, 70, 50] = value
    grad = gradient(sync(broken.requires_grad_(), mel), broken)
    assert (grad[1] == 0).all()
    torch.testing.assert_close(grad[[0, 2]], expected[[0, 2]])


@pytest.mark.parametrize("size", [(16, 16), (20, 33), (64, 64), (128, 128), (192, 160)])
def test_bound_holds_at_the_hosts_own_frames(
    tiny_net: Discriminator, tmp_path: Path, size: tuple[int, int]
) -> None:
    with torch.no_grad():  # a net that looks at areas: enlarging small frames adds areas up
        for module in tiny_net.face.modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size[0] > 1:
                module.weight.copy_(
                    module.weight.mean((2, 3), keepdim=True).expand_as(module.weight)
                )
    bound = 1e-3
    frames, mel = pair(size=size)
    path = save(tiny_net, tmp_path / "areas.safetensors")
    sync = SyncLoss(path, reduction="sum", max_gradient=bound)
    grad = gradient(sync(frames, mel), frames)
    assert (norms(grad) > 0).all()
    assert (norms(grad) <= bound * 1.0001).all()


@pytest.fixture
def hostile(tiny_net: Discriminator, tmp_path: Path) -> Path:
    """A net that was taught to give the pairs of these tests a similarity near -1."""
    frames, mel = pair()
    pictures = torch.cat([change(frames.detach()) for change in PICTURES.values()]).transpose(1, 2)
    sounds = mel[:, 0].repeat(len(PICTURES), 1, 1)
    optimiser = torch.optim.Adam(tiny_net.parameters(), lr=2e-3)
    for _ in range(25):
        optimiser.zero_grad()
        tiny_net(pictures, sounds).mean().backward()
        optimiser.step()
    with torch.no_grad():
        tiny_net.log_scale.fill_(math.log(60))
        tiny_net.bias.fill_(-10.0)
    return save(tiny_net, tmp_path / "hostile.safetensors")


def test_a_net_that_calls_everything_false(hostile: Path) -> None:
    sync = SyncLoss(hostile, reduction="none", max_gradient=1.0)
    for name, picture in PICTURES.items():
        frames, mel = pair()
        frames = picture(frames.detach()).requires_grad_()
        assert (sync.similarity(frames, mel) < -0.5).all(), name
        loss = sync(frames, mel)
        assert loss.isfinite().all() and (loss > 30).all() and (loss < 71).all(), name
        grad = gradient(loss.sum(), frames)
        assert grad.isfinite().all(), name
        assert (norms(grad) > 0).all() and (norms(grad) <= 1.0001).all(), name


def test_the_bound_keeps_the_direction(path: Path) -> None:
    frames, mel = pair()
    free = gradient(SyncLoss(path, reduction="sum", max_gradient=1e9)(frames, mel), frames)
    bound = gradient(SyncLoss(path, reduction="sum", max_gradient=1e-3)(frames, mel), frames)
    assert (norms(free) > 2e-3).all()
    cosine = nn.functional.cosine_similarity(free.flatten(1), bound.flatten(1))
    assert (cosine > 0.9999).all()
    torch.testing.assert_close(norms(bound), torch.full((3,), 1e-3), rtol=1e-3, atol=0)


REGIONS = {
    "face": ("face", (75, 50)),
    "lower": ("lower", (50, 50)),  # of the box's lower half, which is the frame
    "box": ((0.1, 0.9, 0.2, 0.8), (70, 50)),
    "box at the edge": ((0.0, 1.0, 0.3, 1.1), (75, 70)),
}


@pytest.mark.parametrize("bound", [10.0, 1e-3], ids=["free", "bound"])
@pytest.mark.parametrize("case", REGIONS)
def test_the_gradient_of_the_mouth_only(path: Path, case: str, bound: float) -> None:
    region, (down, right) = REGIONS[case]
    frames, mel = pair(size=(50, 100) if case == "lower" else (100, 100))
    words = {"region": region, "reduction": "sum", "max_gradient": bound}
    whole, mouth = SyncLoss(path, **words), SyncLoss(path, mouth_only=True, **words)
    assert torch.equal(whole(frames, mel), mouth(frames, mel))
    all_of_it = gradient(whole(frames, mel), frames)
    near_it = gradient(mouth(frames, mel), frames)
    assert (norms(near_it) > 0).all() and (norms(near_it) < norms(all_of_it)).all()
    there = all_of_it != 0
    kept = torch.where(there, near_it / all_of_it, torch.nan).nanmean((0, 1, 2))  # (H, W)
    rows, columns = kept.shape
    peak = int(kept.nan_to_num().argmax())
    row, column = (peak // columns + 0.5) / rows, (peak % columns + 0.5) / columns
    assert (100 * row, 100 * column) == pytest.approx((down, right), abs=1.1)
    assert kept[there.any((0, 1, 2))].min() < 0.1 and kept.nan_to_num().max() > 0.99
    seen = {"mouth_only": ", mouth_only" in str(mouth), "whole": ", mouth_only" in str(whole)}
    assert seen == {"mouth_only": True, "whole": False}


def test_the_mouth_of_an_aligned_face_lies_where_the_template_has_it() -> None:
    assert tuple(TEMPLATE[2][::-1]) == MIDDLE["aligned"]


@pytest.mark.parametrize("bound", [10.0, 1e-3], ids=["free", "bound"])
def test_a_scaled_loss_scales_the_gradient_exactly(path: Path, bound: float) -> None:
    sync = SyncLoss(path, max_gradient=bound)
    frames, mel = pair()
    plain = gradient(sync(frames, mel), frames)
    scaled = gradient(sync(frames, mel) * 65536, frames)
    assert torch.equal(scaled, plain * 65536)


def test_gradient_agrees_with_finite_differences(path: Path) -> None:
    sync = SyncLoss(path, reduction="sum", max_gradient=1e9)
    frames, mel = pair(batch=1)
    grad = gradient(sync(frames, mel), frames).flatten()
    # Two steps, so that a kink of a ReLU does not pass for a wrong gradient.
    for at in grad.abs().topk(5).indices.tolist():
        slopes = []
        for step in (0.001, 0.003):
            values = []
            for sign in (1, -1):
                moved = frames.detach().clone().flatten()
                moved[at] += sign * step
                values.append(sync(moved.view_as(frames), mel).double().item())
            slopes.append((values[0] - values[1]) / (2 * step))
        assert min(abs(s - grad[at].item()) for s in slopes) < 0.03 * abs(grad[at].item()), slopes


def test_gradient_reaches_the_lower_half_of_all_five_frames(path: Path) -> None:
    frames, mel = pair(batch=1)
    grad = gradient(SyncLoss(path)(frames, mel), frames)[0]
    assert not grad[:, :, :48].any()
    assert (grad[:, :, 48:].abs().amax((0, 2, 3)) > 0).all()


def test_no_gradient_is_asked_of_the_mel_or_the_judge(path: Path) -> None:
    sync = SyncLoss(path)
    frames, mel = pair()
    mel.requires_grad_()
    sync(frames, mel).backward()
    assert mel.grad is None
    assert all(p.grad is None and not p.requires_grad for p in sync.net.parameters())
    assert not sync(frames.detach(), mel).requires_grad


def test_gradients_of_two_calls_add_up(path: Path) -> None:
    sync = SyncLoss(path)
    frames, mel = pair()
    once = gradient(sync(frames, mel), frames)
    twice = gradient(sync(frames, mel) + sync(frames, mel), frames)
    torch.testing.assert_close(twice, 2 * once)


def test_no_grad_and_inference_mode(path: Path) -> None:
    sync = SyncLoss(path)
    frames, mel = pair()
    expected = sync(frames, mel).detach()
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            loss = sync(frames, mel)
        assert not loss.requires_grad
        assert torch.equal(loss, expected)


def test_what_is_made_in_inference_mode_trains_later(path: Path) -> None:
    """A loop that validates first: what is kept from then on must still give gradients."""
    frames, mel = pair()
    _filterbank.cache_clear()
    with torch.inference_mode():
        sync = SyncLoss(path)
        sync(frames, mel)
        elsewhere = sync._net_on(torch.device("meta"))
        log_mel(torch.zeros(4000))
    sync(frames, mel).backward()
    assert frames.grad is not None and frames.grad.abs().sum() > 0
    assert not any(p.is_inference() for p in elsewhere.parameters())
    audio = torch.rand(4000, requires_grad=True)
    log_mel(audio).sum().backward()
    assert audio.grad is not None


# --- the value


def test_higher_similarity_is_lower_loss(path: Path) -> None:
    sync = SyncLoss(path, reduction="none")
    frames, mel = pair(batch=12)
    similarity, loss = sync.similarity(frames, mel), sync(frames, mel).detach()
    assert similarity.std() > 1e-3
    assert torch.equal(similarity.argsort(descending=True), loss.argsort())
    torch.testing.assert_close((-loss).exp(), sync.probability(frames, mel))
    torch.testing.assert_close(loss, nn.functional.softplus(-(20 * similarity - 4)))


def test_a_judge_that_cannot_tell_says_log_2(tiny_net: Discriminator, tmp_path: Path) -> None:
    with torch.no_grad():
        tiny_net.log_scale.fill_(-60.0)
        tiny_net.bias.zero_()
    sync = SyncLoss(save(tiny_net, tmp_path / "blind.safetensors"))
    frames, mel = pair()
    loss = sync(frames, mel)
    assert loss.item() == pytest.approx(LOG_2, abs=1e-6)
    assert gradient(loss, frames).isfinite().all()


def test_reductions(path: Path) -> None:
    frames, mel = pair(batch=4)
    each = SyncLoss(path, reduction="none")(frames, mel)
    assert each.shape == (4,)
    assert each.std() > 0
    torch.testing.assert_close(SyncLoss(path)(frames, mel), each.mean())
    torch.testing.assert_close(SyncLoss(path, reduction="sum")(frames, mel), each.sum())
    # Each sample's own factor reaches its own gradient, and no other.
    factor = torch.tensor([1.0, 0.0, 2.0, -1.0])
    grad = gradient((each * factor).sum(), frames)
    alone = gradient(SyncLoss(path, reduction="sum")(frames, mel), frames)
    torch.testing.assert_close(grad, alone * factor.view(4, 1, 1, 1, 1))


def test_batch_of_one_and_batch_mates(path: Path) -> None:
    sync = SyncLoss(path, reduction="none")
    frames, mel = pair()
    together = sync(frames, mel)
    for i in range(3):
        alone = sync(frames[i : i + 1], mel[i : i + 1])
        assert alone.shape == (1,)
        torch.testing.assert_close(alone[0], together[i], rtol=1e-5, atol=1e-5)


def test_mel_with_and_without_channel_axis(path: Path) -> None:
    sync = SyncLoss(path)
    frames, mel = pair()
    assert torch.equal(sync(frames, mel), sync(frames, mel[:, 0]))


def test_fp32_inside_the_hosts_autocast(path: Path) -> None:
    sync = SyncLoss(path)
    frames, mel = pair()
    expected = sync(frames, mel)
    with torch.autocast("cpu", torch.bfloat16):
        loss = sync(frames, mel)
        similarity = sync.similarity(frames, mel)
    assert loss.dtype == similarity.dtype == torch.float32
    assert torch.equal(loss, expected)
    assert torch.equal(gradient(loss, frames), gradient(expected, frames))
    assert torch.equal(similarity, sync.similarity(frames, mel))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_frames_of_other_dtypes(path: Path, dtype: torch.dtype) -> None:
    sync = SyncLoss(path)
    frames, mel = pair()
    host = frames.detach().to(dtype).requires_grad_()
    loss = sync(host, mel.to(dtype))
    assert loss.dtype == torch.float32
    expected = sync(host.detach().float(), mel.to(dtype).float())
    assert torch.equal(loss.detach(), expected)
    grad = gradient(loss, host)
    assert grad.dtype == dtype
    assert grad.isfinite().all() and grad.any()


@pytest.mark.parametrize("size", [(64, 64), (128, 128), (192, 160), (288, 288), (97, 95)])
def test_other_sizes_are_resized(path: Path, size: tuple[int, int]) -> None:
    sync = SyncLoss(path, reduction="none")
    mel = pair()[1]
    y = torch.linspace(0, 1, 96)[:, None]
    colour = torch.tensor([0.9, 0.6, 0.5]).view(3, 1, 1, 1)
    level = torch.linspace(0.2, 1, 5).view(5, 1, 1) * (1 - y * 0.7)
    small = (colour * level.expand(5, 96, 96)).expand(3, -1, -1, -1, -1).contiguous()
    other = nn.functional.interpolate(
        small.flatten(0, 1), size, mode="bilinear", align_corners=False, antialias=True
    ).view(3, 3, 5, *size)
    frames = other.requires_grad_()
    loss = sync(frames, mel)
    torch.testing.assert_close(loss, sync(small, mel), rtol=0.02, atol=0.02)
    assert gradient(loss.sum(), frames).any()


def test_fine_patterns_are_averaged_and_not_picked(path: Path) -> None:
    """Stripes one pixel wide shrink by 4 to grey, exactly; every fourth pixel would be black."""
    sync = SyncLoss(path)
    mel = pair(batch=1)[1]
    stripes = (torch.arange(384) % 2).float().expand(1, 3, 5, 384, 384)
    grey, black = (torch.full((1, 3, 5, 96, 96), value) for value in (0.5, 0.0))
    shrunk, flat, picked = (sync.similarity(x, mel) for x in (stripes, grey, black))
    torch.testing.assert_close(shrunk, flat, rtol=0, atol=0.02)
    assert (picked - flat).abs() > 0.05  # else the first check could not fail


def test_the_size_of_the_judge_decides(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Discriminator(ClipSpec(face_px=64, region="face"), Architecture(8, 8, 32)).eval()
    sync = SyncLoss(save(net, tmp_path / "face.safetensors"))
    frames, mel = pair(size=(64, 64))
    with torch.no_grad():
        expected = net(frames.transpose(1, 2), mel[:, 0])
    torch.testing.assert_close(sync.similarity(frames, mel), expected)
    assert gradient(sync(frames, mel), frames)[..., :32, :].any()  # the upper half, too


@pytest.mark.parametrize("color", ["rgb", "bgr"])
@pytest.mark.parametrize(
    ("value_range", "low", "high"), [("0..1", 0, 1), ("-1..1", -1, 1), ("0..255", 0, 255)]
)
def test_ranges_and_orders_give_the_same_loss(
    path: Path, value_range: str, low: float, high: float, color: str
) -> None:
    frames, mel = pair()
    expected = SyncLoss(path)(frames, mel)
    base = gradient(expected, frames)
    host = (frames.detach() * (high - low) + low).flip(1 if color == "bgr" else ())
    host = host.contiguous().requires_grad_()
    loss = SyncLoss(path, value_range=value_range, color=color)(host, mel)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    grad = gradient(loss, host) * (high - low)
    grad = grad.flip(1) if color == "bgr" else grad
    torch.testing.assert_close(grad, base, rtol=0.01, atol=1e-3 * base.abs().max().item())


def test_the_order_of_channels_matters(path: Path) -> None:
    frames, mel = pair()
    assert not torch.allclose(SyncLoss(path)(frames, mel), SyncLoss(path, color="bgr")(frames, mel))


def test_frames_may_be_any_view(path: Path) -> None:
    sync = SyncLoss(path)
    frames, mel = pair()
    view = frames.detach().permute(0, 2, 3, 4, 1).contiguous().permute(0, 4, 1, 2, 3)
    assert not view.is_contiguous()
    torch.testing.assert_close(sync(view, mel), sync(frames, mel), rtol=1e-5, atol=1e-5)


# --- values


def test_a_refused_range_is_refused_again(path: Path) -> None:
    sync = SyncLoss(path)
    frames, mel = pair()
    for _ in range(2):
        with pytest.raises(ValueError, match="value_range"):
            sync(frames * 255, mel)


def test_a_range_that_shows_late_is_warned_of_once(path: Path) -> None:
    """A new generator's tanh lies near 0, which is in every range; the call after that it does not.

    By then it may be one batch of many, so nothing is raised.
    """
    sync = SyncLoss(path)
    frames, mel = pair()
    sync(frames * 0.02 - 0.01, mel)
    with pytest.warns(UserWarning, match=r'call 2: frames: .*Say value_range="-1..1"') as said:
        assert sync(frames * 2 - 1, mel).isfinite()
    assert [warning.filename for warning in said] == [__file__]  # the host's line
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(8):
            sync(frames * 2 - 1, mel)
        good = SyncLoss(path, value_range="-1..1")
        for values in (frames * 2 - 1, frames * torch.nan, frames * 0, frames * 2 - 1):
            good(values, mel)


def test_a_little_overshoot_is_no_mistake(path: Path) -> None:
    frames, mel = pair()
    assert SyncLoss(path)(frames * 1.1 - 0.05, mel).isfinite()


# --- inside a host's model


class Host(nn.Module):
    def __init__(self, path: Path | None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.generator = nn.Conv2d(3, 3, 3, padding=1)
        if path is not None:
            self.sync = SyncLoss(path)


def test_the_judge_adds_nothing_to_optimise_or_to_save(path: Path) -> None:
    sync, host, bare = SyncLoss(path), Host(path), Host(None)
    assert not list(sync.parameters()) and not list(sync.buffers())
    assert not sync.state_dict()
    assert host.state_dict().keys() == bare.state_dict().keys()
    assert len(list(host.parameters())) == 2
    host.load_state_dict(bare.state_dict(), strict=True)
    bare.load_state_dict(host.state_dict(), strict=True)


def test_training_mode_changes_nothing(path: Path) -> None:
    host = Host(path)
    frames, mel = pair()
    before = {k: v.clone() for k, v in host.sync.net.state_dict().items()}
    expected = host.sync(frames, mel)
    expected_grad = gradient(expected, frames)
    host.train()
    for seed in range(3):
        others, sound = pair(batch=1 + seed, seed=10 + seed)
        host.sync(others * 0.5, sound).backward()
    loss = host.sync(frames, mel)
    assert torch.equal(loss, expected)
    assert torch.equal(gradient(loss, frames), expected_grad)
    assert not host.sync.net.training
    after = host.sync.net.state_dict()
    assert all(torch.equal(after[k], before[k]) for k in before)


def test_what_a_host_does_to_its_modules_leaves_the_judge_alone(path: Path) -> None:
    host = Host(path)
    frames, mel = pair()
    expected = host.sync(frames, mel)
    host.requires_grad_(True)
    host.apply(lambda m: [nn.init.zeros_(p) for p in m.parameters(recurse=False)])
    optimiser = torch.optim.AdamW(host.parameters(), lr=1.0, weight_decay=0.5)
    (host.sync(frames, mel) + host.generator(frames[:, :, 0]).sum()).backward()
    optimiser.step()
    assert torch.equal(host.sync(frames, mel), expected)
    assert not any(p.requires_grad for p in host.sync.net.parameters())


@pytest.mark.parametrize("cast", ["half", "bfloat16", "double"])
def test_casting_the_host_leaves_the_judge_in_fp32(path: Path, cast: str) -> None:
    host = Host(path)
    frames, mel = pair()
    expected = host.sync(frames, mel)
    getattr(host, cast)()
    assert {v.dtype for v in host.sync.net.state_dict().values() if v.is_floating_point()} == {
        torch.float32
    }
    assert torch.equal(host.sync(frames, mel), expected)


def test_the_judge_moves_with_the_host(path: Path) -> None:
    host = Host(path).to("meta")
    assert {p.device.type for p in host.sync.net.parameters()} == {"meta"}


def test_a_cast_leaves_the_judge_where_it_is(path: Path) -> None:
    host = Host(path).to("meta").half()
    assert {p.device.type for p in host.sync.net.parameters()} == {"meta"}


def test_frames_elsewhere_get_a_copy_and_leave_the_judge_where_it_is(path: Path) -> None:
    """As for the replicas of nn.DataParallel, which share one SyncLoss."""
    sync = SyncLoss(path)
    assert sync._net_on(torch.device("cpu")) is sync.net
    there = sync._net_on(torch.device("meta"))
    assert {p.device.type for p in there.parameters()} == {"meta"}
    assert there is sync._net_on(torch.device("meta"))
    assert {p.device.type for p in sync.net.parameters()} == {"cpu"}


@pytest.mark.parametrize("copied", ["deepcopy", "pickle"])
def test_copies_judge_alike(path: Path, copied: str) -> None:
    host = Host(path)
    frames, mel = pair()
    expected = host.sync(frames, mel)
    twin = copy.deepcopy(host) if copied == "deepcopy" else pickle.loads(pickle.dumps(host))
    path.unlink()
    assert twin.sync.net is not host.sync.net
    assert torch.equal(twin.sync(frames, mel), expected)
    assert not any(p.requires_grad for p in twin.sync.net.parameters())
    assert torch.equal(gradient(twin.sync(frames, mel), frames), gradient(expected, frames))


def test_a_generator_step_lowers_the_loss(path: Path) -> None:
    sync = SyncLoss(path)
    start, mel = pair()
    pixels = start.detach().clone().requires_grad_()
    optimiser = torch.optim.SGD([pixels], lr=0.3)
    losses = []
    for _ in range(3):
        optimiser.zero_grad()
        loss = sync(pixels, mel)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] > losses[1] > losses[2]


def test_fp16_frames_under_a_loss_scaler(path: Path) -> None:
    """Scaled by 65536, the gradient in fp16 must neither vanish nor overflow."""
    sync = SyncLoss(path)
    half = pair(batch=1)[0].detach().half().requires_grad_()
    full = half.detach().float().requires_grad_()
    mel = pair(batch=1)[1]
    grad = gradient(sync(half, mel) * 65536, half).float() / 65536
    assert grad.isfinite().all()
    torch.testing.assert_close(grad, gradient(sync(full, mel), full), rtol=2e-3, atol=1e-6)


def test_weight_is_a_hint_and_not_applied(path: Path) -> None:
    frames, mel = pair()
    sync = SyncLoss(path, weight=0.5)
    assert sync.weight == 0.5
    assert torch.equal(sync(frames, mel), SyncLoss(path)(frames, mel))
    assert 0 < SyncLoss(path).weight < 1
