"""What the stages minimise: pure functions of embeddings. Chance levels are returned beside."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

NEIGHBOUR = 1  # windows one frame apart share 4 of 5 frames: neither true nor false
NEAR = 5  # frames: up to here a false pair of the same clip is a near one


@dataclass(frozen=True)
class Mix:
    """How heavily each kind of false pair weighs in the contrast; 0 leaves a kind out."""

    near: float = 1.0
    """Audio of the same clip, 2 to 5 frames away."""
    far: float = 1.0
    """Audio of the same clip, further away."""
    same_speaker: float = 0.0
    """Audio of the speaker's other videos in the batch."""
    other_speaker: float = 0.0
    """Audio of other speakers in the batch."""


def false_pairs(alike: torch.Tensor) -> torch.Tensor:
    """Which pairs of a clip are false.

    Args:
        alike: (B, N, N) bool, windows that sound or look the same.

    Returns:
        (B, N, N) bool for (video window i, audio window j): more than one frame apart, and what
        is heard and seen at j can be told from what is heard and seen at i.
    """
    return (_distance(alike) > NEIGHBOUR)[None] & ~alike


def contrast(
    v: torch.Tensor,
    a: torch.Tensor,
    false: torch.Tensor,
    scale: torch.Tensor | float,
    *,
    margin: float = 0.0,
    mix: Mix | None = None,
    source: torch.Tensor | None = None,
    speaker: torch.Tensor | None = None,
) -> tuple[torch.Tensor, float]:
    """Cross-entropy of the true pair among its false pairs, from both sides.

    -log( e^(s+) / (e^(s+) + sum_j w_j e^(s_j + margin)) ), all times scale. With margin 0 this is
    the cross-entropy over time shifts; with a margin the true pair must win by it, and the
    hardest false pairs carry the loss (additive margin: Wang et al., AM-Softmax, 2018).

    Args:
        v: (B, N, D) unit embeddings of video windows.
        a: (B, N, D) unit embeddings of audio windows.
        false: (B, N, N) bool, from `false_pairs`.
        scale: inverse temperature.
        margin: similarity by which the true pair must win.
        mix: weights w of the kinds of false pairs.
        source: (B,) which video each clip is from; pairs within one video are no strangers.
            All differ when None.
        speaker: (B,) who speaks in each clip; all differ when None.

    Returns:
        loss (scalar), and its chance level: the loss of a net to which all pairs look alike.
    """
    b, n, _ = v.shape
    mix = mix or Mix()
    own = torch.einsum("bid,bjd->bij", v, a)
    weight = torch.where(_distance(false) <= NEAR, _log(mix.near), _log(mix.far)).to(own)
    rows, columns, count = _own_logits(own, false, scale, margin, weight)
    if b > 1 and (mix.same_speaker or mix.other_speaker):
        index = torch.arange(b, device=v.device)
        source = index if source is None else source
        speaker = index if speaker is None else speaker
        alike = speaker[:, None] == speaker[None]
        kind = torch.where(alike, _log(mix.same_speaker), _log(mix.other_speaker)).to(own)
        kind = kind.masked_fill(source[:, None] == source[None], -math.inf)
        # (b, i) against (c, j): every other video of the batch.
        cross = torch.einsum("bid,cjd->bicj", v, a)
        true = own.diagonal(dim1=1, dim2=2)[:, :, None, None]
        kind = kind[:, None, :, None]
        rows = torch.cat([rows, (scale * (cross - true + margin) + kind).flatten(2)], 2)
        back = cross.permute(2, 3, 0, 1)
        columns = torch.cat([columns, (scale * (back - true + margin) + kind).flatten(2)], 2)
        count = count + n * kind.exp().sum(2).squeeze(2)
    return _cross_entropy(rows, columns, count, false, scale, margin)


def calibrated(
    v: torch.Tensor, a: torch.Tensor, false: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor
) -> tuple[torch.Tensor, float]:
    """BCE of sigmoid(scale * similarity + bias), true and false pairs weighing the same.

    Args and shapes as in `contrast`. Chance is log 2 = 0.693, the value that SyncNets stick at.
    """
    logit = scale * torch.einsum("bid,bjd->bij", v, a) + bias
    usable = (false.sum(2) > 0).float()
    true = (F.softplus(-logit.diagonal(dim1=1, dim2=2)) * usable).sum() / usable.sum().clamp_min(1)
    wrong = (F.softplus(logit) * false).sum() / false.sum().clamp_min(1)
    return (true + wrong) / 2, math.log(2)


def _distance(table: torch.Tensor) -> torch.Tensor:
    """(N, N) frames between window i and window j."""
    index = torch.arange(table.shape[-1], device=table.device)
    return (index[:, None] - index[None]).abs()


def _log(weight: float) -> torch.Tensor:
    return torch.tensor(math.log(weight) if weight > 0 else -math.inf)


def _own_logits(
    own: torch.Tensor,
    false: torch.Tensor,
    scale: torch.Tensor | float,
    margin: float,
    weight: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits of a clip's own false pairs over its true ones, both ways, and their weight."""
    true = own.diagonal(dim1=1, dim2=2)
    weight = weight.masked_fill(~false, -math.inf)
    rows = scale * (own - true[..., None] + margin) + weight
    columns = scale * (own - true[:, None] + margin) + weight
    return rows, columns.transpose(1, 2), weight.exp().sum(2)


def _cross_entropy(
    rows: torch.Tensor,
    columns: torch.Tensor,
    count: torch.Tensor,
    false: torch.Tensor,
    scale: torch.Tensor | float,
    margin: float,
) -> tuple[torch.Tensor, float]:
    zero = rows.new_zeros(*rows.shape[:2], 1)  # the true pair's own logit
    usable = (false.sum(2) > 0).float()  # a wholly silent chunk has no false pair
    per_window = torch.logsumexp(torch.cat([rows, zero], 2), 2) + torch.logsumexp(
        torch.cat([columns, zero], 2), 2
    )
    total = usable.sum().clamp_min(1)
    loss = (per_window * usable).sum() / (2 * total)
    odds = math.exp(float(torch.as_tensor(scale).detach()) * margin)
    return loss, float((torch.log1p(count * odds) * usable).sum() / total)
