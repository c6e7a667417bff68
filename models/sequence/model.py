"""The model: a causal Transformer over item sequences (SASRec, Kang and McAuley, ICDM 2018), in plain PyTorch.

Letters in shapes: b rows, t positions, d width, h heads, v vocabulary (index 0 is padding), m excluded items, k best.
Sequences are left-padded, and an item's position is the number of items before it: what the model says after a prefix
depends on neither the padding before it nor the items after it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from models.sequence.config import Config
from segue.inference.sequence import LIMIT_MAX


class Attention(nn.Module):
    """Multi-head self-attention in which a position sees itself and the items before it."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.heads = config.heads
        self.query = nn.Linear(config.width, config.width)
        self.key_value = nn.Linear(config.width, 2 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.dropout = config.dropout

    def forward(self, asking: Tensor, x: Tensor, visible: Tensor) -> Tensor:
        """Let the positions `asking` (b, q, d) look at `x` (b, t, d) where `visible` (b, 1, q, t); gives (b, q, d)."""
        query = self._split(self.query(asking))  # (b, h, q, d/h)
        key, value = (self._split(each) for each in self.key_value(x).chunk(2, dim=-1))  # (b, h, t, d/h)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=visible, dropout_p=dropout)
        return self.out(mixed.transpose(1, 2).flatten(2))  # (b, q, d)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)  # (b, t, d) -> (b, h, t, d/h)


class Block(nn.Module):
    """Attention, then a feed-forward layer, each on a normalised residual stream."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = Attention(config)
        self.forward_norm = nn.LayerNorm(config.width)
        self.widen = nn.Linear(config.width, 4 * config.width)
        self.narrow = nn.Linear(4 * config.width, config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, visible: Tensor, *, last_only: bool = False) -> Tensor:
        """Transform (b, t, d); with `last_only`, compute no more than the newest position, (b, 1, d)."""
        normed = self.attention_norm(x)
        if last_only:
            x, asking, visible = x[:, -1:], normed[:, -1:], visible[:, :, -1:]
        else:
            asking = normed
        x = x + self.dropout(self.attention(asking, normed, visible))
        return x + self.dropout(self.narrow(F.gelu(self.widen(self.forward_norm(x)))))


class SequenceModel(nn.Module):
    """From the items a customer turned to, to a vector whose dot products with the items' own rank what comes next."""

    def __init__(self, config: Config, vocabulary_size: int) -> None:
        super().__init__()
        self.length = config.length
        self.scale = config.width**0.5
        self.item = nn.Embedding(vocabulary_size, config.width, padding_idx=0)  # (v, d), also the output layer
        self.position = nn.Embedding(config.length, config.width)  # 0 is the oldest item
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(config.width)
        self.apply(_initialise)

    def forward(self, items: Tensor) -> Tensor:
        """The vector after every position, (b, t, d), of `items` (b, t), t <= length, left-padded with 0."""
        x, visible = self._embed(items)
        for block in self.blocks:
            x = block(x, visible)
        return self.norm(x)

    def last(self, items: Tensor) -> Tensor:
        """The vector after the newest position only, (b, d): what `forward(items)[:, -1]` is, for less work."""
        x, visible = self._embed(items)
        for block in self.blocks[:-1]:
            x = block(x, visible)
        return self.norm(self.blocks[-1](x, visible, last_only=True)).squeeze(1)

    def _embed(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """The residual stream (b, t, d) and which position sees which, (b, 1, t, t)."""
        is_item = items > 0  # (b, t)
        position = (is_item.cumsum(dim=1) - 1).clamp(min=0)  # (b, t)
        x = self.dropout(self.item(items) * self.scale + self.position(position))
        place = torch.arange(items.shape[1], device=items.device)
        causal = place[:, None] >= place[None, :]  # (t, t): a query sees what is no newer than itself
        itself = place[:, None] == place[None, :]  # padding sees itself: a row that sees nothing would give NaN
        visible = (causal & is_item[:, None, :]) | itself  # (b, t, t)
        return x, visible[:, None]


class Ranker(nn.Module):
    """What is exported and served: the newest vector, scored against every item, and the best of them."""

    def __init__(self, model: SequenceModel) -> None:
        super().__init__()
        self.model = model
        self.k = min(LIMIT_MAX, model.item.num_embeddings)

    def forward(self, items: Tensor, exclude: Tensor) -> tuple[Tensor, Tensor]:
        """Indices and scores, each (b, k), best first, for `items` (b, t); never padding nor `exclude` (b, m)."""
        scores = self.model.last(items) @ self.model.item.weight.T  # (b, v)
        barred = F.pad(exclude, (0, 1))  # padding is always barred, also where m is 0
        scores = scores.scatter(1, barred, -torch.inf)
        best = torch.topk(scores, self.k)
        return best.indices, best.values


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        with torch.no_grad():
            module.weight[module.padding_idx].zero_()
