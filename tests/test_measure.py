from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_filter import planted

from syncdisc_plugin.data.embed import Embedded
from syncdisc_plugin.data.filter import FilterSettings
from syncdisc_plugin.data.manifest import Clip
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.nn import Discriminator
from syncdisc_plugin.train import measure
from syncdisc_plugin.train.measure import measure_heldout
from syncdisc_plugin.train.validation import clip_scores, may_replace


def test_later_weights_are_taken_unless_they_are_clearly_worse() -> None:
    best = [1.6, 1.8, 1.4, 1.7]
    assert may_replace(best, best, best)
    # some up, some down: no difference to speak of
    assert may_replace([1.7, 1.7, 1.45, 1.6], best, best)
    assert not may_replace([b - 0.1 for b in best], best, best)  # all a little worse: a difference
    assert not may_replace([1.5, 1.6, 1.35, 1.6], best, best)
    assert may_replace([1.5], [1.4], [1.4])
    assert not may_replace([1.4], [1.5], [1.5])  # one clip has no spread


def test_what_scattered_more_does_not_stay_before_what_is_better() -> None:
    best = [1.9, 1.9, 1.8, 1.84]
    scattered, steady = [2.0, 1.7, 1.9, 1.74], [b - 0.01 for b in best]
    assert may_replace(scattered, best, best)
    assert not may_replace(steady, best, best)  # surely worse, if by little
    assert may_replace(steady, scattered, best)  # and better than what was taken


def test_a_half_of_short_clips_only_does_not_stop_a_run(
    tiny_store: ClipStore, tiny_net: Discriminator
) -> None:
    long = tiny_store.clips[0]
    short = replace(tiny_store.clips[1], n_frames=8)
    found = measure_heldout(tiny_net, tiny_store, [long, short], FilterSettings(), "fp32")
    assert 0 <= found.summary["ece"] <= 1 and found.summary["n_clips"] == 2


def test_scores_are_per_clip_and_short_clips_have_one() -> None:
    rng = np.random.default_rng(0)
    x = torch.nn.functional.normalize(torch.from_numpy(rng.standard_normal((40, 16))), dim=1)
    about = Clip("a/0", "a", "a.mp4", 0.0, 44, 0, 96.0, -20.0)
    right, short = Embedded(about, x, x, 5), Embedded(about, x[:3], x[:3], 5)
    first, second = clip_scores([right, short])
    assert first == 2.0  # all pairs and all shifts right
    assert second == 1.5  # no pair is far enough to count: half


def test_foreign_sound_among_heldout_clips_does_not_flatten_the_loss(
    tiny_store: ClipStore, tiny_net: Discriminator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def heldout(lags: list[int | None]) -> list[Embedded]:
        return [planted(f"c{i}", lag, 500 + i, noise=1.0) for i, lag in enumerate(lags)]

    def scale(lags: list[int | None]) -> tuple[float, int]:
        monkeypatch.setattr(measure, "embed_clips", lambda *_: heldout(lags))
        found = measure_heldout(tiny_net, tiny_store, [], FilterSettings(), "fp32").summary
        return float(tiny_net.log_scale.detach().exp()), found["calibrated_on_clips"]

    clean, all_of_them = scale([0] * 12)
    assert all_of_them == 12
    # Each third: in sync, three frames off, somebody else's.
    dirty, trusted = scale([0, 3, None] * 4)
    assert trusted == 8
    assert dirty == pytest.approx(clean, rel=0.15)


def test_a_net_that_cannot_judge_yet_is_calibrated_on_all(
    tiny_store: ClipStore, tiny_net: Discriminator, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = [planted(f"c{i}", None, 700 + i) for i in range(12)]
    monkeypatch.setattr(measure, "embed_clips", lambda *_: clips)
    found = measure_heldout(tiny_net, tiny_store, [], FilterSettings(false_accept=0.0), "fp32")
    assert found.summary["calibrated_on_clips"] == 12
