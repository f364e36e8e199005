from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import pytest
import torch
from embedded import clip, noisy_clips, perfect, random_clips, units

from syncdisc_plugin.data.embed import Embedded
from syncdisc_plugin.evaluate import metrics
from syncdisc_plugin.evaluate.metrics import Pairs


def collapsed(n: int = 40) -> Embedded:
    """A net that sees and hears nothing: every embedding is the same."""
    one = torch.nn.functional.one_hot(torch.zeros(n, dtype=torch.long), 8).float()
    return clip(one, one)


def adversarial(n: int = 40) -> Embedded:
    """The true audio is always the least similar."""
    eye = torch.eye(n)
    return clip(eye, 0.5 * torch.roll(eye, 9, 0) + 0.5 * torch.roll(eye, -9, 0) - eye)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# --- pair accuracy


def naive_pair_accuracy(clips: Sequence[Embedded]) -> float:
    points, pairs = 0.0, 0
    for c in clips:
        s = (c.v @ c.a.T).tolist()
        for i in range(len(s)):
            for j in range(len(s)):
                if abs(i - j) >= 5:
                    points += 1.0 if s[i][i] > s[i][j] else 0.5 if s[i][i] == s[i][j] else 0.0
                    pairs += 1
    return points / pairs


def test_pair_accuracy_of_known_nets() -> None:
    assert metrics.pair_accuracy([perfect()]) == 1.0
    assert metrics.pair_accuracy([adversarial()]) == 0.0
    assert metrics.pair_accuracy([collapsed()]) == 0.5


@pytest.mark.parametrize("clips", [random_clips(), noisy_clips()], ids=["random", "noisy"])
def test_pair_accuracy_counts_every_far_pair(clips: list[Embedded]) -> None:
    assert metrics.pair_accuracy(clips) == pytest.approx(naive_pair_accuracy(clips), abs=1e-4)


def test_pair_accuracy_of_a_net_that_guesses() -> None:
    assert metrics.pair_accuracy(random_clips(8, 100)) == pytest.approx(0.5, abs=0.06)


def test_near_pairs_do_not_count() -> None:
    v = torch.eye(40)
    near = v + 2 * torch.roll(v, 4, 0)  # better at 4 frames' distance than at home
    assert metrics.pair_accuracy([clip(v, near)]) > 0.99
    far = v + 2 * torch.roll(v, 5, 0)
    assert metrics.pair_accuracy([clip(v, far)]) < 0.99


def test_no_far_pair_is_not_a_number() -> None:
    assert math.isnan(metrics.pair_accuracy([perfect(5)]))
    assert not math.isnan(metrics.pair_accuracy([perfect(6)]))


def by_distance(clips: list[Embedded]) -> dict[str, float]:
    return {k: metrics.share(n.sum(0)) for k, n in metrics.distance_counts(clips).items()}


def test_accuracy_by_distance() -> None:
    v = torch.eye(40)
    clips = [clip(v, v + 2 * torch.roll(v, 3, 0), 0, "a"), clip(v.flip(0), v.flip(0), 1, "a")]
    got = by_distance(clips[:1])
    # Window i of the video is mistaken for the sound at i + 3, where there is one.
    assert got["3"] == pytest.approx(0.5)
    assert got["1"] == got["2"] == got["5"] == got["10"] == 1.0
    assert math.isnan(got["other_clip_same_speaker"]) and math.isnan(got["other_speaker"])
    got = by_distance(noisy_clips(noise=0.1))
    assert all(value == 1.0 for value in got.values())
    assert set(got) == {"1", "2", "3", "5", "10", "other_clip_same_speaker", "other_speaker"}


def test_other_clips_are_those_that_the_name_says() -> None:
    v, w = units(50, 1), units(50, 2)
    # Clips of speaker a say the same words at the same time, the one of speaker b says others.
    both = torch.cat([v, torch.zeros(50, 16)], 1), torch.cat([torch.zeros(50, 16), w], 1)
    a1, a2, b = (
        clip(x, x, i, s)
        for i, (x, s) in enumerate(zip((both[0], both[0], both[1]), "aab", strict=True))
    )
    got = by_distance([a1, a2, b])
    assert got["other_speaker"] == 1.0
    assert 0.9 < got["other_clip_same_speaker"] < 1.0  # now and then the very same window


def test_a_collapsed_net_is_at_chance_at_every_distance() -> None:
    got = by_distance([collapsed()])
    assert [got[str(d)] for d in (1, 2, 3, 5, 10)] == [0.5] * 5


# --- PM


def naive_pm(clips: Sequence[Embedded], context: int) -> float:
    per_clip = []
    for c in clips:
        n = len(c.v)
        hits = 0
        for i in range(n):
            means = []
            for offset in range(-15, 16):
                values = []
                reach = max(0, context - c.window_frames) // 2
                for row in range(i - reach, i + reach + 1):
                    if 0 <= row < n:
                        inside = 0 <= row - offset < n
                        values.append(float(c.v[row] @ c.a[row - offset]) if inside else -2.0)
                means.append(sum(values) / len(values))
            hits += abs(int(np.argmax(means)) - 15) <= 1
        per_clip.append(hits / n)
    return sum(per_clip) / len(per_clip)


@pytest.mark.parametrize("context", [5, 7, 13, 25])
@pytest.mark.parametrize("kind", ["random", "noisy"])
def test_pm_equals_a_slow_count(kind: str, context: int) -> None:
    clips = random_clips(2, 40) if kind == "random" else noisy_clips(2, 40, noise=2.0)
    got = metrics.pm_accuracy(clips, [context])
    assert got == {str(context): pytest.approx(naive_pm(clips, context), abs=1e-9)}


def test_pm_of_a_longer_window_averages_over_fewer() -> None:
    v, a = units(60, 1), units(60, 2)
    short, long = clip(v, a, t=5), clip(v, a, t=16)
    got = metrics.pm_accuracy([long])
    assert got["5"] == got["15"] == metrics.pm_accuracy([short])["5"]  # one window is 16 frames
    assert got["25"] == pytest.approx(naive_pm([long], 25), abs=1e-9)
    assert got["25"] == metrics.pm_accuracy([short])["13"]  # 4 windows to each side


def test_pm_of_known_nets() -> None:
    assert set(metrics.pm_accuracy([perfect()]).values()) == {1.0}
    assert set(metrics.pm_accuracy([adversarial(60)]).values()) == {0.0}
    shifted = {k: clip(torch.eye(60), torch.roll(torch.eye(60), k, 0)) for k in (-2, -1, 1, 2)}
    assert metrics.pm_accuracy([shifted[1]])["25"] == metrics.pm_accuracy([shifted[-1]])["25"] == 1
    assert metrics.pm_accuracy([shifted[2]])["25"] == metrics.pm_accuracy([shifted[-2]])["25"] == 0


@pytest.mark.parametrize("frames", [25, 40, 90])
def test_chance_in_short_clips_is_what_guessing_reaches(frames: int) -> None:
    n = frames - 4
    guessed = [metrics.pm_hits(clip(units(n, i), units(n, 9000 + i))) for i in range(300)]
    expected = metrics.pm_chance(n, 5)
    np.testing.assert_allclose(np.mean(guessed, 0), expected, atol=0.03)
    assert expected[0] < expected[-1] and expected[0] >= 3 / 31
    assert metrics.pm_chance(1, 5) == [1.0] * len(metrics.CONTEXTS)


def test_pm_of_a_net_that_guesses_is_3_in_31() -> None:
    long = [clip(units(1500, i), units(1500, 50 + i), i) for i in range(3)]
    assert metrics.pm_accuracy(long, [5])["5"] == pytest.approx(3 / 31, abs=0.02)
    assert metrics.pm_accuracy([collapsed(200)], [5])["5"] < 3 / 31


def test_a_wider_context_helps_a_noisy_net() -> None:
    got = metrics.pm_accuracy(noisy_clips(4, 100, noise=1.5))
    values = list(got.values())
    assert list(got) == ["5", "7", "9", "11", "13", "15", "25"]
    assert values[0] < 0.9 and values[0] < values[2] < values[-1]


# --- AUC, EER, calibration


@pytest.mark.parametrize("kind", ["apart", "mixed", "reversed", "ties", "all tied"])
def test_auc_equals_sklearn(kind: str) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    true, false = rng.normal(0.3, 0.3, 300), rng.normal(0, 0.3, 2000)
    if kind == "apart":
        true = true + 5
    elif kind == "reversed":
        true = true - 1
    elif kind == "ties":
        true, false = true.round(1), false.round(1)
    elif kind == "all tied":
        true, false = np.zeros(300), np.zeros(2000)
    expected = sklearn.roc_auc_score(np.r_[np.ones(300), np.zeros(2000)], np.r_[true, false])
    assert metrics.auc(*Pairs(true, false).masses) == pytest.approx(expected, abs=1e-9)


def eer(clips: list[Embedded]) -> float:
    return metrics.eer(*metrics.far_pairs(clips).masses)


def test_eer_of_known_nets() -> None:
    assert eer([perfect()]) == 0.0
    assert eer([adversarial()]) == 1.0
    assert eer([collapsed()]) == 0.5


def test_eer_of_a_few_pairs_lies_between_two_thresholds() -> None:
    for true, false in (([0.1, 0.9], [0.5]), ([0.5], [0.1, 0.9])):
        assert metrics.eer(*Pairs(np.array(true), np.array(false)).masses) == pytest.approx(0.5)
    pairs = Pairs(np.array([0.2, 0.6, 0.7, 0.8]), np.array([0.1, 0.3]))
    assert metrics.eer(*pairs.masses) == pytest.approx(0.25)


@pytest.mark.parametrize("distance", [0.0, 1.0, 2.0, 3.0])
def test_eer_of_two_bells(distance: float) -> None:
    bell = NormalDist()
    at = (np.arange(20_000) + 0.5) / 20_000
    quantiles = np.array([bell.inv_cdf(p) for p in at])
    got = metrics.eer(*Pairs(quantiles[::4] + distance, quantiles).masses)
    assert got == pytest.approx(bell.cdf(-distance / 2), abs=0.002)


def test_ece_of_honest_probabilities_is_nothing() -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(0, 1, 200_000)
    is_true = rng.random(200_000) < p
    assert metrics.calibration_error(p[is_true], p[~is_true]) < 0.01


@pytest.mark.parametrize("n_false", [1000, 20_000])
def test_ece_of_an_overconfident_net(n_false: int) -> None:
    """It says 0.99 and is right four times in five: off by 0.19, whatever the pairs' numbers."""

    def says(n: int, share: float) -> np.ndarray:
        return np.where(np.arange(n) < share * n, 0.99, 0.01)

    got = metrics.calibration_error(says(1000, 0.8), says(n_false, 0.2))
    assert got == pytest.approx(0.19, abs=1e-9)


def test_ece_at_the_ends() -> None:
    assert metrics.calibration_error(np.ones(5), np.zeros(7)) == 0.0
    assert metrics.calibration_error(np.zeros(5), np.ones(7)) == pytest.approx(1.0)
    assert metrics.calibration_error(np.full(5, 0.5), np.full(9, 0.5)) == pytest.approx(0.0)


def test_fit_calibration_finds_scale_and_bias() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, 200_000)
    is_true = rng.random(len(x)) < metrics.probabilities(x, 12.0, -5.0)
    true, false = x[is_true], x[~is_true]
    scale, bias = metrics.fit_calibration(Pairs(true, false))
    # True and false weigh the same: the prior leaves the bias.
    balanced = -5.0 + math.log(len(false) / len(true))
    assert scale == pytest.approx(12.0, rel=0.03)
    assert bias == pytest.approx(balanced, abs=0.15)
    p = [metrics.probabilities(s, scale, bias) for s in (true, false)]
    assert metrics.calibration_error(*p) < 0.01


def test_fit_calibration_of_a_net_that_guesses_is_flat() -> None:
    x = np.random.default_rng(0).uniform(-1, 1, 20_000)
    scale, bias = metrics.fit_calibration(Pairs(x[:10_000], x[10_000:]))
    assert abs(scale) < 0.1 and abs(bias) < 0.1


def test_fit_calibration_of_a_perfect_net_is_finite() -> None:
    scale, bias = metrics.fit_calibration(Pairs(np.full(50, 0.9), np.zeros(500)))
    assert math.isfinite(scale) and math.isfinite(bias) and scale > 10
    assert metrics.probabilities(np.array([0.9]), scale, bias)[0] > 0.99


def test_crossfitted_ece_is_honest_about_differences() -> None:
    alike = metrics.crossfitted_ece(noisy_clips(4, 200), noisy_clips(4, 200))
    assert alike < 0.05
    # The second half scores all pairs alike: what the first half taught is wrong there.
    assert metrics.crossfitted_ece(noisy_clips(4, 200), random_clips(4, 200)) > 0.15


# --- pairs and the summary


def test_far_pairs_are_far_and_repeatable() -> None:
    n = 60
    index = torch.arange(n).float()
    # Similarity says which windows were paired: v[i] . a[j] = i * 1000 + j.
    c = clip(torch.stack([index * 1000, torch.ones(n)], 1), torch.stack([torch.ones(n), index], 1))
    pairs = metrics.far_pairs([c])
    assert pairs.true.tolist() == [i * 1001 for i in range(n)]
    i, j = np.divmod(pairs.false, 1000)
    assert np.abs(i - j).min() == 5
    assert len(pairs.false) > 6 * n
    assert (metrics.far_pairs([c]).false == pairs.false).all()
    assert not np.array_equal(metrics.far_pairs([c], seed=1).false[:50], pairs.false[:50])
