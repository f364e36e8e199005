"""What each stage trains on, and at which lags."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from syncdisc_plugin.data import filter as filtering
from syncdisc_plugin.data.embed import Embedded, embed_clips
from syncdisc_plugin.data.filter import FilterResult, Verdict, judge_store
from syncdisc_plugin.data.manifest import Clip
from syncdisc_plugin.data.split import Split
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.nn import Discriminator
from syncdisc_plugin.train.clips import clips_for


def write_verdicts(run: Path, clips: Sequence[Clip], kept: int, lag: float = 0) -> None:
    rows = [
        {"clip_id": c.id, "verdict": "kept" if i < kept else "dropped", "lag_frames": lag}
        for i, c in enumerate(clips)
    ]
    (run / "filter.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def verdict(name: str, kind: str, offset: int) -> Verdict:
    return Verdict(name, name, kind, offset, float(offset), 0.5, 4.0, "")


def test_the_lag_of_the_whole_set_is_undone_in_every_stage(
    tmp_path: Path, tiny_store: ClipStore
) -> None:
    """Beside each clip's own, which was measured without it."""
    clips = tiny_store.clips
    write_verdicts(tmp_path, clips, len(clips), lag=0.5)
    split = Split(clips[:8], clips[8:], "")
    for stage, lag in ((1, 3), (2, 3.5)):
        items, _ = clips_for(stage, tmp_path, tiny_store, split, 24, 3)
        assert [item.lag_frames for item in items] == [lag] * 8


def test_a_seventh_of_the_clips_is_enough_and_a_twentieth_not(
    tmp_path: Path, tiny_store: ClipStore
) -> None:
    clips = [replace(tiny_store.clips[0], id=f"c{i}/0") for i in range(20)]
    split = Split(clips, [], "")
    write_verdicts(tmp_path, clips, 3)
    items, words = clips_for(2, tmp_path, tiny_store, split, 24, 0)
    assert len(items) == 3 and not words
    write_verdicts(tmp_path, clips, 1)
    items, words = clips_for(2, tmp_path, tiny_store, split, 24, 0)
    assert len(items) == 20 and "less than a tenth" in words


def test_clips_are_judged_with_the_lag_of_the_set_undone(
    tiny_store: ClipStore, tiny_net: Discriminator, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[Embedded] = []
    monkeypatch.setattr(filtering, "judge_clips", lambda clips, *rest: judged.extend(clips))
    judge_store(tiny_net, tiny_store, tiny_store.clips, precision="fp32", lag=4)
    plain = embed_clips(tiny_net, tiny_store, tiny_store.clips)
    for one, whole in zip(judged, plain, strict=True):
        assert torch.equal(one.v, whole.v[4:]) and torch.equal(one.a, whole.a[:-4])


def test_the_lag_of_a_set_is_the_median_of_what_is_sure() -> None:
    sure = [verdict("a", "kept", 1), verdict("b", "shifted", 5), verdict("c", "shifted", 5)]
    dropped = [verdict(f"d{i}", "dropped", -14) for i in range(9)]
    assert FilterResult([*sure, *dropped], 0, 0, 0, []).common_lag == 5
    assert FilterResult(dropped, 0, 0, 0, []).common_lag == 0


def test_the_rate_of_false_accepts_is_of_all_impostors() -> None:
    """Not of those alone whose offset would be kept, or shifted."""
    null = [(float(i), 0) for i in range(10)] + [(float(i), 5) for i in range(90)]
    assert filtering._threshold(null, 0, 1, 0.02) == 7.0  # 2 of 100 may pass: 9 and 8
    assert filtering._threshold(null, 2, 12, 0.02) == 87.0
