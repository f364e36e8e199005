"""The filter: what the first discriminator thinks of every clip -> the second dataset.

Two thresholds, both read off impostors (the clip's video with other clips' audio), so that they
fit any language, camera and net: a verdict is given to at most `false_accept` of impostors.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from syncdisc_plugin.data.embed import Embedded, device_of, embed_clips
from syncdisc_plugin.data.manifest import Clip, read_rows
from syncdisc_plugin.data.sampling import Item
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.errors import RunError
from syncdisc_plugin.nn import Discriminator
from syncdisc_plugin.nn.curve import MAX_OFFSET, OffsetCurve, offset_curve
from syncdisc_plugin.nn.precision import choose_precision
from syncdisc_plugin.ranges import check_range

SLOWEST_FPS = 25  # of a store: a clip is no longer than it would be at that


@dataclass(frozen=True)
class FilterSettings:
    """How the second dataset is chosen."""

    false_accept: float = 0.02
    """Share of impostor pairs that may pass as kept, and again as shifted."""
    tolerance_frames: int = 1
    """Offsets up to this count as in sync; the estimate itself is no finer."""
    max_shift_frames: int = 12
    """Offsets up to this are repaired; larger ones are too near the curve's end to be trusted."""
    overlearnt: float = 0.3
    """Least confidence, as a ratio of the median of the clips that pass: the net lends a little
    similarity to false pairs that it was trained on, more than it lends to impostors."""
    impostors: int = 8
    """Other clips' audio tried against each clip."""
    impostor_clips: int = 2000
    """Clips that this is tried with, at most; of more, a draw. Only their embeddings are kept."""

    def __post_init__(self) -> None:
        """Name the setting that is off."""
        check_range("--filter.false_accept", self.false_accept, least=0, below=1)
        check_range("--filter.tolerance_frames", self.tolerance_frames, least=0, below=MAX_OFFSET)
        check_range("--filter.max_shift_frames", self.max_shift_frames, least=0, below=MAX_OFFSET)
        check_range("--filter.overlearnt", self.overlearnt, least=0)
        check_range("--filter.impostors", self.impostors, least=1)
        check_range("--filter.impostor_clips", self.impostor_clips, least=1)


@dataclass(frozen=True)
class Verdict:
    """What becomes of one clip."""

    clip_id: str
    """The clip."""
    source: str
    """The video it came from."""
    verdict: str
    """kept, shifted or dropped."""
    offset_frames: int
    """Where its curve peaks; > 0: audio early."""
    lag_frames: float
    """The same between two frames, from a parabola through the peak."""
    confidence: float
    """Maximum minus median of its curve."""
    strength: float
    """confidence * sqrt(windows at that offset): comparable between long and short clips."""
    reason: str
    """Why, in words."""

    def row(self) -> dict[str, Any]:
        """For the JSONL file."""
        return asdict(self)


@dataclass(frozen=True)
class FilterResult:
    """Verdicts on all clips, and what they rest on."""

    verdicts: list[Verdict]
    """One per clip."""
    keep_threshold: float
    """Least strength of a kept clip."""
    shift_threshold: float
    """Least strength of a shifted clip."""
    least_confidence: float
    """Least confidence of either."""
    impostor_strengths: list[float]
    """Strengths of all impostor pairs."""

    def count(self, verdict: str) -> int:
        """How many clips got it."""
        return sum(v.verdict == verdict for v in self.verdicts)

    @property
    def counts(self) -> dict[str, int]:
        """How many clips got each verdict."""
        return {name: self.count(name) for name in ("kept", "shifted", "dropped")}

    @property
    def common_lag(self) -> int:
        """Median offset of the clips that were not dropped: a lag of the whole set, in frames.

        Only a judge that did not train on the set can see it.
        """
        sure = [v.offset_frames for v in self.verdicts if v.verdict != "dropped"]
        return round(float(np.median(sure))) if sure else 0


@dataclass(frozen=True)
class _Seen:
    """What is kept of a clip."""

    clip: Clip
    windows: int
    curve: OffsetCurve

    @property
    def strength(self) -> float:
        return _strength(self.curve, self.windows)


def judge_clips(
    clips: Iterable[Embedded], settings: FilterSettings | None = None, seed: int = 0
) -> FilterResult:
    """Give every clip its verdict. A clip alone has no impostors: any strength passes then."""
    settings = settings or FilterSettings()
    rng = np.random.default_rng([seed, 78])
    seen: list[_Seen] = []
    sample: list[Embedded] = []
    for clip in clips:
        seen.append(_Seen(clip.clip, len(clip.v), offset_curve(clip.v, clip.a)))
        # A reservoir: each clip stays with the same chance, however many are to come.
        if len(sample) < settings.impostor_clips:
            sample.append(clip)
        elif (at := int(rng.integers(len(seen)))) < len(sample):
            sample[at] = clip
    null = _impostors(sample, settings.impostors, seed)
    keep = _threshold(null, 0, settings.tolerance_frames, settings.false_accept)
    shift = _threshold(
        null, settings.tolerance_frames + 1, settings.max_shift_frames, settings.false_accept
    )
    strong = max(keep, shift)
    sure = [s.curve.confidence for s in seen if s.strength > strong]
    least = settings.overlearnt * float(np.median(sure)) if sure else 0.0
    verdicts = [_verdict(s, keep, shift, least, settings) for s in seen]
    return FilterResult(verdicts, keep, shift, least, [s for s, _ in null])


def judge_store(
    net: Discriminator,
    store: ClipStore,
    clips: Iterable[Clip],
    settings: FilterSettings | None = None,
    *,
    seed: int = 0,
    precision: str = "auto",
    lag: int = 0,
    title: str = "filter",
    stop: Callable[[], bool] = lambda: False,
) -> FilterResult:
    """Let a net judge clips of a store, with a progress bar.

    Arguments as in `embed_clips`; precision "auto" is bf16 where it is faster. Once `stop` says so
    no further clip is judged.
    """
    precision = choose_precision(precision, device_of(net))
    bar = tqdm(clips, desc=title, unit="clip", disable=None)
    wanted = takewhile(lambda _: not stop(), bar)
    return judge_clips(embed_clips(net, store, wanted, precision, lag), settings, seed)


def read_verdicts(flag: str, run: Path) -> tuple[Path, list[dict[str, Any]], int]:
    """The sharpest verdicts of a run, or those of `syncdisc filter`; `flag` named it.

    Returns:
        Their file, their rows, and the lag of the whole set that was undone before them.

    Raises:
        RunError: there are none.
    """
    # The second discriminator's, where there are.
    for name in ("filter-again.jsonl", "filter.jsonl"):
        if (run / name).exists():
            reference = run / "reference.json"
            lag = json.loads(reference.read_text())["lag_frames"] if reference.exists() else 0
            return run / name, list(read_rows(run / name)), lag
    raise RunError(
        f"{flag} {run}: holds no filter.jsonl. Name the --out of a `syncdisc train` or `filter` on "
        "the same store."
    )


def second_dataset(
    clips: Sequence[Clip], verdicts: Iterable[dict[str, Any]], lag: int = 0
) -> list[Item]:
    """What the filter leaves of `clips`, given rows of `Verdict`, aligned by their lags.

    `lag` is that of the whole set, which was undone before the clips were judged.
    """
    by_id = {row["clip_id"]: row for row in verdicts}
    rows = [(clip, by_id.get(clip.id)) for clip in clips]
    return [
        # Clips that are kept as in sync are aligned too: half a frame is seen by a sharp net.
        Item(clip, lag + row["lag_frames"])
        for clip, row in rows
        if row and row["verdict"] != "dropped"
    ]


def _strength(curve: OffsetCurve, windows: int) -> float:
    # A mean over n windows of unrelated sound scatters with 1/sqrt(n); near a clip's ends there is
    # no sound for a large offset.
    return curve.confidence * float(np.sqrt(windows - abs(curve.offset_frames)))


def _impostors(clips: Sequence[Embedded], per_clip: int, seed: int) -> list[tuple[float, int]]:
    """(strength, offset) of videos with the audio of other clips, other speakers' if there are."""
    rng = np.random.default_rng([seed, 77])
    groups = _apart([c.clip for c in clips])
    own: dict[str, list[int]] = defaultdict(list)
    for i, group in enumerate(groups):
        own[group].append(i)
    # How many of other groups come before each of a group: their numbers without a list of them.
    before = {group: np.array(mine) - np.arange(len(mine)) for group, mine in own.items()}
    out = []
    for clip, group in zip(clips, groups, strict=True):
        others = len(clips) - len(own[group])
        for _ in range(per_clip if others else 0):
            at = int(rng.integers(others))
            other = clips[at + int(np.searchsorted(before[group], at, side="right"))]
            n = min(len(clip.v), len(other.a))
            at_v = rng.integers(0, len(clip.v) - n + 1)
            at_a = rng.integers(0, len(other.a) - n + 1)
            curve = offset_curve(clip.v[at_v : at_v + n], other.a[at_a : at_a + n])
            out.append((_strength(curve, n), curve.offset_frames))
    return out


def _apart(clips: Sequence[Clip]) -> list[str]:
    """Of each clip its group: its speaker; its video, if there is one speaker; else its time."""
    for by in ("speaker", "source"):
        if len({getattr(c, by) for c in clips}) > 1:
            return [getattr(c, by) for c in clips]
    # Faces that are in sight at the same time have the same sound: one group.
    groups, group, end = [""] * len(clips), 0, -math.inf
    for i in sorted(range(len(clips)), key=lambda i: clips[i].start_s):
        group += clips[i].start_s >= end
        end = max(end, clips[i].start_s + clips[i].n_frames / SLOWEST_FPS)
        groups[i] = str(group)
    return groups


def _threshold(null: list[tuple[float, int]], low: int, high: int, rate: float) -> float:
    """Least strength that at most `rate` of all impostors reach at an offset in [low, high]."""
    inside = sorted((s for s, o in null if low <= abs(o) <= high), reverse=True)
    allowed = int(rate * len(null))
    return inside[allowed] if allowed < len(inside) else 0.0


def _verdict(
    seen: _Seen, keep: float, shift: float, least: float, settings: FilterSettings
) -> Verdict:
    curve, strength = seen.curve, seen.strength
    offset = curve.offset_frames
    size = abs(offset)
    needed = keep if size <= settings.tolerance_frames else shift
    side = "early" if offset > 0 else "late"
    if size > settings.max_shift_frames:
        verdict = "dropped"
        reason = f"peak at {offset} frames, too near the end of +-{MAX_OFFSET} to be trusted"
    elif strength <= needed:
        verdict = "dropped"
        reason = f"no clearer than an impostor (strength {strength:.2f}, needs {needed:.2f})"
    elif curve.confidence < least:
        verdict = "dropped"
        reason = f"far less clear than the others (confidence {curve.confidence:.3f} < {least:.3f})"
    elif size <= settings.tolerance_frames:
        verdict, reason = "kept", f"in sync (strength {strength:.2f}, needs {needed:.2f})"
    else:
        verdict = "shifted"
        reason = f"audio {size} frames {side} (strength {strength:.2f}, needs {needed:.2f})"
    return Verdict(
        seen.clip.id,
        seen.clip.source,
        verdict,
        offset,
        round(curve.lag_frames, 2),
        round(curve.confidence, 4),
        round(strength, 3),
        reason,
    )
