"""Does the judge suit a host's crops, colours and alignment? Real pairs against false ones.

A mismatched expert is what ruins runs: it gives a loss, a gradient, and no sync.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from syncdisc_plugin.frames import VALUE_RANGES, Box, FrameFormat, fills
from syncdisc_plugin.nn.curve import MAX_OFFSET, similarity_by_offset
from syncdisc_plugin.nn.judge import Judge
from syncdisc_plugin.objective import Objective
from syncdisc_plugin.sound import check_mel_values, check_waveform_values, sound_windows
from syncdisc_plugin.spec import ClipSpec

SUITS, DOUBTFUL = 0.75, 0.6  # share of true pairs above false ones
GAIN = 0.04  # least relative gain of the gap that is worth an advice
SURE = 3.5  # standard errors above which the best of many tries is no noise
FEWEST = 8  # pairs, below which even noise now and then looks as if it suited
POOL = 8  # single items that are put together to one batch
ARGUMENTS = ("frames", "mel", "waveform", "start")
BORDER = 0.125  # of the box, added or cut off on each side, when other crops are tried


@dataclass(frozen=True)
class SyncCheck:
    """What real batches of a host say about the weights."""

    items: int
    """Items looked at."""
    accuracy: float
    """Share of (true, false) pairs that the judge ranks rightly; 0.5 is chance. False: the same
    faces with the audio of the batch's other items."""
    error: float
    """Standard error of `accuracy`, over items."""
    probability_true: float
    """Mean calibrated probability of the true pairs, window by window."""
    probability_false: float
    """Mean calibrated probability of the false pairs."""
    loss_true: float
    """Mean sync loss of the true pairs, by the SyncLoss's own options: what a generator can hope to
    reach."""
    offset_frames: int | None
    """How early the audio is, if it is clearly off; None where items are too short to tell."""
    gains: dict[str, float]
    """By how much the gap between the similarities of true and false pairs grows, relatively, if
    the same batches are read in another way."""
    advice: str
    """What to do, in one line; empty if nothing."""

    @property
    def ok(self) -> bool:
        """True if the judge suits the host as it is called."""
        return self.accuracy >= SUITS and not self.advice

    def __str__(self) -> str:
        """One line to print."""
        head = (
            f"sync.check: {self.items} real pairs beat other audio in {self.accuracy:.0%} "
            f"(± {self.error:.0%}; chance 50%), probability {self.probability_true:.2f} against "
            f"{self.probability_false:.2f}, loss {self.loss_true:.2f}"
        )
        said = f"{head}. {self.advice or 'The weights suit these batches.'}"
        if self.offset_frames is None:
            said += (
                " Not looked at: whether the audio is early or late; items are too short. Give "
                "longer ones, or waveform= and start=."
            )
        return said


@dataclass(frozen=True)
class Reading:
    """One way to read a host's frames."""

    advice: str
    """What to tell the host if it is better than the host's own; empty for that one."""
    how: FrameFormat
    padded: bool = False
    """Whether the frames' edges are repeated first: a wider crop, as far as one can be made."""

    def read(self, frames: torch.Tensor, spec: ClipSpec) -> torch.Tensor:
        """A host's frames as the net would see them, (B, F, 3, h, w)."""
        x = self.how.split(frames)
        if self.padded:
            rows, columns = (round(BORDER * s) for s in x.shape[-2:])
            flat = x.flatten(0, 1).float()
            flat = F.pad(flat, (columns, columns, rows, rows), mode="replicate")
            x = flat.unflatten(0, x.shape[:2])
        return self.how.read(*self.how.cut(x, spec), spec)


@torch.no_grad()
def check(
    net: Judge,
    how: FrameFormat,
    batches: Iterable[Any],
    most_items: int = 256,
    objective: Objective = Objective(),
) -> SyncCheck:
    """Judge true and false pairs of real batches, read as `how` says and in other ways.

    Args:
        net: a judge in eval mode.
        how: what the host says of its frames.
        batches: (frames, mel) pairs, or mappings with frames and mel, or frames, waveform, start.
        most_items: stop after so many.
        objective: what the sync loss makes of the embeddings.

    Raises:
        ValueError: no two items, a batch that does not fit `how`, or audio in another scale.
    """
    differences: dict[str, list[np.ndarray]] = {}
    ranks: list[np.ndarray] = []
    gaps: list[np.ndarray] = []
    true, false, losses, curves, seen = [], [], [], [], 0
    device = next(net.parameters()).device
    for given, way in _at_least_two(batches, how, device):
        frames = given["frames"]
        x = way.split(frames)
        n = way.windows(x, net.spec)
        heard, starts = _sound(given, way, net.spec, len(x), n)
        if not seen:
            way.check_values(frames)
            if "waveform" in given:
                check_waveform_values(given["waveform"])
            else:
                check_mel_values(heard, net.spec)
        a = net.embed_mel(heard, starts)
        for reading in _readings(way, frames):
            v = net.embed_frames(reading.read(frames, net.spec))
            windows = torch.einsum("ind,jnd->ijn", v, a)
            pairs = windows.mean(-1)
            if reading.advice:  # not every batch can be read in every other way
                differences.setdefault(reading.advice, []).append(_gap(pairs) - gaps[-1])
            else:
                gaps.append(_gap(pairs))
                ranks.append(_rank(pairs))
                chances = torch.sigmoid(net.logit(windows)).mean(-1)
                same = torch.eye(len(x), dtype=torch.bool, device=device)
                true.append(chances[same].cpu())
                false.append(chances[~same].cpu())
                losses.append(objective(net, v, a, torch.arange(len(x), device=device)).cpu())
                curves.append(_curves(net, way, given, v, a))
        seen += len(x)
        if seen >= most_items:
            break
    if not seen:
        raise ValueError(
            "batches: expected two items of the same shape or more, got none. False pairs are made "
            "of the other items."
        )
    own, offset = np.concatenate(ranks), _offset(np.concatenate(curves))
    gap = max(abs(np.concatenate(gaps).mean()), 1e-6)  # 0 where all items sound alike
    gains = {advice: np.concatenate(d) / gap for advice, d in differences.items()}
    return SyncCheck(
        items=seen,
        accuracy=float(own.mean()),
        error=_error(own),
        probability_true=float(torch.cat(true).mean()),
        probability_false=float(torch.cat(false).mean()),
        loss_true=float(torch.cat(losses).mean()),
        offset_frames=offset,
        gains={advice: float(g.mean()) for advice, g in gains.items()},
        advice=_advice(float(own.mean()), gains, offset, seen, net.spec.fps),
    )


def _at_least_two(
    batches: Iterable[Any], how: FrameFormat, device: torch.device
) -> Iterator[tuple[dict[str, torch.Tensor], FrameFormat]]:
    """Batches and how to read them; single items, as large pictures come, are put together."""
    held: dict[tuple[torch.Size, ...], list[dict[str, torch.Tensor]]] = {}
    pooled = replace(how, layout="b t c h w")
    for batch in batches:
        named = _named(batch)
        given = {k: torch.as_tensor(named[k], device=device) for k in ARGUMENTS if k in named}
        x = how.split(given["frames"])
        if len(x) > 1:
            yield given, how
            continue
        one = {**given, "frames": x}
        if "waveform" in one:
            one["waveform"] = torch.atleast_2d(given["waveform"])
        if "start" in one:
            one["start"] = given["start"].reshape(1)
        same = held.setdefault(tuple(v.shape for v in one.values()), [])
        same.append(one)
        if len(same) == POOL:
            yield _joined(same), pooled
            same.clear()
    for same in held.values():
        if len(same) > 1:
            yield _joined(same), pooled


def _joined(items: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {name: torch.cat([item[name] for item in items]) for name in items[0]}


def _named(batch: Any) -> Mapping[str, Any]:
    if isinstance(batch, Mapping):
        if "frames" not in batch or not ("mel" in batch or "waveform" in batch):
            raise ValueError(
                "batches: expected mappings of frames and mel, or frames, waveform and start, got "
                f"{sorted(map(str, batch))}. Name them: sync.check(dict(frames=b[...], mel=b[...]) "
                "for b in loader)."
            )
        return batch
    if isinstance(batch, list | tuple) and len(batch) == 2:
        return {"frames": batch[0], "mel": batch[1]}
    raise ValueError(
        "batches: expected (frames, mel) pairs, or mappings with frames and mel or waveform, got "
        f"{type(batch).__name__}. Pick them out: sync.check((gt, mel) for x, _, mel, gt in loader)."
    )


def _sound(
    given: Mapping[str, torch.Tensor], how: FrameFormat, spec: ClipSpec, batch: int, n: int
) -> tuple[torch.Tensor, torch.Tensor]:
    mel, waveform, start = (given.get(name) for name in ("mel", "waveform", "start"))
    return sound_windows(mel, waveform, start, how.fps, batch, n, spec)


def _rank(pairs: torch.Tensor) -> np.ndarray:
    """(B,) share of an item's false pairs, both ways, that its true pair beats."""
    own = pairs.diagonal()
    off = 1 - torch.eye(len(pairs), device=pairs.device)
    # Two that are equal, as those of silences are, count as half: chance is 50%.
    wins = sum(
        (own[:, None] > p).float() + (own[:, None] == p).float() / 2 for p in (pairs, pairs.T)
    )
    wins = wins * off
    return (wins.sum(1) / (2 * off.sum(1))).cpu().numpy()


def _gap(pairs: torch.Tensor) -> np.ndarray:
    """(B,) similarity of an item's true pair above the mean of its false ones, both ways."""
    others = len(pairs) - 1
    own = pairs.diagonal()
    false = (pairs.sum(0) + pairs.sum(1) - 2 * own) / (2 * others)
    return (own - false).cpu().numpy()


def _readings(how: FrameFormat, frames: torch.Tensor) -> list[Reading]:
    """The host's own way to read its frames, and the mistakes that are most often made."""
    other = "bgr" if how.color == "rgb" else "rgb"
    out = [
        Reading("", how),
        Reading(f'color order: say color="{other}"', replace(how, color=other)),
    ]
    values = frames.float()
    for name in VALUE_RANGES:
        if name != how.value_range and fills(values, name):
            out.append(
                Reading(f'value range: say value_range="{name}"', replace(how, value_range=name))
            )
    flat = {
        "(b t) c h w": "(t b) c h w",
        "(t b) c h w": "(b t) c h w",
        "b (t c) h w": "b (c t) h w",
        "b (c t) h w": "b (t c) h w",
    }
    guessed = "(b t) c h w" if frames.shape[1] == 3 else "b (t c) h w"
    layout = how.layout or (guessed if frames.ndim == 4 else "")
    if layout in flat:
        turned = flat[layout]
        out.append(Reading(f'order of frames: say layout="{turned}"', replace(how, layout=turned)))
    if how.region != "lower":
        top, bottom, left, right = how.box
        dy, dx = BORDER * (bottom - top), BORDER * (right - left)
        for box in (
            (top + dy, bottom - dy, left + dx, right - dx),
            (top + dy, bottom, left + dx, right - dx),
        ):
            smaller: Box = tuple(round(x, 2) for x in box)  # type: ignore[assignment]
            out.append(
                Reading(
                    f"region, since the frames show more than the face: say region={smaller}",
                    replace(how, region=smaller),
                )
            )
    if how.region == "face":
        out.append(Reading("crop: it is too tight, cut the faces with a wider border", how, True))
    return out


def _curves(
    net: Judge,
    how: FrameFormat,
    given: Mapping[str, torch.Tensor],
    v: torch.Tensor,
    a: torch.Tensor,
) -> np.ndarray:
    """(B, 31) similarity of each item over offset, nan where its audio does not reach."""
    if "mel" in given:
        tables = [similarity_by_offset(*pair) for pair in zip(v, a, strict=True)]
        return torch.stack([torch.nanmean(t, 0) for t in tables]).cpu().numpy()
    start = given["start"].reshape(-1).expand(len(v))
    last = given["waveform"].shape[-1] / net.spec.mel.sample_rate_hz * how.fps
    last -= (v.shape[1] + net.spec.window_frames) * how.fps / net.spec.fps
    out = v.new_full((len(v), 2 * MAX_OFFSET + 1), float("nan"))
    for column, offset in enumerate(range(-MAX_OFFSET, MAX_OFFSET + 1)):
        moved = start - round(offset * how.fps / net.spec.fps)
        inside = (moved >= 0) & (moved <= last)
        if inside.any():
            there = {**given, "start": torch.where(inside, moved, start)}
            other = net.embed_mel(*_sound(there, how, net.spec, len(v), v.shape[1]))
            out[inside, column] = (v * other).sum(-1).mean(1)[inside]
    return out.cpu().numpy()


def _offset(curves: np.ndarray) -> int | None:
    """Where the mean curve peaks, 0 unless that is clear; None where items are too short."""
    known = np.isfinite(curves).mean(0) > 0.5
    if known.sum() < 7:
        return None
    known_curves = np.where(known, curves, np.nan)
    peak = int(np.nanargmax(np.nanmean(known_curves[:, known], 0)))
    peak = int(np.flatnonzero(known)[peak])
    gain = known_curves[:, peak] - known_curves[:, MAX_OFFSET]
    gain = gain[np.isfinite(gain)]
    return peak - MAX_OFFSET if _sure(gain) else 0


def _error(values: np.ndarray) -> float:
    """Standard error of the mean."""
    return float(values.std() / np.sqrt(len(values)))


def _sure(gain: np.ndarray) -> bool:
    """Whether the mean is above 0 for more than luck; the fewer the values, the more it takes.

    Two errors, of 31 offsets tried, are reached by noise in every tenth to fifth set of batches.
    """
    if len(gain) < 2:
        return False
    students = 1 + (SURE**2 + 1) / (4 * (len(gain) - 1))  # Student's t, to first order
    return bool(gain.mean() > SURE * students * _error(gain))


def _advice(
    accuracy: float, gains: dict[str, np.ndarray], offset: int | None, items: int, fps: int
) -> str:
    """The reading that is clearly better than the host's own, or what else to look at."""
    if items < FEWEST:
        return f"{items} pairs say little: give more batches, {FEWEST} pairs or more."
    if offset:
        how = "early: delay" if offset > 0 else "late: advance"
        return f"Audio is {abs(offset)} frames of 1/{fps} s {how} it by {abs(offset) / fps:.2f} s."
    clear = {a: g.mean() for a, g in gains.items() if g.mean() > GAIN and _sure(g)}
    if accuracy < DOUBTFUL:
        clear = {a: g for a, g in clear.items() if g > 1}  # noise gains on noise
    if clear:
        best = max(clear, key=lambda advice: clear[advice])
        much = f"{clear[best]:.0%}" if clear[best] < 1 else "much"
        return f"True and false pairs lie {much} further apart with another {best}."
    if accuracy < DOUBTFUL:
        return (
            "The weights do not suit these batches: is the audio of the same video and moment, the "
            "face upright, and where region= says (syncdisc_plugin.locate finds it)? Else train on "
            "footage of this kind."
        )
    if accuracy < SUITS:
        return "Weak: train weights on footage of this kind before relying on the loss."
    return ""
