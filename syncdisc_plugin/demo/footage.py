"""The demo's videos: invented speakers as mp4 files, some out of sync, and truth.json."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from syncdisc_plugin.atomic import write_text
from syncdisc_plugin.demo.portrait import Appearance, Portrait, appearance, drift_head, to_uint8
from syncdisc_plugin.demo.voice import FPS, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME, Voice, speak
from syncdisc_plugin.media.encode import write_video

HELD_OUT = 2
"""How many of the last speakers are named heldout_* and are all in sync."""
_SHIFTS = (3, 10)
_BATCH = 30
_NOISE = 0.008


@dataclass(frozen=True)
class Take:
    """One clip before it is filmed: whose face moves how, and what is heard with it."""

    path: str
    """Below the folder, speaker/clip.mp4."""
    look: Appearance
    """The speaker's face."""
    mouth: np.ndarray
    """(F, 2) opening and width that the picture shows."""
    audio: np.ndarray
    """(N,) float32 at 16 kHz, F frames long: what the file sounds like."""
    kind: str
    """"synced", "shifted" or "other_audio"."""
    offset_frames: int | None
    """How many frames early the audio is; None where it belongs to another clip."""
    key: tuple[int, ...]
    """Seeds head movement and noise."""

    def truth(self) -> dict[str, Any]:
        """This clip's row of truth.json."""
        speaker = self.path.split("/")[0]
        return {
            "path": self.path,
            "speaker": speaker,
            "offset_frames": self.offset_frames,
            "kind": self.kind,
        }


def plan_takes(
    *,
    speakers: int = 8,
    clips_per_speaker: int = 3,
    seconds: float = 6.0,
    out_of_sync: float = 0.25,
    seed: int = 0,
) -> list[Take]:
    """Invent all clips; `out_of_sync` is the share of the training speakers' clips.

    Every second of those is shifted by 3 to 10 frames either way, the others carry the sound of
    something else that the same speaker said.
    """
    if speakers <= HELD_OUT:
        raise ValueError(f"speakers: expected at least {HELD_OUT + 1}, got {speakers}.")
    trained = speakers - HELD_OUT
    n_trained = trained * clips_per_speaker
    rng = np.random.default_rng((seed, 0))
    spoilt = list(rng.permutation(n_trained)[: round(out_of_sync * n_trained)])
    n_frames = round(seconds * FPS)
    spare = _SHIFTS[1]

    takes = []
    for i in range(speakers * clips_per_speaker):
        speaker, clip = divmod(i, clips_per_speaker)
        manner = np.random.default_rng((seed, 1, speaker))
        look, voice = appearance(manner), Voice.draw(manner)
        chance = np.random.default_rng((seed, 2, i))
        # Longer than the clip, so that a shifted clip ends in speech and not in silence.
        said = speak((n_frames + 2 * spare) / FPS, chance, voice)
        kind, offset_frames = "synced", 0
        if i in spoilt:
            kind = "other_audio" if spoilt.index(i) % 2 else "shifted"
        if kind == "shifted":
            offset_frames = int(
                chance.integers(_SHIFTS[0], _SHIFTS[1] + 1) * chance.choice([-1, 1])
            )
        # Early audio: what is heard now is seen offset_frames later.
        start = (spare + offset_frames) * SAMPLES_PER_FRAME
        heard = (
            speak((n_frames + 2 * spare) / FPS, chance, voice) if kind == "other_audio" else said
        )
        name = f"speaker_{speaker + 1}" if speaker < trained else f"heldout_{speaker - trained + 1}"
        takes.append(
            Take(
                path=f"{name}/clip_{clip + 1}.mp4",
                look=look,
                mouth=said.mouth[spare : spare + n_frames],
                audio=heard.audio[start : start + n_frames * SAMPLES_PER_FRAME],
                kind=kind,
                offset_frames=None if kind == "other_audio" else offset_frames,
                key=(seed, 3, i),
            )
        )
    return takes


def film(take: Take) -> Iterator[np.ndarray]:
    """The frames (H, W, 3) uint8 of a take, with a slowly moving head and a noisy sensor."""
    rng = np.random.default_rng(take.key)
    portrait = Portrait(take.look)
    mouth = torch.from_numpy(take.mouth)
    head = drift_head(len(mouth), rng, take.look)
    for start in range(0, len(mouth), _BATCH):
        part = slice(start, start + _BATCH)
        with torch.no_grad():
            frames = portrait.render(mouth[part], head[part])
        noise = rng.standard_normal(tuple(frames.shape), dtype=np.float32)
        yield from to_uint8(frames + _NOISE * torch.from_numpy(noise))


def write_footage(
    folder: Path,
    *,
    speakers: int = 8,
    clips_per_speaker: int = 3,
    seconds: float = 6.0,
    out_of_sync: float = 0.25,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Write folder/<speaker>/<clip>.mp4 and folder/truth.json; returns the rows of the latter.

    A row: path, speaker, kind ("synced", "shifted", "other_audio") and offset_frames, which is
    above 0 where the audio is early and null where it belongs to another clip.
    """
    takes = plan_takes(
        speakers=speakers,
        clips_per_speaker=clips_per_speaker,
        seconds=seconds,
        out_of_sync=out_of_sync,
        seed=seed,
    )
    for take in takes:
        path = folder / take.path
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, film(take), fps=FPS, audio=take.audio, sample_rate_hz=SAMPLE_RATE_HZ)
    rows = [take.truth() for take in takes]
    write_text(folder / "truth.json", json.dumps(rows, indent=1) + "\n")
    return rows
