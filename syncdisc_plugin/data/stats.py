"""What a store holds, in figures: inputs, clips, minutes, speakers, refusals, faces, rates, sound.

From the manifest alone, so that it is quick, and works on a store that is being written.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from syncdisc_plugin.data.manifest import clips_of, read_rows
from syncdisc_plugin.data.store import MANIFEST, read_spec

FACE_PX = (0, 32, 64, 96, 128, 192, 256)
LOUDNESS_DB = (-60, -50, -40, -35, -30, -25, -20, -15, -10)
SECONDS = (0, 1, 2, 3, 5, 10, 20, 60, 120)
BAR = 40  # characters


@dataclass(frozen=True)
class Stats:
    """Figures of a store. Histograms count clips; "64..96" is from 64 to below 96."""

    inputs: int
    """Videos that have rows."""
    inputs_ok: int
    """Those that gave a clip."""
    clips: int
    """Face tracks."""
    minutes: float
    """Length of all clips together."""
    speakers: int
    """Different speakers, as far as folders or the table tell."""
    minutes_by_speaker: dict[str, float]
    """The longest first."""
    refused: dict[str, int]
    """Why inputs gave nothing: the reasons without names and numbers, the most frequent first."""
    noted: int
    """Clips with a note: odd, but no reason to refuse."""
    face_px: dict[str, int]
    """Side of the face in the source, in pixels."""
    source_fps: dict[str, int]
    """Frames per second of the sources, the most frequent first; "unknown" is not recorded."""
    loudness_db: dict[str, int]
    """Level of the audio in dB below full scale."""
    seconds: dict[str, int]
    """Length of the clips."""

    def to_json(self) -> str:
        """All of it as one JSON object."""
        return json.dumps(asdict(self), indent=1)

    def to_text(self, speakers: int = 10) -> str:
        """For reading; the first so many speakers by name."""
        refused = self.inputs - self.inputs_ok
        lines = [
            f"inputs    {self.inputs} ({self.inputs_ok} ok, {refused} refused)",
            f"clips     {self.clips} ({self.noted} with a note)",
            f"minutes   {self.minutes:.1f}",
            f"speakers  {self.speakers}",
        ]
        tables: dict[str, dict[str, int] | dict[str, float]] = {
            "minutes by speaker": dict(list(self.minutes_by_speaker.items())[:speakers]),
            "refused, inputs": self.refused,
            "face, px": self.face_px,
            "fps of the source": self.source_fps,
            "loudness, dB": self.loudness_db,
            "length of clips, s": self.seconds,
        }
        for title, table in tables.items():
            if table:
                lines += ["", title, *_bars(table)]
        if len(self.minutes_by_speaker) > speakers:
            lines += ["", f"{len(self.minutes_by_speaker) - speakers} more speakers: --json"]
        return "\n".join(lines)


def stats(root: Path) -> Stats:
    """Figures of the store at `root`; one without a clip, or in work, has figures too.

    Raises:
        StoreError: no store, or a damaged manifest.
    """
    spec = read_spec(root)
    rows = list(read_rows(root / MANIFEST))
    clips = clips_of(rows, root / MANIFEST)
    minutes = Counter[str]()
    for clip in clips:
        minutes[clip.speaker] += clip.n_frames  # whole frames first: sums of them are exact
    per_minute = spec.fps * 60
    reasons = Counter(reason_class(row) for row in rows if row["status"] != "ok")
    rates = Counter(f"{c.source_fps:g}" if c.source_fps else "unknown" for c in clips)
    return Stats(
        inputs=len({row["key"] for row in rows}),
        inputs_ok=len({row["key"] for row in rows if row["status"] == "ok"}),
        clips=len(clips),
        minutes=round(sum(minutes.values()) / per_minute, 3),
        speakers=len(minutes),
        minutes_by_speaker={who: round(n / per_minute, 3) for who, n in minutes.most_common()},
        refused=dict(reasons.most_common()),
        noted=sum(bool(clip.note) for clip in clips),
        face_px=_histogram([c.face_px for c in clips], FACE_PX),
        source_fps=dict(rates.most_common()),
        loudness_db=_histogram([c.loudness_db for c in clips], LOUDNESS_DB),
        seconds=_histogram([c.n_frames / spec.fps for c in clips], SECONDS),
    )


def reason_class(row: dict[str, Any]) -> str:
    """A refusal's reason without the file's name, numbers, details and advice."""
    path, reason = str(row["path"]), str(row["reason"])
    for name in (path, Path(path).name):
        reason = reason.replace(name, "")
    # "the audio is silent (-90 dB). Nothing can be judged; ...": what comes first is the class.
    first = re.split(r"\. |[;(]|\.$", reason.strip(" :"))[0]
    return re.sub(r"\d+(\.\d+)?", "N", first).strip(" :,") or "no reason given"


def _histogram(values: Sequence[float], edges: Sequence[int]) -> dict[str, int]:
    """How many are in which range; what is below the first edge counts into the first."""
    places = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 1)
    counts = np.bincount(places.astype(int), minlength=len(edges))
    names = [f"{low}..{high}" for low, high in pairwise(edges)]
    names.append(f"{edges[-1]}..")
    found = [i for i, n in enumerate(counts) if n]
    return {names[i]: int(counts[i]) for i in range(found[0], found[-1] + 1)} if found else {}


def _bars(table: dict[str, int] | dict[str, float]) -> list[str]:
    most, width = max(table.values()), max(map(len, table))
    return [
        f"  {name:{width}}  {'#' * (round(BAR * n / most) if most else 0):{BAR}}  {n:.4g}"
        if isinstance(n, float)
        else f"  {name:{width}}  {'#' * round(BAR * n / most):{BAR}}  {n}"
        for name, n in table.items()
    ]
