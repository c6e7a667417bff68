"""A training run: the model, where it stands, and the best it has been."""

import math
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import torch
from torch import Tensor

from models.sequence.config import Config
from models.sequence.model import SequenceModel


@dataclass(frozen=True)
class Epoch:
    """One point of the learning curve."""

    loss: float
    validation_ndcg_10: float
    seconds: float
    processor_seconds: float = 0.0


@dataclass(eq=False)
class Run:
    """Everything that an epoch changes."""

    model: SequenceModel
    optimizer: torch.optim.Optimizer
    rng: np.random.Generator
    """Draws the batches; dropout and negatives are drawn by PyTorch's own generator."""
    steps: int = 0
    curve: list[Epoch] = field(default_factory=list)
    best_epoch: int = 0
    """Counted from 1."""
    weights: dict[str, Tensor] = field(default_factory=dict)
    """Those of the best epoch, on the CPU."""

    @classmethod
    def begin(cls, config: Config, vocabulary_size: int) -> Self:
        """A fresh run, on the GPU where there is one."""
        torch.manual_seed(config.seed)
        model = SequenceModel(config, vocabulary_size).to("cuda" if torch.cuda.is_available() else "cpu")
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        return cls(model, optimizer, np.random.default_rng(config.seed))

    @property
    def best_ndcg_10(self) -> float:
        """On validation; -inf before the first epoch."""
        return self.curve[self.best_epoch - 1].validation_ndcg_10 if self.best_epoch else -math.inf

    def see(self, epoch: Epoch) -> None:
        """Take note of a finished epoch and keep its weights if none before it was better."""
        best = self.best_ndcg_10
        self.curve.append(epoch)
        if epoch.validation_ndcg_10 >= best:
            self.best_epoch = len(self.curve)
            self.weights = {name: weight.detach().cpu().clone() for name, weight in self.model.state_dict().items()}

    def is_over(self, epochs: int, patience_epochs: int) -> bool:
        """Whether `epochs` are done, or patience has run out."""
        return len(self.curve) >= epochs or len(self.curve) - self.best_epoch >= patience_epochs
