"""Spread: how recommendations spread over the vocabulary, which accuracy does not tell."""

import numpy as np
from numpy.typing import NDArray

from models.sequence.dataset import Corpus

GROUPS = 5
"""Groups of items by popularity, each with an equal share of the training turns."""

TOP = 10


def spread(best: NDArray[np.int64], asked: NDArray[np.int64], corpus: Corpus) -> dict[str, float]:
    """What the TOP best of each list, item ids (n, k) padded with NO_ITEM, are like beside the items asked for, (n,).

    - coverage@10: the share of the vocabulary that is in any list.
    - novelty@10: the mean of -log2 of an item's share of the training turns, in bits.
    - popularity_divergence@10: Jensen-Shannon divergence, 0 to 1, between how the lists and how the asked items that
      are known spread over GROUPS of popularity: 0 says that the popular are recommended as much as they are wanted.
    """
    index = corpus.vocabulary.index(best[:, :TOP]).ravel()
    index = index[index > 0]
    wanted = corpus.vocabulary.index(asked)
    share = corpus.popularity / corpus.popularity.sum()
    group = popularity_group(corpus.popularity)
    return {
        f"coverage@{TOP}": len(np.unique(index)) / (len(corpus.vocabulary) - 1),
        f"novelty@{TOP}": float(-np.log2(share[index]).mean()) if len(index) else np.nan,
        f"popularity_divergence@{TOP}": divergence(_counts(group[index]), _counts(group[wanted[wanted > 0]])),
    }


def popularity_group(popularity: NDArray[np.int64]) -> NDArray[np.intp]:
    """The group of every item, 0 the most popular, shape (v,)."""
    order = np.argsort(-popularity, kind="stable")
    before = np.cumsum(popularity[order]) - popularity[order]
    group = np.empty(len(popularity), np.intp)
    group[order] = np.minimum(GROUPS - 1, before * GROUPS // max(1, popularity.sum()))
    return group


def divergence(left: NDArray[np.int64], right: NDArray[np.int64]) -> float:
    """Jensen-Shannon divergence of two counts over the same groups, in bits; NaN where one is empty."""
    if not (left.sum() and right.sum()):
        return np.nan
    p, q = left / left.sum(), right / right.sum()
    middle = (p + q) / 2
    return float(sum((each[each > 0] * np.log2(each[each > 0] / middle[each > 0])).sum() / 2 for each in (p, q)))


def _counts(group: NDArray[np.intp]) -> NDArray[np.int64]:
    return np.bincount(group, minlength=GROUPS)
