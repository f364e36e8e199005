from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from syncdisc_plugin.nn import offset_curve
from syncdisc_plugin.nn.curve import MAX_OFFSET, OffsetCurve, similarity_by_offset


def random_units(n: int, dim: int = 24, seed: int = 0) -> torch.Tensor:
    x = torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(x, dim=1)


def early_by(v: torch.Tensor, k: int, seed: int = 1) -> torch.Tensor:
    """Audio of v that is k frames early: what is seen at f is heard at f - k."""
    a = random_units(len(v), v.shape[1], seed)
    for f in range(len(v)):
        if 0 <= f - k < len(v):
            a[f - k] = v[f]
    return a


@pytest.mark.parametrize("k", [-15, -8, -1, 0, 1, 3, 12, 15])
def test_early_audio_has_a_positive_offset(k: int) -> None:
    v = random_units(60)
    assert offset_curve(v, early_by(v, k)).offset_frames == k


@pytest.mark.parametrize("k", [-4, 0, 4])
def test_confidence_is_maximum_minus_median(k: int) -> None:
    v = torch.eye(60)
    a = torch.roll(v, -k, 0)  # the ends wrap to 60 - k frames away, out of the curve's sight
    curve = offset_curve(v, a)
    assert curve.offset_frames == k
    assert curve.confidence == pytest.approx(1.0)
    half = offset_curve(v, 0.5 * a)
    assert half.confidence == pytest.approx(0.5)


def test_unrelated_audio_has_little_confidence() -> None:
    curve = offset_curve(random_units(200), random_units(200, seed=9))
    assert 0 < curve.confidence < 0.1


def test_the_curve_is_the_mean_over_pairs_that_exist() -> None:
    v, a = random_units(23), random_units(23, seed=2)
    curve = offset_curve(v, a)
    assert curve.offsets.tolist() == list(range(-15, 16))
    for offset, got in zip(curve.offsets, curve.similarity, strict=True):
        pairs = [float(v[i] @ a[i - offset]) for i in range(23) if 0 <= i - offset < 23]
        assert got == pytest.approx(np.mean(pairs), abs=1e-6)


def test_the_table_has_the_pairs_in_place() -> None:
    v, a = random_units(9), random_units(9, seed=2)
    table = similarity_by_offset(v, a, max_offset=4)
    assert table.shape == (9, 9)
    for i in range(9):
        for offset in range(-4, 5):
            got = float(table[i, 4 + offset])
            if 0 <= i - offset < 9:
                assert got == pytest.approx(float(v[i] @ a[i - offset]), abs=1e-6)
            else:
                assert np.isnan(got)


@pytest.mark.parametrize("n", [1, 2, 5, 15, 16, 17])
def test_short_clips(n: int) -> None:
    v = random_units(n)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        curve = offset_curve(v, v)
        assert curve.offset_frames == 0
        assert curve.confidence >= 0
    reach = min(15, n - 1)
    known = curve.offsets[~np.isnan(curve.similarity)]
    assert known.tolist() == list(range(-reach, reach + 1))
    if n == 1:
        assert curve.confidence == 0


@pytest.mark.parametrize("k", [-2, 2])
def test_a_short_clip_still_has_a_sign(k: int) -> None:
    v = random_units(6)
    assert offset_curve(v, early_by(v, k)).offset_frames == k


def test_offsets_without_a_partner_are_listed_as_none() -> None:
    v = random_units(10)
    curve = offset_curve(v, v)
    listed = curve.listed()
    assert [s is None for s in listed] == [True] * 6 + [False] * 19 + [True] * 6
    known = [s for s in listed if s is not None]
    assert max(known) - np.median(known) == pytest.approx(curve.confidence, abs=1e-3)


@pytest.mark.parametrize("lag", [-3.4, -0.3, 0.2, 7.45])
def test_the_lag_between_two_frames_is_that_of_the_parabola(lag: float) -> None:
    offsets = np.arange(-MAX_OFFSET, MAX_OFFSET + 1)
    assert OffsetCurve(offsets, 1 - 0.01 * (offsets - lag) ** 2).lag_frames == pytest.approx(lag)
