"""Takes: stretches of test clips of about five seconds, and what a generator draws of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from generator_integration.reference.data import APART, cut_faces
from generator_integration.reference.generator import CONTEXT, Generator
from syncdisc_plugin.data.manifest import Clip
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.spec import ClipSpec
from syncdisc_plugin.timing import mel_start

TAKE_FRAMES, LEAST_FRAMES = 125, 40
PHASE = 5  # five frames are sixteen mel frames: takes that begin there cut their mel alike
MOST = 8  # of a speaker, so that none is the measurement
REFERENCES = 3
PIECE = 50  # frames drawn at once, besides CONTEXT on both sides


@dataclass(frozen=True)
class Take:
    """Frames [start, start + n_frames) of a clip."""

    clip: Clip
    start: int
    n_frames: int

    @property
    def name(self) -> str:
        """Which one."""
        return f"{self.clip.id}@{self.start}"


def cut_takes(store: ClipStore) -> list[Take]:
    """All takes of a store: at most MOST of a speaker, evenly from all of that footage."""
    by_speaker: dict[str, list[Take]] = defaultdict(list)
    for clip in store.clips:
        n = store.windows(clip) + store.spec.window_frames - 1
        pieces = max(1, round(n / TAKE_FRAMES))
        length = n // pieces // PHASE * PHASE
        if length >= LEAST_FRAMES:
            by_speaker[clip.speaker] += [Take(clip, i * length, length) for i in range(pieces)]
    out: list[Take] = []
    for _, mine in sorted(by_speaker.items()):
        n = min(len(mine), MOST)
        out += [mine[i * len(mine) // n] for i in range(n)]
    if len({take.clip.id for take in out}) < 2:
        raise SystemExit(f"{store.root}: too little footage of the test speakers to drive by.")
    return out


def partners(takes: Sequence[Take]) -> list[Take]:
    """For each take another one whose sound drives it: of another speaker where there is one.

    Each sound is used once, unless one speaker has more than half of the takes.
    """
    most = max(Counter(take.clip.speaker for take in takes).values())
    out = []
    for i, take in enumerate(takes):
        others = [takes[(i + most + k) % len(takes)] for k in range(len(takes))]
        strangers = [t for t in others if t.clip.speaker != take.clip.speaker]
        out.append((strangers or [t for t in others if t.clip.id != take.clip.id])[0])
    return out


def faces_of(store: ClipStore, take: Take, size: int) -> np.ndarray:
    """(F, S, S, 3) uint8, the detector's box."""
    frames = store.frames(take.clip, take.start, take.start + take.n_frames)
    return cut_faces(frames, store.spec, size)


def references_of(store: ClipStore, take: Take, size: int) -> np.ndarray:
    """(R, S, S, 3) uint8 from elsewhere in the clip, or from all of it where there is no more."""
    every = np.arange(take.clip.n_frames)
    away = (every < take.start - APART) | (every >= take.start + take.n_frames + APART)
    others = every[away] if away.sum() >= REFERENCES else every
    picks = others[[(2 * i + 1) * len(others) // (2 * REFERENCES) for i in range(REFERENCES)]]
    frames = np.concatenate([store.frames(take.clip, int(f), int(f) + 1) for f in picks])
    return cut_faces(frames, store.spec, size)


def sound_of(store: ClipStore, take: Take) -> np.ndarray:
    """Mel (L, M) from a frame before the take until its last window; silence beyond the clip."""
    spec = store.spec
    first = mel_start(take.start - 1, spec)
    last = mel_start(take.start + take.n_frames - 1, spec) + spec.window_mels
    mel = store.mel(take.clip, max(0, first), last)
    before = max(0, -first)
    lacking = ((before, last - first - before - len(mel)), (0, 0))
    return np.pad(mel, lacking, constant_values=-spec.mel.max_abs)


def own_mel(mel: np.ndarray, spec: ClipSpec) -> np.ndarray:
    """The sound from the take's first frame on, for a judge."""
    return mel[-mel_start(-1, spec) :]


def windows_of(mel: np.ndarray, n: int, spec: ClipSpec) -> torch.Tensor:
    """(n, 1, M, 16): for each frame the window that begins a frame earlier, for a generator."""
    before = -mel_start(-1, spec)
    begins = [before + mel_start(f - 1, spec) for f in range(n)]
    cut = np.stack([mel[b : b + spec.window_mels].T for b in begins])
    return torch.from_numpy(cut)[:, None]


@torch.inference_mode()
def draw(
    generator: Generator, faces: np.ndarray, references: np.ndarray, windows: torch.Tensor
) -> np.ndarray:
    """What a video would show: (F, S, S, 3) uint8, drawn in pieces whose borders nobody sees."""
    device = next(generator.parameters()).device
    others, out = _tensor(references)[None].to(device), []
    for first in range(0, len(faces), PIECE):
        low, stop = max(0, first - CONTEXT), min(len(faces), first + PIECE)
        seen = slice(low, min(len(faces), stop + CONTEXT))
        given = _tensor(faces[seen])[None].to(device), others, windows[seen][None].to(device)
        drawn = generator(*given)[0, first - low : stop - low]
        out.append((255 * drawn.float().clamp(0, 1)).round().byte().permute(0, 2, 3, 1).cpu())
    return torch.cat(out).numpy()


def frozen(faces: np.ndarray, references: np.ndarray, first_row: int) -> np.ndarray:
    """The mouth of a reference under moving eyes: what says nothing at all."""
    out = faces.copy()
    out[:, first_row:] = references[0, first_row:]
    return out


def shorter(take: Take, n_frames: int) -> Take:
    """Its first frames."""
    return replace(take, n_frames=min(take.n_frames, n_frames))


def _tensor(frames: np.ndarray) -> torch.Tensor:
    """(F, S, S, 3) uint8 -> (F, 3, S, S) in [0, 1]."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous().float() / 255
