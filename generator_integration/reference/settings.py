"""Settings of a generator's training: the command's help and RUN/settings.json in one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from generator_integration.reference.generator import GeneratorSettings
from syncdisc_plugin.errors import RunError
from syncdisc_plugin.nn.precision import check_precision
from syncdisc_plugin.ranges import check_range

NONE = "none"


@dataclass(frozen=True)
class GeneratorTrainSettings:
    """Everything that decides a run."""

    minutes: float = 30.0
    """Wall-clock budget, all sittings together. Ignored when steps is given."""
    steps: int = 0
    """Budget in steps instead: on one machine, the same seed then gives the same generator,
    interrupted or not."""
    seed: int = 0
    """Decides initial weights, batches and augmentation."""
    heldout_share: float = 0.15
    """Part of the footage, by whole speakers, that is never trained on. A store that has a split
    already, of a discriminator's training, keeps it."""
    heldout_speakers: tuple[str, ...] = ()
    """Hold out exactly these speakers; a split that the store has must be the same."""
    aligned: str = ""
    """Folder of a discriminator's run on this store: clips that its filter dropped are left out,
    and the sound of the others is aligned as it says."""
    batch: int = 16
    """Windows of five frames per step."""
    references: int = 3
    """Most reference frames of a window; every step draws 1 to this many."""
    learning_rate: float = 5e-4
    """Of the generator, after a short warm-up; falls along a cosine."""
    final_rate: float = 2e-5
    """Where the cosine ends."""
    quality_rate: float = 2e-4
    """Learning rate of the visual-quality discriminator, constant."""
    ema: float = 0.998
    """Decay of the averaged weights, which are what is measured and kept."""
    mouth_weight: float = 4.0
    """How much more a pixel of the mouth counts in the L1 than one at the edge of the crop."""
    perceptual_weight: float = 0.2
    """Weight of LPIPS beside the L1, where the lpips package and its weights are at hand; 0 is
    off."""
    gan_from: float = 0.3
    """Part of the budget after which the visual-quality discriminator joins; 1 never."""
    gan_ratio: float = 0.5
    """Length of its gradient at the frames over that of L1 and perceptual loss together."""
    gan_ramp: int = 200
    """Steps over which its weight rises."""
    feature_weight: float = 2.0
    """Weight of feature matching beside the adversarial loss."""
    quality_frames: int = 2
    """Frames of each window that the visual-quality discriminator looks at."""
    quality_width: int = 32
    """Channels of its first layer."""
    sync: str = "base"
    """The sync loss: none, a shipped name, or the path of a checkpoint; also other projects'
    experts, whatever SyncLoss reads that judges 5 frames."""
    sync_from: float = 0.1
    """Part of the budget after which the sync loss joins; there must be a mouth to judge."""
    sync_mouth_only: bool = True
    """Whether it moves only what is near the mouth, and leaves the rest of the face to the other
    losses."""
    sync_ratio: float = 20.0
    """Length of its gradient at the frames over that of all other losses; see SyncWeight."""
    sync_final_ratio: float = 0.8
    """What the ratio falls to until the end, from where the lips follow, the half of the budget at
    the latest, so that the picture settles; as large as sync_ratio: it never falls."""
    sync_contrast: float = 0.0
    """Weight of the other sounds of the batch, which the lips should not fit, beside the own one;
    see SyncLoss."""
    sync_ramp: int = 100
    """Steps over which its weight rises."""
    sync_rests: bool = False
    """Whether its weight falls to 0 where what is drawn is as much in sync as true frames of
    held-out people: cleaner mouths that follow the sound less clearly."""
    ear: str = "base"
    """Whose audio tower the generator hears with, as it is: a shipped discriminator, the path of
    one of ours, or none, to learn to hear from nothing."""
    measure_steps: int = 250
    """Steps between two measurements on held-out clips; each writes a sample sheet and
    RUN/generator.safetensors."""
    snapshot_steps: int = 0
    """Steps between two generators that are kept beside the newest one, averaged like it, as
    RUN/snapshots/step-N.safetensors; 0 keeps none."""
    save_seconds: float = 120.0
    """Seconds between two saves of the resumable state."""
    precision: str = "auto"
    """bf16, fp32, or auto: bf16 on GPUs that have it and CPUs with AMX."""
    device: str = "auto"
    """cuda, cpu, or auto."""
    generator: GeneratorSettings = GeneratorSettings()
    """Sizes of the generator."""

    def __post_init__(self) -> None:
        """Name the flag that is off."""
        if self.steps:
            check_range("--steps", self.steps, least=1)
        else:
            check_range("--minutes", self.minutes, above=0, fix="Or give --steps.")
        for name in ("batch", "references", "quality_frames", "quality_width", "measure_steps"):
            check_range(f"--{name}", getattr(self, name), least=1)
        for name in (
            "seed",
            "final_rate",
            "perceptual_weight",
            "feature_weight",
            "gan_ramp",
            "sync_ramp",
            "sync_contrast",
            "snapshot_steps",
        ):
            check_range(f"--{name}", getattr(self, name), least=0)
        for name in ("gan_from", "sync_from"):
            check_range(f"--{name}", getattr(self, name), least=0, most=1, fix="Of the budget.")
        for name, without in (
            ("sync_ratio", "Without a sync loss: --sync none."),
            ("sync_final_ratio", "Without a sync loss: --sync none."),
            ("gan_ratio", "Without an adversarial loss: --gan_from 1."),
            ("learning_rate", "Usual is 5e-4."),
            ("quality_rate", "Usual is 2e-4."),
        ):
            check_range(f"--{name}", getattr(self, name), above=0, fix=without)
        check_range("--heldout_share", self.heldout_share, least=0, below=1)
        check_range("--ema", self.ema, least=0, below=1, fix="Usual is 0.998.")
        check_range("--mouth_weight", self.mouth_weight, least=1)
        if (ear := self.generator.ear_width) > 0:
            raise ValueError(
                f"--generator.ear_width: the ear's sizes are those of the discriminator that --ear "
                f"names, got {ear}. Leave it out."
            )
        check_precision(self.precision)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> GeneratorTrainSettings:
        """Rebuild from `asdict`, as stored in RUN/settings.json.

        Raises:
            RunError: a setting that this version does not know.
        """
        try:
            return cls(
                **{
                    **raw,
                    "heldout_speakers": tuple(raw.get("heldout_speakers", ())),
                    "generator": GeneratorSettings(**raw.get("generator", {})),
                }
            )
        except TypeError as error:
            raise RunError(
                f"settings: {error}. Go on with the version that wrote them, or start a new run."
            ) from error
