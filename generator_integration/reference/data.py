"""Batches for the generator: windows of clips, other frames of them, and their sound."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import torch

from syncdisc_plugin.data.augment import Augment, change_look, change_sound
from syncdisc_plugin.data.filter import read_verdicts, second_dataset
from syncdisc_plugin.data.manifest import Clip
from syncdisc_plugin.data.sampling import Item
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.errors import RunError
from syncdisc_plugin.spec import ClipSpec
from syncdisc_plugin.timing import mel_start

APART = 5  # frames between a window and its references: the same mouth would be copied
EXACT = 0.5  # share of windows cut at whole pixels: resampling takes sharpness from the truth
# Gentler than what a discriminator is trained with: what is seen here is what will be drawn.
LOOK = Augment(
    crop_shift=0.04,
    crop_scale=0.06,
    rotation_deg=3.0,
    color=0.15,
    gray=0.02,
    blur=0.0,
    pixel_noise=0.0,
    gain_db=6.0,
    equalizer_db=5.0,
    formant=0.06,
    audio_noise=0.25,
    mask_bins=6,
)


@dataclass(frozen=True)
class Batch:
    """B windows of T frames, R references each."""

    target: torch.Tensor
    """(B, T, 3, S, S) uint8 RGB; the trainer scales to [0, 1] on its device."""
    reference: torch.Tensor
    """(B, R, 3, S, S) uint8 RGB, from elsewhere in the same clips, cut and coloured alike."""
    mels: torch.Tensor
    """(B, T, 1, M, L) in [-4, 4]: what the generator hears, one window for each frame."""
    window: torch.Tensor
    """(B, 1, M, L) in [-4, 4]: what the sync loss hears, from the first frame on, not augmented."""


class Windows:
    """Draws batches from a set of clips; each is a pure function of (seed, step).

    Args:
        store: the clips.
        items: which of them, with their lags.
        spec: the generator's; its face_px may differ from the store's.
        batch: B.
        references: R is drawn from 1 to this, for all of a step alike.
        seed: of all that is random.
        changes: how windows are changed; None cuts them exactly and takes `references` as R.

    Raises:
        ValueError: no clip is long enough.
    """

    def __init__(
        self,
        store: ClipStore,
        items: Sequence[Item],
        spec: ClipSpec,
        *,
        batch: int,
        references: int,
        seed: int,
        changes: Augment | None = LOOK,
    ) -> None:
        self.store, self.spec, self.n = store, spec, batch
        self.references, self.seed, self.changes = references, seed, changes
        self.items = [i for i in items if self._room(i)[0] < self._room(i)[1]]
        self.skipped = len(items) - len(self.items)
        if not self.items:
            raise ValueError(
                f"items: expected a clip of at least {spec.window_frames + 2} frames, got "
                f"{len(items)} shorter ones. Prepare longer videos."
            )
        by_speaker: dict[str, float] = defaultdict(float)
        for item in self.items:
            by_speaker[item.clip.speaker] += item.clip.n_frames
        # Between "every speaker alike" and "every second alike", as the discriminator's batches.
        weight = np.array([i.clip.n_frames / by_speaker[i.clip.speaker] ** 0.5 for i in self.items])
        self.weight = weight / weight.sum()

    def batch(self, step: int) -> Batch:
        """The batch of that step."""
        rng = np.random.default_rng([self.seed, step])
        enough = np.count_nonzero(self.weight) >= self.n
        picks = rng.choice(len(self.items), self.n, replace=not enough, p=self.weight)
        count = int(rng.integers(1, self.references + 1)) if self.changes else self.references
        owns = [np.random.default_rng(s) for s in rng.integers(2**63, size=self.n)]
        items = [self.items[pick] for pick in picks]
        starts = [int(o.integers(*self._room(i))) for o, i in zip(owns, items, strict=True)]
        sounds = [self._sound(i, s) for i, s in zip(items, starts, strict=True)]
        seen, heard, windows = [], [], []
        for row, (item, start, own) in enumerate(zip(items, starts, owns, strict=True)):
            seen.append(self._pictures(item, start, count, own))
            mel, begins, first = sounds[row]
            windows.append(self._cut(mel, [first]))
            if self.changes:  # the background is what the row before says
                mel = change_sound(mel, sounds[row - 1][0], own, self.changes)
            heard.append(self._cut(mel, begins))
        frames = torch.from_numpy(np.stack(seen)).permute(0, 1, 4, 2, 3).contiguous()
        t = self.spec.window_frames
        return Batch(
            target=frames[:, :t],
            reference=frames[:, t:],
            mels=torch.from_numpy(np.stack(heard))[:, :, None],
            window=torch.from_numpy(np.stack(windows)),
        )

    def _room(self, item: Item) -> tuple[int, int]:
        """First and one-past-last frame that a window may begin with.

        The generator hears from a frame earlier on, and a frame must be left to refer to.
        """
        clip, t = item.clip, self.spec.window_frames
        n = self.store.windows(clip)
        last = min(n, n + math.floor(item.lag_frames))
        return max(1, math.ceil(item.lag_frames) + 1), last if clip.n_frames > t + 1 else 0

    def _pictures(self, item: Item, start: int, count: int, rng: np.random.Generator) -> np.ndarray:
        """(T + R, S, S, 3) uint8: the window's frames and the references."""
        t, total = self.spec.window_frames, item.clip.n_frames
        others = np.arange(total)
        far = (others < start - APART) | (others >= start + t + APART)
        near = (others < start) | (others >= start + t)
        others = others[far if far.any() else near]
        picks = sorted(int(f) for f in rng.choice(others, count, replace=len(others) < count))
        frames = np.concatenate(
            [
                self.store.frames(item.clip, start, start + t),
                *(self.store.frames(item.clip, f, f + 1) for f in picks),
            ]
        )
        frames = cut_faces(frames, self.store.spec, self.spec.face_px, self._affine(rng))
        return frames if self.changes is None else change_look(frames, rng, self.changes)

    def _affine(self, rng: np.random.Generator) -> np.ndarray:
        """(2, 3) map from the stored face's square to itself: mirror, shift, size and roll."""
        a, side = self.changes, self.store.spec.face_px
        if a is None:
            return np.eye(2, 3)
        mirror = -1.0 if rng.random() < 0.5 else 1.0
        shift = rng.uniform(-1, 1, 2) * a.crop_shift * side
        angle = np.deg2rad(rng.uniform(-1, 1) * a.rotation_deg)
        zoom = 1 + rng.uniform(-1, 1) * a.crop_scale
        if rng.random() < EXACT:
            shift, angle, zoom = np.rint(shift), 0.0, 1.0
        cos, sin = np.cos(angle), np.sin(angle)
        linear = zoom * np.array([[cos, -sin], [sin, cos]]) @ np.diag([mirror, 1.0])
        centre = np.full(2, (side - 1) / 2)
        return np.concatenate([linear, (centre + shift - linear @ centre)[:, None]], axis=1)

    def _sound(self, item: Item, start: int) -> tuple[np.ndarray, list[int], int]:
        """A piece of mel (L, M), where the frames' windows begin in it, and the sync loss's."""
        spec, t = self.spec, self.spec.window_frames
        heard = start - Fraction(item.lag_frames).limit_denominator(100)
        m0 = mel_start(heard - 1, spec)
        begins = [mel_start(heard - 1 + f, spec) - m0 for f in range(t)]
        # The longest phase needs one mel frame more than the shortest: all get that many.
        length = mel_start(t, spec) + 1 + spec.window_mels
        mel = self.store.mel(item.clip, m0, m0 + length)
        missing = length - len(mel)
        mel = np.pad(mel, ((0, missing), (0, 0)), constant_values=-spec.mel.max_abs)
        return mel, begins, mel_start(heard, spec) - m0

    def _cut(self, mel: np.ndarray, begins: list[int]) -> np.ndarray:
        """(N, M, L) windows of mel (L', M)."""
        length = self.spec.window_mels
        return np.stack([mel[b : b + length].T for b in begins])


def chosen_items(clips: Sequence[Clip], aligned: str = "", *, heldout: bool = False) -> list[Item]:
    """The clips as they are, or as the filter of a discriminator's run left and aligned them.

    Args:
        clips: of a store.
        aligned: folder of the run; "" for none.
        heldout: whether they are measured on. A run's filter judges what it trained on, and
            `syncdisc filter` all clips: those that nobody judged stay, with the set's lag undone.

    Raises:
        RunError: the run has no verdicts, or they leave none of these clips.
    """
    if not aligned:
        return [Item(clip) for clip in clips]
    _, rows, lag = read_verdicts("--aligned", Path(aligned))
    items = second_dataset(clips, rows, lag)
    if heldout:
        judged = {row["clip_id"] for row in rows}
        items += [Item(clip, lag) for clip in clips if clip.id not in judged]
    if not items:
        which, fix = (
            ("the held-out clips", "Hold out others by --heldout_speakers.")
            if heldout
            else ("this store's training clips", "Give the run that was trained on this store.")
        )
        raise RunError(f"--aligned {aligned}: its filter leaves none of {which}. {fix}")
    return items


def cut_faces(
    frames: np.ndarray, stored: ClipSpec, size: int, affine: np.ndarray | None = None
) -> np.ndarray:
    """The detector's box out of stored crops.

    Args:
        frames: (F, S', S', 3) uint8 as stored, margin included.
        stored: the store's spec.
        size: side of the result.
        affine: (2, 3) map from positions in the stored face's square to that square.

    Returns:
        (F, size, size, 3) uint8.
    """
    face, border = stored.face_px, (stored.stored_px - stored.face_px) // 2
    matrix = np.eye(2, 3) if affine is None else affine.astype(np.float64)
    if size == face and np.array_equal(matrix, np.eye(2, 3)):
        return frames[:, border : border + face, border : border + face]
    scale = face / size
    # Pixel i of the result lies at scale * (i + 0.5) - 0.5 of the stored face.
    offset = matrix[:, :2] @ np.full(2, 0.5 * scale - 0.5) + matrix[:, 2] + border
    whole = np.concatenate([matrix[:, :2] * scale, offset[:, None]], axis=1)
    flags = (cv2.INTER_LINEAR if scale > 1 else cv2.INTER_CUBIC) | cv2.WARP_INVERSE_MAP
    out = np.empty((len(frames), size, size, 3), np.uint8)
    for i, frame in enumerate(frames):
        cv2.warpAffine(
            frame, whole, (size, size), dst=out[i], flags=flags, borderMode=cv2.BORDER_REPLICATE
        )
    return out
