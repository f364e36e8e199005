"""A batch's loss in a stage: which objectives, how much of each. The whole of what is learnt."""

from __future__ import annotations

import torch

from syncdisc_plugin.data.sampling import Batch
from syncdisc_plugin.nn import Discriminator
from syncdisc_plugin.nn.precision import autocast
from syncdisc_plugin.train.objectives import (
    against_still,
    calibrated,
    contrast,
    contrast_in_context,
    false_pairs,
)
from syncdisc_plugin.train.ranks import Ranks
from syncdisc_plugin.train.settings import StageSettings

MARGIN_SCALE = 20.0
CONTEXT = (
    11  # windows judged together: 15 frames, the middle of the PM protocol; half a chunk at most
)


def stage_loss(
    net: Discriminator,
    batch: Batch,
    how: StageSettings,
    *,
    margin: float | None,
    precision: str,
    ranks: Ranks,
) -> tuple[torch.Tensor, dict[str, float]]:
    """Loss of the global batch, of which `batch` is this process's share, and what to log.

    Args:
        net: in training mode.
        batch: from `Sampler.batch`.
        how: weights of the objectives.
        margin: stage 2's target gap; None: no margin, at the scale that the net has learnt.
        precision: of the towers, fp32 or bf16; the objectives are in fp32.
        ranks: the other processes.
    """
    device = net.log_scale.device
    with autocast(device, precision):
        v = net.embed_frames(batch.frames.to(device).float() / 255)
        a = net.embed_mel(batch.mel.to(device), batch.starts.to(device))
    beside = _beside_still(net, batch, v, a, precision) if how.stilled else ()
    beside = tuple(ranks.gather(x) for x in beside)
    v, a = ranks.gather(v), ranks.gather(a)
    alike, source, speaker = (
        ranks.gather(x.to(device)) for x in (batch.alike.byte(), batch.source, batch.speaker)
    )
    false = false_pairs(alike.bool())
    scale = net.scale if margin is None else MARGIN_SCALE
    loss, chance = contrast(
        v, a, false, scale, margin=margin or 0.0, mix=how.mix, source=source, speaker=speaker
    )
    if how.context:
        windows = min(CONTEXT, v.shape[1] // 2)
        wide, wide_chance = contrast_in_context(v, a, false, scale, windows)
        loss = (1 - how.context) * loss + how.context * wide
        chance = (1 - how.context) * chance + how.context * wide_chance
    if how.stilled:
        extra, extra_chance = against_still(beside[0], beside[1], beside[2] > 0, scale)
        loss, chance = loss + how.stilled * extra, chance + how.stilled * extra_chance
    if how.calibrated:
        extra, extra_chance = calibrated(v, a, false, net.scale, net.bias)
        loss, chance = loss + how.calibrated * extra, chance + how.calibrated * extra_chance
    table = torch.einsum("bid,bjd->bij", v.detach(), a.detach())
    return loss, {
        "loss": float(loss.detach()),
        "chance": chance,
        "similarity_true": float(table.diagonal(dim1=1, dim2=2).mean()),
        "similarity_false": float(table[false].mean()),
    }


def _beside_still(
    net: Discriminator, batch: Batch, v: torch.Tensor, a: torch.Tensor, precision: str
) -> tuple[torch.Tensor, ...]:
    """(B, N) each: similarity of the windows, of their stilled copies, and which count."""
    true = (v * a).sum(-1)
    still, counts = torch.zeros_like(true), torch.zeros_like(true)
    if len(batch.still_row):
        row = batch.still_row.to(v.device)
        with autocast(v.device, precision):
            copies = net.embed_frames(batch.still_frames.to(v.device).float() / 255)
        still = still.index_copy(0, row, (copies * a[row]).sum(-1))
        counts = counts.index_copy(0, row, batch.still_false.to(counts))
    return true, still, counts
