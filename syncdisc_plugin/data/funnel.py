"""What becomes of footage: inputs -> face tracks -> long enough -> chosen, and why the rest not.

From the manifest's rows alone: nothing is decoded, and a store without a clip has a funnel, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from syncdisc_plugin.data.choice import Chosen
from syncdisc_plugin.data.stats import reason_class

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Loss:
    """One reason why something did not get further."""

    why: str
    """In words."""
    count: int
    """How many things."""
    minutes: float | None
    """How much of it; None where it is not known."""


@dataclass(frozen=True)
class Step:
    """What has got as far as here."""

    name: str
    """inputs, tracks, clips or chosen."""
    count: int
    """How many."""
    minutes: float | None
    """How much; of faces from the tracks on, so that two faces of a minute are two minutes."""
    lost: list[Loss]
    """Why the others did not get here, the most frequent reason first."""


def funnel(rows: Rows, chosen: Chosen, fps: int) -> list[Step]:
    """The four steps.

    Args:
        rows: all of a store's manifest.
        chosen: its clips, divided.
        fps: frames per second of the store.

    A clip that fails two thresholds is counted at both. Inputs that could not be decoded, and those
    of stores that were made before this was recorded, have no length that is known.
    """
    inputs: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        inputs.setdefault(row["key"], row)
    refused = [row for row in inputs.values() if row["status"] != "ok"]
    seen = [row["footage"] for row in inputs.values() if "footage" in row]
    # Of an input without that, its clips are what is known.
    old = {key for key, row in inputs.items() if row["status"] == "ok" and "footage" not in row}
    short, short_s = sum(s["too_short"] for s in seen), sum(s["too_short_seconds"] for s in seen)
    clips = [*chosen.clips, *(clip for clip, _ in chosen.left_out)]
    frames = sum(c.n_frames for c in clips)
    length_s = sum(s["seconds"] for s in seen)
    length_s += sum(row["n_frames"] for row in rows if row["key"] in old) / fps
    tracks_s = frames / fps + short_s
    return [
        Step("inputs", len(inputs), _minutes(length_s), []),
        Step("tracks", len(clips) + short, _minutes(tracks_s), _refusals(refused)),
        Step("clips", len(clips), _minutes(frames / fps), _short(short, short_s, seen)),
        Step(
            "chosen",
            len(chosen.clips),
            _minutes(sum(c.n_frames for c in chosen.clips) / fps),
            _failures(chosen, fps),
        ),
    ]


def _refusals(refused: Rows) -> list[Loss]:
    found: dict[str, list[float | None]] = {}
    for row in refused:
        seconds = row["footage"]["seconds"] if "footage" in row else None
        found.setdefault(reason_class(dict(row)), []).append(seconds)
    return _sorted(
        Loss(why, len(times), None if None in times else _minutes(sum(t or 0 for t in times)))
        for why, times in found.items()
    )


def _short(count: int, seconds: float, seen: Rows) -> list[Loss]:
    if not count:
        return []
    cuts = sum(s["cuts"] for s in seen)
    why = "shorter than track.min_frames" + (f" (there are {cuts} scene cuts)" if cuts else "")
    return [Loss(why, count, _minutes(seconds))]


def _failures(chosen: Chosen, fps: int) -> list[Loss]:
    frames = {
        why: sum(clip.n_frames for clip, names in chosen.left_out if why in names)
        for why in chosen.reasons
    }
    return _sorted(Loss(why, n, _minutes(frames[why] / fps)) for why, n in chosen.reasons.items())


def _sorted(losses: Iterable[Loss]) -> list[Loss]:
    return sorted(losses, key=lambda loss: (-loss.count, loss.why))


def _minutes(seconds: float) -> float:
    return round(seconds / 60, 3)
