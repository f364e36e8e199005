"""What training frameworks do to a model that has a SyncLoss inside, or beside it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from syncdisc_plugin.nn import Discriminator
from syncdisc_plugin.sync_loss import SyncLoss
from syncdisc_plugin.weights import save


@pytest.fixture
def path(tiny_net: Discriminator, tmp_path: Path) -> Path:
    return save(tiny_net, tmp_path / "tiny.safetensors")


class Generator(nn.Module):
    """Audio in, faces out; with the sync loss as a child, as hosts like to have it."""

    def __init__(self, sync: SyncLoss | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hear = nn.Sequential(nn.Linear(1280, 64), nn.BatchNorm1d(64), nn.ReLU())
        self.draw = nn.Linear(64, 3 * 5 * 32 * 32)
        self.sync = sync

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.draw(self.hear(mel.flatten(1)))).view(-1, 3, 5, 32, 32)


def batch(seed: int = 0, size: int = 4) -> torch.Tensor:
    return torch.rand(size, 1, 80, 16, generator=torch.Generator().manual_seed(seed)) * 8 - 4


def gradients(model: nn.Module) -> list[torch.Tensor]:
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def test_a_hundred_generator_steps_move_nothing(path: Path) -> None:
    """Buffers, weights and outputs of the judge, bit for bit; the generator does learn."""
    model = Generator(SyncLoss(path))
    frames = torch.rand(2, 3, 5, 96, 96)
    before = {k: v.clone() for k, v in model.sync.net.state_dict().items()}
    said = model.sync(frames, batch(size=2))
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    model.train()
    losses = []
    for step in range(100):
        mel = batch(step % 5)
        loss = model.sync(model(mel), mel)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    after = model.sync.net.state_dict()
    assert before.keys() == after.keys() and before
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert torch.equal(model.sync(frames, batch(size=2)), said)
    assert not model.sync.net.training
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_one_item_is_a_batch(path: Path) -> None:
    """Wav2Lip's own expert raises here: batch norm in training mode wants more than one."""
    model = Generator(SyncLoss(path)).train()
    model.hear[1].eval()
    model.sync(model(batch(size=1)), batch(size=1)).backward()
    assert all(g.isfinite().all() for g in gradients(model))


def test_old_checkpoints_load_and_new_ones_serve_without_it(path: Path, tmp_path: Path) -> None:
    with_sync, without = Generator(SyncLoss(path)), Generator()
    torch.save(without.state_dict(), tmp_path / "old.pth")
    with_sync.load_state_dict(torch.load(tmp_path / "old.pth", weights_only=True), strict=True)
    torch.save(with_sync.state_dict(), tmp_path / "new.pth")
    without.load_state_dict(torch.load(tmp_path / "new.pth", weights_only=True), strict=True)


def test_gradient_checkpointing(path: Path) -> None:
    sync, mel = SyncLoss(path), batch()
    plain, saving = Generator(), Generator()
    sync(plain(mel), mel).backward()
    frames = checkpoint(saving, mel, use_reentrant=False)
    checkpoint(lambda f: sync(f, mel), frames, use_reentrant=False).backward()
    for one, other in zip(gradients(plain), gradients(saving), strict=True):
        torch.testing.assert_close(one, other)


def test_checkpointing_runs_a_generator_no_more_often_than_it_must(path: Path) -> None:
    """Pieces of a batch are differentiated one by one, which is no reason to draw them anew."""
    sync, mel = SyncLoss(path), batch(size=40)
    model = Generator()
    calls = 0

    def step(mel: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return sync(model(mel), mel)

    checkpoint(step, mel, use_reentrant=False).backward()
    assert calls == 2


def test_a_host_that_is_built_on_no_device(path: Path) -> None:
    """FSDP2's way: shapes first, then weights where they belong."""
    with torch.device("meta"):
        model = Generator(SyncLoss(path))
    model.to_empty(device="cpu")
    plain, mel = SyncLoss(path), batch()
    x = torch.rand(len(mel), 3, 5, 96, 96)
    assert torch.equal(model.sync(x, mel), plain(x, mel))


def test_replicas_look_at_values_as_often_as_one(path: Path) -> None:
    """nn.DataParallel makes them anew for every call."""
    sync, mel = SyncLoss(path), batch()
    good = torch.rand(len(mel), 3, 5, 96, 96)
    sync._replicate_for_data_parallel()(good, mel)
    bad = good.clone()
    bad[0, 0, 0, 0, 0] = torch.nan
    for _ in range(3):  # no night ends for one batch
        sync._replicate_for_data_parallel()(bad, mel)


def test_compiled_steps_are_the_same(path: Path) -> None:
    """Through dynamo and AOT autograd; the code generator behind them needs a compiler."""
    sync, mel = SyncLoss(path), batch()
    plain, compiled = Generator(), Generator()

    def step(model: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda mel: sync(model(mel), mel)

    step(plain)(mel).backward()
    torch.compile(step(compiled), backend="aot_eager")(mel).backward()
    for one, other in zip(gradients(plain), gradients(compiled), strict=True):
        torch.testing.assert_close(one, other)


RANK = """
import os
import sys
import torch
import torch.distributed as dist
sys.path.insert(0, sys.argv[5])
from test_hosting import Generator, batch
from syncdisc_plugin.sync_loss import SyncLoss
rank, meeting, weights, how = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
inside = how.endswith("inside")
sync = SyncLoss(weights)
model = Generator(sync if inside else None).eval()  # batch norm would see half a batch
if how.startswith("ddp"):
    wrapped = torch.nn.parallel.DistributedDataParallel(model)
else:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    wrapped = fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
optimiser = torch.optim.SGD(wrapped.parameters(), lr=1.0)
for step in range(3):
    mel = batch(step)[2 * rank : 2 * rank + 2]
    loss = sync(wrapped(mel), mel)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
total = loss.detach() / 2
dist.all_reduce(total)
assert not list(sync.parameters()) and not sync.net.training
print(float(total), flush=True)
dist.destroy_process_group()
os._exit(0)  # FSDP's threads now and then abort an interpreter that ends in its own way
"""


@pytest.mark.parametrize("how", ["ddp beside", "ddp inside", "fsdp beside", "fsdp inside"])
def test_two_processes_train_as_one(path: Path, tmp_path: Path, how: str) -> None:
    """Under DDP and FSDP, the loss within the wrapped model or outside of it."""
    sync, model = SyncLoss(path), Generator().eval()
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
    for step in range(3):
        loss = sync(model(batch(step)), batch(step))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    arguments = [str(tmp_path / "meet"), str(path), how, str(Path(__file__).parent)]
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    done = [p.communicate(timeout=180) for p in ranks]
    assert [p.returncode for p in ranks] == [0, 0], done[0][1][-2000:]
    assert float(done[0][0]) == pytest.approx(loss.item(), rel=1e-4)
