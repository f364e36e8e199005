"""What the stages minimise: pure functions of embeddings. Chance levels are returned beside."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

NEIGHBOUR = 1  # windows one frame apart share 4 of 5 frames: neither true nor false


def false_pairs(alike: torch.Tensor) -> torch.Tensor:
    """Which pairs of a clip are false.

    Args:
        alike: (B, N, N) bool, audio windows that sound the same.

    Returns:
        (B, N, N) bool for (video window i, audio window j): more than one frame apart, and the
        audio heard at j can be told from what is heard at i.
    """
    n = alike.shape[-1]
    index = torch.arange(n, device=alike.device)
    apart = (index[:, None] - index[None]).abs() > NEIGHBOUR
    return apart[None] & ~alike


def contrast(
    v: torch.Tensor,
    a: torch.Tensor,
    false: torch.Tensor,
    scale: torch.Tensor | float,
    *,
    margin: float = 0.0,
    strangers: float = 0.0,
    group: torch.Tensor | None = None,
) -> tuple[torch.Tensor, float]:
    """Cross-entropy of the true pair among its false pairs, from both sides.

    -log( e^(s+) / (e^(s+) + sum_j e^(s_j + margin) ) ), all times scale. With margin 0 this is
    the cross-entropy over time shifts; with a margin the true pair must win by it, and the
    hardest false pairs carry the loss (additive margin: Wang et al., AM-Softmax, 2018).

    Args:
        v: (B, N, D) unit embeddings of video windows.
        a: (B, N, D) unit embeddings of audio windows.
        false: (B, N, N) bool, from `false_pairs`.
        scale: inverse temperature.
        margin: similarity by which the true pair must win.
        strangers: weight of each window of the other clips of the batch; 0 leaves them out.
        group: (B,) which clips come from one video, and so are no strangers; all differ when None.

    Returns:
        loss (scalar), and its chance level: the loss of a net to which all pairs look alike.
    """
    b, n, _ = v.shape
    own = torch.einsum("bid,bjd->bij", v, a)
    true = own.diagonal(dim1=1, dim2=2)
    shift = (own - true[..., None] + margin).masked_fill(~false, -1e4)
    shift_back = (own - true[:, None] + margin).masked_fill(~false, -1e4)
    rows, columns = scale * shift, scale * shift_back.transpose(1, 2)
    count = false.sum(2).float()
    if strangers and b > 1:
        # (b, i) against (c, j), c != b: every other clip of the batch.
        cross = torch.einsum("bid,cjd->bicj", v, a)
        group = torch.arange(b, device=v.device) if group is None else group
        other = (group[:, None] != group[None])[:, None, :, None]
        weight = math.log(strangers)

        def stranger_logits(table: torch.Tensor) -> torch.Tensor:
            x = scale * (table - true[:, :, None, None] + margin) + weight
            return x.masked_fill(~other, -1e4).flatten(2)

        rows = torch.cat([rows, stranger_logits(cross)], 2)
        columns = torch.cat([columns, stranger_logits(cross.permute(2, 3, 0, 1))], 2)
        count = count + strangers * n * other.sum(2).flatten(1)
    zero = rows.new_zeros(b, n, 1)
    usable = (false.sum(2) > 0).float()  # a wholly silent chunk has no false pair
    per_window = torch.logsumexp(torch.cat([rows, zero], 2), 2) + torch.logsumexp(
        torch.cat([columns, zero], 2), 2
    )
    total = usable.sum().clamp_min(1)
    loss = (per_window * usable).sum() / (2 * total)
    chance = float(
        (
            torch.log1p(count * math.exp(float(torch.as_tensor(scale).detach()) * margin)) * usable
        ).sum()
        / total
    )
    return loss, chance


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
