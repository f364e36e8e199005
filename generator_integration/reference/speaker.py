"""Frames in, frames with another mouth out, in batches whose borders nobody sees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch

from generator_integration.reference.face import Face, Run
from generator_integration.reference.generator import CONTEXT, Generator
from generator_integration.reference.paste import paste_face
from generator_integration.reference.playback import Clock, Shot
from generator_integration.reference.voice import Voice
from syncdisc_plugin.faces import crop_face

REFERENCES = 3
"""Pictures of the face that the generator gets to know it by; trained on one to three."""
MOST_GAIN = 8.0
"""By how much the contrast of a frame may be raised to that of the references."""


@dataclass
class _Held:
    """A frame with the face that waits for its batch."""

    shot: Shot
    box: np.ndarray
    crop: np.ndarray  # (S, S, 3) uint8
    time_s: Fraction


class Speaker:
    """Makes one face say what a voice says.

    Args:
        generator: in eval mode, on `device`.
        face: where the face is.
        voice: what it says.
        clock: of the shots.
        device: where the generator is.
    """

    def __init__(
        self, generator: Generator, face: Face, voice: Voice, clock: Clock, device: str
    ) -> None:
        self.generator, self.face, self.voice = generator, face, voice
        self.time_base, self.device = clock.time_base, device
        # What a frame's neighbours are was learnt at the generator's rate: at twice that, every
        # other frame makes up a sequence.
        self._stride = max(1, round(clock.fps / generator.spec.fps))
        self.context = CONTEXT * self._stride
        """Frames on either side that have a say in a frame."""
        self.generated = 0
        """Frames so far that got a new mouth."""
        self._run: Run | None = None
        self._reference = torch.empty(0)

    def speak(self, shots: Iterable[Shot], batch: int) -> Iterator[tuple[np.ndarray, int]]:
        """Give (frame (H, W, 3) uint8, when it is shown in ticks) for each shot, in order.

        Frames without the face come out as they are. `batch` + `context` frames are held.
        """
        before: list[_Held] = []  # of the same run, without what is done with them
        waiting: list[_Held] = []
        for shot in shots:
            found = self.face.at(shot.source_s)
            if found is None or found[0] is not self._run:
                yield from self._draw(before, waiting, len(waiting))
                before, waiting = [], []
            if found is None:
                yield shot.image, shot.pts
                continue
            run, box = found
            if run is not self._run:
                # Behind a cut it may look otherwise, or be another's.
                self._run, self._reference = run, self._faces(run.references(REFERENCES))
            size = self.generator.spec.face_px
            crop = crop_face(shot.image, box, face_px=size, margin=0)
            waiting.append(_Held(shot, box, crop, shot.pts * self.time_base))
            if len(waiting) == batch + self.context:
                yield from self._draw(before, waiting, batch)
                before = [*before, *waiting[:batch]][-self.context :]
                waiting = waiting[batch:]
        yield from self._draw(before, waiting, len(waiting))

    def _draw(
        self, before: list[_Held], waiting: list[_Held], n: int
    ) -> Iterator[tuple[np.ndarray, int]]:
        """The first `n` that wait; their neighbours are looked at and not drawn."""
        if not n:
            return
        seen = [*before, *waiting]
        faces = self._faces(np.stack([held.crop for held in seen]))
        # In a fade, or where the light changes, the references are of other colours: the frames are
        # brought to theirs, and what is drawn is brought back.
        own, wanted = _colors(faces), _colors(self._reference).mean(1, keepdim=True)
        gain = (wanted[:, :, 1] / own[:, :, 1]).clamp(1 / MOST_GAIN, MOST_GAIN)
        faces = ((faces - own[:, :, 0]) * gain + wanted[:, :, 0]).clamp(0, 1)
        mel = self.voice.windows([held.time_s for held in seen])[None].to(self.device)
        drawn = torch.empty_like(faces[0])
        with torch.inference_mode():
            for first in range(min(self._stride, len(seen))):
                one = slice(first, None, self._stride)
                drawn[one] = self.generator(faces[:, one], self._reference, mel[:, one])[0]
        drawn = ((drawn - wanted[0, :, 0]) / gain[0] + own[0, :, 0])[len(before) :][:n]
        pictures = drawn.clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()
        for held, picture in zip(waiting[:n], pictures, strict=True):
            self.generated += 1
            crop = held.crop.astype(np.float32) / 255
            yield paste_face(held.shot.image, held.box, picture, crop), held.shot.pts

    def _faces(self, crops: np.ndarray) -> torch.Tensor:
        """(N, S, S, 3) uint8 -> (1, N, 3, S, S) in [0, 1]."""
        x = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255
        return x[None].contiguous().to(self.device)


def _colors(faces: torch.Tensor) -> torch.Tensor:
    """Mean and spread of the upper halves' colours.

    faces: (1, N, 3, S, S) in [0, 1] -> (1, N, 2, 3, 1, 1).
    """
    upper = faces[..., : faces.shape[-2] // 2, :]
    mean, spread = upper.mean((-2, -1), keepdim=True), upper.std((-2, -1), keepdim=True)
    return torch.stack([mean, spread.clamp_min(1 / 255)], 2)
