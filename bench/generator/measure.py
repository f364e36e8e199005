"""Measure one way of drawing mouths on the test speakers' takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from figures import Picture, by_take, embed_drawn, preference, sharpness, sync_figures
from takes import (
    Take,
    cut_takes,
    draw,
    faces_of,
    frozen,
    own_mel,
    partners,
    references_of,
    shorter,
    sound_of,
    windows_of,
)
from tqdm import tqdm

from generator_integration.reference.generator import load_generator
from syncdisc_plugin.data.embed import Embedded, embed_mel
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.nn.judge import Judge

WATCHED = 12  # takes that snapshots are measured on

Drawer = Callable[[np.ndarray, np.ndarray, torch.Tensor], np.ndarray]
"""Faces (F, S, S, 3) uint8, references (R, S, S, 3), sound (F, 1, M, 16) -> faces."""


@dataclass(frozen=True)
class Heldout:
    """The takes, and what drives each of them beside its own sound."""

    store: ClipStore
    size: int
    """Side of the faces that are drawn."""
    takes: Sequence[Take]
    others: Sequence[Take]
    """Of each take the one whose sound it is driven by, as long as both of them are."""

    @classmethod
    def of(cls, store: ClipStore, size: int) -> Heldout:
        """All takes of a store."""
        takes = cut_takes(store)
        pairs = zip(partners(takes), takes, strict=True)
        return cls(store, size, takes, [shorter(other, take.n_frames) for other, take in pairs])

    def some(self, n: int) -> Heldout:
        """At most n of them, evenly."""
        n = min(n, len(self.takes))
        at = [i * len(self.takes) // n for i in range(n)]
        return replace(self, takes=[self.takes[i] for i in at], others=[self.others[i] for i in at])


def truth(faces: np.ndarray, references: np.ndarray, windows: torch.Tensor) -> np.ndarray:
    """The ceiling: the footage itself."""
    del references, windows
    return faces


def drawer(path: Path, device: str) -> Drawer:
    """The way of a generator that a run wrote."""
    return partial(draw, load_generator(path, device))


def still(first_row: int) -> Drawer:
    """The floor: a mouth that never moves."""
    return lambda faces, references, windows: frozen(faces, references, first_row)


def measure(
    heldout: Heldout, way: Drawer, nets: Mapping[str, Judge], picture: Picture | None, title: str
) -> dict[str, Any]:
    """All figures of one way of drawing.

    Returns:
        own: by net, of frames driven by their own sound, judged with it.
        other: by net, of frames driven by another take's sound, judged with that; `prefers` is
            how often that is nearer than the sound that the face really made. True frames are
            driven by nobody: theirs are of their own sound, against the other.
        picture: of frames driven by their own sound, beside the true ones.
        takes: by take, of the first net.
    """
    spec, pictures = heldout.store.spec, []
    said: dict[str, dict[str, list[Embedded]]] = {
        kind: {name: [] for name in nets} for kind in ("own", "other", "old")
    }
    pairs = zip(heldout.takes, heldout.others, strict=True)
    for take, other in tqdm(pairs, total=len(heldout.takes), desc=title, disable=None, leave=False):
        true, references = (f(heldout.store, take, heldout.size) for f in (faces_of, references_of))
        n, m = take.n_frames, other.n_frames
        old, new = sound_of(heldout.store, take), sound_of(heldout.store, other)
        own = way(true, references, windows_of(old, n, spec))
        driven = way(true[:m], references, windows_of(new, m, spec))
        if picture:
            found = picture.figures(own, true)
            pictures.append({**found, "sharpness_driven": sharpness(driven, true[:m])})
        for name, net in nets.items():
            t = net.spec.window_frames
            reach = t - 1
            a_old = embed_mel(net, own_mel(old, spec), n - reach)
            a_new = embed_mel(net, own_mel(new, spec), m - reach)
            clip = replace(take.clip, id=take.name, n_frames=n)
            v = embed_drawn(net, driven)
            said["own"][name].append(Embedded(clip, embed_drawn(net, own), a_old, t))
            heard = [a_new, a_old[: m - reach]]
            for kind, a in zip(
                ("other", "old"), heard[::-1] if way is truth else heard, strict=True
            ):
                said[kind][name].append(Embedded(clip, v, a, t))
    row: dict[str, Any] = {}
    for kind in ("own", "other"):
        row[kind] = {name: sync_figures(net, said[kind][name]) for name, net in nets.items()}
    for name in nets:
        row["other"][name]["prefers"] = preference(said["other"][name], said["old"][name])
    first = next(iter(nets))
    row["takes"] = {
        "speaker": [take.clip.speaker for take in heldout.takes],
        **{kind: by_take(said[kind][first]) for kind in ("own", "other")},
    }
    if picture:
        names = pictures[0]
        row["picture"] = {
            k: None if names[k] is None else float(np.mean([p[k] for p in pictures])) for k in names
        }
        row["takes"]["ssim"] = [round(p["ssim"], 4) for p in pictures]
    return row
