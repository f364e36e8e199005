from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from syncdisc_plugin.data.embed import Embedded
from syncdisc_plugin.data.filter import FilterSettings
from syncdisc_plugin.data.manifest import Clip
from syncdisc_plugin.data.store import ClipStore
from syncdisc_plugin.nn import Discriminator
from syncdisc_plugin.train.measure import clip_scores, measure_heldout, no_worse


def test_later_weights_are_taken_unless_they_are_clearly_worse() -> None:
    best = [1.6, 1.8, 1.4, 1.7]
    assert no_worse(best, best)
    assert no_worse([1.7, 1.7, 1.45, 1.6], best)  # some up, some down: no difference to speak of
    assert not no_worse([b - 0.1 for b in best], best)  # all a little worse: a difference
    assert not no_worse([1.5, 1.6, 1.35, 1.6], best)
    assert no_worse([1.5], [1.4]) and not no_worse([1.4], [1.5])  # one clip has no spread


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
