"""The field's recipe: windows in ones, BCE of the cosine, half of the pairs false.

Source: Wav2Lip, `color_syncnet_train.py` and `hparams.py`: Adam 1e-4, batch 64; a false pair is
the audio of another window of the same clip; nothing is augmented.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tqdm import tqdm

from syncdisc_plugin.data.ahead import made_ahead
from syncdisc_plugin.data.augment import cut_input
from syncdisc_plugin.data.embed import embed_clips
from syncdisc_plugin.data.manifest import Clip
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.evaluate import metrics
from syncdisc_plugin.nn import Discriminator
from syncdisc_plugin.nn.judge import Judge
from syncdisc_plugin.nn.precision import autocast
from syncdisc_plugin.timing import mel_start

BATCH, RATE, MEASURES = 64, 1e-4, 8


def train_field(
    net: Judge,
    store: ClipStore,
    train: Sequence[Clip],
    dev: Sequence[Clip],
    *,
    minutes: float,
    seed: int,
    precision: str,
    out: Path,
) -> tuple[Judge, dict]:
    """Train for so many minutes, measuring included; the best weights on `dev`, and its log."""
    net.train()
    optimiser = torch.optim.Adam(net.parameters(), lr=RATE)
    usable = [c for c in train if store.windows(c) > 1]
    began, step, curve, best, kept = time.monotonic(), 0, [], -1.0, copy.deepcopy(net)
    due, bar, losses = 60 * minutes / MEASURES, tqdm(desc=out.name, disable=None), []
    with closing(made_ahead(partial(_batch, store, usable, seed), 0, threads=1)) as batches:
        for frames, mel, same in batches:
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
    save_file({k: v.contiguous() for k, v in kept.state_dict().items()}, out)
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


def _similarity(net: Judge, frames: torch.Tensor, mel: torch.Tensor) -> torch.Tensor:
    """In [0, 1] for both nets: the expert's embeddings are non-negative, ours are not."""
    similarity = net(frames, mel)
    return (1 + similarity) / 2 if isinstance(net, Discriminator) else similarity


def _measure(
    net: Judge, store: ClipStore, dev: Sequence[Clip], precision: str
) -> tuple[float, float]:
    embedded = list(embed_clips(net, store, dev, precision))
    return metrics.pair_accuracy(embedded), metrics.pm_accuracy(embedded, (15,))["15"]
