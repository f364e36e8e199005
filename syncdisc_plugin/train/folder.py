"""A run's folder: whether one can begin or go on there, with which settings, on which clips."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

from syncdisc_plugin import weights
from syncdisc_plugin.atomic import write_text
from syncdisc_plugin.data.lock import NAME as LOCK
from syncdisc_plugin.data.lock import Lock
from syncdisc_plugin.data.manifest import Clip
from syncdisc_plugin.data.split import Split, chosen_split, split_store
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.errors import RunError
from syncdisc_plugin.nn import Discriminator
from syncdisc_plugin.train.clips import FILTERS
from syncdisc_plugin.train.progress import Progress, read_progress
from syncdisc_plugin.train.settings import TrainSettings
from syncdisc_plugin.train.state import STATE

SETTINGS, CLIPS = "settings.json", "clips.json"
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
    run.mkdir(parents=True, exist_ok=True)
    held.callback(Lock(run, run=True).release)
    if (run / SETTINGS).exists():  # another process has begun one since it was looked for
        raise RunError(f"--out {run}: holds a run by now. Give another folder.")
    if start:
        weights.save(start, run / START, init_from=settings.init_from)
    write_text(run / SETTINGS, json.dumps(asdict(settings), indent=1))
    train, heldout = ([clip.id for clip in part] for part in (split.train, split.heldout))
    write_text(run / CLIPS, json.dumps({"note": split.note, "train": train, "heldout": heldout}))


def abandon_run(run: Path) -> None:
    """Leave nothing of a run that was refused before its first step."""
    for name in (SETTINGS, CLIPS, START, "reference.json", LOCK):
        (run / name).unlink(missing_ok=True)


def run_split(run: Path, store: ClipStore, settings: TrainSettings) -> Split:
    """The clips that a run began with, whatever the store has got since; a new run's are drawn.

    Raises:
        RunError: some of them are gone from the store.
        StoreError: the store has too little for a held-out split.
    """
    path = run / CLIPS
    if not path.exists():
        split = split_store(store, share=settings.heldout_share, speakers=settings.heldout_speakers)
        return chosen_split(split, store, settings.choose) if settings.choose.asked else split
    raw = json.loads(path.read_text(encoding="utf-8"))
    there = {clip.id: clip for clip in store.clips}
    if gone := [i for i in raw["train"] + raw["heldout"] if i not in there]:
        raise RunError(
            f"--data {store.root}: {len(gone)} of the clips that {run} began with are not there "
            f"(the first: {gone[0]}). Give the store that it began with, or start a new run."
        )

    def known(ids: list[str]) -> list[Clip]:
        return [there[i] for i in ids]

    return Split(known(raw["train"]), known(raw["heldout"]), raw["note"])
