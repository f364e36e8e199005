"""Score single videos: does each face fit the sound, and how far are they apart?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from syncdisc_plugin import weights
from syncdisc_plugin.data.embed import embed_frames, embed_mel
from syncdisc_plugin.data.prepare import Footage, PrepareSettings
from syncdisc_plugin.errors import FaceError
from syncdisc_plugin.nn import offset_curve
from syncdisc_plugin.nn.precision import choose_device
from syncdisc_plugin.timing import n_windows


@dataclass(frozen=True)
class Score:
    """The verdict on one face track."""

    track: int
    """Number of the track in the video."""
    start_s: float
    """Where it begins, in seconds of the video."""
    seconds: float
    """How long it is."""
    box: tuple[float, float, float, float]
    """Mean box x1, y1, x2, y2 in pixels."""
    offset_frames: int
    """> 0: the audio is early by that many frames of 1/25 s."""
    confidence: float
    """Maximum minus median of similarity over offset."""
    probability: float
    """Mean probability that the audio fits as it is."""
    probability_over_time: list[float]
    """One per window, that is per frame but for the last four."""
    similarity_over_offset: list[float]
    """31 mean similarities for offsets -15..15."""


@torch.no_grad()
def score(
    video: Path | str, ref: str | Path = "base", settings: PrepareSettings | None = None
) -> list[Score]:
    """How well every face of a video fits its audio.

    Raises:
        MediaError, FaceError: the video cannot be used; the message says why.
    """
    from syncdisc_plugin.faces import load_detector

    settings = settings or PrepareSettings()
    net = weights.load(ref, choose_device("auto"))
    detect = load_detector(settings.detector, models=settings.models, device=settings.device)
    footage = Footage(Path(video), detect, net.spec, settings.track)
    out = []
    for number, (track, tensors) in enumerate(footage.clips()):
        n = n_windows(track.n_frames, len(tensors["mel"]), net.spec)
        if not n:
            raise FaceError(f"{video}: a face track is shorter than a window (0.2 s).")
        v, a = embed_frames(net, tensors["frames"])[:n], embed_mel(net, tensors["mel"], n)
        curve = offset_curve(v, a)
        probability = torch.sigmoid(net.logit((v * a).sum(1).to(net.bias))).cpu().numpy()
        out.append(
            Score(
                track=number,
                start_s=round(footage.recording.start_s + track.start_frame / net.spec.fps, 3),
                seconds=round(track.n_frames / net.spec.fps, 3),
                box=_mean_box(track.boxes),
                offset_frames=curve.offset_frames,
                confidence=round(curve.confidence, 4),
                probability=round(float(probability.mean()), 4),
                probability_over_time=probability.round(4).tolist(),
                similarity_over_offset=np.nan_to_num(curve.similarity).round(4).tolist(),
            )
        )
    return out


def _mean_box(boxes: np.ndarray) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (round(float(v), 1) for v in boxes.mean(0))
    return x1, y1, x2, y2
