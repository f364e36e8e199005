from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from syncdisc_plugin import SyncWeight


def losses(
    scale: float = 1.0, loss: float | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sync loss, the others and the frames they come from; the gradients' norms are 4 and 2."""
    base = torch.ones(4, requires_grad=True)
    frames = base * 1.0
    sync = scale * 2 * frames.sum()
    return sync if loss is None else sync - sync.detach() + loss, frames.sum(), frames


def test_the_weighted_gradient_has_its_ratio() -> None:
    weight = SyncWeight(ratio=0.25, ramp_steps=0, largest=10)
    sync, rest, frames = losses()
    w = weight(sync, rest, frames)
    (g,) = torch.autograd.grad(w * sync, frames, retain_graph=True)
    (r,) = torch.autograd.grad(rest, frames, retain_graph=True)
    torch.testing.assert_close(g.norm(), 0.25 * r.norm())
    (rest + w * sync).backward()  # the graph is still there


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_scale_of_the_sync_loss_does_not_matter(scale: float) -> None:
    weight = SyncWeight(0.5, ramp_steps=0, largest=1e9)
    assert weight(*losses(scale)) * scale == pytest.approx(0.25)


def test_off_then_a_ramp() -> None:
    weight = SyncWeight(ratio=2.0, start_step=3, ramp_steps=4)
    seen = [weight(*losses()) for _ in range(10)]
    assert seen == pytest.approx([0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1, 1])


def test_a_vanished_gradient_does_not_lift_the_weight() -> None:
    weight = SyncWeight(ramp_steps=0)
    sync, rest, frames = losses()
    assert weight(sync * 0, rest, frames) == 0
    assert SyncWeight(ramp_steps=0)(sync * 1e-9, rest, frames) == 1.0


@pytest.mark.parametrize(("true", "part"), [(0.0, 1), (4.0, 1), (6.4, 0.25), (8.0, 0), (9.0, 0)])
def test_it_rests_where_true_frames_are(true: float, part: float) -> None:
    weight = SyncWeight(ratio=0.25, ramp_steps=0, largest=10, true_loss=true)
    assert weight(*losses()) == pytest.approx(0.125 * part)  # the sync loss is 8


def test_a_generator_that_is_pushed_stops_at_true_frames() -> None:
    """A loss that can be driven to 0, where the others do not hold it back."""

    def end(true: float) -> float:
        drawn = torch.full((8,), 2.0, requires_grad=True)
        optimiser = torch.optim.SGD([drawn], lr=0.05)
        weight = SyncWeight(10, ramp_steps=0, every=1, smoothing=0.5, largest=100, true_loss=true)
        for _ in range(400):
            frames = drawn * 1.0
            sync, rest = frames.square().mean(), (frames - 3).square().mean()
            optimiser.zero_grad()
            (rest + weight(sync, rest, frames) * sync).backward()
            optimiser.step()
        return float(drawn.detach().square().mean())

    assert end(0.0) < 0.5
    assert 1.0 < end(1.0) < 1.6


def test_it_falls_over_the_second_half_of_a_training_with_an_end() -> None:
    weight = SyncWeight(ratio=50, ramp_steps=0, largest=1e9, following_loss=0)
    parts = (0.0, 0.3, 0.5, 0.75, 1.0)
    seen = [weight(*losses(), part=part) for part in parts]
    assert seen == pytest.approx([25, 25, 25, 5, 1])  # as 50, 10 and 2 times half
    assert weight(*losses()) == pytest.approx(25)  # of one without an end
    assert weight(*losses(), part=1.2) == pytest.approx(1)  # of one that goes on beyond it
    level = SyncWeight(ratio=50, final_ratio=50, ramp_steps=0, largest=1e9)
    assert level(*losses(), part=1.0) == pytest.approx(25)


def test_it_falls_from_where_the_lips_follow() -> None:
    def seen(weight: SyncWeight, values: list[float]) -> list[float]:
        parts = [index / 10 for index in range(len(values))]
        return [weight(*losses(loss=v), part=p) for p, v in zip(parts, values, strict=True)]

    high, low = SyncWeight(**FOLLOWING), SyncWeight(**FOLLOWING)
    assert seen(high, [1.1] * 11)[4:6] == pytest.approx([25, 25])
    ratios = [value * 2 for value in seen(low, [1.1, 0.9, 0.9, 0.9, 0.9, 0.9] + [1.1] * 5)]
    fall = [50 * 25 ** -((part - 0.5) / 0.5) for part in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)]
    assert ratios == pytest.approx([50] * 5 + fall)  # the sixth measurement is believed
    sooner = SyncWeight(**FOLLOWING)
    for _ in range(6):
        sooner(*losses(loss=0.9), part=0.01)
    assert sooner(*losses(), part=0.01) == pytest.approx(25)
    assert sooner(*losses(), part=0.505) == pytest.approx(5)
    again = SyncWeight(**FOLLOWING)
    again.load_state_dict(sooner.state_dict())
    assert again(*losses(), part=1.0) == pytest.approx(1)
    older = {k: v for k, v in sooner.state_dict().items() if k != "falls_from"}
    again.load_state_dict(older)
    assert again(*losses(loss=1.1), part=0.4) == pytest.approx(25)
    again.load_state_dict(older)  # far into the second half, where its ratio was falling
    assert again(*losses(loss=1.1), part=0.75) == pytest.approx(5)


FOLLOWING: dict[str, Any] = {
    "ratio": 50, "ramp_steps": 0, "every": 1, "smoothing": 0.0, "largest": 1e9
}  # fmt: skip


def test_norms_are_measured_every_few_steps_and_smoothed() -> None:
    weight = SyncWeight(ratio=1.0, ramp_steps=0, every=2, smoothing=0.5, largest=1e9)
    seen = [weight(*losses(scale)) for scale in (1, 9, 3, 9, 3)]
    # Measured: 1, then the mean of 1 and 3, then half of that and half of 3.
    assert [0.5 / w for w in seen] == pytest.approx([1, 1, 2, 2, 2.5])


def test_an_overflow_is_no_measurement() -> None:
    weight = SyncWeight(ramp_steps=0, every=1, largest=100)
    before = weight(*losses())
    assert weight(*losses(float("inf"))) == before
    assert weight(*losses(float("nan"))) == before


@pytest.mark.parametrize("scalar", ["fp32", "fp16"])
def test_half_precision_gradients_do_not_vanish(scalar: str) -> None:
    frames = torch.rand(2, 3, 5, 256, 256).half().requires_grad_()
    frames = frames * 1
    rest = (frames.mean() if scalar == "fp16" else frames.float().mean()) * 1e-2
    sync = frames.float().mean() * 3e-2
    weight = SyncWeight(ratio=1.0, ramp_steps=0)
    assert weight(sync, rest, frames) == pytest.approx(1 / 3, rel=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_last_layer_under_autocast(dtype: torch.dtype) -> None:
    """Its weight is in fp32; the gradient's way to it is not."""
    torch.manual_seed(0)
    layer, x = torch.nn.Conv2d(4, 3, 1), torch.rand(1, 4, 256, 256)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        frames = layer(x)
    weight = SyncWeight(ratio=1.0, ramp_steps=0)
    rest = 1e-3 * frames.float().mean()
    assert weight(3 * rest, rest, layer.weight) == pytest.approx(1 / 3, rel=0.01)
    # A third of x's mean for each of 12 numbers.
    assert weight.state_dict()["means"][1] == pytest.approx(1e-3 * 12**0.5 / 6, rel=0.01)


def test_a_ratio_that_is_not_reached_is_said_once() -> None:
    weight = SyncWeight(ratio=50, ramp_steps=0, every=1)
    with pytest.warns(UserWarning, match=r"asks for a weight of 25 and gets largest=1.*larger"):
        assert weight(*losses()) == 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        weight(*losses())
        SyncWeight(ratio=50, ramp_steps=0, largest=30)(*losses())


def test_a_resumed_run_goes_on(tmp_path: Path) -> None:
    def run(weight: SyncWeight, steps: range) -> list[float]:
        return [weight(*losses(1 + step % 7)) for step in steps]

    whole = run(SyncWeight(start_step=2, ramp_steps=20, every=3), range(40))
    first = SyncWeight(start_step=2, ramp_steps=20, every=3)
    begun = run(first, range(17))
    torch.save({"sync_weight": first.state_dict()}, tmp_path / "host.pth")
    second = SyncWeight(start_step=2, ramp_steps=20, every=3)
    state = torch.load(tmp_path / "host.pth", weights_only=True)
    second.load_state_dict(state["sync_weight"])
    assert begun + run(second, range(17, 40)) == whole


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"ratio": 0}, "ratio: expected a number above 0, got 0"),
        ({"final_ratio": 0}, "final_ratio: expected a number above 0, got 0"),
        ({"start_step": -1}, "start_step: expected"),
        ({"ramp_steps": -1}, "ramp_steps: expected"),
        ({"every": 0}, "every: expected"),
        ({"smoothing": 1.0}, "smoothing: expected a number of at least 0 and below 1"),
        ({"ratio": "50"}, "ratio: expected a number above 0, got '50'"),
        ({"ratio": float("nan")}, "ratio: expected a number above 0, got nan"),
        ({"largest": 0}, "largest: expected"),
        ({"true_loss": -0.1}, "true_loss: expected a number of at least 0"),
    ],
)
def test_settings_out_of_range(words: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SyncWeight(**words)  # type: ignore[arg-type]


def test_mistakes_at_the_call() -> None:
    sync, rest, frames = losses()
    other = torch.ones(1, requires_grad=True).sum()
    for message, arguments in {
        r"sync_loss: expected a scalar, got \(4,\)\. Take its mean": (frames * 1, rest, frames),
        r"frames: expected a part of the generator's graph.*detached": (
            sync,
            rest,
            frames.detach(),
        ),
        r"rest_loss: expected .* but has no gradient": (sync, rest.detach(), frames),
        r"rest_loss: expected to depend on the frames": (sync, other, frames),
    }.items():
        with pytest.raises(ValueError, match=message):
            SyncWeight()(*arguments)
    with pytest.raises(ValueError, match=r"part: expected a number of at least 0, got -0\.5"):
        SyncWeight()(sync, rest, frames, part=-0.5)
    with pytest.raises(ValueError, match=r"state: expected step.*got \['epoch'\]"):
        SyncWeight().load_state_dict({"epoch": 3})


RANK = """
import sys, torch
import torch.distributed as dist
from syncdisc_plugin import SyncWeight
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
frames = torch.ones(4, requires_grad=True) * 1.0
print(SyncWeight(ratio=1.0, ramp_steps=0)((1 + rank) * frames.sum(), frames.sum(), frames))
dist.destroy_process_group()
"""


def test_ranks_agree_on_one_weight(tmp_path: Path) -> None:
    both = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), str(tmp_path / "meet")],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [float(p.communicate(timeout=120)[0]) for p in both]
    assert said == pytest.approx([1 / 1.5] * 2)


def test_large_half_precision_gradients_do_not_overflow() -> None:
    frames = torch.rand(1, 3, 5, 8, 8).half().requires_grad_() * 1
    weight = SyncWeight(ratio=1.0, ramp_steps=0)
    rest = frames.float().sum()
    assert weight(300 * rest, 100 * rest, frames) == pytest.approx(1 / 3, rel=0.01)


def test_a_resumed_run_goes_on_with_its_smoothed_gradients() -> None:
    """Of losses that rise from step to step; a mean that began anew would be another."""

    def new() -> SyncWeight:
        return SyncWeight(ramp_steps=0, every=1, largest=1e9)

    def go(weight: SyncWeight, steps: range) -> list[float]:
        return [weight(*losses(1 + step)) for step in steps]

    whole, first, second = go(new(), range(6)), new(), new()
    begun = go(first, range(3))
    second.load_state_dict(first.state_dict())
    assert begun + go(second, range(3, 6)) == whole


def test_it_rests_by_the_smoothed_loss() -> None:
    weight = SyncWeight(ratio=0.25, ramp_steps=0, every=10, largest=10, true_loss=4.0)
    first = weight(*losses())
    assert weight(*losses(0.1)) == first  # not measured at this step


def test_a_compiled_graph_that_gives_its_buffers_away_is_named() -> None:
    class Donating(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
            return x.sum()

        @staticmethod
        def backward(ctx: object, *_: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("compiled with non-empty donated buffers which requires ...")

    frames = torch.rand(2, 3, requires_grad=True)
    with pytest.raises(RuntimeError, match="donated_buffer = False before it is compiled"):
        SyncWeight()(frames.mean(), Donating.apply(frames), frames)
