"""A trained model as what the rest of the program asks: a rank, the scorer of services, scores for every item."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.sequence.config import Config
from models.sequence.dataset import Corpus
from models.sequence.model import Ranker, SequenceModel
from segue.inference.followers import Followers
from segue.inference.graph import BESIDE, Question, Rank
from segue.inference.sequence import SequenceScorer
from segue.inference.windows import Windows


def tensors(model: SequenceModel, windows: Windows) -> list[Tensor]:
    """What `model` reads of `windows`, where it is."""
    device = model.item.weight.device
    return [torch.from_numpy(getattr(windows, name)).to(device) for name in model.inputs]


def torch_rank(model: SequenceModel) -> Rank:
    """What the exported graph does, by `model` itself, as it is at each call."""
    ranker = Ranker(model)

    def rank(question: Question) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        ranker.eval()
        with torch.inference_mode():
            moved = [torch.from_numpy(getattr(question, name)).to(model.item.weight.device) for name in BESIDE]
            indices, scores, _ = ranker(*tensors(model, question.windows), *moved)
        return indices.cpu().numpy(), scores.cpu().numpy()

    return rank


@dataclass(frozen=True, eq=False)
class Deep:
    """A model that scores every item, as baselines do."""

    model: SequenceModel

    @property
    def length(self) -> int:
        """How many newest items it reads."""
        return self.model.length

    def scores(self, windows: Windows) -> NDArray[np.float64]:
        """Shape (n, v)."""
        self.model.eval()
        with torch.inference_mode():
            last = self.model.last(*tensors(self.model, windows.trimmed()))
            return (last @ self.model.item.weight.T).cpu().numpy().astype(np.float64)


def as_scorer(rank: Rank, corpus: Corpus, config: Config, followers: Followers | None = None) -> SequenceScorer:
    """The scorer that services use, around `rank`, before there is a bundle to load it from."""
    return SequenceScorer(
        rank=rank,
        vocabulary=corpus.vocabulary,
        external_id=[""] * len(corpus.vocabulary),
        popularity=corpus.popularity,
        length=config.length,
        width=config.width,
        version="unsaved",
        followers=followers,
    )
