from __future__ import annotations

import math
import tarfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from einops import rearrange
from safetensors.torch import save_file
from torch import nn

from syncdisc_plugin import SyncLoss, compat, weights
from syncdisc_plugin.errors import WeightsError
from syncdisc_plugin.nn import Discriminator
from syncdisc_plugin.nn.foreign import StableSyncNet, Wav2Lip384Expert, Wav2LipExpert, read
from syncdisc_plugin.nn.foreign.wav2lip import Block, blocks
from syncdisc_plugin.nn.foreign.wav2lip_384 import AUDIO, AUDIO_END, leak
from syncdisc_plugin.spec import ClipSpec

NARROW = (32, 64, 64, 32, 64, 32, 32, 64), (32, 32, 64, 32, 64, 32, 64)
State = dict[str, torch.Tensor]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    """Values in [-1, 1] that look random, by whole numbers: the same on every machine."""
    n = torch.arange(math.prod(shape))
    return ((31 * n * n + (17 + 2 * seed) * n + 7 * seed) % 1009 / 504.0 - 1).view(shape)


def filled(net: nn.Module) -> nn.Module:
    """Weights that are the same on every machine and let signals of all sizes through."""
    for i, (name, value) in enumerate(sorted(net.state_dict().items())):
        if value.is_floating_point():
            wave = noise(*value.shape, seed=i)
            if value.ndim > 1:
                wave = wave * math.sqrt(3 / value[0].numel())
            elif name.endswith(("weight", "var")):
                wave = 1 + wave / 4
            value.copy_(wave)
    return net.eval()


def ghosts(make: Callable[[], nn.Module]) -> State:
    """Tensors of a net's shapes that cost a file next to nothing: one number each, expanded."""
    with torch.device("meta"):
        state = make().state_dict().items()
    values = (torch.tensor([1 + i % 50]).to(v.dtype) for i, (_, v) in enumerate(state))
    return {k: v.reshape(()).expand(t.shape) for (k, t), v in zip(state, values, strict=True)}


@pytest.fixture(scope="module")
def stable() -> StableSyncNet:
    net = filled(StableSyncNet(*NARROW))
    assert isinstance(net, StableSyncNet)
    return net


def test_the_wav2lip_expert_has_the_originals_weights() -> None:
    net = Wav2LipExpert()
    assert sum(p.numel() for p in net.parameters()) == 16_435_072
    assert sum(p.numel() for p in net.face_encoder.parameters()) == 13_031_808
    state = net.state_dict()
    assert state["face_encoder.0.conv_block.0.weight"].shape == (32, 15, 7, 7)
    assert state["face_encoder.16.conv_block.1.running_mean"].shape == (512,)
    assert state["audio_encoder.13.conv_block.0.weight"].shape == (512, 512, 1, 1)
    assert len(state) == 7 * 31  # 17 + 14 blocks of a convolution and its norm


def test_its_windows_are_what_the_original_is_given() -> None:
    """Frames stacked as t * 3 + c, in BGR; every window by itself; unit, not negative."""
    torch.manual_seed(0)
    net = Wav2LipExpert().eval()
    frames, mel = torch.rand(2, 7, 3, 48, 96), torch.randn(2, 80, 24)
    starts = torch.tensor([0, 3, 6])
    with torch.no_grad():
        v, a = net.embed_frames(frames), net.embed_mel(mel, starts)
        for i in range(3):
            stacked = rearrange(frames[:, i : i + 5].flip(2), "b t c h w -> b (t c) h w")
            sound = mel[:, None, :, 3 * i : 3 * i + 16]
            for all_of_them, one in (
                (v, net.encode_frames(stacked)),
                (a, net.encode_mel(sound)),
            ):
                unit = torch.nn.functional.normalize(one, dim=1)
                torch.testing.assert_close(all_of_them[:, i], unit, rtol=1e-3, atol=1e-4)
    assert v.shape == a.shape == (2, 3, 512)
    assert (v >= 0).all() and (a >= 0).all()


# --- wav2lip_288x288


def test_the_expert_for_384_pixels_has_the_originals_weights() -> None:
    with torch.device("meta"):
        net = Wav2Lip384Expert()
        stacked, mel = torch.rand(2, 15, 192, 384), torch.rand(2, 1, 80, 16)
    assert sum(p.numel() for p in net.parameters()) == 65_054_464
    state = net.state_dict()
    assert state["face_encoder.16.conv_block.0.weight"].shape == (1024, 512, 3, 3)
    assert state["face_encoder.21.conv_block.1.running_mean"].shape == (1024,)
    assert state["audio_encoder.16.conv_block.0.weight"].shape == (1024, 1024, 1, 1)
    assert len(state) == 7 * 39  # 22 + 17 blocks
    assert net.spec == ClipSpec(face_px=384)
    assert net.encode_frames(stacked).shape == net.encode_mel(mel).shape == (2, 1024)


def test_its_layers_leak_but_for_the_last() -> None:
    with torch.device("meta"):
        net = Wav2Lip384Expert()
    below = {
        name: [block.activation(torch.tensor(-1.0)).item() for block in tower]
        for name, tower in net.named_children()
    }
    assert below == {
        "face_encoder": [pytest.approx(-0.2)] * 21 + [0],
        "audio_encoder": [pytest.approx(-0.2)] * 15 + [0, 0],
    }


def test_a_blocks_activation_comes_after_its_skip() -> None:
    block = Block(4, 4, 3, 1, 1, residual=True, activation=leak).eval()
    x = noise(1, 4, 5, 5) * 3
    with torch.no_grad():
        inside = block.conv_block(x) + x
        assert torch.equal(block(x), torch.where(inside > 0, inside, 0.2 * inside))


# --- LatentSync


@pytest.mark.parametrize(
    ("options", "total", "face", "n_tensors"),
    [
        ({}, 401_306_080, 267_327_360, 266),
        ({"face_attention": (), "audio_attention": ()}, 371_766_496, 243_702_144, 178),
    ],
    ids=["with attention", "without"],
)
def test_the_stable_syncnet_has_the_originals_weights(
    options: dict[str, Any], total: int, face: int, n_tensors: int
) -> None:
    with torch.device("meta"):
        net = StableSyncNet(**options)
        stacked, mel = torch.rand(2, 48, 128, 256), torch.rand(2, 1, 80, 52)
    assert sum(p.numel() for p in net.parameters()) == total
    assert sum(p.numel() for p in net.visual_encoder.parameters()) == face
    state = net.state_dict()
    assert len(state) == n_tensors
    assert state["visual_encoder.conv_in.weight"].shape == (64, 48, 3, 3)
    assert state["audio_encoder.down_blocks.0.downsample_conv.bias"].shape == (32,)
    assert "audio_encoder.down_blocks.3.downsample_conv.bias" not in state
    assert net.encode_frames(stacked).shape == net.encode_mel(mel).shape == (2, 2048)
    assert (net.spec.input_hw, net.spec.window_frames, net.spec.window_mels) == ((128, 256), 16, 52)
    if not options:
        assert state["visual_encoder.down_blocks.5.ff.net.0.proj.weight"].shape == (4096, 512)
        assert state["visual_encoder.down_blocks.7.ff.net.2.weight"].shape == (1024, 4096)
        assert state["audio_encoder.down_blocks.4.attn.to_out.0.bias"].shape == (256,)
        assert state["audio_encoder.down_blocks.6.attn.to_q.bias"].shape == (512,)


# What LatentSync's own class with diffusers' feed-forward gives for these weights and inputs.
ORIGINAL = {
    ((4, 5), (3, 4)): (
        [0.269616, 0.0, 0.0, 0.0, 0.133842, 0.0, 0.0, 0.0],
        [0.286081, 0.0, 0.154244, 0.0, 0.114715, 0.0, 0.0, 0.04072],
    ),
    ((), ()): (
        [0.0, 0.17738, 0.0, 0.0, 0.0, 0.243122, 0.137066, 0.0],
        [0.170368, 0.0, 0.0, 0.097205, 0.243085, 0.0, 0.0, 0.071905],
    ),
}


@pytest.mark.parametrize("attention", ORIGINAL, ids=["with attention", "without"])
def test_it_computes_what_the_original_does(attention: tuple[Any, Any]) -> None:
    net = filled(StableSyncNet(*NARROW, *attention))
    with torch.no_grad():
        v = net.encode_frames(noise(1, 48, 128, 256))
        a = net.encode_mel(4 * noise(1, 1, 80, 52))
    for ours, theirs in zip((v, a), ORIGINAL[attention], strict=True):
        ours = torch.nn.functional.normalize(ours, dim=1)
        torch.testing.assert_close(ours[0, :8], torch.tensor(theirs), rtol=0, atol=1e-4)


def test_its_windows_are_rgb_from_minus_one(stable: StableSyncNet) -> None:
    frames, mel = noise(1, 17, 3, 128, 256) / 2 + 0.5, 4 * noise(1, 80, 56)
    with torch.no_grad():
        v, a = stable.embed_frames(frames), stable.embed_mel(mel, torch.tensor([0, 3]))
        for i in range(2):
            stacked = (2 * frames - 1)[:, i : i + 16].flatten(1, 2)
            for all_of_them, one in (
                (v, stable.encode_frames(stacked)),
                (a, stable.encode_mel(mel[:, None, :, 3 * i : 3 * i + 52])),
            ):
                unit = torch.nn.functional.normalize(one, dim=1)
                torch.testing.assert_close(all_of_them[:, i], unit, rtol=1e-3, atol=1e-4)


# --- reading


def same(a: nn.Module, b: nn.Module) -> bool:
    a_state, b_state = a.state_dict(), b.state_dict()
    return a_state.keys() == b_state.keys() and all(
        torch.equal(value, b_state[key]) and value.dtype == b_state[key].dtype
        for key, value in a_state.items()
    )


def optimised(net: nn.Module) -> dict[str, Any]:
    """As Wav2Lip's trainer saves it, with moments in the optimiser."""
    first = next(net.parameters())
    before = first.detach().clone()
    optimiser = torch.optim.Adam([first], lr=1e-4)
    first.grad = torch.ones_like(first)
    optimiser.step()
    first.grad = None
    with torch.no_grad():
        first.copy_(before)
    return {
        "state_dict": net.state_dict(),
        "optimizer": optimiser.state_dict(),
        "global_step": 7,
        "global_epoch": 1,
    }


def parallel(state: State, times: int = 1) -> State:
    return OrderedDict(("module." * times + key, value) for key, value in state.items())


FORMS: dict[str, Callable[[nn.Module], Any]] = {
    "state_dict and optimiser": optimised,
    "DataParallel": lambda net: {"state_dict": parallel(net.state_dict()), "optimizer": None},
    "wrapped twice": lambda net: parallel(net.state_dict(), 2),
    "bare": lambda net: net.state_dict(),
    "under net": lambda net: {"state_dict": {"net": net.state_dict()}},
    "LatentSync's": lambda net: {"state_dict": net.state_dict(), "train_loss_list": [0.5, 0.25]},
}


@pytest.mark.parametrize("form", FORMS)
def test_a_checkpoint_of_any_form_is_read(stable: StableSyncNet, tmp_path: Path, form: str) -> None:
    torch.save(FORMS[form](stable), tmp_path / "net.pt")
    net = read(tmp_path / "net.pt")
    assert isinstance(net, StableSyncNet) and not any(m.training for m in net.modules())
    assert same(net, stable)


def test_files_of_any_kind_are_read(stable: StableSyncNet, tmp_path: Path) -> None:
    """Torch's form before 1.6, which Wav2Lip's own file has; safetensors; half precision."""
    state = stable.state_dict()
    old, safe, half = (tmp_path / name for name in ("old.pth", "net.safetensors", "half.pt"))
    torch.save({"state_dict": state}, old, _use_new_zipfile_serialization=False)
    save_file(parallel(state), safe)
    torch.save({key: value.half() for key, value in state.items()}, half)
    assert same(read(old), stable) and same(read(str(safe)), stable)
    assert all(torch.equal(v, state[k].half().float()) for k, v in read(half).state_dict().items())


@pytest.mark.parametrize("attention", [((), ()), ((0, 6), (2,))], ids=["none", "elsewhere"])
def test_the_places_of_attention_are_read_off_the_keys(
    tmp_path: Path, attention: tuple[Any, Any]
) -> None:
    wanted = StableSyncNet(*NARROW, *attention)
    torch.save(wanted.state_dict(), tmp_path / "net.pt")
    assert same(read(tmp_path / "net.pt"), wanted)


def test_a_read_stable_syncnet_judges_like_the_written(
    stable: StableSyncNet, tmp_path: Path
) -> None:
    torch.save(stable.state_dict(), tmp_path / "net.pt")
    net = read(tmp_path / "net.pt")
    frames, mel = noise(1, 16, 3, 128, 256) / 2 + 0.5, 4 * noise(1, 80, 52)
    with torch.no_grad():
        assert torch.equal(net(frames, mel), stable(frames, mel))
    assert (net(frames, mel) > 0.01).all()


def test_latentsyncs_own_expert_sees_the_frames_as_it_was_trained(
    stable: StableSyncNet, tmp_path: Path
) -> None:
    """The lower half of the whole aligned frame; other weights see the detector's box in it."""
    torch.save(stable.state_dict(), tmp_path / "net.pt")
    frames, mel = noise(16, 3, 256, 256), 4 * noise(1, 1, 80, 52)
    halves = (frames / 2 + 0.5)[None, :, :, 128:]
    with torch.no_grad():
        wanted = torch.sigmoid(stable.logit(stable(halves, mel[:, 0])))
    sync = SyncLoss.for_host("latentsync", tmp_path / "net.pt")
    torch.testing.assert_close(sync.probability(frames, mel), wanted, rtol=1e-3, atol=1e-5)
    expert = compat.StableSyncNet(weights=tmp_path / "net.pt")
    v, a = expert(frames[:, :, 128:].flatten(0, 1)[None], mel)
    torch.testing.assert_close((v * a).sum(1), wanted, rtol=1e-3, atol=1e-5)
    asked = SyncLoss.for_host("latentsync", tmp_path / "net.pt", region=(0, 0.8, 0, 1))
    assert asked.format.region == (0, 0.8, 0, 1)


def test_a_file_without_tensors_is_an_error_not_a_hang(tmp_path: Path) -> None:
    """What the empty state of a SyncLoss gives, saved by a host."""
    save_file({}, tmp_path / "empty.safetensors")
    with pytest.raises(WeightsError, match="expected tensors by name"):
        read(tmp_path / "empty.safetensors")


def test_a_read_wav2lip_expert_judges_like_the_written(tmp_path: Path) -> None:
    torch.manual_seed(1)
    net = Wav2LipExpert()
    frames, mel = torch.rand(4, 5, 3, 48, 96), torch.randn(4, 80, 16)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        net(frames, mel)  # lived-in norms; without, nothing gets through
        net.eval()
        torch.save({"state_dict": parallel(net.state_dict())}, tmp_path / "lipsync_expert.pth")
        before = torch.get_rng_state()
        loaded = read(tmp_path / "lipsync_expert.pth")
        assert torch.equal(torch.get_rng_state(), before)
        similarity = loaded(frames, mel)
        assert torch.equal(similarity, net(frames, mel))
    assert isinstance(loaded, Wav2LipExpert)
    assert similarity.std() > 0


def test_the_expert_for_384_pixels_is_told_from_the_other(tmp_path: Path) -> None:
    state = ghosts(Wav2Lip384Expert)
    torch.save({"state_dict": parallel(state)}, tmp_path / "syncnet.pth")
    net = read(tmp_path / "syncnet.pth")
    assert isinstance(net, Wav2Lip384Expert)
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())


def test_a_read_net_does_not_need_its_file(stable: StableSyncNet, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.save(stable.state_dict(), path)
    net = read(path)
    with path.open("r+b") as file:  # in place, so that a mapping would show it
        file.write(bytes(path.stat().st_size))
    assert same(net, stable)
    assert all(p.is_contiguous() and p.device.type == "cpu" for p in net.parameters())


# --- refusals


class Trap:
    """An object whose unpickling would do something."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.sprung,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_of_objects_is_refused_and_not_run(tmp_path: Path, zipped: bool) -> None:
    content = {"state_dict": {"a": torch.zeros(2)}, "args": Trap(tmp_path / "sprung")}
    path = tmp_path / "net.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    message = r"net\.pth: it holds more than tensors \(.*run any code.*refused.*save its tensors"
    with pytest.raises(WeightsError, match=message):
        read(path)
    assert not (tmp_path / "sprung").exists()


def test_a_whole_module_is_refused_by_name(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=r"more than tensors \(torch\.nn\.\S*Linear\)"):
        read(tmp_path / "net.pth")


def test_a_tar_is_refused_before_torch_sees_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pickle").write_bytes(b"x")
    with tarfile.open(tmp_path / "net.pth", "w") as archive:
        archive.add(tmp_path / "pickle", "pickle")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch.load was called"))
    with pytest.raises(WeightsError, match=r"a tar archive.*not opened"):
        read(tmp_path / "net.pth")


@pytest.mark.filterwarnings("ignore")
def test_a_program_is_refused(tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "net.pt"))
    with pytest.raises(WeightsError, match=r"TorchScript program.*Give the net's state_dict"):
        read(tmp_path / "net.pt")


@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
@pytest.mark.parametrize("left", [0, 1, 30, 3000, -3000])
def test_a_cut_file_is_refused(stable: StableSyncNet, tmp_path: Path, kind: str, left: int) -> None:
    path = tmp_path / "cut.pth"
    state = stable.audio_encoder.state_dict()
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(WeightsError, match=r"cut\.pth: damaged, cut short.*Download or copy"):
        read(path)


def test_a_page_that_was_saved_instead_is_shown(tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(b"<!DOCTYPE html><html>Too many downloads</html>")
    with pytest.raises(WeightsError, match="no checkpoint at all: it begins with b'<!DOCTYPE"):
        read(tmp_path / "net.pth")


def test_what_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.pth", tmp_path):
        with pytest.raises(WeightsError, match="Give the path of a checkpoint"):
            read(path)


@pytest.mark.parametrize(
    ("content", "came"),
    [
        ({"epoch": 3, "optimizer": {}}, "got keys 'epoch', 'optimizer'"),
        ({}, "got keys"),
        ([torch.zeros(2)], "got list"),
        (torch.zeros(2), "got Tensor"),
        ({0: torch.zeros(2)}, "got keys 0"),
        ({"state_dict": {"args": 1}}, "got keys 'args'"),
    ],
)
def test_a_file_without_named_tensors_is_refused(tmp_path: Path, content: Any, came: str) -> None:
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=f"expected tensors by name.*{came}"):
        read(tmp_path / "net.pth")


def refusal(tmp_path: Path, state: State) -> str:
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(WeightsError) as caught:
        read(tmp_path / "net.pth")
    assert str(caught.value).startswith(f"weights {tmp_path / 'net.pth'}: ")
    return str(caught.value)


def test_an_unknown_net_is_named_by_its_keys(tmp_path: Path) -> None:
    state = {f"layers.{i}.weight": torch.zeros(2) for i in range(9)}
    text = refusal(tmp_path, state)
    assert "unknown net of 9 tensors, 'layers.0.weight', 'layers.1.weight'" in text
    assert "and 5 more" in text
    for known in ("lipsync_expert.pth", "SyncNet_color_384", "syncnet_16_pixel_attn.yaml"):
        assert known in text


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("face_encoder_blocks.0.0.conv_block.0.weight", "Wav2Lip's generator"),
        ("netcnnlip.0.weight", "measures LSE"),
        ("merge_encoder.0.conv1.weight", "DINet's SyncNet"),
    ],
)
def test_nets_that_are_taken_for_an_expert_are_named(tmp_path: Path, key: str, what: str) -> None:
    text = refusal(tmp_path, {key: torch.zeros(2), "other": torch.zeros(2)})
    assert what in text and "lipsync_expert.pth" in text


def test_the_syncnetv2_of_wav2lip_288_is_recognised(tmp_path: Path) -> None:
    face = (
        *((15, 32, 7, 1, 3, 0), (32, 64, 5, (1, 2), 1, 2), (64, 128, 3, 2, 1, 3)),
        *((128, 256, 3, 2, 1, 2), (256, 512, 3, 2, 1, 2), (512, 1024, 3, 2, 1, 2)),
        *((1024, 1024, 3, 2, 1, 0), (1024, 1024, 3, 1, 0, 0), (1024, 1024, 1, 1, 0, 0)),
    )

    def make() -> nn.Module:
        net = nn.Module()
        net.face_encoder = nn.Sequential(*blocks(face))
        net.audio_encoder = nn.Sequential(*blocks(AUDIO), *blocks(AUDIO_END))
        assert sum(p.numel() for p in net.parameters()) == 65_215_360
        return net

    text = refusal(tmp_path, ghosts(make))
    assert "syncnetv2.py" in text and "not supported" in text
    assert "SyncNet_color_384 of its models/syncnet.py is" in text


def test_a_changed_net_is_told_what_is_wrong_with_it(tmp_path: Path) -> None:
    state = ghosts(Wav2LipExpert)
    whole = dict(state)
    state["face_encoder.0.conv_block.0.weight"] = torch.zeros(32, 15, 5, 5)
    del state["audio_encoder.3.conv_block.0.bias"]
    state["classifier.weight"] = torch.zeros(1)
    text = refusal(tmp_path, state)
    assert "expected the 217 tensors of Wav2Lip's lipsync_expert.pth, got 217" in text
    assert "missing 'audio_encoder.3.conv_block.0.bias';" in text
    assert "too much 'classifier.weight';" in text
    shapes = "has shape (32, 15, 5, 5), not (32, 15, 7, 7)"
    assert f"'face_encoder.0.conv_block.0.weight' {shapes}" in text
    torch.save(whole, tmp_path / "net.pth")
    assert isinstance(read(tmp_path / "net.pth"), Wav2LipExpert)


def test_a_stable_syncnet_with_a_hole_is_told_where(stable: StableSyncNet, tmp_path: Path) -> None:
    for key in (
        "visual_encoder.down_blocks.5.attn.to_q.weight",
        "visual_encoder.down_blocks.2.norm2.weight",
        "audio_encoder.norm_out.bias",
    ):
        state = {k: v for k, v in stable.state_dict().items() if k != key}
        assert repr(key) in refusal(tmp_path, state)


@pytest.mark.parametrize("change", ["input", "depth", "width"])
def test_a_stable_syncnet_of_another_configuration_is_refused(tmp_path: Path, change: str) -> None:
    state = ghosts(lambda: StableSyncNet(*NARROW))
    if change == "input":  # 25 frames
        state["visual_encoder.conv_in.weight"] = torch.zeros(32, 75, 3, 3)
    elif change == "depth":
        state = {k: v for k, v in state.items() if "audio_encoder.down_blocks.8." not in k}
    else:
        state["visual_encoder.down_blocks.1.norm2.weight"] = torch.zeros(48)
    text = refusal(tmp_path, state)
    assert "a StableSyncNet of another configuration" in text
    assert {"input": "[75] channels", "depth": "[32, 32, 64, 32, 64, 32] hear", "width": "48"}[
        change
    ] in text
    assert "syncnet_16_pixel.yaml" in text


def test_a_net_saved_without_its_numbers_is_refused(tmp_path: Path) -> None:
    with torch.device("meta"):
        net = StableSyncNet(*NARROW)
    assert "expected tensors by name" in refusal(tmp_path, net.state_dict())


def test_a_diverged_net_is_refused(stable: StableSyncNet, tmp_path: Path) -> None:
    state = {key: value.clone() for key, value in stable.state_dict().items()}
    state["audio_encoder.conv_in.bias"][3] = torch.nan
    assert "'audio_encoder.conv_in.bias' holds NaN or infinity" in refusal(tmp_path, state)


# --- ours or theirs


def test_any_judge_is_loaded_by_one_function(
    stable: StableSyncNet,
    tiny_net: Discriminator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = weights.save(tiny_net, tmp_path / "stage3.safetensors")
    torch.save(stable.state_dict(), tmp_path / "theirs.pt")
    save_file(stable.state_dict(), tmp_path / "theirs.safetensors")
    for ref in (ours, str(ours)):
        loaded = weights.load_judge(ref)
        assert isinstance(loaded, Discriminator) and same(loaded, tiny_net)
    for name in ("theirs.pt", "theirs.safetensors"):
        judge = weights.load_judge(str(tmp_path / name), "cpu")
        assert same(judge, stable) and not judge.training
    monkeypatch.setattr(weights, "available", lambda: {"base": ours})
    monkeypatch.setattr(weights, "check_hash", lambda path: None)
    assert isinstance(weights.load_judge(), Discriminator)


def test_a_newer_one_of_ours_is_not_taken_for_theirs(tmp_path: Path) -> None:
    path = tmp_path / "n.safetensors"
    save_file({"a": torch.zeros(1)}, path, {"format": "syncdisc-discriminator-2"})
    with pytest.raises(WeightsError, match="expected format 'syncdisc-discriminator-1'"):
        weights.load_judge(path)


def test_what_is_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such file"):
        weights.load_judge("bose")
    save_file({"a": torch.zeros(1)}, tmp_path / "n.safetensors")
    with pytest.raises(WeightsError, match="an unknown net of 1 tensors, 'a'"):
        weights.load_judge(tmp_path / "n.safetensors")


def test_load_says_who_reads_other_peoples_files(stable: StableSyncNet, tmp_path: Path) -> None:
    torch.save(stable.state_dict(), tmp_path / "theirs.pt")
    save_file(stable.state_dict(), tmp_path / "theirs.safetensors")
    for name in ("theirs.pt", "theirs.safetensors"):
        with pytest.raises(WeightsError, match="SyncLoss"):
            weights.load(tmp_path / name)
