"""What the baselines share: a table of what speaks for which item, and a prefix as weights of its items.

Letters in shapes: n windows, w positions, v vocabulary (index 0 is padding).
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse  # type: ignore[import-untyped]

from models.sequence.dataset import Corpus
from segue.history import HISTORY_LIMIT
from segue.inference.windows import Windows

POPULARITY_SHARE = 1e-9
"""Popularity added to every score: too little to outvote anything that was counted, enough to order the rest."""


Table: TypeAlias = Any
"""(v, v), sparse or dense: what one item of a prefix says for each item."""


@dataclass(frozen=True, eq=False)
class Linear:
    """Scores are a sum over the items of the prefix, each counting `age_decay` of the next newer one."""

    table: Table
    popularity: NDArray[np.float64]  # (v,) share of the training turns
    age_decay: float
    length: int = HISTORY_LIMIT

    def scores(self, windows: Windows) -> NDArray[np.float64]:
        """Shape (n, v): popularity decides where the table says nothing."""
        votes = weights(windows.items, self.age_decay, len(self.popularity)) @ self.table
        scores = votes.toarray() if sparse.issparse(votes) else np.asarray(votes)
        scores += POPULARITY_SHARE * self.popularity
        return scores


def weights(items: NDArray[np.int64], age_decay: float, size: int) -> sparse.csr_array:
    """The prefixes `items` (n, w) as weights of items, shape (n, size); an item that occurs twice counts twice."""
    row, place = np.nonzero(items)
    weight = age_decay ** np.arange(items.shape[1] - 1, -1, -1.0)[place]
    return sparse.csr_array((weight, (row, items[row, place])), shape=(len(items), size))


def interactions(corpus: Corpus) -> sparse.csr_array:
    """Which customer turned to which item at least once, as 0 and 1, shape (s, v)."""
    count = len(corpus.offsets) - 1
    row = np.repeat(np.arange(count), np.diff(corpus.offsets))
    once = np.unique(row * len(corpus.vocabulary) + corpus.index)
    cell = np.divmod(once, len(corpus.vocabulary))
    return sparse.csr_array((np.ones(len(once)), cell), shape=(count, len(corpus.vocabulary)))


def silence(corpus: Corpus) -> Table:
    """A table that says nothing: what is left is popularity."""
    return sparse.csr_array((len(corpus.vocabulary), len(corpus.vocabulary)))
