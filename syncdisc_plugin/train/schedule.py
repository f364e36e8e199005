"""Schedules: how many steps fit the budget, the learning rate, the average of the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from syncdisc_plugin.train.progress import Progress
from syncdisc_plugin.train.settings import StageSettings, TrainSettings


def plan_steps(
    progress: Progress,
    stage: int,
    shares: Sequence[float],
    settings: TrainSettings,
    spent_s: float,
    aside_s: float = 0.0,
) -> int:
    """Steps that a stage takes in all.

    A budget in steps is divided by the stages' shares. A budget in minutes gives the stage its
    share of the time that is left, at the pace measured so far; 0 while no step has been timed.

    Args:
        progress: where the run stands; `step` and `steps` are this stage's.
        stage: 1, 2 or 3.
        shares: the stages' shares of the budget.
        settings: gives the budget.
        spent_s: seconds of training so far.
        aside_s: seconds that passes over all clips, by the filter and at the stages' ends, will
            still take.
    """
    if settings.steps:
        return progress.steps or max(3, round(settings.steps * shares[stage - 1] / sum(shares)))
    if not progress.step_seconds:
        return 0
    if progress.steps and progress.step >= progress.steps:
        return progress.steps
    undone = 1 - (progress.step / progress.steps if progress.steps else 0.0)
    mine = shares[stage - 1] * undone
    left_s = (settings.minutes * 60 - spent_s - aside_s) * mine / (mine + sum(shares[stage:]))
    # Measuring and saving take about a tenth beside the steps. Ten steps in all are the least; a
    # plan that is made anew must not add ten each time.
    return max(10, progress.step + max(0, int(0.9 * left_s / progress.step_seconds)))


def time_step(progress: Progress, seconds: float) -> None:
    """Keep a running mean of a step's seconds; a process's first ones warm up and count little."""
    keep = 0.0 if progress.step < 6 and progress.stage == 1 else 0.95
    progress.step_seconds = keep * progress.step_seconds + (1 - keep) * seconds


def learning_rate(how: StageSettings, step: int, steps: int) -> float:
    """Warm-up over 5% of the steps (40 at most), then a cosine from the first rate to the last."""
    warm = min(40, max(5, steps // 20)) if steps else 40
    if step < warm:
        return how.learning_rate * (step + 1) / warm
    part = (step - warm) / max(1, steps - warm) if steps else 0.0
    cosine = (1 + math.cos(math.pi * min(1.0, part))) / 2
    return how.final_rate + (how.learning_rate - how.final_rate) * cosine


@torch.no_grad()
def average_weights(
    average: torch.nn.Module, net: torch.nn.Module, decay: float, step: int
) -> None:
    """Exponential average of weights and buffers, in place; shorter at first, 1 / (10 + step)."""
    keep = min(decay, (1 + step) / (10 + step))
    for mean, now in zip(average.state_dict().values(), net.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(now, 1 - keep)
        else:
            mean.copy_(now)
