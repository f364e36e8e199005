"""Settings of a training run: CLI help, YAML schema and RUN/settings.json in one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from syncdisc_plugin.data.augment import Augment
from syncdisc_plugin.data.choice import Choice
from syncdisc_plugin.data.filter import FilterSettings
from syncdisc_plugin.errors import RunError
from syncdisc_plugin.nn import Architecture
from syncdisc_plugin.nn.precision import check_precision
from syncdisc_plugin.ranges import check_range
from syncdisc_plugin.train.objectives import Mix


@dataclass(frozen=True)
class StageSettings:
    """One stage's schedule and objective. Stages differ in data and settings, not in code."""

    share: float = 0.3
    """Part of the budget that the stage may use."""
    learning_rate: float = 5e-4
    """Where the stage starts, after a short warm-up."""
    final_rate: float = 1e-5
    """Where a cosine takes the learning rate until the stage's end."""
    mix: Mix = Mix()
    """How heavily each kind of false pair weighs."""
    calibrated: float = 0.0
    """Weight of the calibrated BCE beside the contrast."""
    patience: int = 6
    """Measurements on held-out clips without progress after which the stage ends, in its second
    half and once it beats chance; stage 2 goes by gap.patience instead."""

    def __post_init__(self) -> None:
        """Name the setting that is off."""
        where = "--stage1.{0}, --stage2.{0} or --stage3.{0}".format
        sooner = "To end before stage 3: --last_stage."
        check_range(where("share"), self.share, above=0, fix=sooner)
        check_range(where("learning_rate"), self.learning_rate, above=0)
        check_range(where("final_rate"), self.final_rate, least=0)
        check_range(where("calibrated"), self.calibrated, least=0)
        check_range(where("patience"), self.patience, least=1)


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

    def __post_init__(self) -> None:
        """Name the setting that is off."""
        check_range("--gap.step", self.step, above=0)
        check_range("--gap.preset", self.preset, above=0, most=2)
        check_range("--gap.patience", self.patience, least=1)
        check_range("--gap.progress", self.progress, least=0)


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
    """Hold out exactly these speakers instead: [anna, 1001]. In YAML put numbers in quotes."""
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
    """bf16, fp32, or auto: bf16 on GPUs that have it and CPUs with AMX."""
    device: str = "auto"
    """cuda, cpu, or auto."""
    reference: str = ""
    """Weights (a shipped name such as base, or a checkpoint) that give the zero of the time axis:
    a constant lag of the whole set cannot be seen from inside, and is undone by it."""
    init_from: str = ""
    """Weights (a shipped name such as base, or a checkpoint) that stage 1 goes on from, in place of
    random ones: fine-tuning, for footage of minutes. They say what architecture is."""
    last_stage: int = 3
    """The stage after which the run ends; the budget is for the stages until then."""
    compile: bool = False
    """torch.compile the towers: faster steps on a GPU, after a minute's wait; needs a compiler."""
    stage1: StageSettings = StageSettings(0.35, 1e-3, 7e-4)
    """Train on all of the first dataset, dirty as it is."""
    stage2: StageSettings = StageSettings(
        0.25, 7e-4, 4e-4, mix=Mix(same_speaker=0.02, other_speaker=0.02)
    )
    """Widen the gap on the second dataset, step by step."""
    stage3: StageSettings = StageSettings(
        0.4,
        4e-4,
        mix=Mix(same_speaker=0.02, other_speaker=0.02),
        calibrated=0.2,
    )
    """Third training: generators' artefacts, and a calibrated probability."""
    gap: GapSettings = GapSettings()
    """How stage 2 is led."""
    choose: Choice = Choice()
    """Which clips are used, to train on and to measure on."""
    filter: FilterSettings = FilterSettings()
    """How the second dataset is chosen."""
    augment: Augment = Augment()
    """What a training chunk may look and sound like."""
    architecture: Architecture = Architecture()
    """Sizes of the towers."""

    def __post_init__(self) -> None:
        """Name the flag that is off."""
        if self.steps:
            check_range("--steps", self.steps, least=10)
        else:
            check_range("--minutes", self.minutes, above=0, fix="Or give --steps.")
        check_range("--seed", self.seed, least=0)
        check_range("--heldout_share", self.heldout_share, least=0, below=1)
        check_range("--batch_clips", self.batch_clips, least=1)
        check_range("--chunk_frames", self.chunk_frames, least=12, fix="12 have 8 windows.")
        check_range("--weight_decay", self.weight_decay, least=0)
        check_range("--ema", self.ema, least=0, below=1, fix="Usual is 0.995.")
        check_range("--measures", self.measures, least=1)
        check_range("--heldout_frames", self.heldout_frames, least=1)
        check_range("--save_steps", self.save_steps, least=1)
        if self.last_stage not in (1, 2, 3):
            raise ValueError(f"--last_stage: expected 1, 2 or 3, got {self.last_stage}.")
        check_precision(self.precision)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> TrainSettings:
        """Rebuild from `asdict`, as stored in RUN/settings.json."""
        values = _rebuild(cls, raw, "settings")
        return cls(**{**values, "heldout_speakers": tuple(values.get("heldout_speakers", ()))})

    def stage(self, number: int) -> StageSettings:
        """Settings of stage 1, 2 or 3."""
        return (self.stage1, self.stage2, self.stage3)[number - 1]

    def with_architecture(self, found: Architecture) -> TrainSettings:
        """The same with the architecture of the weights that a run goes on from.

        Raises:
            ValueError: another one was asked for.
        """
        if self.architecture not in (Architecture(), found):
            raise ValueError(
                f"--architecture: expected that of --init_from {self.init_from}, {found}, got "
                f"{self.architecture}. Leave one of the two out."
            )
        return replace(self, architecture=found)


def _rebuild(kind: type, raw: dict[str, Any], where: str) -> dict[str, Any]:
    """Keyword arguments of a settings class, with the nested ones built."""
    values: dict[str, Any] = {}
    for name, value in raw.items():
        field = kind.__dataclass_fields__.get(name)  # type: ignore[attr-defined]
        if field is None:
            raise RunError(
                f"{where}: {name!r} is not known to this version. "
                "Go on with the version that wrote it, or start a new run."
            )
        if isinstance(value, dict):
            inner = type(field.default)
            value = inner(**_rebuild(inner, value, f"{where}.{name}"))
        values[name] = value
    return values
