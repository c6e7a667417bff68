"""Blend: the encoder and what was counted, mixed as validation chooses: what a bundle holds and a service answers by.

See `segue.inference.followers` for the mixture itself. Its weights are chosen one per part of LENGTHS.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse  # type: ignore[import-untyped]

from models.sequence.baselines.linear import Linear, Table
from models.sequence.dataset import Cases
from models.sequence.evaluate import ndcg
from models.sequence.ranking import ItemScorer, chunks, place_of
from segue.inference.followers import LENGTHS, Followers, Mixture, part
from segue.inference.item_table import ItemTable
from segue.inference.windows import Vocabulary, Windows

FOLLOWERS_MAX = 100
"""The strongest followers of each item that are kept; more of them were measured to rank no better."""

WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.5, 4.0)
"""Choices of what the logarithm of the count is worth, that of the encoder being worth 1."""

SMOOTHINGS = (1e-3, 1e-2, 1e-4, 1e-5)
"""Choices of the smoothing; the first wins where there is no difference."""


@dataclass(frozen=True, eq=False)
class Blend:
    """Scores every item by both."""

    encoder: ItemScorer
    followers: Followers

    @property
    def length(self) -> int:
        """How many newest items of a prefix it reads: as many as decide about the part."""
        return max(self.encoder.length, LENGTHS[-1])

    def scores(self, windows: Windows) -> NDArray[np.float64]:
        """Shape (n, v)."""
        scores = self.encoder.scores(windows.newest(self.encoder.length))
        index, raised_by = self.followers.raised(windows.items)
        scores[np.arange(len(scores))[:, None], index] += raised_by
        return scores


def choose(
    encoder: ItemScorer, counted: Linear, vocabulary: Vocabulary, cases: Cases, *, include_seen: bool
) -> Mixture:
    """The mixture that ranks `cases` best by NDCG@10, each part of LENGTHS with the weight that is best for it.

    Args:
        encoder: fitted on what was known before `cases`, as `counted` is.
        counted: a sparse table of followers, and how fast the say of an item decays.
    """
    table = strongest(counted.table)
    smoothings = [Mixture(counted.age_decay, each, (1.0,) * len(LENGTHS)) for each in SMOOTHINGS]
    target = vocabulary.index(cases.turns.item)
    gain = np.zeros((len(SMOOTHINGS), len(WEIGHTS), len(LENGTHS)))
    length = max(encoder.length, LENGTHS[-1])
    for rows, windows, barred in chunks(length, vocabulary, cases.prefixes, include_seen=include_seen):
        scores = encoder.scores(windows.newest(encoder.length))
        of_row = np.arange(len(rows))[:, None]
        for at, mixture in enumerate(smoothings):
            index, raised_by = Followers(table, mixture).raised(windows.items)
            for which, tried in enumerate(WEIGHTS):
                raised = scores.copy()
                raised[of_row, index] += tried * raised_by
                place = place_of(raised, barred, target[rows])
                gain[at, which] += np.bincount(part(windows.items), ndcg(place, 10), minlength=len(LENGTHS))
    best = int(gain.max(axis=1).sum(axis=1).argmax())
    weight = tuple(WEIGHTS[which] for which in gain[best].argmax(axis=0))
    return Mixture(counted.age_decay, SMOOTHINGS[best], weight)


def strongest(table: Table, count: int = FOLLOWERS_MAX) -> ItemTable:
    """The `count` largest positive values of each row of the sparse `table` (v, v); of equal ones the lower index."""
    rows = sparse.csr_array(table)
    row = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    order = np.lexsort((rows.indices, -rows.data, row))
    rank = np.arange(len(order)) - rows.indptr[row[order]]
    kept = order[(rank < count) & (rows.data[order] > 0)]
    kept = kept[np.lexsort((rows.indices[kept], row[kept]))]
    offsets = np.searchsorted(row[kept], np.arange(rows.shape[0] + 1))
    return ItemTable(offsets, rows.indices[kept].astype(np.int32), rows.data[kept].astype(np.float32))
