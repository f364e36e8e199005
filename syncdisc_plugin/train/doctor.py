"""Before anyone spends a night: what is in a store, what is wrong with it, and what to do.

Sources of the limits: the pains collected from the users of SyncNet trainers (unsynced data,
mixed frame rates, silent clips, tiny faces, one speaker), and our own runs.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from syncdisc_plugin import weights
from syncdisc_plugin.data.augment import Augment
from syncdisc_plugin.data.embed import device_of
from syncdisc_plugin.data.filter import judge_store
from syncdisc_plugin.data.manifest import Clip, by_key
from syncdisc_plugin.data.sampling import Item, Sampler
from syncdisc_plugin.data.store import ClipStore, read_judged
from syncdisc_plugin.errors import StoreError
from syncdisc_plugin.evaluate.views import view_for
from syncdisc_plugin.nn import Discriminator
from syncdisc_plugin.nn.precision import choose_device, choose_precision
from syncdisc_plugin.train.ranks import Ranks
from syncdisc_plugin.train.settings import StageSettings
from syncdisc_plugin.train.stage_loss import stage_loss

MIN_MINUTES, MIN_SPEAKERS, MIN_FACE_PX, QUIET_DB = 10, 6, 64, -45
SILENT = -3.5  # mel value; -4 is digital silence
LEAST_RISES = 0.05  # share of a clip's mel bands in which the sound rises; of silence it is 0
OVERFIT_STEPS, OVERFIT_GOAL = 60, 0.6
NOTHING = Augment(*(0,) * len(Augment.__dataclass_fields__))


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    """What."""
    good: bool
    """Whether training can go ahead as far as this goes."""
    text: str
    """What was found, and what to do if it is bad."""


@dataclass
class Diagnosis:
    """All findings, and the distributions behind them."""

    findings: list[Finding] = field(default_factory=list)
    """In the order in which they were looked at."""
    histograms: dict[str, dict[str, int]] = field(default_factory=dict)
    """fps, offset_frames, face_px: how many clips have which value."""

    @property
    def good(self) -> bool:
        """Whether nothing is wrong."""
        return all(f.good for f in self.findings)

    def add(self, name: str, good: bool, text: str, advice: str = "") -> None:
        """Note a finding; the advice goes with a bad one."""
        self.findings.append(Finding(name, good, text if good else f"{text}. {advice}"))


def examine(
    store: ClipStore, judge: str | Path | None = "base", *, device: str = "auto", seed: int = 0
) -> Diagnosis:
    """Look at a store the way a training run will.

    Args:
        store: the clips.
        judge: weights that say whether the clips are in sync; None leaves that out.
        device: cuda, cpu, or auto.
        seed: which clips the overfitting check takes.
    """
    found = Diagnosis()
    _amounts(store, found)
    _formats(store, found)
    _sound(store, found)
    _duplicates(store, found)
    where = torch.device(choose_device(device))
    if judge is not None:
        _sync(store, weights.load(judge, where), found)
    _overfit(store, where, found, seed)
    return found


def _amounts(store: ClipStore, found: Diagnosis) -> None:
    frames = Counter[str]()
    for clip in store.clips:
        frames[clip.speaker] += clip.n_frames
    minutes = sum(frames.values()) / store.spec.fps / 60
    found.add(
        "amount",
        minutes >= MIN_MINUTES,
        f"{minutes:.1f} minutes in {len(store)} clips",
        f"Below {MIN_MINUTES} minutes a net learns the clips by heart: add footage, or go on from "
        "other weights, train with --init_from base.",
    )
    most = max(frames.values()) / sum(frames.values())
    found.add(
        "speakers",
        len(frames) >= MIN_SPEAKERS,
        f"{len(frames)}, the largest with {most:.0%} of the time",
        "Figures for unseen speakers need several; name them with `prepare --speakers FILE.csv` "
        "or a folder each, or add some.",
    )
    refused, inputs = len(store.refused), len(by_key(store.rows))
    found.add(
        "refused inputs",
        refused <= 0.1 * inputs,
        f"{refused} of {inputs} (reasons in {store.root / 'manifest.jsonl'})",
        "More than a tenth: look at the reasons before training.",
    )


def _formats(store: ClipStore, found: Diagnosis) -> None:
    rates = Counter(f"{c.source_fps:g}" for c in store.clips if c.source_fps)
    found.histograms["fps"] = dict(rates.most_common())
    slow = sum(c.n_frames for c in store.clips if 0 < c.source_fps < 20)
    share = slow / sum(c.n_frames for c in store.clips)
    common = ", ".join(f"{rate} ({n})" for rate, n in rates.most_common(4)) or "not recorded"
    found.add(
        "frame rates",
        share <= 0.05,
        f"{common}; all are resampled to {store.spec.fps}",
        f"{share:.0%} of the footage has fewer than 20 frames a second: repeated frames show no "
        "motion. Leave it out.",
    )
    sizes = np.array([c.face_px for c in store.clips])
    edges = [0, 32, 64, 96, 128, 192, 256, 10**6]
    counts = np.histogram(sizes, edges)[0]
    found.histograms["face_px"] = {
        f"{low}-{high}": int(n) for low, high, n in zip(edges, edges[1:], counts, strict=False) if n
    }
    small = float((sizes < MIN_FACE_PX).mean())
    found.add(
        "face sizes",
        small <= 0.2,
        f"median {np.median(sizes):.0f} px, {small:.0%} below {MIN_FACE_PX} px",
        "Small faces carry little lip motion; take a higher resolution, or leave them out.",
    )


def _sound(store: ClipStore, found: Diagnosis) -> None:
    quiet = [c for c in store.clips if c.loudness_db < QUIET_DB]
    silent = sum(float(np.mean(_loudest(store, c) < SILENT)) * c.n_frames for c in store.clips)
    share = silent / sum(c.n_frames for c in store.clips)
    found.add(
        "silence",
        share <= 0.4 and len(quiet) <= 0.05 * len(store),
        f"{share:.0%} of the time, {len(quiet)} clips below {QUIET_DB} dB",
        f"Silent windows teach nothing. First of them: {[c.source for c in quiet[:3]]}. "
        "Was the right audio stream taken?",
    )


def _loudest(store: ClipStore, clip: Clip) -> np.ndarray:
    """(L,) the loudest mel bin of every mel frame."""
    return store.mel(clip).max(axis=1)


def _duplicates(store: ClipStore, found: Diagnosis) -> None:
    """The same sound twice: in two videos, one fed twice; in one, several faces in sight."""
    by_sound: dict[bytes, dict[str, list[Clip]]] = {}
    for clip in store.clips:
        # Coarse, so that another codec or level does not hide it: where the sound rises.
        mel = store.mel(clip)[:400]
        bands = mel[: len(mel) // 8 * 8].reshape(-1, 8, 8, mel.shape[1] // 8).mean((1, 3))
        rises = np.diff(bands, axis=0) > 0
        # Silence, which two videos may well begin with, is no sign of a copy.
        telling = len(rises) > 5 and rises.mean() > LEAST_RISES
        key = hashlib.sha1(rises.tobytes()).digest() if telling else clip.id.encode()
        by_sound.setdefault(key, {}).setdefault(clip.source, []).append(clip)
    twice = [videos for videos in by_sound.values() if len(videos) > 1]
    apart = [v for v in twice if len({c.speaker for clips in v.values() for c in clips}) > 1]
    copies = len({source for videos in twice for source in sorted(videos)[1:]})
    some = [sorted(Path(source).name for source in videos) for videos in twice[:3]]
    found.add(
        "duplicates",
        not apart and copies <= 0.02 * len(store),
        f"{copies} videos sound like another one",
        f"Such as {some}. Under two speakers' names they would be trained on and held out at "
        "once; remove the copies.",
    )
    beside = sum(len(c) - 1 for videos in by_sound.values() for c in videos.values())
    found.add(
        "several faces",
        beside <= 0.1 * len(store) or bool(read_judged(store.root)),
        f"{beside} clips are of a face beside another one, with the same sound",
        f"Find out who speaks, `syncdisc store judge {store.root}`, and train with "
        "--choose.speaking yes.",
    )


def _sync(store: ClipStore, judge: Discriminator, found: Diagnosis) -> None:
    try:
        view = view_for(store, judge.spec)
    except StoreError as error:
        found.add("sync", True, f"not looked at, give other --weights. {error}")
        return
    precision = choose_precision("auto", device_of(judge))
    result = judge_store(judge, view, store.clips, precision=precision, title="doctor")
    offsets = Counter(v.offset_frames for v in result.verdicts if v.verdict != "dropped")
    found.histograms["offset_frames"] = {f"{k:+d}": offsets[k] for k in sorted(offsets)}
    lag, counts = result.common_lag, result.counts
    found.add(
        "common lag",
        abs(lag) <= 1,
        f"{lag:+d} frames between sound and picture in the median clip",
        f"The whole set is off: delay its audio by {lag} frames ({lag / store.spec.fps:.2f} s; "
        "negative: advance it), or train with --reference base, which undoes it. From inside the "
        "set, a trainer cannot see it.",
    )
    found.add(
        "sync",
        counts["kept"] >= 0.5 * len(result.verdicts),
        f"{counts['kept']} clips in sync, {counts['shifted']} off by a few frames, "
        f"{counts['dropped']} not clear to the judge",
        "The trainer's own filter will sort them out; but if most are unclear, look at some: "
        "voice-over, dubbing, wrong faces, turned heads?",
    )


def _overfit(store: ClipStore, device: torch.device, found: Diagnosis, seed: int) -> None:
    """Whether one batch can be learnt by heart: if not, its pictures and sounds say nothing."""
    windows = min(24, max(store.windows(c) for c in store.clips)) // 2 * 2
    sampler = Sampler(
        store,
        [Item(c) for c in store.clips],
        batch_clips=4,
        chunk_frames=max(12, windows),
        augment=NOTHING,
        seed=seed,
    )
    batch = sampler.batch(2, 0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Discriminator(store.spec).to(device).train()
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3)
    precision = choose_precision("auto", device)
    part = 1.0
    for _ in tqdm(range(OVERFIT_STEPS), desc="overfit one batch", disable=None):
        loss, row = stage_loss(
            net, batch, StageSettings(), margin=None, precision=precision, ranks=Ranks()
        )
        part = row["loss"] / row["chance"] if row["chance"] else 1.0
        if part < OVERFIT_GOAL:
            break
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    found.add(
        "overfits one batch",
        part < OVERFIT_GOAL,
        f"loss at {part:.0%} of chance after at most {OVERFIT_STEPS} steps",
        "A net that cannot even learn four chunks by heart gets no signal: frozen pictures, "
        "silence, or damaged crops? Look at the clips.",
    )
