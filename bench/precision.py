"""bf16 beside fp32 on this machine, and fp32 with denormals, which the trainer of the generator
takes for zero on CPUs: passes and steps of the shipped discriminator and of the shipped generator.

    python bench/precision.py [--device cpu] [--rounds 5]

All in turn in every round, one thread; of each the fastest. Behind what
syncdisc_plugin/nn/precision.py chooses. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch

from generator_integration.reference.generator import load_generator
from syncdisc_plugin import weights
from syncdisc_plugin.nn.precision import autocast, choose_precision, denormals_as_zero

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
    print(f"{'':24}{'fp32':>9}{'bf16':>9}{'fp32 with denormals':>21}, as ratios of the first")
    for name, work in _works(device).items():
        best = dict.fromkeys(("fp32", "bf16", "denormals"), float("inf"))
        for _ in range(args.rounds):
            for way in best:
                with nullcontext() if way == "denormals" else denormals_as_zero():
                    seconds = _seconds(work, device, "bf16" if way == "bf16" else "fp32")
                best[way] = min(best[way], seconds)
        ratios = [best[way] / best["fp32"] for way in ("bf16", "denormals")]
        print(f"{name:24}{best['fp32']:8.3f}s{ratios[0]:9.2f}{ratios[1]:21.2f}")


def _works(device: torch.device) -> dict[str, Callable[[], torch.Tensor]]:
    """Name -> what is timed; a result that needs a gradient is carried back, too."""
    net = weights.load("base", device).train()
    frames = torch.rand(ITEMS, FRAMES, 3, *net.spec.input_hw, device=device)
    mel = torch.randn(ITEMS, net.spec.mel.n_mels, 125, device=device)
    generator = load_generator("base", device).train()
    t, size = net.spec.window_frames, generator.settings.size
    faces = torch.rand(ITEMS, t, 3, size, size, device=device)
    heard = torch.randn(ITEMS, t, 1, net.spec.mel.n_mels, net.spec.window_mels, device=device)

    def judge() -> torch.Tensor:
        return net.embed_frames(frames).float().sum() + net.embed_mel(mel).float().sum()

    def draw() -> torch.Tensor:
        # A mean over all pixels, as the losses of a generator are.
        return (generator(faces, faces[:, :3], heard).float() - faces).abs().mean()

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
