"""Settings of a training run: CLI help, YAML schema and RUN/settings.json in one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from syncdisc_plugin.data.augment import Augment
from syncdisc_plugin.data.filter import FilterSettings
from syncdisc_plugin.errors import RunError
from syncdisc_plugin.nn import Architecture


@dataclass(frozen=True)
class StageSettings:
    """One stage's schedule and objective. Stages differ in data, not in code."""

    share: float = 0.3
    """Part of the budget that the stage may use."""
    learning_rate: float = 5e-4
    """Peak of a warm-up and cosine schedule (AdamW)."""
    strangers: float = 0.0
    """Weight of windows of other clips among the false pairs; 0 leaves them out."""
    calibrated: float = 0.0
    """Weight of the calibrated BCE beside the contrast."""
    patience: int = 4
    """Measurements on held-out clips without progress after which the stage ends; stage 2 goes by
    gap.patience instead."""


@dataclass(frozen=True)
class GapSettings:
    """Stage 2's controller."""

    step: float = 0.05
    """By how much the target is set above the gap that was measured."""
    preset: float = 0.8
    """The gap that is enough; similarity lies in [-1, 1], so 2 is the limit."""
    patience: int = 4
    """Measurements without progress (of at least `progress`) that count as a stall."""
    progress: float = 0.005
    """Least rise of the gap that counts as progress."""


@dataclass(frozen=True)
class TrainSettings:
    """Everything that decides a run."""

    minutes: float = 30.0
    """Wall-clock budget of the three stages together; turned into steps once it is known how long
    a step takes. Ignored when steps is given."""
    steps: int = 0
    """Budget in steps instead: on one machine, the same seed then gives the same weights,
    interrupted or not."""
    seed: int = 0
    """Decides initial weights, batches and augmentation."""
    heldout_share: float = 0.15
    """Part of the footage, by whole speakers, that is never trained on."""
    heldout_speakers: tuple[str, ...] = ()
    """Hold out exactly these speakers instead."""
    batch_clips: int = 16
    """Clips per step."""
    chunk_frames: int = 32
    """Consecutive frames of each clip; 32 give 28 windows and 784 pairs."""
    weight_decay: float = 0.05
    """AdamW's decay of convolution weights."""
    ema: float = 0.995
    """Decay of the averaged weights, which are what is measured and kept."""
    measures: int = 8
    """Measurements on held-out clips per stage, at least."""
    heldout_frames: int = 4000
    """Held-out footage used for measuring during training; all of it is used at a stage's end."""
    save_steps: int = 50
    """Steps between two saves of the resumable state."""
    precision: str = "auto"
    """bf16, fp32, or auto: bf16 where the CPU or GPU has instructions for it."""
    device: str = "auto"
    """cuda, cpu, or auto."""
    stage1: StageSettings = StageSettings(0.5, 1e-3)
    """Train on all of the first dataset, dirty as it is."""
    stage2: StageSettings = StageSettings(0.2, 5e-4)
    """Widen the gap on the second dataset, step by step."""
    stage3: StageSettings = StageSettings(0.3, 5e-4, strangers=0.02, calibrated=0.2)
    """Third training: strangers among the false pairs, and a calibrated probability."""
    gap: GapSettings = GapSettings()
    """How stage 2 is led."""
    filter: FilterSettings = FilterSettings()
    """How the second dataset is chosen."""
    augment: Augment = Augment()
    """What a training chunk may look and sound like."""
    architecture: Architecture = Architecture()
    """Sizes of the towers."""

    def __post_init__(self) -> None:
        """Name the flag that is off."""
        if self.steps < 0 or (self.steps == 0 and self.minutes <= 0):
            raise ValueError("--minutes: expected more than 0 (or --steps of at least 10).")
        if 0 < self.steps < 10:
            raise ValueError(f"--steps: expected at least 10, got {self.steps}.")
        if self.chunk_frames < 12:
            raise ValueError(
                f"--chunk_frames: expected at least 12 (8 windows), got {self.chunk_frames}."
            )
        if self.save_steps < 1 or self.measures < 1:
            raise ValueError("--save_steps, --measures: expected at least 1.")
        if self.precision not in ("auto", "bf16", "fp32"):
            raise ValueError(f"--precision: expected auto, bf16 or fp32, got {self.precision!r}.")

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> TrainSettings:
        """Rebuild from `asdict`, as stored in RUN/settings.json."""
        values: dict[str, Any] = {}
        unknown = set(raw) - set(cls.__dataclass_fields__)
        if unknown:
            raise RunError(
                f"settings: {sorted(unknown)} are not known to this version. "
                "Go on with the version that wrote them, or start a new run."
            )
        for name, value in raw.items():
            default: Any = cls.__dataclass_fields__[name].default
            values[name] = type(default)(**value) if isinstance(value, dict) else value
        values["heldout_speakers"] = tuple(values.get("heldout_speakers", ()))
        return cls(**values)

    def stage(self, number: int) -> StageSettings:
        """Settings of stage 1, 2 or 3."""
        return (self.stage1, self.stage2, self.stage3)[number - 1]
