"""Losses over the vocabulary: each adds its gradient and gives its sum, to be divided by the targets.

Letters in shapes: n targets, d width, v vocabulary (index 0 is padding), c negatives.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from models.sequence.config import Config

CHUNK_SCORES = 1 << 20
"""Scores that are held at a time: what stays in a processor's cache is twice as fast as what does not."""


def backward(hidden: Tensor, item: Tensor, target: Tensor, config: Config) -> float:
    """Backpropagate the mean loss of `hidden` (n, d) for `target` (n,) over `item` (v, d); gives the summed loss."""
    if config.loss == "full":
        return full(hidden, item[1:], target - 1)
    drawn = torch.randint(1, len(item), (config.negatives,), device=item.device)  # never padding
    if config.loss == "gbce":
        loss = gbce(hidden, item, target, drawn, calibration=config.gbce_calibration)
    else:
        loss = sampled_softmax(hidden, item, target, drawn)
    torch.autograd.backward(loss / len(target))
    return loss.item()


def full(hidden: Tensor, item: Tensor, target: Tensor) -> float:
    """Cross-entropy over all items (SASRec+, Klenitskiy and Vasilev, RecSys 2023), by its closed-form gradient.

    With p the softmax of a row's scores and y its target, the gradient by the scores is p - y. Scores (n, v) never
    exist at once, and the encoder is gone through once, at the end.
    """
    rows, weights = hidden.detach(), item.detach()
    hidden_gradient, item_gradient = torch.empty_like(rows), torch.zeros_like(weights)
    total = torch.zeros((), dtype=torch.float64, device=rows.device)
    size = max(1, CHUNK_SCORES // len(weights))
    parts = (torch.split(each, size) for each in (rows, hidden_gradient, target))
    for chunk, gradient, mine in zip(*parts, strict=True):
        p = torch.softmax(chunk @ weights.T, dim=1)  # (chunk, v)
        hit = p.gather(1, mine[:, None])
        total -= hit.clamp(min=torch.finfo(p.dtype).tiny).log().sum()
        p.scatter_(1, mine[:, None], hit - 1)
        torch.mm(p, weights, out=gradient)
        item_gradient.addmm_(p.T, chunk)
    torch.autograd.backward([hidden, item], [hidden_gradient / len(target), item_gradient / len(target)])
    return float(total)


def sampled_softmax(hidden: Tensor, item: Tensor, target: Tensor, drawn: Tensor) -> Tensor:
    """Summed cross-entropy over the target and `drawn` items (c,), the same for all rows (Jean et al., ACL 2015)."""
    positive = (hidden * F.embedding(target, item)).sum(dim=1, keepdim=True)  # (n, 1)
    # Each drawn item stands for (v - 2) / c of them: all but padding and the target.
    correction = math.log(max(1, len(item) - 2) / len(drawn))
    negative = hidden @ F.embedding(drawn, item).T + correction  # (n, c)
    negative = negative.masked_fill(drawn == target[:, None], -torch.inf)
    return F.cross_entropy(torch.cat([positive, negative], dim=1), torch.zeros_like(target), reduction="sum")


def gbce(hidden: Tensor, item: Tensor, target: Tensor, drawn: Tensor, *, calibration: float) -> Tensor:
    """Summed generalised binary cross-entropy (gSASRec, Petrov and Macdonald, RecSys 2023), mean over each row's items.

    The target's probability is raised to the power that undoes, at `calibration` 1, the overconfidence that
    comes from sampling a share alpha of the negatives.
    """
    alpha = min(1.0, len(drawn) / max(1, len(item) - 2))
    power = alpha * (calibration * (1 - 1 / alpha) + 1 / alpha)
    positive = (hidden * F.embedding(target, item)).sum(dim=1)  # (n,)
    negative = hidden @ F.embedding(drawn, item).T  # (n, c)
    missed = F.softplus(negative).masked_fill(drawn == target[:, None], 0.0).sum(dim=1)
    return ((power * F.softplus(-positive) + missed) / (1 + len(drawn))).sum()
