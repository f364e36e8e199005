"""The reference generator: shapes, what it may look at, what it leaves alone, files."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from generator_integration.reference import generator as module
from generator_integration.reference.generator import (
    CONTEXT,
    Generator,
    GeneratorSettings,
    load_generator,
    read_generator,
    save_generator,
)
from generator_integration.reference.quality import (
    QualityDiscriminator,
    feature_loss,
    fooling_loss,
    judging_loss,
)
from syncdisc_plugin import weights
from syncdisc_plugin.errors import WeightsError
from syncdisc_plugin.spec import ClipSpec

TINY = GeneratorSettings(width=8, size=32, embedding=16)


@pytest.fixture
def net() -> Generator:
    """A tiny generator in which nothing is silent any more, as after training."""
    torch.manual_seed(0)
    net = Generator(TINY)
    with torch.no_grad():
        for p in net.parameters():
            if not p.any():
                p.normal_(0, 0.1)
    return net.eval()


def inputs(b: int = 2, t: int = 5, r: int = 2, size: int = 32) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(1)
    mel = torch.randn(b, t, 1, 80, 16)
    return torch.rand(b, t, 3, size, size), torch.rand(b, r, 3, size, size), mel


@pytest.mark.parametrize(("t", "r"), [(1, 1), (2, 3), (5, 2), (9, 1)])
@torch.no_grad()
def test_any_number_of_frames_and_references(net: Generator, t: int, r: int) -> None:
    masked, reference, mel = inputs(t=t, r=r)
    out = net(masked, reference, mel)
    assert out.shape == masked.shape and out.dtype == masked.dtype
    assert out.min() >= 0 and out.max() <= 1


@torch.no_grad()
def test_other_sizes() -> None:
    net = Generator(GeneratorSettings(width=8, size=64)).eval()
    masked, reference, mel = inputs(b=1, t=2, r=1, size=64)
    assert net(masked, reference, mel).shape == masked.shape


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_the_upper_half_is_the_inputs(net: Generator, dtype: torch.dtype) -> None:
    masked, reference, mel = inputs()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        out = net(masked, reference, mel)
    assert out.dtype == torch.float32
    assert net.first_row == 16 - net.seam and net.seam <= 4
    assert torch.equal(out[..., : net.first_row, :], masked[..., : net.first_row, :])
    assert not torch.equal(out[..., net.first_row :, :], masked[..., net.first_row :, :])


@torch.no_grad()
def test_the_seam_goes_from_the_input_to_the_drawn_rows(net: Generator) -> None:
    masked, reference, mel = inputs()
    light, dark = (net(masked * 0 + v, reference, mel)[..., :16, :] for v in (1.0, 0.0))
    steps = (light - dark)[..., net.first_row :, :].abs().mean(dim=(0, 1, 2, 4))
    assert (steps.diff() < 0).all() and steps[0] > 0.5 > steps[-1]


@torch.no_grad()
def test_nothing_of_the_hidden_half_leaks(net: Generator) -> None:
    masked, reference, mel = inputs()
    changed = masked.clone()
    changed[..., 16:, :] = torch.rand_like(changed[..., 16:, :])
    assert torch.equal(net(masked, reference, mel), net(changed, reference, mel))
    changed[..., 16:, :] = float("nan")
    assert torch.equal(net(masked, reference, mel), net(changed, reference, mel))


@torch.no_grad()
def test_every_input_has_a_say(net: Generator) -> None:
    masked, reference, mel = inputs()
    before = net(masked, reference, mel)
    for other in (
        (masked.flip(-1), reference, mel),
        (masked, reference.flip(-1), mel),
        (masked, reference, mel.flip(-1)),
    ):
        assert not torch.equal(net(*other)[..., 16:, :], before[..., 16:, :])


@torch.no_grad()
def test_the_order_of_references_does_not_matter(net: Generator) -> None:
    masked, reference, mel = inputs(r=3)
    one, other = net(masked, reference, mel), net(masked, reference.flip(1), mel)
    assert torch.allclose(one, other, atol=1e-5)


@torch.no_grad()
def test_items_of_a_batch_do_not_mix(net: Generator) -> None:
    masked, reference, mel = inputs()
    alone = net(masked[:1], reference[:1], mel[:1])
    assert torch.allclose(net(masked, reference, mel)[:1], alone, atol=1e-5)


@torch.no_grad()
def test_long_videos_can_be_drawn_piece_by_piece(net: Generator) -> None:
    for name, p in net.named_parameters():  # the tiny net says little: louder than the rounding
        loud = "mix" in name or "film" in name or name.startswith("sound")
        p.mul_((1.5 if loud else 1.0) * (1.5 if p.ndim > 1 else 1.0))
    masked, reference, mel = inputs(b=1, t=16)
    whole = net(masked, reference, mel)[:, 6:10]

    def error(context: int) -> float:
        part = slice(6 - context, 10 + context)
        piece = net(masked[:, part], reference, mel[:, part])[:, context:-context]
        return float((piece - whole).abs().max())

    assert error(CONTEXT) < 1e-5 < 1e-4 < error(CONTEXT - 1)


def test_all_parameters_are_trained() -> None:
    net = Generator(TINY)
    with torch.no_grad():
        for p in net.parameters():
            if not p.any():
                p.normal_(0, 0.1)
    net(*inputs()).square().mean().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_default_fits_into_what_is_shipped() -> None:
    parameters = sum(p.numel() for p in Generator().parameters())
    assert 4 * parameters < 20e6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m, r, s: (m[:, :, :, :16], r, s), r"masked: expected \(B, T, 3, 32, 32\)"),
        (lambda m, r, s: (m.transpose(1, 2), r, s), "channels the third"),
        (lambda m, r, s: (m[:, :0], r, s[:, :0]), "masked: expected"),
        (lambda m, r, s: (m, r[:, :0], s), "R of at least 1"),
        (lambda m, r, s: (m, r[:1], s), "reference: expected 2 items"),
        (lambda m, r, s: (m, r, s[:, :3]), r"mel: expected \(2, 5, 1, 80, 16\)"),
        (lambda m, r, s: (m, r, s.transpose(-1, -2)), "mel bins first"),
    ],
)
def test_what_does_not_fit_is_refused(net: Generator, change: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        net(*change(*inputs()))  # type: ignore[operator]


@pytest.mark.parametrize("settings", [{"size": 100}, {"size": 0}, {"width": 6}, {"embedding": 0}])
def test_sizes_that_cannot_be(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(settings))}: expected"):
        GeneratorSettings(**settings)


def test_the_spec_must_have_the_same_face() -> None:
    with pytest.raises(ValueError, match="face_px=32"):
        Generator(TINY, ClipSpec())


@torch.no_grad()
def test_saved_and_loaded_it_is_the_same(net: Generator, tmp_path: Path) -> None:
    net.spec = dataclasses.replace(net.spec, margin=0.25)
    path = save_generator(net, tmp_path / "g.safetensors", step=7)
    before = torch.get_rng_state()
    loaded = load_generator(path)
    assert torch.equal(torch.get_rng_state(), before)
    assert loaded.settings == TINY and loaded.spec == net.spec and not loaded.training
    assert torch.equal(loaded(*inputs()), net(*inputs()))
    assert read_generator(str(path))["step"] == 7


def test_what_is_shipped_loads_and_says_what_it_was_made_from() -> None:
    path, about = module.resolve_generator("base"), read_generator("base")
    assert path.stat().st_size < 20e6
    assert about["sync"] == "base" and about["step"] > 0 and about["heldout"]["l1"] < 0.1
    net = load_generator()
    assert all(value.isfinite().all() for value in net.state_dict().values())
    out = net(*inputs(size=about["settings"].size))
    assert out.shape == (2, 5, 3, 96, 96) and out.isfinite().all()


def test_base_says_how_to_train_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(weights, "_shipped", lambda: tmp_path)
    with pytest.raises(WeightsError, match=r"Train one: python -m generator_integration"):
        load_generator()
    path = save_generator(Generator(TINY), tmp_path / "lipsync-base.safetensors")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (tmp_path / "SHA256SUMS").write_text(f"{digest}  {path.name}\n", encoding="utf-8")
    assert load_generator().settings == TINY
    save_generator(Generator(TINY), path, note="another, as valid")
    with pytest.raises(WeightsError, match="not the one in SHA256SUMS"):
        load_generator()


def test_files_that_are_none_of_ours(net: Generator, tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    with pytest.raises(WeightsError, match="no such file"):
        load_generator(path)
    path.write_bytes(b"\x80\x02pickle")
    with pytest.raises(WeightsError, match="not a safetensors file"):
        load_generator(path)
    save_file({"x": torch.zeros(1)}, path, {"format": "syncdisc-discriminator-1"})
    with pytest.raises(WeightsError, match="is a discriminator, for --sync"):
        load_generator(path)
    save_generator(net, path)
    tensors = load_file(path)
    about = {"format": module.FORMAT, "spec": net.spec.to_json(), "about": "{}"}
    settings = json.dumps(dataclasses.asdict(TINY))
    tensors.pop("paint.bias")
    save_file(tensors, path, {**about, "settings": settings})
    with pytest.raises(WeightsError, match=r"paint\.bias"):
        load_generator(path)
    save_file(tensors, path, {**about, "settings": json.dumps({"depth": 3})})
    with pytest.raises(WeightsError, match="newer version"):
        load_generator(path)


def test_the_quality_discriminator_learns_to_tell_noise_from_flat_faces() -> None:
    torch.manual_seed(0)
    net = QualityDiscriminator(8)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2, betas=(0.5, 0.99))
    first = 0.0
    for step in range(20):
        real, drawn = torch.rand(4, 3, 32, 32), torch.rand(4, 3, 1, 1).expand(-1, -1, 32, 32)
        loss = judging_loss(net(real)[0], net(drawn)[0])
        first = first or loss.item()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        assert step or loss.item() == pytest.approx(2, abs=0.5)
    assert loss.item() < 0.75 * first
    assert fooling_loss(net(drawn)[0]) > fooling_loss(net(real)[0])
    assert feature_loss(net(real)[1], net(real)[1]) < feature_loss(net(real)[1], net(drawn)[1])
