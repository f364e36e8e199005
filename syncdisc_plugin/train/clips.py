"""Which clips a stage trains on: all of the first dataset, then what the filter left of it."""

from __future__ import annotations

from pathlib import Path

import torch

from syncdisc_plugin import weights
from syncdisc_plugin.data.filter import FilterResult, judge_store, second_dataset
from syncdisc_plugin.data.manifest import read_rows
from syncdisc_plugin.data.sampling import Item, fitted
from syncdisc_plugin.data.split import Split
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.train.interrupt import Interrupt
from syncdisc_plugin.train.measure import write_verdicts
from syncdisc_plugin.train.settings import TrainSettings

# RUN/filter.jsonl is the first discriminator's judgement, the second dataset. The second one sees
# lags more sharply: stage 3 takes its judgement, RUN/filter-again.jsonl.
FILTERS = {2: "filter", 3: "filter-again"}
LEAST_LEFT = 0.1  # of the footage, below which it is the judge that must be wrong


def judge_for(
    stage: int,
    run: Path,
    store: ClipStore,
    split: Split,
    settings: TrainSettings,
    device: torch.device,
    lag: int,
    interrupt: Interrupt,
) -> FilterResult | None:
    """Let the discriminator of the stage before judge the training clips.

    None if it has, or if it was asked to stop before it had: nothing is written then.

    Args:
        stage: 2 or 3, whose clips are chosen.
        run: the run's folder, where the verdicts are written.
        store: the clips.
        split: which of them are for training.
        settings: of the run; its precision is settled.
        device: where the net runs.
        lag: how early the audio of the whole set is.
        interrupt: asked after every clip.
    """
    name = FILTERS[stage]
    if (run / f"{name}.jsonl").exists():
        return None
    result = judge_store(
        weights.load(run / f"stage{stage - 1}.safetensors", device),
        store,
        split.train,
        settings.filter,
        seed=settings.seed,
        precision=settings.precision,
        lag=lag,
        title=name,
        stop=lambda: interrupt.asked,
    )
    if interrupt.asked:
        return None
    write_verdicts(run, result, name)
    return result


def clips_for(
    stage: int, run: Path, store: ClipStore, split: Split, chunk_frames: int, lag: int
) -> tuple[list[Item], str]:
    """A stage's clips with their lags, and what is to be said about them, or ''."""
    everything = [Item(clip, lag) for clip in split.train]
    if stage == 1:
        return everything, ""
    items = second_dataset(split.train, read_rows(run / f"{FILTERS[stage]}.jsonl"), lag)
    left, there = (
        sum(i.clip.n_frames for i in fitted(store, of, chunk_frames)) for of in (items, everything)
    )
    if left < LEAST_LEFT * there:
        return everything, (
            "filter: it left less than a tenth of the footage to fill chunks with, so all clips "
            "are used: the first discriminator cannot judge yet (train longer, or look at the "
            "filter's rows), or clips are no longer than --chunk_frames."
        )
    return items, ""
