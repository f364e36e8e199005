"""A batch's loss in a stage: which objectives, how much of each. The whole of what is learnt."""

from __future__ import annotations

import torch

from syncdisc_plugin.data.sampling import Batch
from syncdisc_plugin.nn import Discriminator
from syncdisc_plugin.nn.precision import autocast
from syncdisc_plugin.train.objectives import calibrated, contrast, false_pairs
from syncdisc_plugin.train.ranks import Ranks
from syncdisc_plugin.train.settings import StageSettings

MARGIN_SCALE = 20.0


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
    v, a = ranks.gather(v), ranks.gather(a)
    alike, source, speaker = (
        ranks.gather(x.to(device)) for x in (batch.alike.byte(), batch.source, batch.speaker)
    )
    false = false_pairs(alike.bool())
    scale = net.scale if margin is None else MARGIN_SCALE
    loss, chance = contrast(
        v, a, false, scale, margin=margin or 0.0, mix=how.mix, source=source, speaker=speaker
    )
    if how.calibrated:
        extra, extra_chance = calibrated(v, a, false, net.scale, net.bias)
        loss, chance = loss + how.calibrated * extra, chance + how.calibrated * extra_chance
    table = torch.einsum("bid,bjd->bij", v.detach(), a.detach())
    values = {
        "loss": float(loss.detach()),
        "chance": chance,
        "similarity_true": float(table.diagonal(dim1=1, dim2=2).mean()),
    }
    if false.any():  # a wholly silent batch has no false pair
        values["similarity_false"] = float(table[false].mean())
    return loss, values
