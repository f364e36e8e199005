"""The resumable state of a training: one safetensors file, whole or not there, no pickle."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from syncdisc_plugin.atomic import replacing
from syncdisc_plugin.errors import RunError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Progress = TypeVar("Progress")
STATE = "state.safetensors"
_AGAIN = "Start again in a new --out."


def save_state(
    run: Path,
    progress: DataclassInstance,
    modules: Mapping[str, torch.nn.Module] | None = None,
    optimisers: Mapping[str, torch.optim.Optimizer] | None = None,
) -> None:
    """Write RUN/state.safetensors: where the run stands, weights, optimisers' moments.

    Args:
        run: the run's folder.
        progress: plain numbers and texts.
        modules: by name; none where what comes next begins from weights that are kept elsewhere.
        optimisers: by name.
    """
    tensors: dict[str, torch.Tensor] = {}
    for name, module in (modules or {}).items():
        for key, value in module.state_dict().items():
            tensors[f"{name}/{key}"] = value.detach().cpu().contiguous()
    for name, optimiser in (optimisers or {}).items():
        for index, moments in optimiser.state_dict()["state"].items():
            for key, value in moments.items():
                tensors[f"{name}/{index}/{key}"] = torch.as_tensor(value).cpu().contiguous()
    with replacing(run / STATE) as temp:
        save_file(tensors, temp, {"progress": json.dumps(asdict(progress))})


def read_state(run: Path, build: Callable[[dict[str, Any]], Progress]) -> Progress | None:
    """The `progress` of the saved state; None when nothing has been saved yet.

    Args:
        run: the run's folder.
        build: makes it of its fields; what it raises for others means another version.

    Raises:
        RunError: the file is damaged, or of another version.
    """
    path = run / STATE
    if not path.exists():
        return None
    try:
        # Only the metadata is wanted; "pt" would open the file a second time by its name, and a
        # run that saves in between has put another file there.
        with safe_open(path, framework="numpy") as file:
            return build(json.loads(file.metadata()["progress"]))
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path}: damaged, or of another version ({error}). {_AGAIN}") from error


def load_state(
    run: Path,
    modules: Mapping[str, torch.nn.Module],
    optimisers: Mapping[str, torch.optim.Optimizer],
) -> None:
    """Put the saved tensors back, in place.

    Raises:
        RunError: they are of other nets.
    """
    path = run / STATE
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    try:
        for name, module in modules.items():
            module.load_state_dict(_below(name, tensors), strict=True)
    except RuntimeError as error:
        raise RunError(f"{path}: of other nets, or of an older version. {_AGAIN}") from error
    for name, optimiser in optimisers.items():
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in _below(name, tensors).items():
            index, moment = key.split("/")
            state.setdefault(int(index), {})[moment] = value
        optimiser.load_state_dict({**optimiser.state_dict(), "state": state})


def _below(name: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    prefix = f"{name}/"
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
