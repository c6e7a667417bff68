"""The body of SASRec (Kang and McAuley, ICDM 2018), pre-norm: a position sees itself and the items before it.

Letters in shapes: b rows, t positions, q positions that ask, d width, h heads.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from models.sequence.config import Config


class Attention(nn.Module):
    """Multi-head self-attention. Its weights are not dropped: that alone took a third of a step's time on a CPU."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.heads = config.heads
        self.query = nn.Linear(config.width, config.width)
        self.key_value = nn.Linear(config.width, 2 * config.width)
        self.out = nn.Linear(config.width, config.width)

    def forward(self, asking: Tensor, x: Tensor, visible: Tensor) -> Tensor:
        """Let the positions `asking` (b, q, d) look at `x` (b, t, d) where `visible` (b, 1, q, t); gives (b, q, d)."""
        query = self._split(self.query(asking))  # (b, h, q, d/h)
        key, value = (self._split(each) for each in self.key_value(x).chunk(2, dim=-1))  # (b, h, t, d/h)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=visible)
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


class Transformer(nn.Module):
    """Learned positions, counted from the oldest item, and blocks of attention."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.position = nn.Embedding(config.length, config.width)  # 0 is the oldest item
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))

    def forward(self, x: Tensor, is_item: Tensor) -> Tensor:
        """The states after all positions of embedded items, both (b, t, d); padding is where not `is_item` (b, t)."""
        x, visible = self._placed(x, is_item)
        for block in self.blocks:
            x = block(x, visible)
        return x

    def last(self, x: Tensor, is_item: Tensor) -> Tensor:
        """The state after the newest position only, (b, d): what `forward` ends in, for less work."""
        x, visible = self._placed(x, is_item)
        for block in self.blocks[:-1]:
            x = block(x, visible)
        return self.blocks[-1](x, visible, last_only=True).squeeze(1)

    def _placed(self, x: Tensor, is_item: Tensor) -> tuple[Tensor, Tensor]:
        """The residual stream (b, t, d) and which position sees which, (b, 1, t, t)."""
        position = (is_item.cumsum(dim=1) - 1).clamp(min=0)  # (b, t)
        place = torch.arange(x.shape[1], device=x.device)
        causal = place[:, None] >= place[None, :]  # (t, t): a query sees what is no newer than itself
        itself = place[:, None] == place[None, :]  # padding sees itself: a row that sees nothing would give NaN
        visible = (causal & is_item[:, None, :]) | itself  # (b, t, t)
        return self.dropout(x + self.position(position)), visible[:, None]
