"""What resumes: saved whole, put back in place, refused where it is of something else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from syncdisc_plugin.errors import RunError
from syncdisc_plugin.train.state import STATE, load_state, read_state, save_state


@dataclass
class Progress:
    step: int = 3


@dataclass
class Other:
    epoch: int = 0


def trained(width: int = 4) -> tuple[dict[str, nn.Module], dict[str, torch.optim.Optimizer]]:
    torch.manual_seed(width)
    net = nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width))
    optimiser = torch.optim.AdamW(net.parameters())
    net(torch.randn(8, 2)).square().sum().backward()
    optimiser.step()
    return {"net": net}, {"optimiser": optimiser}


def test_weights_buffers_and_moments_come_back(tmp_path: Path) -> None:
    nets, optimisers = trained()
    save_state(tmp_path, Progress(), nets, optimisers)
    fresh = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4))
    moments = torch.optim.AdamW(fresh.parameters())
    load_state(tmp_path, {"net": fresh}, {"optimiser": moments})
    for name, value in nets["net"].state_dict().items():
        torch.testing.assert_close(fresh.state_dict()[name], value, rtol=0, atol=0)
    was, now = (o.state_dict()["state"] for o in (optimisers["optimiser"], moments))
    assert was.keys() == now.keys() and len(was) == 4
    for index, kept in was.items():
        for name, value in kept.items():
            torch.testing.assert_close(now[index][name], value, rtol=0, atol=0)


def test_progress_alone_between_two_stages(tmp_path: Path) -> None:
    assert read_state(tmp_path, dict) is None
    save_state(tmp_path, Progress(step=0))
    assert read_state(tmp_path, dict) == {"step": 0}
    assert (tmp_path / STATE).stat().st_size < 1000


def test_progress_of_another_version_is_one_line(tmp_path: Path) -> None:
    save_state(tmp_path, Progress())
    with pytest.raises(RunError, match=r"of another version .*'step'.*new --out"):
        read_state(tmp_path, lambda raw: Other(**raw))


def test_a_state_of_other_nets_is_one_line(tmp_path: Path) -> None:
    save_state(tmp_path, Progress(), *trained(4))
    with pytest.raises(RunError, match=r"state\.safetensors: of other nets.*new --out"):
        load_state(tmp_path, *trained(5))
