"""Losses over the vocabulary: each adds its gradient and gives its sum, to be divided by the targets.

Letters in shapes: n targets, d width, v vocabulary (index 0 is padding), c negatives.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from models.sequence.config import Config

CHUNK_SCORES = 1 << 19
"""Scores that are held at a time: what stays in a processor's cache is twice as fast as what does not."""


def backward(hidden: Tensor, item: Tensor, target: Tensor, config: Config) -> float:
    """Backpropagate the mean loss of `hidden` (n, d) for `target` (n,) over `item` (v, d); gives the summed loss."""
    if config.loss == "full":
        return full(hidden, item[1:], target - 1)
    drawn = torch.randint(1, len(item), (config.negatives,), device=item.device)  # never padding
    if config.loss == "sampled":
        return sampled_softmax(hidden, item, target, drawn)
    loss = gbce(hidden, item, target, drawn, calibration=config.gbce_calibration)
    torch.autograd.backward(loss / len(target))
    return loss.item()


def full(hidden: Tensor, item: Tensor, target: Tensor) -> float:
    """Cross-entropy over all items (SASRec+, Klenitskiy and Vasilev, RecSys 2023), by its closed-form gradient.

    With p the softmax of a row's scores and y its target, the gradient by the scores is p - y. Scores (n, v) never
    exist at once, and the encoder is gone through once, at the end.
    """
    rows, weights = hidden.detach(), item.detach()
    across = weights.T.contiguous()  # (d, v)
    hidden_gradient, item_gradient = torch.empty_like(rows), torch.zeros_like(across)
    total = torch.zeros((), dtype=torch.float64, device=rows.device)
    size = max(1, CHUNK_SCORES // len(weights))
    held = rows.new_empty(size, len(weights))
    parts = (torch.split(each, size) for each in (rows, hidden_gradient, target))
    for chunk, gradient, mine in zip(*parts, strict=True):
        p = held[: len(chunk)]  # (chunk, v)
        torch.mm(chunk, across, out=p)
        torch.softmax(p, dim=1, out=p)
        hit = p.gather(1, mine[:, None])
        total -= hit.clamp(min=torch.finfo(p.dtype).tiny).log().sum()
        p.scatter_(1, mine[:, None], hit - 1)
        torch.mm(p, weights, out=gradient)
        item_gradient.addmm_(chunk.T, p)
    torch.autograd.backward([hidden, item], [hidden_gradient / len(target), item_gradient.T / len(target)])
    return float(total)


def sampled_softmax(hidden: Tensor, item: Tensor, target: Tensor, drawn: Tensor) -> float:
    """Cross-entropy over the target and `drawn` items (c,), the same for all rows (Jean et al., ACL 2015).

    Its gradient is as that of `full`, over the target and the drawn, a drawn target left out.
    """
    rows, weights = hidden.detach(), item.detach()
    negatives = weights[drawn]  # (c, d)
    across = negatives.T.contiguous()
    hidden_gradient, item_gradient = torch.empty_like(rows), torch.zeros_like(weights)
    drawn_gradient = torch.zeros_like(across)
    # Each drawn item stands for (v - 2) / c of them: all but padding and the target.
    correction = math.log(max(1, len(item) - 2) / len(drawn))
    total = torch.zeros((), dtype=torch.float64, device=rows.device)
    size = max(1, CHUNK_SCORES // len(drawn))
    parts = (torch.split(each, size) for each in (rows, hidden_gradient, target))
    for chunk, gradient, mine in zip(*parts, strict=True):
        own = weights[mine]  # (chunk, d)
        scores = (chunk @ across).masked_fill_(drawn == mine[:, None], -torch.inf)  # (chunk, c)
        positive = (chunk * own).sum(dim=1) - correction  # (chunk,)
        others = torch.logsumexp(scores, dim=1)
        everything = torch.logaddexp(others, positive)
        total += (everything - positive).sum()
        p = scores.sub_(everything[:, None]).exp_()
        missed = (others - everything).exp()[:, None]  # (chunk, 1): what the target lacks of all probability
        torch.addmm(-missed * own, p, negatives, out=gradient)
        drawn_gradient.addmm_(chunk.T, p)
        item_gradient.index_add_(0, mine, -missed * chunk)
    item_gradient.index_add_(0, drawn, drawn_gradient.T.contiguous())
    torch.autograd.backward([hidden, item], [hidden_gradient / len(target), item_gradient / len(target)])
    return float(total)


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
