"""Figures of drawn frames: how well they are in sync, and how good they look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from experts import logit_of
from skimage.metrics import structural_similarity
from torch import nn

from generator_integration.reference.losses import load_lpips
from syncdisc_plugin.data.embed import Embedded, embed_frames
from syncdisc_plugin.evaluate import metrics
from syncdisc_plugin.evaluate.summary import summary
from syncdisc_plugin.nn.judge import Judge

PM = ("5", "15", "25")
MOUTH = ((0.6, 0.9), (0.25, 0.75))  # rows and columns, in sides of the detector's box
LEAST_ERROR = 1e-8  # 80 dB: what is the same
LPIPS_EVERY = 5  # frames


def embed_drawn(net: Judge, frames: np.ndarray) -> torch.Tensor:
    """Detector's boxes (F, S, S, 3) uint8 of any size -> (F - T + 1, D)."""
    side = net.spec.face_px
    if frames.shape[1] != side:
        how = cv2.INTER_AREA if side < frames.shape[1] else cv2.INTER_CUBIC
        frames = np.stack([cv2.resize(f, (side, side), interpolation=how) for f in frames])
    border = (net.spec.stored_px - side) // 2  # is cut off again
    return embed_frames(net, np.pad(frames, ((0, 0), (border, border), (border, border), (0, 0))))


def sync_figures(net: Judge, takes: Sequence[Embedded]) -> dict[str, Any]:
    """Of takes and the sound that they are to say."""
    scale, bias = logit_of(net)
    found = summary(takes, scale, bias)
    own = np.concatenate([_own(t) for t in takes])
    return {
        "pm_accuracy": {k: found["pm_accuracy"][k] for k in PM},
        "pm_accuracy_aligned": {k: found["pm_accuracy_aligned"][k] for k in PM},
        "offset_mae_frames": found["offset_mae_frames"],
        "offset_within_1": found["offset_within_1"],
        "similarity": float(own.mean()),
        "probability": float(metrics.probabilities(own, scale, bias).mean()),
    }


def preference(new: Sequence[Embedded], old: Sequence[Embedded]) -> dict[str, float]:
    """How often the judge finds the same frames nearer to the new sound than to the old one."""
    pairs = [(_own(n), _own(o)) for n, o in zip(new, old, strict=True)]
    return {
        "takes": float(np.mean([n.mean() > o.mean() for n, o in pairs])),
        "windows": float(np.mean(np.concatenate([n > o for n, o in pairs]))),
        "margin": float(np.mean([n.mean() - o.mean() for n, o in pairs])),
    }


def by_take(takes: Sequence[Embedded]) -> dict[str, list[float]]:
    """What two arms' takes are compared by."""
    return {
        "pm_15": [round(metrics.pm_hits(t, (15,))[0], 4) for t in takes],
        "similarity": [round(float(_own(t).mean()), 4) for t in takes],
    }


class Picture:
    """How near drawn frames come to the true ones, in their lower half; LPIPS of whole faces."""

    def __init__(self) -> None:
        self.lpips, self.said = load_lpips(torch.device("cpu"))

    def figures(self, drawn: np.ndarray, true: np.ndarray) -> dict[str, float | None]:
        """Of frames (F, S, S, 3) uint8: psnr_db, ssim, lpips, and sharpness, of 1 as the truth."""
        half = drawn.shape[1] // 2
        below, wanted = drawn[:, half:], true[:, half:]
        error = ((below.astype(np.float32) - wanted) / 255) ** 2
        error = error.mean(axis=(1, 2, 3)).clip(LEAST_ERROR)
        alike = [
            structural_similarity(a, b, channel_axis=2, data_range=255)
            for a, b in zip(below, wanted, strict=True)
        ]
        return {
            "psnr_db": float((-10 * np.log10(error)).mean()),
            "ssim": float(np.mean(alike)),
            "lpips": None if self.lpips is None else _lpips(self.lpips, drawn, true),
            "sharpness": sharpness(drawn, true),
        }


def sharpness(drawn: np.ndarray, true: np.ndarray) -> float:
    """Mean squared Laplacian of the mouth, over that of the true one."""
    return _edges(drawn) / max(1e-9, _edges(true))


def _edges(frames: np.ndarray) -> float:
    side = frames.shape[1]
    rows, columns = (slice(round(low * side), round(high * side)) for low, high in MOUTH)
    grey = frames[:, rows, columns].astype(np.float32).mean(axis=3)
    return float(np.mean([np.square(cv2.Laplacian(g, cv2.CV_32F)).mean() for g in grey]))


@torch.inference_mode()
def _lpips(net: nn.Module, drawn: np.ndarray, true: np.ndarray) -> float:
    pair = (
        torch.from_numpy(x[::LPIPS_EVERY]).permute(0, 3, 1, 2).float() / 127.5 - 1
        for x in (drawn, true)
    )
    return float(net(*pair).mean())


def _own(take: Embedded) -> np.ndarray:
    """(N,) similarity of each window to the sound beside it."""
    return (take.v * take.a).sum(-1).double().numpy()
