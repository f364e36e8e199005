from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import save_file

from syncdisc_plugin import atomic, weights
from syncdisc_plugin.errors import WeightsError
from syncdisc_plugin.nn import Architecture, Discriminator
from syncdisc_plugin.spec import ClipSpec, MelSpec
from syncdisc_plugin.train import TrainSettings
from syncdisc_plugin.weights import available, load, read_about, save

ROOT = Path(__file__).parent.parent


@pytest.fixture
def saved(tiny_net: Discriminator, tmp_path: Path) -> Path:
    return save(tiny_net, tmp_path / "stage3.safetensors", stage=3)


@pytest.fixture
def shipped(tiny_net: Discriminator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A weights folder as the wheel has it, with one net "base"."""
    folder = tmp_path / "shipped"
    path = save(tiny_net, folder / "syncdisc-base.safetensors")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "SHA256SUMS").write_text(f"{digest}  {path.name}\n", encoding="utf-8")
    monkeypatch.setattr(weights, "_shipped", lambda: folder)
    return path


def rewrite(path: Path, *, metadata: dict[str, str | None] | None = None, **tensors: Any) -> None:
    """The same checkpoint with other metadata or tensors; None takes one away."""
    with safe_open(path, framework="pt") as file:
        about = {**file.metadata(), **(metadata or {})}
        kept = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    kept.update(tensors)
    save_file(
        {k: v for k, v in kept.items() if v is not None},
        path,
        {k: v for k, v in about.items() if v is not None},
    )


def test_load_gives_back_what_was_saved(tiny_net: Discriminator, saved: Path) -> None:
    net = load(saved)
    assert not net.training
    assert (net.spec, net.arch) == (tiny_net.spec, tiny_net.arch)
    state = tiny_net.state_dict()
    assert net.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    frames, mel = torch.rand(2, 5, 3, 48, 96), torch.rand(2, 80, 16)
    with torch.no_grad():
        assert torch.equal(net(frames, mel), tiny_net(frames, mel))
    assert torch.equal(load(str(saved)).log_scale, tiny_net.log_scale)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_hosts_default_dtype_is_not_the_judges(
    saved: Path, tiny_net: Discriminator, dtype: torch.dtype
) -> None:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        net = load(saved)
    finally:
        torch.set_default_dtype(before)
    for key, value in net.state_dict().items():
        assert torch.equal(value, tiny_net.state_dict()[key]), key  # fp32, and not rounded


def test_a_checkpoint_explains_itself(tmp_path: Path) -> None:
    spec = ClipSpec(face_px=64, region="face", mel=MelSpec(pad_mode="reflect"))
    arch = Architecture(face_width=4, audio_width=4, embed_dim=16, dropout=0.0)
    about = {"stage": 2, "metrics": {"auc": 0.9, "eer": None}, "data": ["läb", "grid"]}
    path = save(Discriminator(spec, arch), tmp_path / "new" / "deep" / "n.safetensors", **about)
    assert read_about(path) == {"spec": spec, "architecture": arch, **about}
    with safe_open(path, framework="pt") as file:  # plain JSON, for any other program
        assert json.loads(file.metadata()["spec"])["mel"]["pad_mode"] == "reflect"
    assert load(path).spec == spec


def test_saving_does_not_touch_the_net(tiny_net: Discriminator, tmp_path: Path) -> None:
    tiny_net.train()
    before = {k: v.clone() for k, v in tiny_net.state_dict().items()}
    save(tiny_net, tmp_path / "n.safetensors")
    assert tiny_net.training
    assert all(torch.equal(v, before[k]) for k, v in tiny_net.state_dict().items())


def test_missing_file_or_unknown_name_says_what_there_is(shipped: Path, tmp_path: Path) -> None:
    for ref in ("bose", tmp_path / "gone.safetensors", tmp_path):
        with pytest.raises(WeightsError, match=r"no such file.*Shipped: \['base'\].*path of") as e:
            load(ref)
        assert str(ref) in str(e.value)


def test_nothing_shipped_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_shipped", lambda: None)
    assert available() == {}
    with pytest.raises(WeightsError, match="Shipped: none"):
        load("base")


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
def test_pickles_are_refused_and_not_opened(tmp_path: Path, name: str) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "trap-went-off",))

    torch.save({"state_dict": Trap()}, tmp_path / name)
    with pytest.raises(WeightsError, match=r"not a safetensors file.*Pickled checkpoints"):
        load(tmp_path / name)
    assert not (tmp_path / "trap-went-off").exists()


@pytest.mark.parametrize("content", [b"", b"half", b"\xff" * 4096])
def test_rubbish_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "n.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"n\.safetensors: not a safetensors file"):
        load(path)


def test_a_cut_file_is_refused(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match="not a safetensors file"):
        load(saved)


@pytest.mark.parametrize("other", ["syncdisc-discriminator-2", None])
def test_another_format_is_refused(saved: Path, other: str | None) -> None:
    rewrite(saved, metadata={"format": other})
    message = f"expected format 'syncdisc-discriminator-1', got {other!r}.*stage3.safetensors"
    with pytest.raises(WeightsError, match=message):
        load(saved)


def test_safetensors_of_somebody_else_are_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="expected format"):
        load(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    "tensors",
    [{"bias": None}, {"extra": torch.zeros(2)}, {"log_scale": torch.zeros(7)}],
    ids=["missing", "extra", "other shape"],
)
def test_tensors_must_fit_exactly(saved: Path, tensors: dict[str, Any]) -> None:
    rewrite(saved, **tensors)
    with pytest.raises(WeightsError, match=next(iter(tensors))):
        load(saved)


@pytest.mark.parametrize(
    "metadata",
    [
        {"spec": json.dumps({**json.loads(ClipSpec().to_json()), "lens_mm": 50})},
        {"spec": json.dumps({**json.loads(ClipSpec().to_json()), "region": "ear"})},
        {"spec": "{"},
        {"spec": None},
        {"architecture": json.dumps({"depth": 9})},
        {"about": None},
    ],
    ids=["newer spec", "bad spec", "cut spec", "no spec", "newer architecture", "no about"],
)
def test_metadata_that_cannot_be_read_is_our_error(
    saved: Path, metadata: dict[str, str | None]
) -> None:
    rewrite(saved, metadata=metadata)
    with pytest.raises(WeightsError, match=r"stage3\.safetensors"):
        load(saved)


def test_shipped_weights_load_by_name(shipped: Path, tiny_net: Discriminator) -> None:
    assert available() == {"base": shipped}
    assert torch.equal(load("base").bias, tiny_net.bias)
    assert load().spec == tiny_net.spec


def test_a_wrong_hash_is_refused(shipped: Path, tiny_net: Discriminator) -> None:
    save(tiny_net, shipped, note="another file, as valid")
    with pytest.raises(WeightsError, match=r"sha256 .* not the one in SHA256SUMS"):
        load("base")
    (shipped.parent / "SHA256SUMS").write_text("", encoding="utf-8")
    with pytest.raises(WeightsError, match="SHA256SUMS"):
        load("base")


def test_what_the_repository_ships_loads() -> None:
    for name in available():
        net = load(name)
        assert all(value.isfinite().all() for value in net.state_dict().values())


@pytest.mark.parametrize("dies_in", ["save_file", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    saved: Path, tiny_net: Discriminator, monkeypatch: pytest.MonkeyPatch, dies_in: str
) -> None:
    before = saved.read_bytes()

    def half(tensors: Any, path: Path, *rest: Any) -> None:
        Path(path).write_bytes(before[:100])
        raise OSError("No space left on device")

    def refuse(*rest: Any) -> None:
        raise OSError("No space left on device")

    if dies_in == "save_file":
        monkeypatch.setattr(weights, "save_file", half)
    else:
        monkeypatch.setattr(atomic.os, "replace", refuse)
    with torch.no_grad():
        tiny_net.bias.add_(1)
    with pytest.raises(OSError, match="No space"):
        save(tiny_net, saved)
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_about_that_is_not_json_is_refused_before_writing(
    saved: Path, tiny_net: Discriminator
) -> None:
    before = saved.read_bytes()
    with pytest.raises(TypeError):
        save(tiny_net, saved, metrics={1, 2})
    assert saved.read_bytes() == before


def test_saving_over_a_file_replaces_it(saved: Path, tiny_net: Discriminator) -> None:
    with torch.no_grad():
        tiny_net.bias.fill_(0.625)
    save(tiny_net, saved, stage=4)
    assert load(saved).bias.item() == 0.625
    assert read_about(saved)["stage"] == 4
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


@pytest.fixture
def hub(saved: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str | None]]:
    """A hub that holds one file, whatever it is asked for; the calls that were made."""
    calls: list[tuple[str, str, str | None]] = []

    def hf_hub_download(repo: str, file: str, revision: str | None = None) -> str:
        calls.append((repo, file, revision))
        if repo == "nobody/nothing":
            raise RuntimeError("404 Client Error.\nRepository Not Found")
        return str(saved)

    module = SimpleNamespace(hf_hub_download=hf_hub_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return calls


@pytest.mark.parametrize(
    ("ref", "call"),
    [
        ("hf:us/sync", ("us/sync", "syncdisc-base.safetensors", None)),
        ("hf:us/sync@v2", ("us/sync", "syncdisc-base.safetensors", "v2")),
        ("hf:us/sync/a/b.safetensors", ("us/sync", "a/b.safetensors", None)),
        ("hf:us/sync/b.safetensors@main", ("us/sync", "b.safetensors", "main")),
    ],
)
def test_weights_of_a_hub(
    hub: list[tuple[str, str, str | None]],
    tiny_net: Discriminator,
    ref: str,
    call: tuple[str, str, str | None],
) -> None:
    net = load(ref)
    assert hub == [call]
    pairs = zip(net.parameters(), tiny_net.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("ref", ["hf:", "hf:us", "hf:us/", "hf:us/sync/pickle.pth"])
def test_names_that_no_hub_has_are_refused_unasked(
    hub: list[tuple[str, str, str | None]], ref: str
) -> None:
    with pytest.raises(WeightsError, match=r"expected hf:owner/name .* Only safetensors"):
        load(ref)
    assert not hub


def test_a_hub_that_has_it_not_is_our_error(hub: list[tuple[str, str, str | None]]) -> None:
    with pytest.raises(
        WeightsError, match=r"base\.safetensors cannot be fetched \(RuntimeError: 404 "
    ):
        load("hf:nobody/nothing")


def test_a_hub_needs_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(WeightsError, match=r"pip install \"syncdisc-plugin\[hub\]\""):
        load("hf:us/sync")


def test_the_recipe_of_the_shipped_weights_is_a_training_run() -> None:
    recipe = yaml.safe_load((ROOT / "weights" / "recipe.yaml").read_text(encoding="utf-8"))
    settings = TrainSettings.from_dict(recipe)
    assert settings.heldout_speakers and settings.last_stage == 3
    assert read_about("base")["stage"] == 3


@pytest.mark.parametrize("ref", [None, 3, {"weights": "base"}])
def test_what_names_no_weights(ref: object) -> None:
    with pytest.raises(WeightsError, match="no such file, and no shipped weights"):
        load(ref)  # type: ignore[arg-type]
