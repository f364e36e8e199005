"""The resumable state of a generator's training: one safetensors file, whole or not there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from syncdisc_plugin.atomic import replacing
from syncdisc_plugin.errors import RunError

NAME = "state.safetensors"


@dataclass
class Progress:
    """Where a run stands."""

    step: int = 0
    """Steps done."""
    seconds: float = 0.0
    """Wall-clock seconds of training so far, all sittings together."""
    weights: dict[str, dict[str, Any]] = field(default_factory=dict)
    """States of the losses' `SyncWeight`s, by name."""


def save_state(
    run: Path,
    progress: Progress,
    modules: Mapping[str, torch.nn.Module],
    optimisers: Mapping[str, torch.optim.Optimizer],
) -> None:
    """Write RUN/state.safetensors: weights, optimisers' moments and progress."""
    tensors: dict[str, torch.Tensor] = {}
    for name, module in modules.items():
        for key, value in module.state_dict().items():
            tensors[f"{name}/{key}"] = value.detach().cpu().contiguous()
    for name, optimiser in optimisers.items():
        for index, moments in optimiser.state_dict()["state"].items():
            for key, value in moments.items():
                tensors[f"{name}/{index}/{key}"] = torch.as_tensor(value).cpu().contiguous()
    with replacing(run / NAME) as temp:
        save_file(tensors, temp, {"progress": json.dumps(asdict(progress))})


def read_progress(run: Path) -> Progress | None:
    """Progress of the saved state; None when nothing has been saved yet.

    Raises:
        RunError: the file is damaged.
    """
    path = run / NAME
    if not path.exists():
        return None
    try:
        # "pt" would open the file a second time by its name, and a run that saves meanwhile has
        # put another file there.
        with safe_open(path, framework="numpy") as file:
            return Progress(**json.loads(file.metadata()["progress"]))
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path}: damaged ({error}). Start again in a new --out.") from error


def load_state(
    run: Path,
    modules: Mapping[str, torch.nn.Module],
    optimisers: Mapping[str, torch.optim.Optimizer],
) -> None:
    """Put the saved tensors back, in place."""
    with safe_open(run / NAME, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    for name, module in modules.items():
        module.load_state_dict(_below(name, tensors), strict=True)
    for name, optimiser in optimisers.items():
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in _below(name, tensors).items():
            index, moment = key.split("/")
            state.setdefault(int(index), {})[moment] = value
        optimiser.load_state_dict({**optimiser.state_dict(), "state": state})


def _below(name: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    prefix = f"{name}/"
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
