"""Augmentation starts soft. (That it moves nothing in time is in test_sampling.)"""

from __future__ import annotations

import dataclasses

import pytest
import torch

from syncdisc_plugin.data import sampling
from syncdisc_plugin.data.augment import Augment, softened
from syncdisc_plugin.data.sampling import Item, Sampler
from syncdisc_plugin.data.store import ClipStore


def test_strengths_rise_to_the_whole() -> None:
    whole = dataclasses.asdict(Augment())
    first, middle = (dataclasses.asdict(softened(Augment(), step)) for step in (0, 150))
    assert softened(Augment(), 300) == softened(Augment(), 9999) == Augment()
    for name, value in whole.items():
        assert first[name] < middle[name] < value
    assert first["color"] == pytest.approx(whole["color"] / 4)


@pytest.mark.parametrize("stage", [1, 2])
def test_only_stage_1_starts_soft(
    tiny_store: ClipStore, monkeypatch: pytest.MonkeyPatch, stage: int
) -> None:
    def frames(augment: Augment) -> torch.Tensor:
        items = [Item(clip) for clip in tiny_store.clips]
        sampler = Sampler(
            tiny_store, items, batch_clips=4, chunk_frames=12, augment=augment, seed=1
        )
        return sampler.batch(stage, 0).frames

    drawn = frames(Augment())
    monkeypatch.setattr(sampling, "softened", lambda augment, step: augment)
    is_soft = torch.equal(drawn, frames(softened(Augment(), 0)))
    is_whole = torch.equal(drawn, frames(Augment()))
    assert (is_soft, is_whole) == ((True, False) if stage == 1 else (False, True))
