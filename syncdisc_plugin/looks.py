"""Which calls of SyncLoss look at the values that they are given."""

from __future__ import annotations

import warnings

import torch

from syncdisc_plugin.frames import FrameFormat
from syncdisc_plugin.sound import check_mel_values, check_waveform_values
from syncdisc_plugin.spec import ClipSpec

# Frames' values are looked at in calls 1, 2, 4, 8 to this one: a fresh generator's lie near 0 and
# fit every range. On a GPU, looking makes it wait.
LAST = 1024


class Looks:
    """Frames' and sounds' values at the first call, frames' now and then after."""

    def __init__(self) -> None:
        self._checked, self._calls = False, 0

    def look(
        self,
        form: FrameFormat,
        frames: torch.Tensor,
        mel: torch.Tensor,
        waveform: torch.Tensor | None,
        spec: ClipSpec,
    ) -> None:
        """Count a call, and look at its values if it is one of those.

        Args:
            form: what the host says of its frames.
            frames: as the host has them.
            mel: (B, 80, L), given or of the waveform.
            waveform: in place of a mel, as the host has it.
            spec: of the weights.

        Raises:
            ValueError: at the first call, values that cannot be what they are said to be.
        """
        if not self._checked:
            form.check_values(frames)
            if waveform is None:
                check_mel_values(mel, spec)
            else:
                check_waveform_values(waveform)
            self._checked = True
        if torch.compiler.is_compiling():  # to count would compile anew at every call
            return
        self._calls += 1
        if 1 < self._calls <= LAST and self._calls & (self._calls - 1) == 0:
            self._again(form, frames)

    def _again(self, form: FrameFormat, frames: torch.Tensor) -> None:
        """Warn, once, of frames that left their range; it may be one batch: no night ends for it.

        Those that are not finite give no gradient anyhow.
        """
        if not frames.detach().isfinite().all():
            return
        try:
            form.check_values(frames)
        except ValueError as error:
            warnings.warn(f"SyncLoss, call {self._calls}: {error}", stacklevel=7)  # the host's line
            self._calls = LAST
