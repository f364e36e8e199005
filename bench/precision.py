"""bf16 beside fp32 on this machine: the discriminator's step, its passes, the generator's step.

    python bench/precision.py [--device cpu] [--rounds 5]

Both in turn in every round, one thread; of each the fastest. Behind the choice that "auto" makes
on CPUs (syncdisc_plugin/nn/precision.py). Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from generator_integration.reference.generator import Generator
from syncdisc_plugin.nn import Discriminator
from syncdisc_plugin.nn.precision import autocast, choose_precision

ITEMS, FRAMES = 16, 32  # of the discriminator; the generator draws ITEMS windows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    device = torch.device(args.device)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"auto is {choose_precision('auto', device)} here")
    print(f"{'':24}{'fp32':>9}{'bf16':>9}   fp32 / bf16")
    for name, work in _works(device).items():
        best = dict.fromkeys(("fp32", "bf16"), float("inf"))
        for _ in range(args.rounds):
            for precision in best:
                best[precision] = min(best[precision], _seconds(work, device, precision))
        fp32, bf16 = best["fp32"], best["bf16"]
        print(f"{name:24}{fp32:8.3f}s{bf16:8.3f}s   {fp32 / bf16:.2f}")


def _works(device: torch.device) -> dict[str, Callable[[], torch.Tensor]]:
    """Name -> what is timed; a result that needs a gradient is carried back, too."""
    net = Discriminator().to(device)
    frames = torch.rand(ITEMS, FRAMES, 3, *net.spec.input_hw, device=device)
    mel = torch.randn(ITEMS, net.spec.mel.n_mels, 125, device=device)
    generator = Generator().to(device)
    t, size = net.spec.window_frames, generator.settings.size
    faces = torch.rand(ITEMS, t, 3, size, size, device=device)
    heard = torch.randn(ITEMS, t, 1, net.spec.mel.n_mels, net.spec.window_mels, device=device)

    def judge() -> torch.Tensor:
        return net.embed_frames(frames).float().sum() + net.embed_mel(mel).float().sum()

    def draw() -> torch.Tensor:
        return generator(faces, faces[:, :3], heard).float().sum()

    return {
        "discriminator, passes": torch.no_grad()(judge),
        "discriminator, step": judge,
        "generator, pass": torch.no_grad()(draw),
        "generator, step": draw,
    }


def _seconds(work: Callable[[], torch.Tensor], device: torch.device, precision: str) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    with autocast(device, precision):
        result = work()
    if result.requires_grad:
        result.backward()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
