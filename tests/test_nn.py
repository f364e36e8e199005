from __future__ import annotations

import pytest
import torch

from syncdisc_plugin.nn import Architecture, Discriminator
from syncdisc_plugin.nn.blocks import unit
from syncdisc_plugin.nn.precision import choose_precision, denormals_as_zero
from syncdisc_plugin.spec import ClipSpec
from syncdisc_plugin.timing import mel_start

SMALL = Architecture(face_width=8, audio_width=8, embed_dim=32)
F, N = 11, 7


def clip(spec: ClipSpec, batch: int = 2, n_frames: int = F) -> tuple[torch.Tensor, torch.Tensor]:
    """Random frames (B, F, 3, h, w) and mel (B, M, L) of the same length."""
    rng = torch.Generator().manual_seed(5)
    frames = torch.rand(batch, n_frames, 3, *spec.input_hw, generator=rng)
    n_mels = mel_start(n_frames, spec) + 4
    return frames, torch.rand(batch, spec.mel.n_mels, n_mels, generator=rng) * 8 - 4


def starts(spec: ClipSpec, n: int = N) -> torch.Tensor:
    return torch.tensor([mel_start(f, spec) for f in range(n)])


@torch.no_grad()
def test_a_clip_gives_what_each_window_gives_alone(tiny_net: Discriminator) -> None:
    frames, mel = clip(tiny_net.spec)
    at = starts(tiny_net.spec)
    v, a = tiny_net.embed_frames(frames), tiny_net.embed_mel(mel, at)
    assert v.shape == a.shape == (2, N, 32)
    assert (v[:, 0] - v[:, 1]).abs().max() > 1e-3
    for i, start in enumerate(at.tolist()):
        window, sound = frames[:, i : i + 5], mel[..., start : start + 16]
        torch.testing.assert_close(tiny_net.embed_frames(window)[:, 0], v[:, i], rtol=0, atol=1e-5)
        torch.testing.assert_close(tiny_net.embed_mel(sound)[:, 0], a[:, i], rtol=0, atol=1e-5)
        similarity = tiny_net(window, sound)
        torch.testing.assert_close(similarity, (v[:, i] * a[:, i]).sum(1), rtol=0, atol=1e-5)


@torch.no_grad()
def test_every_mel_start_has_an_embedding(tiny_net: Discriminator) -> None:
    _, mel = clip(tiny_net.spec)
    dense = tiny_net.embed_mel(mel)
    assert dense.shape == (2, mel.shape[-1] - 15, 32)
    own = torch.tensor([[0, 4, 8], [1, 5, 2]])
    picked = tiny_net.embed_mel(mel, own)
    torch.testing.assert_close(picked[1], dense[1, [1, 5, 2]])
    torch.testing.assert_close(picked[0], dense[0, [0, 4, 8]])


@torch.no_grad()
def test_batch_mates_do_not_matter(tiny_net: Discriminator) -> None:
    frames, mel = clip(tiny_net.spec, batch=3)
    alone = tiny_net.embed_frames(frames[:1]), tiny_net.embed_mel(mel[:1])
    frames[1:], mel[1:] = 1.0, -4.0
    torch.testing.assert_close(tiny_net.embed_frames(frames)[:1], alone[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(tiny_net.embed_mel(mel)[:1], alone[1], rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_window_sees_its_own_frames_and_no_other(tiny_net: Discriminator) -> None:
    frames, _ = clip(tiny_net.spec, batch=1)
    before, window = tiny_net.embed_frames(frames)[0, 3], range(3, 8)
    for f in range(F):
        changed = frames.clone()
        changed[:, f] = 1 - changed[:, f]
        moved = (tiny_net.embed_frames(changed)[0, 3] - before).abs().max()
        assert (moved > 1e-3) if f in window else (moved < 1e-6), f


@torch.no_grad()
def test_a_window_hears_its_own_16_mel_frames_and_no_other(tiny_net: Discriminator) -> None:
    _, mel = clip(tiny_net.spec, batch=1)
    before, window = tiny_net.embed_mel(mel)[0, 10], range(10, 26)
    for f in range(mel.shape[-1]):
        changed = mel.clone()
        changed[..., f] = -changed[..., f]
        moved = (tiny_net.embed_mel(changed)[0, 10] - before).abs().max()
        assert (moved > 1e-4) if f in window else (moved < 1e-6), f


@torch.no_grad()
@pytest.mark.parametrize(
    "spec",
    [
        ClipSpec(face_px=32),
        ClipSpec(face_px=64),
        ClipSpec(face_px=128),
        ClipSpec(face_px=192),
        ClipSpec(region="face"),
        ClipSpec(face_px=128, region="face"),
        ClipSpec(window_frames=7, window_mels=22),
    ],
    ids=["32", "64", "128", "192", "face 96", "face 128", "T7"],
)
def test_other_sizes_and_regions(spec: ClipSpec) -> None:
    torch.manual_seed(0)
    net = Discriminator(spec, SMALL).eval()
    frames, mel = clip(spec, batch=1, n_frames=spec.window_frames + 2)
    v, a = net.embed_frames(frames), net.embed_mel(mel, starts(spec, 3))
    assert v.shape == a.shape == (1, 3, 32)
    last = mel[..., mel_start(2, spec) :][..., : spec.window_mels]
    torch.testing.assert_close(net(frames[:, 2:], last), (v * a).sum(-1)[:, 2], rtol=0, atol=1e-5)
    # The region's corners are looked at: nothing is cropped away on the quiet.
    for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        changed = frames.clone()
        changed[..., corner[0], corner[1]] += 5
        assert (net.embed_frames(changed) - v).abs().max() > 1e-6


@torch.no_grad()
def test_embeddings_have_length_one(tiny_net: Discriminator) -> None:
    frames, mel = clip(tiny_net.spec)
    for embedding in (tiny_net.embed_frames(frames), tiny_net.embed_mel(mel)):
        norm = embedding.norm(dim=-1)
        torch.testing.assert_close(norm, torch.ones_like(norm), rtol=0, atol=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0, 100.0, -100.0])
def test_gradient_is_finite_for_constant_input(tiny_net: Discriminator, value: float) -> None:
    frames = torch.full((1, 5, 3, 48, 96), value, requires_grad=True)
    mel = torch.full((1, 80, 16), -4.0, requires_grad=True)
    tiny_net(frames, mel).sum().backward()
    for x in (frames, mel):
        assert x.grad is not None and x.grad.isfinite().all()
        assert x.grad.abs().sum() > 0


def test_unit_is_smooth_at_zero() -> None:
    x = torch.tensor([[0.0, 0.0], [1e-12, 0.0], [3.0, 4.0]], requires_grad=True)
    y = unit(x)
    torch.testing.assert_close(y[2], torch.tensor([0.6, 0.8]), rtol=0, atol=1e-6)
    assert (y.norm(dim=1) <= 1).all()
    y.sum().backward()
    assert x.grad is not None and x.grad.abs().max() <= 1e4 * 1.001


@torch.no_grad()
def test_bf16_towers_give_fp32_unit_vectors(tiny_net: Discriminator) -> None:
    frames, mel = clip(tiny_net.spec)
    expected = tiny_net(frames[:, :5], mel[..., :16])
    with torch.autocast("cpu", torch.bfloat16):
        v, a = tiny_net.embed_frames(frames), tiny_net.embed_mel(mel)
    assert v.dtype == a.dtype == torch.float32
    assert (v.norm(dim=-1) - 1).abs().max() < 1e-4
    torch.testing.assert_close((v * a[:, :N]).sum(-1)[:, 0], expected, rtol=0, atol=0.05)


@pytest.mark.parametrize(("has_amx", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_bf16_only_with_amx(
    monkeypatch: pytest.MonkeyPatch, has_amx: bool, expected: str
) -> None:
    # AVX-512's bf16 instructions alone are slower than fp32: bench/precision.py.
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert choose_precision("auto", torch.device("cpu")) == expected
    assert choose_precision("bf16", torch.device("cpu")) == "bf16"


def test_dropout_works_in_training_only(tiny_net: Discriminator) -> None:
    frames, mel = clip(tiny_net.spec)
    frames, mel = frames[:, :5], mel[..., :16]
    with torch.no_grad():
        assert torch.equal(tiny_net(frames, mel), tiny_net(frames, mel))
        tiny_net.train()
        assert not torch.equal(tiny_net(frames, mel), tiny_net(frames, mel))


def test_every_weight_gets_a_gradient(tiny_net: Discriminator) -> None:
    frames, mel = clip(tiny_net.spec, batch=4)
    tiny_net.train()
    tiny_net.logit(tiny_net(frames[:, :5], mel[..., :16])).square().sum().backward()
    without = [n for n, p in tiny_net.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


def test_logit_is_scale_times_similarity_plus_bias(tiny_net: Discriminator) -> None:
    with torch.no_grad():
        tiny_net.log_scale.fill_(2.0)
        tiny_net.bias.fill_(-3.0)
        got = tiny_net.logit(torch.tensor([-1.0, 0.0, 0.5]))
        torch.testing.assert_close(got, torch.tensor([-1.0, 0.0, 0.5]) * 7.389056 - 3)
        tiny_net.log_scale.fill_(50.0)
        assert 55 < float(tiny_net.scale) < 61  # bounded, whatever training does


def test_the_same_seed_gives_the_same_net() -> None:
    nets = []
    for _ in range(2):
        torch.manual_seed(11)
        nets.append(Discriminator(arch=SMALL).state_dict())
    assert all(torch.equal(nets[0][k], nets[1][k]) for k in nets[0])


def test_size_and_cost_are_what_the_readme_says() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    net = Discriminator().eval()
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(4.3, abs=0.05)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.rand(1, 5, 3, 48, 96), torch.zeros(1, 80, 16))
    assert counter.get_total_flops() / 1e9 == pytest.approx(0.38, abs=0.01)


def test_denormals_are_zero_inside_and_what_they_were_outside() -> None:
    def smallest() -> float:
        return float((torch.full((1 << 20,), 1e-39) * 1.0).max())

    assert smallest() > 0
    with denormals_as_zero():
        assert smallest() == 0
        with denormals_as_zero():
            pass
        assert smallest() == 0  # still, as it was found
    assert smallest() > 0
