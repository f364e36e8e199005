"""The field's recipe: windows in ones, BCE of the cosine, half of the pairs false.

Source: Wav2Lip, `color_syncnet_train.py` and `hparams.py`: Adam 1e-4, batch 64; a false pair is
the audio of another window of the same clip; nothing is augmented.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from safetensors.torch import save_file
from tqdm import tqdm

from syncdisc_plugin.data.augment import cut_input
from syncdisc_plugin.data.embed import Embedded, embed_clips
from syncdisc_plugin.data.store import Clip, ClipStore
from syncdisc_plugin.evaluate import metrics
from syncdisc_plugin.nn import Discriminator
from syncdisc_plugin.nn.foreign import Wav2LipExpert
from syncdisc_plugin.nn.precision import autocast
from syncdisc_plugin.timing import mel_start

BATCH, RATE, MEASURES = 64, 1e-4, 8


def train_field(
    net: Wav2LipExpert | Discriminator,
    store: ClipStore,
    train: Sequence[Clip],
    dev: Sequence[Clip],
    *,
    minutes: float,
    seed: int,
    precision: str,
    out: Path,
) -> tuple[torch.nn.Module, dict]:
    """Train for so many minutes, measuring included; the best weights on `dev`, and its log."""
    net.train()
    optimiser = torch.optim.Adam(net.parameters(), lr=RATE)
    usable = [c for c in train if store.windows(c) > 1]
    began, step, curve, best, kept = time.monotonic(), 0, [], -1.0, copy.deepcopy(net)
    due, bar, losses = 60 * minutes / MEASURES, tqdm(desc=out.name, disable=None), []
    with ThreadPoolExecutor(1) as loader:
        coming = loader.submit(_batch, store, usable, seed, 0)
        while True:
            frames, mel, same = coming.result()
            coming = loader.submit(_batch, store, usable, seed, step + 1)
            with autocast(torch.device("cpu"), precision):
                similarity = _similarity(net, frames, mel)
            loss = F.binary_cross_entropy(similarity.float().clamp(0, 1), same)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            step += 1
            losses.append(float(loss.detach()))
            bar.set_postfix(loss=f"{np.mean(losses[-50:]):.3f}")
            bar.update()
            seconds = time.monotonic() - began
            if seconds >= due * (len(curve) + 1):
                pairs, pm = _measure(net, store, dev, precision)
                curve.append(
                    {
                        "seconds": round(time.monotonic() - began, 1),
                        "step": step,
                        "loss": round(float(np.mean(losses[-50:])), 4),
                        "pair_accuracy": pairs,
                        "pm_accuracy_15": pm,
                    }
                )
                if pairs + pm > best:
                    best, kept = pairs + pm, copy.deepcopy(net)
                if len(curve) == MEASURES:
                    break
    bar.close()
    save_file(kept.state_dict(), out)
    return kept, {
        "steps": step,
        "pairs": step * BATCH,
        "seconds": curve[-1]["seconds"],
        "curve": curve,
    }


def _batch(
    store: ClipStore, clips: Sequence[Clip], seed: int, step: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(64, 5, 3, h, w) in [0, 1] RGB, (64, 80, 16), (64,) 1 for a true pair."""
    rng = np.random.default_rng([seed, step])
    spec, frames, mels = store.spec, [], []
    same = (rng.random(BATCH) < 0.5).astype(np.float32)
    for true in same:
        clip = clips[rng.integers(len(clips))]
        n = store.windows(clip)
        seen = int(rng.integers(n))
        heard = seen if true else int((seen + rng.integers(1, n)) % n)
        frames.append(cut_input(store.frames(clip, seen, seen + spec.window_frames), spec))
        m0 = mel_start(heard, spec)
        mels.append(store.mel(clip, m0, m0 + spec.window_mels))
    x = torch.from_numpy(np.stack(frames)).permute(0, 1, 4, 2, 3).float() / 255
    return x, torch.from_numpy(np.stack(mels)).transpose(1, 2), torch.from_numpy(same)


def _similarity(
    net: Wav2LipExpert | Discriminator, frames: torch.Tensor, mel: torch.Tensor
) -> torch.Tensor:
    """In [0, 1] for both nets: the expert's embeddings are non-negative, ours are not."""
    if isinstance(net, Discriminator):
        return (1 + net(frames, mel)) / 2
    a, v = net(mel[:, None], as_channels(frames))
    return (a * v).sum(1)


def as_channels(frames: torch.Tensor) -> torch.Tensor:
    """RGB frames (B, T, 3, h, w) as Wav2Lip stacks them: (B, T * 3, h, w) in BGR."""
    return rearrange(frames.flip(2), "b t c h w -> b (t c) h w")


@torch.no_grad()
def embed(
    net: Wav2LipExpert | Discriminator, store: ClipStore, clips: Sequence[Clip], precision: str
) -> list[Embedded]:
    """Every window of the clips through either net."""
    if isinstance(net, Discriminator):
        return list(embed_clips(net, store, clips, precision))
    was_training, out = net.training, []
    net.eval()
    for clip in clips:
        n, spec = store.windows(clip), store.spec
        seen = torch.from_numpy(np.ascontiguousarray(cut_input(store.frames(clip), spec)))
        seen = seen.permute(0, 3, 1, 2).float() / 255
        heard = torch.from_numpy(np.ascontiguousarray(store.mel(clip).T))
        v, a = [], []
        for first in range(0, n, 64):
            part = range(first, min(n, first + 64))
            frames = torch.stack([seen[i : i + spec.window_frames] for i in part])
            starts = [mel_start(i, spec) for i in part]
            mel = torch.stack([heard[:, s : s + spec.window_mels] for s in starts])
            with autocast(torch.device("cpu"), precision):
                one, other = net(mel[:, None], as_channels(frames))
            a.append(one.float())
            v.append(other.float())
        if n:
            out.append(Embedded(clip, torch.cat(v), torch.cat(a)))
    net.train(was_training)
    return out


def _measure(
    net: Wav2LipExpert | Discriminator, store: ClipStore, dev: Sequence[Clip], precision: str
) -> tuple[float, float]:
    embedded = embed(net, store, dev, precision)
    return metrics.pair_accuracy(embedded), metrics.pm_accuracy(embedded, (15,))["15"]
