"""The resumable state of a run: one safetensors file, written atomically, no pickle."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from syncdisc_plugin.atomic import replacing
from syncdisc_plugin.errors import RunError
from syncdisc_plugin.train.gap import GapState


@dataclass
class Progress:
    """Where a run stands."""

    stage: int = 1
    """1, 2, 3; 4 when all is done."""
    step: int = 0
    """Steps done in this stage."""
    steps: int = 0
    """Steps that this stage is to take; 0 until it is known how long one takes."""
    seconds: float = 0.0
    """Wall-clock seconds of training so far, all sittings together."""
    step_seconds: float = 0.0
    """Seconds per step, measured in this run."""
    best: list[float] = field(default_factory=list)
    """Held-out scores, clip by clip, of this stage's best measurement."""
    measured_at: int = 0
    """Step of the last measurement."""
    since_best: int = 0
    """Measurements since then."""
    gap: GapState = field(default_factory=GapState)
    """Stage 2's controller."""


def save_state(
    run: Path,
    progress: Progress,
    net: torch.nn.Module,
    average: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
) -> None:
    """Write RUN/state.safetensors: weights, their average, the optimiser's moments, progress."""
    tensors: dict[str, torch.Tensor] = {}
    for name, module in (("net", net), ("average", average)):
        for key, value in module.state_dict().items():
            tensors[f"{name}.{key}"] = value.detach().cpu().contiguous()
    for index, moments in optimiser.state_dict()["state"].items():
        for key, value in moments.items():
            tensors[f"optimiser.{index}.{key}"] = torch.as_tensor(value).cpu().contiguous()
    with replacing(run / "state.safetensors") as temp:
        save_file(tensors, temp, {"progress": json.dumps(asdict(progress))})


def read_progress(run: Path) -> Progress | None:
    """Progress of the saved state; None when nothing has been saved yet."""
    path = run / "state.safetensors"
    if not path.exists():
        return None
    try:
        # Only the metadata is wanted; "pt" would open the file a second time by its name, and a
        # run that saves in between has put another file there.
        with safe_open(path, framework="numpy") as file:
            raw: dict[str, Any] = json.loads(file.metadata()["progress"])
        return Progress(**{**raw, "gap": GapState(**raw["gap"])})
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path}: damaged ({error}). Start again in a new --out.") from error


def load_state(
    run: Path, net: torch.nn.Module, average: torch.nn.Module, optimiser: torch.optim.Optimizer
) -> None:
    """Put the saved tensors back, in place."""
    with safe_open(run / "state.safetensors", framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    for name, module in (("net", net), ("average", average)):
        prefix = f"{name}."
        part = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
        module.load_state_dict(part, strict=True)
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimiser."):
            _, index, moment = key.split(".")
            state.setdefault(int(index), {})[moment] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
