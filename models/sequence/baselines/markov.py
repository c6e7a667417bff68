"""Recency-weighted Markov: what followed the newest items, nearer followers and newer items counting more."""

import numpy as np
from scipy import sparse  # type: ignore[import-untyped]

from models.sequence.baselines.linear import Table
from models.sequence.dataset import Corpus

REACH = 10
"""How many turns after an item still count as following it."""


def markov(corpus: Corpus, *, step_decay: float, backward: float, shrinkage: float) -> Table:
    """Count pairs up to REACH turns apart: `T[a, b]` sums `step_decay ** (k - 1)` over each b that is k turns after a.

    Args:
        step_decay: what a follower counts per turn further on.
        backward: what an item counts that went before instead of after: in sessions order says little.
        shrinkage: followers added to every item's total, so that one seen once does not decide.
    """
    size = len(corpus.vocabulary)
    row = np.repeat(np.arange(len(corpus.offsets) - 1), np.diff(corpus.offsets))
    table = sparse.csr_array((size, size))
    for distance in range(1, REACH + 1):
        together = row[distance:] == row[:-distance]
        pair = corpus.index[:-distance][together], corpus.index[distance:][together]
        weight = np.full(len(pair[0]), step_decay ** (distance - 1))
        table = table + sparse.csr_array((weight, pair), shape=(size, size))
    table = table + backward * table.T
    shrunk = sparse.diags_array(1 / (table.sum(axis=1) + shrinkage)) @ table
    return sparse.csr_array(shrunk)
