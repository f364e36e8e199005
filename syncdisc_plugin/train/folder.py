"""A run's folder: whether one can begin or go on there, with which settings, on which clips."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

from tqdm import tqdm

from syncdisc_plugin import weights
from syncdisc_plugin.atomic import write_text
from syncdisc_plugin.data.lock import NAME as LOCK
from syncdisc_plugin.data.lock import Lock
from syncdisc_plugin.data.split import Split, chosen_split, split_store
from syncdisc_plugin.data.store import META, ClipStore
from syncdisc_plugin.errors import RunError
from syncdisc_plugin.nn import Discriminator
from syncdisc_plugin.train.clips import FILTERS
from syncdisc_plugin.train.progress import Progress, read_progress
from syncdisc_plugin.train.settings import TrainSettings
from syncdisc_plugin.train.state import STATE

SETTINGS, CLIPS = "settings.json", "clips.json"
MOST_GONE = 0.1
"""Of a run's clips, which it can go on without: a damaged shard, a video that was replaced."""
START = "stage0.safetensors"  # of a run that goes on from other weights
# What a run that finds it takes for its own.
_TAKEN_UP = (
    CLIPS,
    STATE,
    "reference.json",
    *(f"{f}.jsonl" for f in FILTERS.values()),
)


def open_run(
    run: Path, settings: TrainSettings, resume: bool, held: ExitStack
) -> tuple[TrainSettings, Progress | None]:
    """The settings that hold, and where the run stands; None for a new one.

    While `held` is open, no other process can go on with the run.

    Raises:
        RunError: the folder holds a run and `resume` is false, or parts of another one; or another
            process is at work there.
    """
    path = run / SETTINGS
    if path.exists() and not resume:
        raise RunError(f"--out {run}: holds a run. Add --resume to go on with it, or give another.")
    if path.exists():
        held.callback(Lock(run, run=True).release)
        stored = TrainSettings.from_dict(json.loads(path.read_text(encoding="utf-8")))
        # It may go on elsewhere: the device is this call's.
        return replace(stored, device=settings.device), read_progress(run) or Progress()
    if found := [name for name in _TAKEN_UP if (run / name).exists()]:
        raise RunError(
            f"--out {run}: holds {', '.join(found)} but no {SETTINGS}: of `syncdisc filter`, or of "
            "a run of which a part is gone. A new run would take them for its own. Give another "
            "folder, or delete them."
        )
    return settings, None


def begin_run(
    run: Path, settings: TrainSettings, split: Split, start: Discriminator | None, held: ExitStack
) -> None:
    """Write the settings, the clips and the first weights, if not random, that hold from now on.

    Raises:
        RunError: another process is at work in the folder; until `held` is closed, this one is.
    """
    take_folder(run, held)
    if start:
        weights.save(start, run / START, init_from=settings.init_from)
    write_text(run / SETTINGS, json.dumps(asdict(settings), indent=1))
    write_clips(run, split)


def take_folder(run: Path, held: ExitStack) -> None:
    """Make and lock a new run's folder, until `held` is closed.

    Raises:
        RunError: it is a clip store; another process is at work in it, or has begun a run there
            meanwhile.
    """
    if (run / META).exists():
        raise RunError(f"--out {run}: is a clip store. Give the run a folder of its own.")
    run.mkdir(parents=True, exist_ok=True)
    held.callback(Lock(run, run=True).release)
    if (run / SETTINGS).exists():
        raise RunError(f"--out {run}: holds a run by now. Give another folder.")


def abandon_run(run: Path) -> None:
    """Leave nothing of a run that was refused before its first step."""
    for name in (SETTINGS, CLIPS, START, "reference.json", LOCK):
        (run / name).unlink(missing_ok=True)


def run_split(run: Path, store: ClipStore, settings: TrainSettings) -> Split:
    """The clips that a run began with, whatever the store has got since; a new run's are drawn.

    Raises:
        RunError: too many of them are gone from the store.
        StoreError: the store has too little for a held-out split.
    """
    if found := read_clips(run, store):
        return found
    split = split_store(store, share=settings.heldout_share, speakers=settings.heldout_speakers)
    return chosen_split(split, store, settings.choose) if settings.choose.asked else split


def write_clips(run: Path, split: Split) -> None:
    """RUN/clips.json: which clips the run has begun with."""
    train, heldout = ([clip.id for clip in part] for part in (split.train, split.heldout))
    write_text(run / CLIPS, json.dumps({"note": split.note, "train": train, "heldout": heldout}))


def read_clips(run: Path, store: ClipStore) -> Split | None:
    """The clips of RUN/clips.json, but a few that may be gone; None where there is no such file.

    Raises:
        RunError: more than MOST_GONE of them are gone: it is another store.
    """
    path = run / CLIPS
    if not path.exists():
        return None
    raw = json.loads(path.read_text(encoding="utf-8"))
    there = {clip.id: clip for clip in store.clips}
    ids = raw["train"] + raw["heldout"]
    gone = [i for i in ids if i not in there]
    train, heldout = ([there[i] for i in raw[k] if i in there] for k in ("train", "heldout"))
    if gone and (len(gone) > MOST_GONE * len(ids) or not train or not heldout):
        raise RunError(
            f"--data {store.root}: {len(gone)} of the {len(ids)} clips that {run} began with are "
            f"not there (the first: {gone[0]}). Give the store that it began with, or start a new "
            "run."
        )
    if gone:
        tqdm.write(f"{run} goes on without {len(gone)} clips that are gone from {store.root}")
    return Split(train, heldout, raw["note"])
