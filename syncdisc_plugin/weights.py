"""Checkpoints: safetensors that explain themselves. Nothing here unpickles anything.

Other people's checkpoints, which are pickles, are read by `nn.foreign.read` alone.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from syncdisc_plugin.atomic import replacing
from syncdisc_plugin.digest import sha256
from syncdisc_plugin.errors import WeightsError
from syncdisc_plugin.nn import Architecture, Discriminator, foreign
from syncdisc_plugin.nn.judge import Judge
from syncdisc_plugin.spec import ClipSpec

FORMAT = "syncdisc-discriminator-1"
HUB_FILE = "syncdisc-base.safetensors"


def save(net: Discriminator, path: Path | str, **about: Any) -> Path:
    """Write the net, its spec and architecture, and `about` (JSON values) to one file.

    The write is atomic: a kill leaves the old file or the new one, whole.
    """
    path = Path(path)
    metadata = {
        "format": FORMAT,
        "spec": net.spec.to_json(),
        "architecture": json.dumps(asdict(net.arch)),
        "about": json.dumps(about),
    }
    tensors = {k: v.detach().cpu().contiguous() for k, v in net.state_dict().items()}
    with replacing(path) as temp:
        save_file(tensors, temp, metadata)
    return path


def available() -> dict[str, Path]:
    """Shipped weights by name ("base")."""
    return shipped("syncdisc")


def shipped(kind: str) -> dict[str, Path]:
    """Shipped files of a kind by name: syncdisc, discriminators; lipsync, generators."""
    folder = _shipped()
    found = sorted(folder.glob(f"{kind}-*.safetensors")) if folder else []
    return {path.stem.removeprefix(f"{kind}-"): path for path in found}


def load(ref: str | Path = "base", device: str | torch.device = "cpu") -> Discriminator:
    """Load a discriminator in eval mode.

    Args:
        ref: a shipped name, the path of a checkpoint that the trainer wrote, or the file of a
            Hugging Face repository: "hf:owner/name/stage3.safetensors", or "hf:owner/name" for its
            syncdisc-base.safetensors, with "@revision" behind it if need be (wants the extra
            `hub`).
        device: where to put it.

    Raises:
        WeightsError: unknown name, missing file, wrong hash, or not one of our checkpoints.
    """
    path = resolve(ref)
    about = read_about(path)
    # A host's seed is its own; and so is the device on which, or on none, it builds its nets.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        net = Discriminator(about["spec"], about["architecture"]).float()  # whatever the default
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            net.load_state_dict(tensors, strict=True)
            del tensors
        except (SafetensorError, RuntimeError) as error:
            what = " ".join(str(error).split()).rstrip(".")[:400]
            again = "Write it again with the trainer."
            raise WeightsError(f"weights {path}: {what}. {again}") from error
    net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net.eval()


def load_judge(ref: str | Path = "base", device: str | torch.device = "cpu") -> Judge:
    """Load a net that can judge sync, in eval mode: ours, or another project's expert.

    Args:
        ref: as in `load`, or the path of a checkpoint that `nn.foreign.read` knows.
        device: where to put it.

    Raises:
        WeightsError: as `load` and `nn.foreign.read` raise it.
    """
    path = resolve(ref)
    if _is_ours(path):
        return load(path, device)
    with torch.device("cpu"):  # whatever a host builds its nets on
        judge = foreign.read(path)
    return judge.to(device)


def read_about(ref: str | Path) -> dict[str, Any]:
    """What a checkpoint says of itself: spec, architecture, and what `save` was told."""
    path = resolve(ref)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"weights {path}: not a safetensors file ({error}). "
            "Pickled checkpoints (.pth, .pt) are not loaded here; SyncLoss reads those of the "
            "experts that it knows."
        ) from error
    if metadata.get("format") != FORMAT:
        raise WeightsError(
            f"weights {path}: expected format {FORMAT!r}, got {metadata.get('format')!r}. "
            "Give a stage3.safetensors that `syncdisc train` wrote; other people's experts "
            "are read by SyncLoss only."
        )
    try:
        return {
            "spec": ClipSpec.from_json(metadata["spec"]),
            "architecture": Architecture(**json.loads(metadata["architecture"])),
            **json.loads(metadata["about"]),
        }
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"weights {path}: its metadata is damaged or of a newer version ({error}). "
            "Update the package, or write the checkpoint again."
        ) from error


def resolve(ref: str | Path) -> Path:
    """Path of the checkpoint that `ref` names; a shipped one is checked against SHA256SUMS."""
    names = available()
    if isinstance(ref, str) and ref in names:
        check_hash(names[ref])
        return names[ref]
    if isinstance(ref, str) and ref.startswith("hf:"):
        return _from_hub(ref)
    if isinstance(ref, str | os.PathLike) and (path := Path(ref)).is_file():
        return path
    raise WeightsError(
        f"weights {ref!r}: no such file, and no shipped weights of that name. "
        f"Shipped: {sorted(names) or 'none'}; or give the path of a stage3.safetensors."
    )


def _from_hub(ref: str) -> Path:
    """Path of a repository's file in the local cache; it is downloaded where it is not there."""
    where, _, revision = ref.removeprefix("hf:").partition("@")
    owner, name, file = ([*where.split("/", 2), "", ""])[:3]
    if not (owner and name) or (file and not file.endswith(".safetensors")):
        raise WeightsError(
            f"weights {ref!r}: expected hf:owner/name or hf:owner/name/file.safetensors. Only "
            "safetensors are loaded: a pickle can run anything."
        )
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise WeightsError(
            f"weights {ref!r}: huggingface_hub is not installed. "
            'Run pip install "syncdisc-plugin[hub]", or download the file and give its path.'
        ) from error
    file = file or HUB_FILE
    try:
        found = hf_hub_download(f"{owner}/{name}", file, revision=revision or None)
    except Exception as error:  # its own, requests' and httpx's kinds, by version
        what = str(error).strip().split("\n")[0].rstrip(".")
        raise WeightsError(
            f"weights {ref!r}: {file} cannot be fetched ({type(error).__name__}: {what}). Check "
            "the name, the file (hf:owner/name/FILE.safetensors names another), the network and, "
            "for a private repository, the login."
        ) from error
    return Path(found)


def _is_ours(path: Path) -> bool:
    """Whether the file is, or says it is, a checkpoint of this package, of whatever version."""
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("format", "").startswith("syncdisc-")
    except (SafetensorError, OSError):
        return False


def _shipped() -> Path | None:
    """The weights folder: inside an installed wheel, or beside the package in a checkout."""
    inside = Path(str(files("syncdisc_plugin"))) / "_weights"
    beside = Path(str(files("syncdisc_plugin"))).parent / "weights"
    return next((p for p in (inside, beside) if (p / "SHA256SUMS").is_file()), None)


def check_hash(path: Path) -> None:
    """Refuse a shipped file that is not what SHA256SUMS beside it says.

    Raises:
        WeightsError: it is another, or not listed.
    """
    sums = (path.parent / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    expected = {name: digest for digest, name in (line.split() for line in sums if line.strip())}
    actual = sha256(path)
    if expected.get(path.name) != actual:
        raise WeightsError(
            f"weights {path.name}: sha256 {actual[:12]}… is not the one in SHA256SUMS. "
            "The file is damaged: install the package again."
        )
