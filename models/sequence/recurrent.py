"""The body of GRU4Rec (Hidasi et al., ICLR 2016): one state, carried from item to item.

Letters in shapes: b rows, t positions, d width.
"""

import torch
from torch import Tensor, nn

from models.sequence.config import Config


class Recurrent(nn.Module):
    """GRU layers over the items alone: padding is moved behind them, so that the first item meets an empty state."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        between = config.dropout if config.blocks > 1 else 0.0
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.GRU(config.width, config.width, config.blocks, batch_first=True, dropout=between)

    def forward(self, x: Tensor, is_item: Tensor) -> Tensor:
        """The states after all positions of embedded items, both (b, t, d); padding is where not `is_item` (b, t)."""
        states, padding = self._states(x, is_item)
        place = torch.arange(x.shape[1], device=x.device)[None] - padding[:, None]  # (b, t)
        return _at(states, place.clamp(min=0))

    def last(self, x: Tensor, is_item: Tensor) -> Tensor:
        """The state after the newest position only, (b, d)."""
        states, padding = self._states(x, is_item)
        newest = (x.shape[1] - padding - 1).clamp(min=0)  # (b,)
        return _at(states, newest[:, None]).squeeze(1)

    def _states(self, x: Tensor, is_item: Tensor) -> tuple[Tensor, Tensor]:
        """The states of rows with their padding last, (b, t, d), and how many positions of each are padding, (b,)."""
        steps = x.shape[1]
        padding = steps - is_item.sum(dim=1)
        place = torch.arange(steps, device=x.device)[None] + padding[:, None]  # (b, t)
        x = _at(self.dropout(x), place.clamp(max=steps - 1))
        states = self._as_operators(x) if torch.onnx.is_in_onnx_export() else self.layers(x)[0]
        return states, padding

    def _as_operators(self, x: Tensor) -> Tensor:
        """What `layers` does to `x` (b, t, d) in evaluation, as ONNX's own GRU operators.

        The exporter unrolls `nn.GRU` over the positions of its example in every export of a process but the first.
        """
        width = x.shape[2]
        x = x.transpose(0, 1)  # (t, b, d)
        for weights in self.layers.all_weights:
            w, r, wb, rb = (_gates(each) for each in weights)
            y = torch.onnx.ops.symbolic(  # (t, 1, b, d)
                "GRU",
                (x, w[None], r[None], torch.cat([wb, rb])[None]),
                {"hidden_size": width, "linear_before_reset": 1},
                dtype=x.dtype,
                shape=(x.shape[0], 1, x.shape[1], width),
            )
            x = y.squeeze(1)
        return x.transpose(0, 1)


def _at(x: Tensor, place: Tensor) -> Tensor:
    """The positions `place` (b, p) of `x` (b, t, d), as (b, p, d)."""
    return x.gather(1, place[:, :, None].expand(-1, -1, x.shape[2]))


def _gates(weights: Tensor) -> Tensor:
    """From PyTorch's order of a GRU's gates, reset, update, new, to ONNX's: update, reset, new."""
    reset, update, new = weights.chunk(3)
    return torch.cat([update, reset, new])
