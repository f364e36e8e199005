"""Score single videos: does each face fit the sound, and how far are they apart?"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from syncdisc_plugin import weights
from syncdisc_plugin.errors import FaceError
from syncdisc_plugin.nn.curve import (
    CLEAR,
    MAX_OFFSET,
    clearness,
    is_clear,
    offset_curve,
    similarity_by_offset,
)
from syncdisc_plugin.nn.precision import choose_device
from syncdisc_plugin.timing import n_windows

if TYPE_CHECKING:  # loaded late: `syncdisc_plugin.score` must not cost a user of SyncLoss cv2
    from syncdisc_plugin.data.prepare import PrepareSettings

# The estimate is no finer against the eye: 40 ms are not seen.
IN_SYNC_FRAMES = 1
THUMBNAILS = 12
LONGEST_NAME = 200  # bytes of a video's name in that of its picture; file systems end at 255


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
    offset_ms: float
    """The same in milliseconds, finer than frames: from a parabola through the peak, and with
    what the resampling to 25 fps moved undone."""
    in_sync: bool | None
    """Whether the offset is one frame at most; None where no offset is clear enough to tell."""
    clearness: float
    """How far the best offset stands out, in standard errors (`nn.curve.clearness`); offsets are
    trusted from 6 on."""
    confidence: float
    """Maximum minus median of similarity over offset."""
    probability: float
    """Mean probability that the audio fits as it is."""
    probability_over_time: list[float]
    """One per window, that is per frame but for the last four."""
    similarity_over_offset: list[float | None]
    """31 mean similarities for offsets -15..15; None where no window has a sound."""
    picture: str | None = None
    """The PNG that shows all this, if one was asked for."""

    @property
    def is_beyond(self) -> bool:
        """Whether the sound seems off by as much as is looked, or by more."""
        return abs(self.offset_frames) == MAX_OFFSET and self.clearness >= CLEAR

    @property
    def verdict(self) -> str:
        """In words."""
        side = "early" if self.offset_ms > 0 else "late"
        if self.is_beyond:
            return f"cannot tell, audio seems {MAX_OFFSET} frames or more {side}"
        if self.in_sync is None:
            return "cannot tell, no offset stands out"
        ms = f"{abs(self.offset_ms):.0f} ms"
        if self.in_sync:
            return f"in sync (audio {ms} {side})"
        return f"audio {abs(self.offset_frames)} frames {side} ({ms})"


@dataclass(frozen=True)
class Seen:
    """A face track as the net sees it."""

    track: int
    """Number of the track in the video."""
    start_s: float
    """Where it begins, in seconds of the video."""
    n_frames: int
    """How many frames of 1/25 s it lasts."""
    box: tuple[float, float, float, float]
    """Mean box x1, y1, x2, y2 in pixels."""
    faces: np.ndarray
    """(K, S, S, 3) uint8, K <= 12 evenly spaced crops."""
    lead_s: float
    """How far the frames were taken after the moments they stand for, on average."""
    v: torch.Tensor
    """(N, D) unit embeddings of the video windows."""
    a: torch.Tensor
    """(N, D) unit embeddings of the audio windows."""

    @property
    def similarity(self) -> np.ndarray:
        """(N, 31) similarity of each window for offsets -15..15; nan where there is no sound."""
        return similarity_by_offset(self.v, self.a).numpy()


class Scorer:
    """A net and a face detector, loaded once for many videos.

    Raises:
        WeightsError, FaceError: one of them cannot be loaded.
    """

    def __init__(self, ref: str | Path = "base", settings: PrepareSettings | None = None) -> None:
        from syncdisc_plugin.data.prepare import PrepareSettings
        from syncdisc_plugin.faces import load_detector

        self.settings = (settings or PrepareSettings()).by_yunet()
        self.note: str | None = None
        """Why less than the whole of the last video was read, or a picture of it is missing; None
        when all is well."""
        self.net = weights.load(ref, choose_device("auto"))
        self.detect = load_detector(
            self.settings.detector,
            models=self.settings.models,
            device=self.settings.device,
            points=self.net.spec.crop == "aligned",
        )

    def __call__(self, video: Path | str, pictures: Path | str | None = None) -> list[Score]:
        """As `score`."""
        out, missing = [], None
        for seen in self.look(video):
            verdict = self.judge(seen)
            if pictures is not None:
                from syncdisc_plugin.evaluate.score_picture import write_picture

                name = Path(video).name
                path = Path(pictures) / f"{_fitting(name)}.face{seen.track}.png"
                try:
                    write_picture(path, name, verdict, seen, self.net.spec.fps)
                    verdict = replace(verdict, picture=str(path))
                except OSError as error:
                    missing = f"pictures: {path} cannot be written ({error.strerror or error})"
            out.append(verdict)
        self.note = "; ".join(words for words in (self.note, missing) if words) or None
        return out

    def look(self, video: Path | str) -> Iterator[Seen]:
        """Decode a video, follow its faces and embed them.

        Raises:
            MediaError, FaceError: the video cannot be used; the message says why.
        """
        from syncdisc_plugin.data.embed import embed_frames, embed_mel
        from syncdisc_plugin.data.footage import Footage
        from syncdisc_plugin.media.phase import frame_leads_s

        spec = self.net.spec
        footage = Footage(Path(video), self.detect, spec, self.settings.track)
        leads_s, found = frame_leads_s(footage.recording), False
        for number, (track, tensors) in enumerate(footage.clips()):
            n = n_windows(track.n_frames, len(tensors["mel"]), spec)
            if not n:
                continue
            found = True
            shown = min(THUMBNAILS, track.n_frames)
            x1, y1, x2, y2 = (round(float(edge), 1) for edge in track.boxes.mean(0))
            yield Seen(
                track=number,
                start_s=round(footage.recording.start_s + track.start_frame / spec.fps, 3),
                n_frames=track.n_frames,
                box=(x1, y1, x2, y2),
                faces=track.crops[[int((i + 0.5) / shown * track.n_frames) for i in range(shown)]],
                lead_s=float(leads_s[track.start_frame :][: track.n_frames].mean()),
                v=embed_frames(self.net, tensors["frames"])[:n],
                a=embed_mel(self.net, tensors["mel"], n),
            )
        self.note = footage.recording.note
        if not found:
            raise FaceError(
                f"{video}: no face stays for a window ({spec.window_frames} frames). Raise "
                "--track.min_frames to be told why."
            )

    @torch.no_grad()
    def judge(self, seen: Seen) -> Score:
        """The verdict on one track."""
        table = seen.similarity
        curve = offset_curve(seen.v, seen.a)
        offset = curve.offset_frames
        fit = torch.from_numpy(table[:, MAX_OFFSET])
        probability = torch.sigmoid(self.net.logit(fit.to(self.net.bias))).double().cpu().numpy()
        fps = self.net.spec.fps
        return Score(
            track=seen.track,
            start_s=seen.start_s,
            seconds=round(seen.n_frames / fps, 3),
            box=seen.box,
            offset_frames=offset,
            offset_ms=round(1000 * (curve.lag_frames / fps + seen.lead_s), 1),
            in_sync=abs(offset) <= IN_SYNC_FRAMES if is_clear(curve, table) else None,
            clearness=round(clearness(curve, table), 2),
            confidence=round(curve.confidence, 4),
            probability=round(float(probability.mean()), 4),
            probability_over_time=[round(p, 4) for p in probability.tolist()],
            similarity_over_offset=curve.listed(),
        )


def _fitting(name: str) -> str:
    """A video's name, shortened where no file system could hold a longer one made of it."""
    whole = os.fsencode(name)
    if len(whole) <= LONGEST_NAME:
        return name
    return f"{whole[:LONGEST_NAME].decode(errors='ignore')}-{hashlib.sha256(whole).hexdigest()[:8]}"


def score(
    video: Path | str,
    ref: str | Path = "base",
    settings: PrepareSettings | None = None,
    *,
    pictures: Path | str | None = None,
) -> list[Score]:
    """How well every face of a video fits its audio. For many videos keep a `Scorer`.

    Args:
        video: a file with picture and sound.
        ref: weights: a shipped name, or a checkpoint.
        settings: the face detector and how faces are followed.
        pictures: a folder; a PNG of each face track is written there.

    Returns:
        One verdict per face track; a track is cut after 60 s.

    Raises:
        MediaError, FaceError, WeightsError: the video cannot be used; the message says why.
    """
    return Scorer(ref, settings)(video, pictures)


def surest(scores: Sequence[Score]) -> Score | None:
    """The clear score with the most confidence times seconds; None where none is clear."""
    clear = [s for s in scores if s.in_sync is not None]
    return max(clear, key=lambda s: s.confidence * s.seconds, default=None)
