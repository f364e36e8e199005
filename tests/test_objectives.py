from __future__ import annotations

import math

import pytest
import torch

from syncdisc_plugin.train.objectives import (
    Mix,
    calibrated,
    contrast,
    false_pairs,
)

B, N, D = 3, 7, 8


def units(seed: int, *, grad: bool = False) -> torch.Tensor:
    x = torch.randn(B, N, D, generator=torch.Generator().manual_seed(seed), dtype=torch.double)
    return torch.nn.functional.normalize(x, dim=-1).requires_grad_(grad)


def silence(seed: int = 3, share: float = 0.2) -> torch.Tensor:
    """Random windows sound alike; symmetric, as sound is."""
    x = torch.rand(B, N, N, generator=torch.Generator().manual_seed(seed)) < share
    return x | x.transpose(1, 2) | torch.eye(N, dtype=torch.bool)


NONE_ALIKE = torch.eye(N, dtype=torch.bool).expand(B, N, N)
ALL_ALIKE = torch.ones(B, N, N, dtype=torch.bool)


def naive_contrast(
    v: torch.Tensor,
    a: torch.Tensor,
    false: torch.Tensor,
    scale: float,
    margin: float,
    mix: Mix,
    source: list[int],
    speaker: list[int],
) -> float:
    losses = []
    for b in range(B):
        for i in range(N):
            if not false[b, i].any():
                continue
            true = float(v[b, i] @ a[b, i])
            for side in ("hear", "see"):
                total = math.exp(scale * true)
                for c in range(B):
                    for j in range(N):
                        s = float(v[b, i] @ a[c, j] if side == "hear" else v[c, j] @ a[b, i])
                        if c == b:
                            counts = bool(false[b, i, j])
                            weight = mix.near if abs(i - j) <= 5 else mix.far
                        else:
                            counts = source[c] != source[b]
                            alike = speaker[c] == speaker[b]
                            weight = mix.same_speaker if alike else mix.other_speaker
                        if counts:
                            total += weight * math.exp(scale * (s + margin))
                losses.append(-math.log(math.exp(scale * true) / total))
    return sum(losses) / len(losses)


# --- false pairs


def test_false_pairs_are_apart_and_sound_different() -> None:
    alike = torch.zeros(1, 5, 5, dtype=torch.bool)
    alike[0, 0, 3] = alike[0, 3, 0] = True
    expected = torch.tensor(
        [
            [0, 0, 1, 0, 1],
            [0, 0, 0, 1, 1],
            [1, 0, 0, 0, 1],
            [0, 1, 0, 0, 0],
            [1, 1, 1, 0, 0],
        ]
    ).bool()
    assert torch.equal(false_pairs(alike)[0], expected)


# --- contrast


MIXES = [Mix(), Mix(near=2.0, far=0.0), Mix(1.0, 0.5, 0.02, 0.3), Mix(same_speaker=1.0)]


@pytest.mark.parametrize("mix", MIXES, ids=str)
@pytest.mark.parametrize("margin", [0.0, 0.3])
@pytest.mark.parametrize("alike", [NONE_ALIKE, silence()], ids=["speech", "some silence"])
def test_contrast_equals_a_slow_count(alike: torch.Tensor, margin: float, mix: Mix) -> None:
    v, a, false = units(0), units(1), false_pairs(alike)
    source, speaker = [0, 1, 0], [5, 5, 5]
    for who in ([0, 1, 2], speaker):
        where = dict(source=torch.tensor(source), speaker=torch.tensor(who))
        loss, _ = contrast(v, a, false, 6.0, margin=margin, mix=mix, **where)
        slow = naive_contrast(v, a, false, 6.0, margin, mix, source, who)
        assert float(loss) == pytest.approx(slow)


@pytest.mark.parametrize("mix", MIXES, ids=str)
@pytest.mark.parametrize("margin", [0.0, 0.3])
@pytest.mark.parametrize("alike", [NONE_ALIKE, silence()], ids=["speech", "some silence"])
def test_chance_is_the_loss_of_a_blind_net(alike: torch.Tensor, margin: float, mix: Mix) -> None:
    same = torch.nn.functional.one_hot(torch.zeros(B, N, dtype=torch.long), D).double()
    false = false_pairs(alike)
    loss, chance = contrast(same, same, false, 15.0, margin=margin, mix=mix)
    assert float(loss) == pytest.approx(chance, abs=1e-5)
    assert chance > 0.4


def test_a_perfect_net_loses_nothing_and_a_reversed_one_much() -> None:
    v = torch.eye(N, dtype=torch.double).expand(B, N, N)
    false = false_pairs(NONE_ALIKE)
    loss, chance = contrast(v, v, false, 30.0)
    assert float(loss) < 1e-9
    assert float(contrast(v, -v, false, 30.0)[0]) > 10 * chance


def test_neighbours_and_alike_windows_do_not_count() -> None:
    v = torch.eye(N, dtype=torch.double).expand(B, N, N)
    alike = NONE_ALIKE.clone()
    alike[:, 0, 4] = alike[:, 4, 0] = True
    base = contrast(v, v, false_pairs(alike), 10.0)[0]

    def with_similarity(i: int, j: int) -> torch.Tensor:
        """The loss if video window i sounded like audio window j as much as like its own."""
        a = v.clone()
        a[:, j, i] = 1.0
        return contrast(v, a, false_pairs(alike), 10.0)[0]

    for i, j in ((2, 3), (3, 2), (0, 4), (4, 0)):
        assert float(with_similarity(i, j)) == pytest.approx(float(base)), (i, j)
    assert float(with_similarity(2, 4)) > float(base) + 0.05
    assert float(with_similarity(4, 2)) > float(base) + 0.05


def test_a_margin_raises_the_loss() -> None:
    v, a, false = units(0), units(1), false_pairs(NONE_ALIKE)
    losses = [float(contrast(v, a, false, 10.0, margin=m)[0]) for m in (0, 0.05, 0.1, 0.4, 0.8)]
    assert losses == sorted(losses) and len(set(losses)) == 5


def test_a_margin_asks_more_of_a_net_that_already_wins() -> None:
    v = torch.eye(N, dtype=torch.double).expand(B, N, N)
    false = false_pairs(NONE_ALIKE)
    assert float(contrast(v, 0.5 * v, false, 30.0)[0]) < 1e-4
    assert float(contrast(v, 0.5 * v, false, 30.0, margin=0.4)[0]) < 0.5
    assert float(contrast(v, 0.5 * v, false, 30.0, margin=0.8)[0]) > 9


@pytest.mark.parametrize("margin", [0.0, 0.3])
def test_gradient_pulls_true_pairs_and_pushes_false_ones(margin: float) -> None:
    v, a, false = units(0, grad=True), units(1, grad=True), false_pairs(NONE_ALIKE)
    loss, _ = contrast(v, a, false, 10.0, margin=margin, mix=Mix(other_speaker=0.02))
    grad_v, grad_a = torch.autograd.grad(loss, (v, a))
    with torch.no_grad():
        step = [
            torch.nn.functional.normalize(x - 0.05 * g, dim=-1)
            for x, g in ((v, grad_v), (a, grad_a))
        ]
        before, after = (torch.einsum("bid,bjd->bij", *p) for p in ((v, a), step))
        change = after - before
        assert change.diagonal(dim1=1, dim2=2).mean() > 0
        assert change[false].mean() < 0
        assert contrast(*step, false, 10.0, margin=margin, mix=Mix(other_speaker=0.02))[0] < loss


def test_the_hardest_false_pair_carries_the_gradient() -> None:
    v = torch.eye(N, dtype=torch.double).expand(B, N, N)
    a = (0.8 * v).clone()
    a[:, 5, 2] = 0.7
    a.requires_grad_()
    loss, _ = contrast(v, a, false_pairs(NONE_ALIKE), 20.0)
    (grad,) = torch.autograd.grad(loss, a)
    pushed = grad[0, :, 2].clone()  # on what is heard at each window, seen from window 2
    assert int(pushed.argmax()) == 5
    assert pushed[5] > 100 * pushed[[0, 4, 6]].max()


def test_a_silent_chunk_teaches_nothing() -> None:
    v, a = units(0, grad=True), units(1)
    loss, chance = contrast(v, a, false_pairs(ALL_ALIKE), 10.0, mix=Mix(other_speaker=0.5))
    assert loss.item() == 0 and chance == 0
    assert not torch.autograd.grad(loss, v)[0].any()
    # And it does not thin out what the other chunks teach.
    alike = NONE_ALIKE.clone()
    alike[2] = True
    mixed = contrast(v, a, false_pairs(alike), 10.0)[0]
    two = contrast(v[:2], a[:2], false_pairs(alike[:2]), 10.0)[0]
    assert mixed.item() == pytest.approx(two.item())


def test_strangers_need_a_second_clip() -> None:
    v, a = units(0)[:1], units(1)[:1]
    false = false_pairs(NONE_ALIKE[:1])
    with_, without = (contrast(v, a, false, 8.0, mix=Mix(other_speaker=s)) for s in (0.5, 0.0))
    assert float(with_[0]) == float(without[0]) and with_[1] == without[1]


def test_the_order_of_clips_does_not_matter() -> None:
    v, a, false, order = units(0), units(1), false_pairs(silence()), [2, 0, 1]
    one = contrast(v, a, false, 8.0, mix=Mix(other_speaker=0.1))[0]
    two = contrast(v[order], a[order], false[order], 8.0, mix=Mix(other_speaker=0.1))[0]
    assert float(one) == pytest.approx(float(two))


def test_scale_learns() -> None:
    scale = torch.tensor(8.0, dtype=torch.double, requires_grad=True)
    v = torch.eye(N, dtype=torch.double).expand(B, N, N)
    contrast(v, v, false_pairs(NONE_ALIKE), scale)[0].backward()
    assert scale.grad is not None and scale.grad < 0  # right and unsure: be surer


# --- calibrated


def number(x: float) -> torch.Tensor:
    return torch.tensor(x, dtype=torch.double)


@pytest.mark.parametrize("alike", [NONE_ALIKE, silence()], ids=["speech", "some silence"])
def test_calibrated_equals_a_slow_count(alike: torch.Tensor) -> None:
    v, a, false = units(0), units(1), false_pairs(alike)
    right, wrong = [], []
    for b in range(B):
        for i in range(N):
            if false[b, i].any():
                right.append(math.log1p(math.exp(-(7 * float(v[b, i] @ a[b, i]) - 2))))
            for j in range(N):
                if false[b, i, j]:
                    wrong.append(math.log1p(math.exp(7 * float(v[b, i] @ a[b, j]) - 2)))
    expected = (sum(right) / len(right) + sum(wrong) / len(wrong)) / 2
    loss, _ = calibrated(v, a, false, number(7.0), number(-2.0))
    assert float(loss) == pytest.approx(expected)


def test_calibrated_chance_is_log_2() -> None:
    same = torch.nn.functional.one_hot(torch.zeros(B, N, dtype=torch.long), D).double()
    loss, chance = calibrated(same, same, false_pairs(NONE_ALIKE), number(9.0), number(-9.0))
    assert chance == pytest.approx(math.log(2))
    assert float(loss) == pytest.approx(chance)


def test_calibrated_falls_when_probabilities_get_right() -> None:
    v = torch.eye(N, dtype=torch.double).expand(B, N, N)
    false = false_pairs(NONE_ALIKE)
    good = calibrated(v, v, false, number(40.0), number(-20.0))[0]
    late = calibrated(v, v, false, number(4.0), number(-20.0))[0]
    assert float(good) < 1e-6 < float(late)


def test_calibrated_of_silence_is_nothing() -> None:
    v = units(0, grad=True)
    loss, _ = calibrated(v, units(1), false_pairs(ALL_ALIKE), number(9.0), number(0.0))
    assert loss.item() == 0
    assert not torch.autograd.grad(loss, v)[0].any()
