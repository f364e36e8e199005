"""Which clips of a store are used: thresholds on what the manifest and the judge say of them.

Nothing is decoded, deleted or written: the same store serves every choice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from syncdisc_plugin.data.manifest import Clip
from syncdisc_plugin.data.store import JUDGED, read_judged
from syncdisc_plugin.errors import StoreError

SPEAKING = ("any", "maybe", "yes")


@dataclass(frozen=True)
class Choice:
    """Thresholds; the defaults let every clip through. What was not measured passes, too."""

    min_seconds: float = 0.0
    """Least length of a clip."""
    min_face_px: float = 0.0
    """Least side of the face in the source, in pixels."""
    max_turn_deg: float = 90.0
    """Most that the head may be turned to a side, in degrees."""
    min_sharpness: float = 0.0
    """Least sharpness; look at the report's worst mouths for what a figure means."""
    min_face_score: float = 0.0
    """Least median score of the face detector, in [0, 1]."""
    min_crop_score: float = 0.0
    """Least median score of YuNet on the crops, in [0, 1]. The report shows where the few faces
    lie that something covers; 0.92 is a beginning."""
    min_loudness_db: float = -200.0
    """Least level of the sound, in dB below full scale."""
    min_source_fps: float = 0.0
    """Least frames per second of the source."""
    languages: tuple[str, ...] = ()
    """Only these, as the speakers' table names them: [en, de]; clips without a language are left
    out. In YAML put no in quotes."""
    speaking: str = "any"
    """By `store judge`. any; maybe: not the faces beside which another one speaks; yes: only faces
    that are found to speak."""
    min_confidence: float = 0.0
    """Least confidence, by `store judge`."""
    max_offset_frames: int = 15
    """Most that the sound may be off, by `store judge`; 15 is as far as it looks."""

    def __post_init__(self) -> None:
        """Refuse what no clip could meet."""
        object.__setattr__(self, "languages", tuple(self.languages))  # JSON has lists only
        if self.speaking not in SPEAKING:
            raise ValueError(
                f"speaking: expected one of {', '.join(SPEAKING)}, got {self.speaking!r}."
            )
        if not 0 <= self.max_turn_deg <= 90:
            raise ValueError(f"max_turn_deg: expected 0 to 90, got {self.max_turn_deg}.")
        if not 0 <= self.max_offset_frames <= 15:
            raise ValueError(f"max_offset_frames: expected 0 to 15, got {self.max_offset_frames}.")

    @property
    def asked(self) -> dict[str, Any]:
        """What differs from the defaults."""
        return {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if getattr(self, f.name) != f.default
        }

    @property
    def of_judge(self) -> list[str]:
        """What it asks for that only `store judge` can say."""
        return sorted({"speaking", "min_confidence", "max_offset_frames"} & self.asked.keys())

    def against(self, clip: Clip, fps: int, row: dict[str, Any] | None) -> list[str]:
        """Names of the thresholds that a clip fails; `row` is its row of judged.jsonl."""
        turn, said = clip.turn_deg, row or {}
        speaking = said.get("speaking")
        failed = {
            "min_seconds": clip.n_frames < self.min_seconds * fps,
            "min_face_px": clip.face_px < self.min_face_px,
            "max_turn_deg": turn is not None and turn > self.max_turn_deg,
            "min_sharpness": clip.sharpness is not None and clip.sharpness < self.min_sharpness,
            "min_face_score": clip.face_score is not None and clip.face_score < self.min_face_score,
            "min_crop_score": clip.crop_score is not None and clip.crop_score < self.min_crop_score,
            "min_loudness_db": clip.loudness_db < self.min_loudness_db,
            "min_source_fps": 0 < clip.source_fps < self.min_source_fps,
            "languages": bool(self.languages) and clip.language not in self.languages,
            "speaking": (self.speaking == "maybe" and speaking is False)
            or (self.speaking == "yes" and speaking is not True),
            "min_confidence": "confidence" in said and said["confidence"] < self.min_confidence,
            "max_offset_frames": abs(said.get("offset_frames", 0)) > self.max_offset_frames,
        }
        return [name for name, is_so in failed.items() if is_so]


@dataclass(frozen=True)
class Chosen:
    """What a choice leaves of some clips."""

    clips: list[Clip]
    """Those that are used, in the order in which they were given."""
    left_out: list[tuple[Clip, list[str]]]
    """The others, each with the thresholds that it fails."""

    @property
    def reasons(self) -> dict[str, int]:
        """How many clips fail each threshold; one that fails two is counted at both."""
        return dict(Counter(name for _, names in self.left_out for name in names).most_common())

    @property
    def note(self) -> str:
        """In a sentence; empty where all are used."""
        if not self.left_out:
            return ""
        why = ", ".join(f"{name} {n}" for name, n in self.reasons.items())
        n = len(self.left_out)
        return f"{n} of {n + len(self.clips)} clips left out by the choice ({why})"


def choose(clips: Sequence[Clip], root: Path, fps: int, choice: Choice) -> Chosen:
    """Divide clips of the store at `root` by a choice.

    Raises:
        StoreError: the choice asks for what `store judge` finds, and it has not been run, or not
            since clips were added.
    """
    judged = read_judged(root)
    if choice.of_judge and not judged:
        raise StoreError(
            f"{root}: {', '.join(choice.of_judge)} needs {JUDGED}, which is not there. "
            f"Make it: syncdisc store judge {root}"
        )
    if choice.of_judge and (unjudged := sum(clip.id not in judged for clip in clips)):
        raise StoreError(
            f"{root}: {', '.join(choice.of_judge)} needs a verdict on every clip, and {JUDGED} has "
            f"none on {unjudged} of {len(clips)}: they were added since. Run it again: "
            f"syncdisc store judge {root}"
        )
    kept, left_out = [], []
    for clip in clips:
        if failed := choice.against(clip, fps, judged.get(clip.id)):
            left_out.append((clip, failed))
        else:
            kept.append(clip)
    return Chosen(kept, left_out)
