"""What a discriminator was trained on. The same objects go into stores, checkpoints and reports."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class MelSpec:
    """The log-mel of the Wav2Lip family (Wav2Lip `hparams.py`/`audio.py`; same in LatentSync)."""

    sample_rate_hz: int = 16000
    """Samples per second of the mono audio."""
    n_fft: int = 800
    """STFT size in samples (50 ms)."""
    hop: int = 200
    """Samples between mel frames (12.5 ms: 80 mel frames a second)."""
    n_mels: int = 80
    """Mel bins, Slaney scale and normalisation."""
    fmin_hz: float = 55.0
    """Lowest edge of the filterbank."""
    fmax_hz: float = 7600.0
    """Highest edge of the filterbank."""
    preemphasis: float = 0.97
    """First-order pre-emphasis applied to the waveform."""
    ref_level_db: float = 20.0
    """Subtracted from the level in dB."""
    min_level_db: float = -100.0
    """The level in dB that becomes -max_abs."""
    max_abs: float = 4.0
    """Mel values lie in [-max_abs, max_abs]; silence is -max_abs."""
    pad_mode: str = "constant"
    """How the STFT pads the two ends: librosa >= 0.9 "constant", librosa 0.7 "reflect"."""

    @property
    def rate_hz(self) -> int:
        """Mel frames per second."""
        rate, rest = divmod(self.sample_rate_hz, self.hop)
        if rest:
            raise ValueError(
                f"mel.hop: expected a divisor of sample_rate_hz={self.sample_rate_hz}, "
                f"got {self.hop}. Use 200 for 16000 Hz."
            )
        return rate


@dataclass(frozen=True)
class ClipSpec:
    """Everything that frames and audio must share for one discriminator to judge them."""

    fps: int = 25
    """Video frames per second after resampling."""
    window_frames: int = 5
    """Video frames T in one judged window (0.2 s at 25 fps)."""
    window_mels: int = 16
    """Mel frames L that start with the window's first video frame."""
    face_px: int = 96
    """Side of the square face crop; the detector's box is resized to it, aspect not kept."""
    margin: float = 0.125
    """Extra border that a store keeps on each side of the box, as a ratio of the box."""
    region: str = "lower"
    """What the face tower sees: "lower" (rows face_px//2 and below) or "face" (all rows)."""
    crop: str = "box"
    """How the face was cut: "box" = smoothed detector box, the hosts' way; "aligned" = turned,
    scaled and shifted so that the eyes and the mouth's middle lie in fixed places."""
    color: str = "rgb"
    """Channel order inside the package."""
    mel: MelSpec = field(default_factory=MelSpec)
    """The mel of the audio."""

    def __post_init__(self) -> None:
        """Refuse values that no tower could be built for."""
        if self.region not in ("lower", "face"):
            raise ValueError(f'region: expected "lower" or "face", got {self.region!r}.')
        if self.crop not in ("box", "aligned"):
            raise ValueError(f'crop: expected "box" or "aligned", got {self.crop!r}.')
        if self.face_px % 2 or self.face_px < 32:
            raise ValueError(f"face_px: expected an even size of at least 32, got {self.face_px}.")
        if not 0 <= self.margin <= 1:
            raise ValueError(f"margin: expected a ratio of the box, 0 to 1, got {self.margin}.")
        for name, least in (("window_frames", 3), ("window_mels", 13)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, got {getattr(self, name)}.")

    @property
    def stored_px(self) -> int:
        """Side of the stored crop: the face and its margin on both sides."""
        return self.face_px + 2 * round(self.face_px * self.margin)

    @property
    def input_hw(self) -> tuple[int, int]:
        """Height and width that the face tower sees."""
        rows = self.face_px // 2 if self.region == "lower" else self.face_px
        return rows, self.face_px

    def to_json(self) -> str:
        """Serialise for a checkpoint's or a store's metadata."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ClipSpec:
        """Rebuild from `to_json`. Raises TypeError for a field that this version does not know."""
        raw: dict[str, Any] = json.loads(text)
        return cls(**{**raw, "mel": MelSpec(**raw["mel"])})
