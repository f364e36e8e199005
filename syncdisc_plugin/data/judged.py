"""STORE/judged.jsonl: what weights think of each clip, and which of several faces speaks.

A pass over the store: nothing is decoded again, no clip is changed, and none is left out unless a
`Choice` asks for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from syncdisc_plugin.atomic import write_text
from syncdisc_plugin.data.embed import Embedded, device_of, embed_clips
from syncdisc_plugin.data.manifest import Clip
from syncdisc_plugin.data.store import JUDGED, ClipStore
from syncdisc_plugin.nn.curve import (
    LEAST_WINDOWS,
    MAX_OFFSET,
    clearness,
    is_clear,
    offset_curve,
    similarity_by_offset,
)
from syncdisc_plugin.nn.judge import Judge
from syncdisc_plugin.nn.precision import choose_precision

SAME_OFFSET = 1  # frames; all faces of a video have one sound, and so one offset
CLEARLY_BETTER = 3.0  # standard errors


@dataclass(frozen=True)
class Judged:
    """What weights think of one clip."""

    clip_id: str
    """The clip."""
    weights: str
    """Who judged."""
    offset_frames: int
    """Where its curve peaks; > 0: audio early."""
    confidence: float
    """Maximum minus median of its curve."""
    clearness: float
    """How far the peak stands out, in standard errors (`nn.curve.clearness`)."""
    beside: int
    """Other faces in sight at the same time."""
    speaking: bool | None
    """Whether it is this face that is heard; None where the weights cannot tell."""
    reason: str
    """Why, in words."""

    def row(self) -> dict[str, Any]:
        """For the JSONL file."""
        return asdict(self)


def judge_clips(net: Judge, store: ClipStore, name: str, precision: str = "auto") -> list[Judged]:
    """Judge all clips of a store, with a progress bar; clips without a whole window are skipped.

    Args:
        net: weights of the store's spec.
        store: the clips.
        name: what the weights are called in the rows.
        precision: fp32, bf16, or auto: bf16 where it is faster.
    """
    precision = choose_precision(precision, device_of(net))
    bar = tqdm(store.clips, desc="judge", unit="clip", disable=None)
    out: list[Judged] = []
    # Clips come in the order of their sources; only those of one video are compared.
    for _, clips in groupby(embed_clips(net, store, bar, precision), key=lambda e: e.clip.source):
        out += judge_video(list(clips), store.spec.fps, name)
    return out


def write_judged(store: ClipStore, judged: Iterable[Judged]) -> Path:
    """Write STORE/judged.jsonl in place of an older one."""
    path = store.root / JUDGED
    write_text(path, "".join(json.dumps(one.row()) + "\n" for one in judged))
    return path


def judge_video(clips: Sequence[Embedded], fps: int, name: str) -> list[Judged]:
    """Judge the clips of one video.

    A face speaks if its similarity peaks clearly at some offset. Of faces that are in sight at the
    same time, one that does not is silent if another one does, and fits clearly better over the
    time that they share; so is one that peaks at another offset than the clearest of them. Several
    may speak: in a clip of a minute they take turns.
    """
    seen = [_Seen(clip, fps) for clip in clips]
    return [_judge(one, [o for o in seen if o is not one and one.shared(o)], name) for one in seen]


class _Seen:
    """A clip with its curve, and where it lies in its video."""

    def __init__(self, embedded: Embedded, fps: int) -> None:
        self.clip: Clip = embedded.clip
        self.table = similarity_by_offset(embedded.v, embedded.a).double().cpu().numpy()
        self.curve = offset_curve(embedded.v, embedded.a)
        self.clearness = clearness(self.curve, self.table)
        self.is_clear = is_clear(self.curve, self.table)
        self.offset = self.curve.offset_frames
        self.first = round(self.clip.start_s * fps)  # frames of the video, at the store's rate

    def shared(self, other: _Seen) -> range:
        """Frames of the video at which both have windows; none if there are too few to compare."""
        first = max(self.first, other.first)
        end = min(self.first + len(self.table), other.first + len(other.table))
        return range(first, end) if end - first >= LEAST_WINDOWS else range(0)

    def fit(self, frames: range, offset: int) -> np.ndarray:
        """Similarity of those windows to the audio at an offset; nan beyond the clip's sound."""
        return self.table[frames.start - self.first : frames.stop - self.first, offset + MAX_OFFSET]

    def beats(self, other: _Seen) -> bool:
        """Whether it fits the sound clearly better, at its own offset, over the shared time."""
        frames = self.shared(other)
        more = self.fit(frames, self.offset) - other.fit(frames, self.offset)
        more = more[np.isfinite(more)]
        if len(more) < LEAST_WINDOWS:
            return False
        # As in `clearness`: the scatter is that of similarities to sound that is not theirs.
        far = np.abs(np.arange(-MAX_OFFSET, MAX_OFFSET + 1) - self.offset) > MAX_OFFSET // 2
        chance = self.table[:, far].ravel(), other.table[:, far].ravel()
        scatter = float(np.sqrt(sum(np.nanvar(part) for part in chance)))
        return float(more.mean()) * len(more) ** 0.5 > CLEARLY_BETTER * max(scatter, 1e-6)


def _judge(one: _Seen, rivals: list[_Seen], name: str) -> Judged:
    best = max([one, *rivals], key=lambda s: (s.is_clear, s.clearness))
    peak = f"peak at {one.offset:+d} frames, clearness {one.clearness:.1f}"
    speaking: bool | None
    if not rivals:
        speaking = True if one.is_clear else None
        reason = f"alone in sight; {peak}" + ("" if one.is_clear else ": too little to tell")
    elif not best.is_clear:
        speaking, reason = None, f"none of {len(rivals) + 1} faces is clear; {peak}"
    elif best is one:
        speaking, reason = True, f"the clearest of {len(rivals) + 1} faces; {peak}"
    elif one.is_clear and abs(one.offset - best.offset) <= SAME_OFFSET:
        speaking, reason = True, f"clear, as face {best.clip.id} is: they take turns; {peak}"
    elif one.is_clear or best.beats(one):
        speaking = False
        reason = f"face {best.clip.id} speaks, at {best.offset:+d} frames; here {peak}"
    else:
        speaking = None
        reason = f"face {best.clip.id} is clear, but no better while both are seen; {peak}"
    return Judged(
        clip_id=one.clip.id,
        weights=name,
        offset_frames=one.offset,
        confidence=round(one.curve.confidence, 4),
        clearness=round(one.clearness, 2),
        beside=len(rivals),
        speaking=speaking,
        reason=reason,
    )
