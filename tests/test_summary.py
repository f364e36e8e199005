from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from embedded import clip, noisy_clips, perfect, random_clips, units

from syncdisc_plugin.data.embed import Embedded
from syncdisc_plugin.evaluate import metrics
from syncdisc_plugin.evaluate.pair_sums import CELLS
from syncdisc_plugin.evaluate.summary import Tally, known, summary

SCALE, BIAS = 10.0, -5.0


def many(speakers: int = 6, noise: float = 1.5) -> list[Embedded]:
    """Two clips of each speaker, whose errors differ from speaker to speaker."""
    out = []
    for i in range(2 * speakers):
        v = units(60 + i, i)
        spread = noise * (0.6, 1.4, 0.8, 1.2)[i // 2 % 4]
        a = v + spread * units(60 + i, 1000 + i)
        out.append(clip(v, torch.nn.functional.normalize(a, dim=1), i, f"s{i // 2}"))
    return out


def test_summary_of_a_perfect_net() -> None:
    clips = [clip(torch.eye(40), torch.eye(40), i, f"s{i}") for i in range(3)]
    got = summary(clips, scale=50.0, bias=-25.0)
    for key in ("pair_accuracy", "auc", "similarity_true", "gap", "offset_within_1"):
        assert got[key] == pytest.approx(1.0), key
    for key in ("eer", "ece", "similarity_false", "offset_mae_frames"):
        assert got[key] == pytest.approx(0.0, abs=1e-6), key
    assert (got["n_clips"], got["n_speakers"], got["n_windows"]) == (3, 3, 120)
    assert got["confidence"] == pytest.approx(1.0)
    assert got["embedding_distance"] == pytest.approx(0.0, abs=1e-3)
    assert got["embedding_confidence"] == pytest.approx(2**0.5)


def test_summary_measures_the_size_of_the_offset() -> None:
    v = units(80, 0)
    clips = [clip(v, torch.roll(v, k, 0), i) for i, k in enumerate((3, -3, 1, 1))]
    got = summary(clips, SCALE, BIAS)
    assert got["offset_mae_frames"] == 2.0
    assert got["offset_within_1"] == 0.5


def test_the_loss_is_what_syncloss_would_say() -> None:
    clips = noisy_clips()
    got = summary(clips, SCALE, BIAS)
    own = torch.cat([(c.v * c.a).sum(1) for c in clips]).double()
    expected = torch.nn.functional.softplus(-(SCALE * own + BIAS)).mean()
    assert got["loss_true"] == pytest.approx(float(expected), rel=1e-5)
    assert got["loss_false"] > got["loss_true"]


@pytest.mark.parametrize("chosen", [(0, 1), (2, 3, 4, 5), (7,)])
def test_a_weighting_is_the_set_of_those_clips(chosen: tuple[int, ...]) -> None:
    clips = many()
    weight = np.zeros(len(clips))
    weight[list(chosen)] = 1
    some = [clips[i] for i in chosen]
    got = Tally(clips, SCALE, BIAS).figures(weight)
    alone = Tally(some, SCALE, BIAS).figures()
    for name in ("pair_accuracy", "offset_within_1", "confidence", "embedding_distance"):
        assert got[name] == pytest.approx(alone[name], nan_ok=True), name
    for name, value in alone["pm_accuracy"].items():
        assert got["pm_accuracy"][name] == pytest.approx(value)
    # These are of a random sample of false pairs, which differs.
    for name in ("auc", "eer", "ece", "loss_true", "similarity_true"):
        assert got[name] == pytest.approx(alone[name], abs=0.03), name


def test_the_interval_of_the_calibration_error_holds_it() -> None:
    """Of a calibrated net as of any other; percentiles alone lie above it."""
    rng, clips = np.random.default_rng(1), many()
    tally = Tally(clips, SCALE, BIAS)
    tally.pairs._true.error[:] = rng.normal(0, 0.1, tally.pairs._true.error.shape)
    tally.pairs._false.error[:] = rng.normal(0, 0.1, tally.pairs._false.error.shape)
    found, intervals = tally.figures()["ece"], tally.intervals(tally.figures)
    assert intervals is not None
    low, high = intervals["ece"]
    assert 0 <= low <= found <= high < 2 * found + 0.01


def test_twice_is_weight_two() -> None:
    clips = many()
    tally = Tally(clips, SCALE, BIAS)
    once, twice = (tally.figures(np.full(len(clips), times)) for times in (1.0, 2.0))
    for name in ("auc", "eer", "ece", "loss_true_sd", "pair_accuracy"):
        assert once[name] == pytest.approx(twice[name]), name


def test_weighted_figures_are_those_of_all_clips_within_a_cell() -> None:
    clips = many()
    tally = Tally(clips, SCALE, BIAS)
    exact, weighted = tally.figures(), tally.figures(np.ones(len(clips)))
    assert exact["auc"] == pytest.approx(weighted["auc"], abs=1e-5)
    assert exact["eer"] == pytest.approx(weighted["eer"], abs=1 / CELLS)
    for name in ("ece", "loss_true", "loss_false", "gap"):
        assert exact[name] == pytest.approx(weighted[name]), name
    assert exact["ece"] == pytest.approx(
        metrics.calibration_error(
            *(
                metrics.probabilities(side, SCALE, BIAS)
                for side in (metrics.far_pairs(clips).true, metrics.far_pairs(clips).false)
            )
        )
    )


def test_an_interval_holds_the_figure_and_narrows_with_speakers() -> None:
    widths = {}
    for speakers in (4, 24):
        tally = Tally(many(speakers, noise=1.0), SCALE, BIAS)
        figures, spread = tally.figures(), tally.intervals(tally.outline)
        assert spread is not None
        low, high = spread["pair_accuracy"]
        assert low <= figures["pair_accuracy"] <= high
        assert spread["pm_accuracy"]["5"][0] <= figures["pm_accuracy"]["5"]
        widths[speakers] = high - low
    assert 0 < widths[24] < widths[4]


def test_intervals_of_speakers_who_are_all_alike_are_points() -> None:
    v = units(60, 3)
    a = torch.nn.functional.normalize(v + units(60, 4), dim=1)
    tally = Tally([clip(v, a, i, f"s{i}") for i in range(4)], SCALE, BIAS)
    low, high = tally.intervals(tally.outline)["pair_accuracy"]  # type: ignore[index]
    assert low == high == pytest.approx(tally.figures()["pair_accuracy"])


def test_two_speakers_give_no_interval() -> None:
    tally = Tally(many(2), SCALE, BIAS)
    assert tally.intervals(tally.figures) is None


def test_the_same_clips_give_the_same_intervals() -> None:
    tally = Tally(many(4), SCALE, BIAS)
    assert tally.intervals(tally.outline) == tally.intervals(tally.outline)


def test_groups_part_the_clips() -> None:
    clips = many(4)
    tally = Tally(clips, SCALE, BIAS)
    names = ["en" if i < 6 else "fr" for i in range(8)]
    found = tally.group(names)
    assert {k: v["n_clips"] for k, v in found.items()} == {"en": 6, "fr": 2}
    assert found["en"]["intervals"] and found["fr"]["intervals"] is None
    assert found["fr"]["pair_accuracy"] == pytest.approx(metrics.pair_accuracy(clips[6:]))
    assert tally.group([*names[:-1], ""])["fr"]["n_clips"] == 1  # "" is no name


def test_what_is_not_known_is_null() -> None:
    got = summary([perfect()], SCALE, BIAS)
    assert got["pair_accuracy_by_distance"]["other_speaker"] is None
    json.dumps(got, allow_nan=False)
    assert known({"a": float("nan"), "b": {"c": 1.0}}) == {"a": None, "b": {"c": 1.0}}


def test_aligned_figures_do_not_count_a_clips_own_lag() -> None:
    v = units(120, 0)
    a = torch.nn.functional.normalize(v + 0.7 * units(120, 1), dim=1)
    straight = summary([clip(v, a)], SCALE, BIAS)
    late = summary([clip(v, torch.roll(a, 3, 0))], SCALE, BIAS)
    assert late["pm_accuracy"]["15"] < 0.1
    assert late["pm_accuracy_aligned"]["15"] == pytest.approx(straight["pm_accuracy"]["15"])
    assert late["pair_accuracy_aligned"] == pytest.approx(straight["pair_accuracy"], abs=0.02)


def test_a_clip_that_no_offset_fits_is_not_aligned() -> None:
    got = summary(random_clips(1, 80), SCALE, BIAS)
    assert got["pair_accuracy_aligned"] == got["pair_accuracy"]


def test_a_figure_of_one_speaker_has_no_interval() -> None:
    """Only one of six has two clips: nothing is known of the others' second ones."""
    clips = many()
    alone = [*clips[0:2], *clips[2::2]]
    tally = Tally(alone, SCALE, BIAS)
    spread = tally.intervals(tally.figures)
    assert spread is not None and spread["pair_accuracy"] is not None
    distances = spread["pair_accuracy_by_distance"]
    assert distances["other_clip_same_speaker"] is None
    assert distances["other_speaker"] is not None


def test_ranges_come_in_the_order_of_their_numbers() -> None:
    names = ["192 px and more", "48-96 px", "0-48 px", "96-192 px"] * 3
    found = Tally(many(), SCALE, BIAS).group(names)
    assert list(found) == ["0-48 px", "48-96 px", "96-192 px", "192 px and more"]
