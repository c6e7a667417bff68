"""The rungs below the encoder: rankings of a vocabulary by what is known without it.

Each rung speaks for some items; the rest follow in the order of what is popular, so that an answer ends only where the
vocabulary does. Letters in shapes: n windows, v vocabulary (index 0 is padding), m barred, k answered.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from segue.inference.cohorts import Cohorts
from segue.inference.item_table import Votes

Ranked = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Indices and their scores, best first, each (k,); scores never rise."""

POPULARITY_SHARE = 1e-9
"""What popularity counts beside votes: too little to outvote any, enough to order the items without one."""


@dataclass(frozen=True, eq=False)
class Popular:
    """Every item of a vocabulary by some count: the last rung, and the end of every other."""

    index: NDArray[np.int64]  # (v - 1,) most popular first, equals in the order of the vocabulary
    share: NDArray[np.float32]  # (v,) of all counts, by index

    @classmethod
    def of(cls, count: NDArray[np.integer] | NDArray[np.floating]) -> Self:
        """By `count`, shape (v,), >= 0."""
        index = 1 + np.argsort(-count[1:], kind="stable")
        return cls(index, (count / max(1, count.sum())).astype(np.float32))

    def ranked(self, barred: NDArray[np.int64], limit: int) -> Ranked:
        """The first `limit` items that are not among `barred`, shape (m,)."""
        candidates = self.index[: limit + len(barred)]
        index = candidates[~np.isin(candidates, barred)][:limit]
        return index, self.share[index]


def by_cohort(cohorts: Cohorts, position: int, popular: Popular, barred: NDArray[np.int64], limit: int) -> Ranked:
    """What customers of the stem at `position` turned to, then what is popular; see `Cohorts.find`."""
    index, share = cohorts.entries(position)
    return _then_popular(index, share, float(cohorts.rest[position]), popular, barred, limit)


def by_votes(votes: Votes, popular: Popular, barred: NDArray[np.int64], limit: int) -> list[Ranked | None]:
    """What goes with the items of n windows, then what is popular; see `Followers.votes`.

    Args:
        barred: (n, m), padded with 0.

    Returns:
        n rankings; None for a window whose items are said nothing of.
    """
    rankings: list[Ranked | None] = []
    for row, (start, stop) in enumerate(zip(votes.offsets[:-1], votes.offsets[1:], strict=True)):
        if start == stop:
            rankings.append(None)
            continue
        index = votes.index[start:stop]
        value = votes.value[start:stop] + POPULARITY_SHARE * popular.share[index]
        order = np.argsort(-value, kind="stable")
        score = value[order].astype(np.float32)
        rankings.append(_then_popular(index[order], score, POPULARITY_SHARE, popular, barred[row], limit))
    return rankings


def _then_popular(
    index: NDArray[np.int64],
    score: NDArray[np.float32],
    rest: float,
    popular: Popular,
    barred: NDArray[np.int64],
    limit: int,
) -> Ranked:
    """The allowed of `index`, then others by popularity, whose scores are `rest` of it and never above the last."""
    allowed = ~np.isin(index, barred)
    last = score[-1] if len(score) else np.inf
    head, head_score = index[allowed][:limit], score[allowed][:limit]
    tail, share = popular.ranked(np.concatenate([barred, index]), limit - len(head))
    tail_score = np.minimum(np.float32(rest) * share, last).astype(np.float32)
    return np.concatenate([head, tail]), np.concatenate([head_score, tail_score])
