"""A discriminator for other programs: ONNX, torch.export, or a copy in our own format."""

from __future__ import annotations

import importlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import nn

from syncdisc_plugin import weights
from syncdisc_plugin.atomic import replacing
from syncdisc_plugin.errors import SyncDiscError, WeightsError
from syncdisc_plugin.nn import Discriminator

FORMAT = "syncdisc-export-1"
INPUTS = ("frames", "mel")
OUTPUTS = ("similarity", "probability")
# Runtimes lag behind the newest opset; nothing here needs more than this one of 2022.
OPSET = 18
TOLERANCE = 1e-4
Scores = tuple[torch.Tensor, torch.Tensor]


def export(ref: str | Path, out: Path | str, kind: str | None = None) -> Path:
    """Write weights as a file that other programs run. The write is atomic.

    "onnx" and "torch" hold a graph with two inputs and two outputs, float32, any batch B:

        frames       (B, T, 3, P, P) whole faces, RGB in [0, 1]; T = 5 and P = 96 unless the
                     spec says otherwise
        mel          (B, M, L) the L = 16 mel frames, M = 80 bins in [-4, 4], that start with
                     the first frame
        similarity   (B,) cosine in [-1, 1]
        probability  (B,) calibrated probability in [0, 1] that the pair is in sync

    The faces are whole ones, of `spec.face_px` = P pixels: the graph itself cuts the rows that
    the net looks at, so that no caller can cut the wrong ones. It does not resize: an
    antialiased resize is in every image library, but not in every runtime.
    Both files carry `spec`, `architecture`, `about`, `inputs` and `outputs` as JSON and `format`:
    ONNX in metadata_props, torch in the archive's extra files. Before the file takes its place,
    it is run and compared with the net.

    Args:
        ref: a shipped name, or the path of a checkpoint that the trainer wrote.
        out: the file to write; its suffix tells the kind.
        kind: "safetensors" (our own format, with all that the checkpoint says of itself),
            "onnx", or "torch" (torch.export; torch promises only that the version that wrote a
            file can read it). Needed where the suffix is none of .safetensors, .onnx, .pt2.

    Raises:
        ValueError: unknown kind or suffix, or a suffix of another kind.
        WeightsError: the weights cannot be loaded, or the file does not compute what they do.
        SyncDiscError: a package that the kind needs is not installed.
    """
    out = Path(out)
    chosen = KINDS[_kind_of(out, kind)]
    for package in chosen.needs:
        _require(package)
    about = weights.read_about(ref)
    net = weights.load(ref).requires_grad_(False)
    del about["spec"], about["architecture"]  # the net has them
    with replacing(out) as temp:
        chosen.write(net, about, temp)
    return out


class Scorer(nn.Module):
    """The graph that is exported: whole faces in, both scores out."""

    def __init__(self, net: Discriminator) -> None:
        super().__init__()
        self.net = net
        self.first_row = net.spec.face_px - net.spec.input_hw[0]

    def forward(self, frames: torch.Tensor, mel: torch.Tensor) -> Scores:
        """frames (B, T, 3, P, P), mel (B, M, L) -> similarity (B,), probability (B,)."""
        similarity = self.net(frames[..., self.first_row :, :], mel)
        return similarity, torch.sigmoid(self.net.logit(similarity))


def _write_safetensors(net: Discriminator, about: dict[str, Any], path: Path) -> None:
    weights.save(net, path, **about)


def _write_onnx(net: Discriminator, about: dict[str, Any], path: Path) -> None:
    import onnxruntime

    with _quiet():
        program = torch.onnx.export(
            _graph(net),
            input_names=INPUTS,
            output_names=OUTPUTS,
            opset_version=OPSET,
            dynamic_shapes=({0: "batch"}, {}),  # gives the axis that both share its name
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update(_metadata(net, about))
    program.save(path, external_data=False)

    options = onnxruntime.SessionOptions()
    # Its own default is every core, and as many threads pinned to them.
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(frames: torch.Tensor, mel: torch.Tensor) -> Scores:
        feed = {"frames": frames.numpy(), "mel": mel.numpy()}
        similarity, probability = session.run(OUTPUTS, feed)
        return torch.from_numpy(similarity), torch.from_numpy(probability)

    _check(net, run, "onnxruntime")


def _write_torch(net: Discriminator, about: dict[str, Any], path: Path) -> None:
    # Through open files: torch warns of paths that do not end in .pt2, and `path` is temporary.
    with _quiet():
        with path.open("wb") as file:
            torch.export.save(_graph(net), file, extra_files=_metadata(net, about))
        with path.open("rb") as file:
            _check(net, torch.export.load(file).module(), "torch.export")


@dataclass(frozen=True)
class Kind:
    """One way to write a discriminator."""

    suffix: str
    """What its files end in."""
    write: Callable[[Discriminator, dict[str, Any], Path], None]
    """Writes net and about to a path, and raises where the file computes something else."""
    needs: tuple[str, ...] = ()
    """Packages beyond those that come with this one."""


KINDS = {
    "safetensors": Kind(".safetensors", _write_safetensors),
    "onnx": Kind(".onnx", _write_onnx, needs=("onnxscript", "onnxruntime")),
    "torch": Kind(".pt2", _write_torch),
}


def _kind_of(out: Path, kind: str | None) -> str:
    by_suffix = {k.suffix: name for name, k in KINDS.items()}
    told = by_suffix.get(out.suffix.lower())
    if kind is None and told is None:
        raise ValueError(
            f"out: expected a file that ends in one of {', '.join(by_suffix)}, got {str(out)!r}. "
            f"In Python, kind= may name one of {', '.join(KINDS)} instead."
        )
    if kind is not None and kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}.")
    if kind is not None and told not in (None, kind):
        raise ValueError(
            f"out: kind {kind!r} ends in {KINDS[kind].suffix}, got {str(out)!r}. "
            "Change one of the two."
        )
    return kind or str(told)


def _require(package: str) -> None:
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise SyncDiscError(
            f"export to ONNX needs {package} ({error}). pip install 'syncdisc-plugin[export]'"
        ) from error


def _graph(net: Discriminator) -> torch.export.ExportedProgram:
    spec = net.spec
    # Weights that are channels_last make torch.export.save warn; the numbers are the same.
    scorer = Scorer(net.to(memory_format=torch.contiguous_format))  # type: ignore[call-overload]
    frames = torch.zeros(2, spec.window_frames, 3, spec.face_px, spec.face_px)
    mel = torch.zeros(2, spec.mel.n_mels, spec.window_mels)
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(
        scorer.eval(), (frames, mel), dynamic_shapes=({0: batch}, {0: batch}), strict=False
    )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names folders of the machine that exports
    return program


def _metadata(net: Discriminator, about: dict[str, Any]) -> dict[str, str]:
    """What the file says of itself, by name; all but `format` are JSON."""
    spec = net.spec
    inputs = {
        "frames": f"(batch, {spec.window_frames}, 3, {spec.face_px}, {spec.face_px}) float32: "
        f"consecutive video frames at {spec.fps} fps, whole faces, RGB, 0..1",
        "mel": f"(batch, {spec.mel.n_mels}, {spec.window_mels}) float32: log-mel (see "
        f"spec) from mel frame floor({spec.mel.rate_hz} * f / {spec.fps}) on, f the first video "
        f"frame, -{spec.mel.max_abs:g}..{spec.mel.max_abs:g}",
    }
    outputs = {
        "similarity": "(batch,) float32: cosine, -1..1",
        "probability": "(batch,) float32: calibrated, that lips and speech are in sync, 0..1",
    }
    return {
        "format": FORMAT,
        "spec": spec.to_json(),
        "architecture": json.dumps(asdict(net.arch)),
        "about": json.dumps(about),
        "inputs": json.dumps(inputs),
        "outputs": json.dumps(outputs),
    }


def _check(
    net: Discriminator, run: Callable[[torch.Tensor, torch.Tensor], Scores], runtime: str
) -> None:
    """Compare what the written file computes with the net, on random and extreme inputs."""
    differences = []
    for frames, mel in _probes(net):
        with torch.no_grad():
            # Not through the Scorer, so that a mistake in it is found too.
            similarity = net(frames[..., -net.spec.input_hw[0] :, :], mel)
            expected = similarity, torch.sigmoid(net.logit(similarity))
            got = run(frames, mel)
        differences += [(g - e).abs().max() for g, e in zip(got, expected, strict=True)]
    worst = torch.stack(differences).max().item()
    if not worst <= TOLERANCE:  # true of nan as well
        raise WeightsError(
            f"export: what {runtime} computes from the file differs from the net by {worst:.2g}, "
            f"expected at most {TOLERANCE:g}. Nothing was written; the weights hold nan, or this "
            f"version of {runtime} has a fault: try another one."
        )


def _probes(net: Discriminator) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(frames, mel) for the graph: noise, black and white faces, with noise and silence."""
    spec = net.spec
    draw = torch.Generator().manual_seed(0)
    for batch in (1, 3):
        noise = torch.rand(batch, spec.window_frames, 3, spec.face_px, spec.face_px, generator=draw)
        sound = torch.rand(batch, spec.mel.n_mels, spec.window_mels, generator=draw) * 2 - 1
        faces = (noise, torch.zeros_like(noise), torch.ones_like(noise))
        mels = (sound * spec.mel.max_abs, torch.full_like(sound, -spec.mel.max_abs))
        yield from product(faces, mels)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters' notes to their own developers; the numbers are checked anyway."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)  # "torchvision is not installed"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        log.setLevel(level)
