"""Exported files compute what the net computes, say what they are, and are whole or not there."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from syncdisc_plugin import export as exporter
from syncdisc_plugin import weights
from syncdisc_plugin.errors import SyncDiscError, WeightsError
from syncdisc_plugin.export import KINDS, export
from syncdisc_plugin.nn import Architecture, Discriminator
from syncdisc_plugin.spec import ClipSpec
from syncdisc_plugin.weights import load, read_about, save

ABOUT = {"stage": 3, "heldout": {"auc": 0.9, "eer": None}, "data": "läb"}
Scores = tuple[torch.Tensor, torch.Tensor]
Run = Callable[[torch.Tensor, torch.Tensor], Scores]


@pytest.fixture
def checkpoint(tiny_net: Discriminator, tmp_path: Path) -> Path:
    with torch.no_grad():
        tiny_net.bias.fill_(0.625)  # so that a graph without it gives another probability
    return save(tiny_net, tmp_path / "stage3.safetensors", **ABOUT)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files by kind: writing one takes seconds, and most tests only read it."""
    folder = tmp_path_factory.mktemp("exported")
    return {kind: folder / f"net{how.suffix}" for kind, how in KINDS.items()}


@pytest.fixture
def exported(checkpoint: Path, made: dict[str, Path]) -> Callable[[str], Path]:
    def get(kind: str) -> Path:
        return made[kind] if made[kind].exists() else export(checkpoint, made[kind])

    return get


def opened(path: Path) -> tuple[Run, dict[str, str]]:
    """What a file computes and what it says of itself, read as another program would."""
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

        def run(frames: torch.Tensor, mel: torch.Tensor) -> Scores:
            feed = {"frames": frames.numpy(), "mel": mel.numpy()}
            similarity, probability = session.run(["similarity", "probability"], feed)
            return torch.from_numpy(similarity), torch.from_numpy(probability)

        return run, session.get_modelmeta().custom_metadata_map
    said = dict.fromkeys(("format", "spec", "architecture", "about", "inputs", "outputs"), "")
    return torch.export.load(path, extra_files=said).module(), said


# --- what the files compute


@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_a_graph_scores_whole_faces_as_the_net_scores_halves(
    exported: Callable[[str], Path], checkpoint: Path, kind: str
) -> None:
    run, _ = opened(exported(kind))
    net, draw = load(checkpoint), torch.Generator().manual_seed(5)
    for batch in (1, 2, 7):
        frames = torch.rand(batch, 5, 3, 96, 96, generator=draw)
        mel = torch.rand(batch, 80, 16, generator=draw) * 8 - 4
        with torch.no_grad():
            similarity, probability = run(frames, mel)
            expected = net(frames[..., 48:, :], mel)
        assert similarity.shape == probability.shape == (batch,)
        assert similarity.dtype == probability.dtype == torch.float32
        torch.testing.assert_close(similarity, expected, atol=1e-4, rtol=0)
        assert expected.abs().max() > 1e-2  # else anything would be close
        calibrated = 1 / (1 + torch.exp(-(net.scale * expected + 0.625)))
        torch.testing.assert_close(probability, calibrated.detach(), atol=1e-4, rtol=0)


def test_a_net_of_whole_faces_sees_all_rows(tmp_path: Path) -> None:
    arch = Architecture(face_width=4, audio_width=4, embed_dim=16)
    net = Discriminator(ClipSpec(face_px=64, region="face"), arch).eval()
    run, _ = opened(export(save(net, tmp_path / "n.safetensors"), tmp_path / "n.pt2"))
    frames, mel = torch.rand(2, 5, 3, 64, 64), torch.zeros(2, 80, 16)
    dark = frames.clone()
    dark[..., :32, :] = 0
    with torch.no_grad():
        torch.testing.assert_close(run(frames, mel)[0], net(frames, mel), atol=1e-4, rtol=0)
        assert (run(dark, mel)[0] - run(frames, mel)[0]).abs().max() > 1e-3


def test_a_copy_is_the_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    copy = export(checkpoint, tmp_path / "deep" / "mine.safetensors")
    assert copy == tmp_path / "deep" / "mine.safetensors"
    assert read_about(copy) == read_about(checkpoint)
    assert read_about(copy)["stage"] == 3
    state = load(checkpoint).state_dict()
    assert load(copy).state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in load(copy).state_dict().items())


def test_shipped_weights_go_by_their_name(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "resolve", lambda ref: {"base": checkpoint}.get(ref, ref))
    copy = export("base", tmp_path / "mine.safetensors")
    assert read_about(copy)["data"] == "läb"


def test_a_checkpoint_may_be_written_over_itself(checkpoint: Path) -> None:
    before = load(checkpoint).state_dict()
    export(checkpoint, checkpoint)
    assert all(torch.equal(v, before[k]) for k, v in load(checkpoint).state_dict().items())
    assert read_about(checkpoint)["heldout"] == ABOUT["heldout"]


# --- what they say of themselves


@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_a_graph_explains_itself(
    exported: Callable[[str], Path], tiny_net: Discriminator, kind: str
) -> None:
    _, said = opened(exported(kind))
    assert said["format"] == "syncdisc-export-1"
    assert ClipSpec.from_json(said["spec"]) == tiny_net.spec
    assert json.loads(said["architecture"]) == asdict(tiny_net.arch)
    assert json.loads(said["about"]) == ABOUT
    assert json.loads(said["inputs"])["frames"].startswith("(batch, 5, 3, 96, 96) float32")
    assert "floor(80 * f / 25)" in json.loads(said["inputs"])["mel"]
    assert json.loads(said["outputs"]).keys() == {"similarity", "probability"}


def test_onnx_names_its_axes(exported: Callable[[str], Path]) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(exported("onnx"), providers=["CPUExecutionProvider"])
    shapes = {x.name: x.shape for x in (*session.get_inputs(), *session.get_outputs())}
    assert shapes == {
        "frames": ["batch", 5, 3, 96, 96],
        "mel": ["batch", 80, 16],
        "similarity": ["batch"],
        "probability": ["batch"],
    }


@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_no_folder_of_this_machine_is_in_the_file(
    exported: Callable[[str], Path], kind: str
) -> None:
    path = exported(kind)
    texts = [path.read_bytes()]
    if kind == "torch":
        with zipfile.ZipFile(path) as archive:
            texts = [archive.read(name) for name in archive.namelist()]
    assert any(b'"face_px"' in text for text in texts)  # text is legible, so a path would be
    package = str(Path(exporter.__file__).parent).encode()
    assert not [text for text in texts if package in text]


# --- what is refused


@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        ("net.tflite", None, r"ends in one of \.safetensors, \.onnx, \.pt2, got .*net\.tflite"),
        ("net", None, r"ends in one of"),
        ("net.onnx", "tflite", r"kind: expected one of safetensors, onnx, torch, got 'tflite'"),
        ("net.onnx", "torch", r"kind 'torch' ends in \.pt2, got .*net\.onnx"),
    ],
)
def test_unknown_kinds_are_refused(
    checkpoint: Path, tmp_path: Path, name: str, kind: str | None, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        export(checkpoint, tmp_path / "new" / name, kind)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("name", "kind"),
    [("net.SafeTensors", None), ("net.bin", "safetensors"), ("net", "safetensors")],
)
def test_suffix_or_kind_is_enough(
    checkpoint: Path, tmp_path: Path, name: str, kind: str | None
) -> None:
    assert load(export(checkpoint, tmp_path / name, kind)).bias.item() == 0.625


@pytest.mark.parametrize("package", ["onnxscript", "onnxruntime"])
def test_a_missing_package_is_named(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SyncDiscError, match=rf"{package}.*pip install 'syncdisc-plugin\[export\]'"):
        export(checkpoint, tmp_path / "net.onnx")
    assert not (tmp_path / "net.onnx").exists()
    export(checkpoint, tmp_path / "net.safetensors")  # needs neither


def test_missing_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such file"):
        export(tmp_path / "none.safetensors", tmp_path / "net.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_a_file_that_computes_something_else_is_not_kept(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    right = exporter.Scorer.forward

    def wrong(self: exporter.Scorer, frames: torch.Tensor, mel: torch.Tensor) -> Scores:
        similarity, probability = right(self, frames, mel)
        return similarity + 0.01, probability

    monkeypatch.setattr(exporter.Scorer, "forward", wrong)
    out = tmp_path / "out" / f"net{KINDS[kind].suffix}"
    out.parent.mkdir()
    out.write_text("the one before")
    with pytest.raises(WeightsError, match=r"differs from the net by 0\.01, expected at most 0\.0"):
        export(checkpoint, out)
    assert [p.name for p in out.parent.iterdir()] == [out.name]
    assert out.read_text() == "the one before"


def test_a_net_of_nan_is_not_kept(
    tiny_net: Discriminator, checkpoint: Path, tmp_path: Path
) -> None:
    with torch.no_grad():
        tiny_net.bias.fill_(float("nan"))
    save(tiny_net, checkpoint)
    with pytest.raises(WeightsError, match="by nan"):
        export(checkpoint, tmp_path / "net.pt2")
    assert not (tmp_path / "net.pt2").exists()


def test_the_module_imports_without_what_it_exports_with() -> None:
    code = (
        "import sys, syncdisc_plugin.export; "
        "print({name.split('.')[0] for name in sys.modules} & {'onnx', 'onnxscript', "
        "'onnx_ir', 'onnxruntime'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("set()", "")
