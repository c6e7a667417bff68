"""The model: items a customer turned to in, a vector out, whose dot products with the items' own rank what comes next.

Letters in shapes: b rows, t positions, d width, v vocabulary (index 0 is padding), m excluded items, s raised items,
f fresh items, k best.
Sequences are left-padded; what the model says after a prefix depends on neither the padding before it nor the items
after it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from models.sequence.config import Config
from models.sequence.recurrent import Recurrent
from models.sequence.transformer import Transformer
from segue.inference.sequence import LIMIT_MAX
from segue.inference.windows import GAP_BUCKETS

KINDS_MAX = 1 << 8
"""Kinds are one byte: one that is new since training has a row too, untrained and small."""


class SequenceModel(nn.Module):
    """Embeddings shared by all families, and the family's body between them.

    Attributes:
        inputs: the names of the tensors it reads, of those that `Windows` holds.
    """

    def __init__(self, config: Config, vocabulary_size: int) -> None:
        super().__init__()
        self.length = config.length
        self.scale = config.width**0.5
        self.inputs = ["items"] + ["kinds"] * config.kinds + ["gaps"] * config.gaps
        self.item = nn.Embedding(vocabulary_size, config.width, padding_idx=0)  # (v, d), also the output layer
        self.kind = nn.Embedding(KINDS_MAX, config.width, padding_idx=0) if config.kinds else None
        self.gap = nn.Embedding(GAP_BUCKETS, config.width, padding_idx=0) if config.gaps else None
        self.body = Transformer(config) if config.family == "transformer" else Recurrent(config)
        self.norm = nn.LayerNorm(config.width)
        self.apply(_initialise)

    def forward(self, items: Tensor, *context: Tensor) -> Tensor:
        """The vector after every position, (b, t, d), of `items` (b, t), t <= length, left-padded with 0.

        `context` are the other tensors named by `inputs`, in that order, each (b, t).
        """
        return self.norm(self.body(self._embedded(items, context), items > 0))

    def last(self, items: Tensor, *context: Tensor, fresh: Tensor | None = None) -> Tensor:
        """The vector after the newest position only, (b, d): what `forward(...)[:, -1]` is, for less work.

        With `fresh` (f, d), an item v + i is the one whose embedding is `fresh[i]`.
        """
        return self.norm(self.body.last(self._embedded(items, context, fresh), items > 0))

    def _embedded(self, items: Tensor, context: tuple[Tensor, ...], fresh: Tensor | None = None) -> Tensor:
        if fresh is None:
            x = self.item(items)  # (b, t, d)
        else:
            v = self.item.num_embeddings
            later = F.embedding((items - v).clamp(min=0), fresh)  # (b, t, d)
            x = torch.where((items < v)[..., None], self.item(items.clamp(max=v - 1)), later)
        x = x * self.scale
        for table, each in zip([each for each in (self.kind, self.gap) if each is not None], context, strict=True):
            x = x + table(each)
        return x


class Ranker(nn.Module):
    """What is exported and served: the newest vector, scored against every item, the best of them, and the vector."""

    def __init__(self, model: SequenceModel) -> None:
        super().__init__()
        self.model = model
        self.k = min(LIMIT_MAX, model.item.num_embeddings)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Indices and scores, each (b, k), best first, and the vector (b, d).

        `inputs` are the model's, then those of a `Question` in the order of BESIDE.
        """
        *inputs, exclude, raised, raised_by, fresh, trend, trust = inputs  # type: ignore[assignment]
        vector = self.model.last(*inputs, fresh=fresh)  # (b, d)
        scores = torch.cat([vector @ self.model.item.weight.T, vector @ fresh.T], dim=1)  # (b, v + f)
        scores = torch.addmm(scores, trust[:, None], trend[None])
        scores = scores.scatter_add(1, raised, raised_by)
        barred = F.pad(exclude, (0, 1))  # padding is always barred, also where m is 0
        scores = scores.scatter(1, barred, -torch.inf)
        best = torch.topk(scores, self.k)
        return best.indices, best.values, vector


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        with torch.no_grad():
            module.weight[module.padding_idx].zero_()
