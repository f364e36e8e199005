"""What a sync loss costs, and what its gradient does: ours beside the field's experts.

    python bench/sync_loss.py [--threads 2] [--batch 16] [--inputs 10000] [--only speed|stress]

Speed: forward and backward to the frames, fp32, the rounds of both taking turns; peak memory in a
process of its own for each, weights included. Experts have random weights and are frozen, in eval
mode. Stress: the gradient of every input alone, and that of BCE of the same net's cosine.
Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from tqdm import tqdm

from syncdisc_plugin import SyncLoss

Step = Callable[[], None]


@dataclass(frozen=True)
class Setting:
    """One host's call: frames (B, 3, T, side, side) and mel (B, 1, 80, L)."""

    expert: str
    t: int
    side: int
    mels: int
    value_range: str

    def batch(self, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        rng = torch.Generator().manual_seed(0)
        frames = torch.rand(n, 3, self.t, self.side, self.side, generator=rng)
        if self.value_range == "-1..1":
            frames = frames * 2 - 1
        return frames.requires_grad_(), torch.rand(n, 1, 80, self.mels, generator=rng) * 8 - 4


SETTINGS = {
    "wav2lip": Setting("Wav2Lip's expert", 5, 96, 16, "0..1"),
    "latentsync": Setting("LatentSync's 16-frame net", 16, 256, 52, "-1..1"),
}


def ours(setting: Setting, n: int) -> Step:
    sync = SyncLoss(value_range=setting.value_range)
    frames, mel = setting.batch(n)

    def step() -> None:
        frames.grad = None
        sync(frames, mel).backward()

    return step


def theirs(setting: Setting, n: int) -> Step:
    """BCE of the cosine, as the host computes it; the audio's embedding needs no gradient."""
    from syncdisc_plugin.nn.foreign import StableSyncNet, Wav2LipExpert

    torch.manual_seed(0)
    net = (Wav2LipExpert() if setting.side == 96 else StableSyncNet()).eval().requires_grad_(False)
    frames, mel = setting.batch(n)

    def step() -> None:
        frames.grad = None
        lower = frames[..., setting.side // 2 :, :]
        stacked = rearrange(lower, "b c t h w -> b (t c) h w")
        v, a = net.encode_frames(stacked), net.encode_mel(mel)
        similarity = F.cosine_similarity(a, v).clamp(0, 1)
        F.binary_cross_entropy(similarity, torch.ones(n)).backward()

    return step


SIDES = {"ours": ours, "theirs": theirs}


def speed(name: str, n: int, rounds: int) -> None:
    setting = SETTINGS[name]
    steps = {side: make(setting, n) for side, make in SIDES.items()}
    seconds: dict[str, list[float]] = {side: [] for side in steps}
    for turn in tqdm(range(rounds + 1), desc=name, disable=None):
        for side, step in steps.items():
            began = time.perf_counter()
            step()
            if turn:  # the first warms up
                seconds[side].append(time.perf_counter() - began)
    pace = {side: statistics.median(s) for side, s in seconds.items()}
    ratios = [b / a for a, b in zip(seconds["ours"], seconds["theirs"], strict=True)]
    peak = {side: _peak_in_a_process(name, side, n) for side in steps}
    print(
        f"B={n}, T={setting.t}, {setting.side}x{setting.side}, fp32, forward + backward to the "
        f"frames, median of {rounds}\n"
        f"  ours: {1000 * pace['ours']:.0f} ms, {peak['ours']:.0f} MB\n"
        f"  {setting.expert}: {1000 * pace['theirs']:.0f} ms, {peak['theirs']:.0f} MB\n"
        f"  {statistics.median(ratios):.1f} times faster ({min(ratios):.1f} to {max(ratios):.1f}), "
        f"{peak['ours'] / peak['theirs']:.2f} of the peak memory"
    )


def _peak_in_a_process(name: str, side: str, n: int) -> float:
    """MB above a process that has imported torch and made the batch."""
    command = [sys.executable, __file__, "--threads", str(torch.get_num_threads())]
    command += ["--batch", str(n), "--peak", name, side]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def _peak(name: str, side: str, n: int) -> float:
    SETTINGS[name].batch(n)
    before = _highest_mb()
    step = SIDES[side](SETTINGS[name], n)
    for _ in range(2):
        step()
    return _highest_mb() - before


def _highest_mb() -> float:
    """Most memory that this process held; getrusage would count its parent's, before exec."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(r"VmHWM:\s+(\d+)", status).group(1)) / 1024  # type: ignore[union-attr]


# What a generator may come up with, from frames (3, 5, 96, 96) in [0, 1].
INPUTS: dict[str, Callable[[torch.Tensor, torch.Generator], torch.Tensor]] = {
    "noise": lambda x, g: x,
    "smooth": lambda x, g: F.interpolate(x[:, :, ::12, ::12], (96, 96), mode="bilinear"),
    "black": lambda x, g: x * 0,
    "white": lambda x, g: x * 0 + 1,
    "one colour": lambda x, g: x * 0 + torch.rand(3, 1, 1, 1, generator=g),
    "saturated": lambda x, g: (x > 0.5).float(),
    "all but constant": lambda x, g: 0.5 + 1e-4 * x,
    "tiny values": lambda x, g: x * 1e-20,
    "stripes": lambda x, g: (torch.arange(96) % 2).float().expand(3, 5, 96, 96),
    "0..255 for 0..1": lambda x, g: x * 255,
    "-1..1 for 0..1": lambda x, g: x * 2 - 1,
    "huge values": lambda x, g: (x - 0.5) * 1e6,
}


def stress(count: int, batch: int = 20) -> None:
    """Every input's own gradient: ours, and BCE of the cosine of the same embeddings."""
    sync = SyncLoss(reduction="sum")
    sync(torch.rand(1, 3, 5, 96, 96), torch.zeros(1, 1, 80, 16))  # values are looked at once
    rng, rows = torch.Generator().manual_seed(1), {}
    kinds = list(INPUTS)
    sizes = [count // len(kinds) + (i < count % len(kinds)) for i in range(len(kinds))]
    bar = tqdm(total=count, desc="stress", disable=None)
    for kind, size in zip(kinds, sizes, strict=True):
        norms: dict[str, list[float]] = {"ours": [], "bce": []}
        similar: list[float] = []
        for first in range(0, size, batch):
            n = min(batch, size - first)
            x = torch.rand(n, 3, 5, 96, 96, generator=rng)
            x = torch.stack([INPUTS[kind](one, rng) for one in x]).requires_grad_()
            mel = torch.rand(n, 1, 80, 16, generator=rng) * 8 - 4
            mel[:: max(1, n // 4)] = -4  # some of them silent
            (ours,) = torch.autograd.grad(sync(x, mel), x)
            part, edges = sync.format.cut(sync.format.split(x), sync.spec)
            cosine = sync.net(sync.format.read(part, edges, sync.spec), mel[:, 0])
            # As torch's BCELoss but for its refusal of what is outside [0, 1].
            loss = -torch.log(cosine.clamp(0, 1)).clamp(min=-100)
            (bce,) = torch.autograd.grad(loss.sum(), x)
            for name, grad in (("ours", ours), ("bce", bce)):
                norms[name] += grad.flatten(1).norm(dim=1).tolist()
            similar += cosine.tolist()
            bar.update(n)
        rows[kind] = norms, similar
    bar.close()
    print(
        f"{count} inputs; gradient at the frames, per sample; bound {sync.max_gradient:g}\n"
        f"{'input':18} {'n':>5}  {'lowest cosine':>13}  {'ours: not finite':>16} {'largest':>9}  "
        f"{'BCE(cosine): not finite':>23} {'largest':>9} {'none':>5} {'refused':>8}"
    )
    failed = 0
    for kind, (norms, similar) in rows.items():
        bad = {k: sum(v != v or v == float("inf") for v in n) for k, n in norms.items()}
        top = {k: max((v for v in n if v < float("inf")), default=0.0) for k, n in norms.items()}
        failed += bad["ours"] + (top["ours"] > 1.0001 * sync.max_gradient)
        none, refused = sum(v == 0 for v in norms["bce"]), sum(s < 0 for s in similar)
        cells = [f"{kind:18} {len(similar):5}", f"{min(similar):13.3f}"]
        cells += [f"{bad['ours']:16} {top['ours']:9.3g}"]
        cells += [f"{bad['bce']:23} {top['bce']:9.3g} {none:5} {refused:8}"]
        print("  ".join(cells))
    print(
        "none: no gradient at all. refused: cosine below 0, which torch's BCELoss raises on "
        "(an assert on a GPU)."
    )
    if failed:
        sys.exit(f"{failed} gradients of ours were not finite or above the bound")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--inputs", type=int, default=10000)
    parser.add_argument("--only", choices=["speed", "stress"])
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.peak:
        print(_peak(*args.peak, args.batch))
        return
    if args.only != "stress":
        speed("wav2lip", args.batch, args.rounds)
        speed("latentsync", 1, 3)
    if args.only != "speed":
        stress(args.inputs)


if __name__ == "__main__":
    main()
