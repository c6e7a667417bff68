"""Spread: how recommendations spread over the vocabulary, which accuracy does not tell."""

import numpy as np
from numpy.typing import NDArray

from models.sequence.dataset import Corpus
from segue.inference.windows import Vocabulary

GROUPS = 5
"""Groups of items by popularity, each with an equal share of the training turns."""

TOP = 10

LISTS_MAX = 4096
"""Lists whose pairs are compared at a time: bounds what is held of them to a few MB."""


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


def diversity(
    best: NDArray[np.int64],
    vocabulary: Vocabulary,
    *,
    category: NDArray[np.object_],
    embedding: NDArray[np.float32] | None = None,
) -> dict[str, float]:
    """How unlike each other the TOP best of each list, item ids (n, k) padded with NO_ITEM, are: 0 says all alike.

    Intra-list diversity (Ziegler et al., 2005): the mean over the pairs of a list, and then over the lists with a pair.

    - category_diversity@10: of two items of a list whose categories are known, how often they differ.
    - cosine_diversity@10: one minus the cosine of the embeddings of two items of a list, 0 to 2.

    Args:
        category: of every item of `vocabulary`, "" where unknown, shape (v,).
        embedding: of every item of `vocabulary`, shape (v, d); without it only categories are compared.
    """
    index = vocabulary.index(best[:, :TOP])
    code = np.unique(category, return_inverse=True)[1]
    code = np.where(category == "", -1, code)
    code[0] = -1  # padding is no item
    unit = None if embedding is None else directions(embedding)
    chunks = [index[start : start + LISTS_MAX] for start in range(0, len(index), LISTS_MAX)]
    found = {f"category_diversity@{TOP}": _mean([_category_diversity(code[each]) for each in chunks])}
    if unit is not None:
        found[f"cosine_diversity@{TOP}"] = _mean([_cosine_diversity(unit[each], each > 0) for each in chunks])
    return found


def directions(embedding: NDArray[np.float32]) -> NDArray[np.float32]:
    """The rows of `embedding` (v, d), each of length 1; a row of zeros stays as it is."""
    length = np.linalg.norm(embedding, axis=1, keepdims=True)
    return (embedding / np.where(length > 0, length, 1)).astype(np.float32)


def popularity_group(popularity: NDArray[np.int64], groups: int = GROUPS) -> NDArray[np.intp]:
    """The group of every item of `groups` with like shares of the turns, 0 the most popular, shape (v,)."""
    order = np.argsort(-popularity, kind="stable")
    before = np.cumsum(popularity[order]) - popularity[order]
    group = np.empty(len(popularity), np.intp)
    group[order] = np.minimum(groups - 1, before * groups // max(1, popularity.sum()))
    return group


def divergence(left: NDArray[np.int64], right: NDArray[np.int64]) -> float:
    """Jensen-Shannon divergence of two counts over the same groups, in bits; NaN where one is empty."""
    if not (left.sum() and right.sum()):
        return np.nan
    p, q = left / left.sum(), right / right.sum()
    middle = (p + q) / 2
    return float(sum((each[each > 0] * np.log2(each[each > 0] / middle[each > 0])).sum() / 2 for each in (p, q)))


def _category_diversity(code: NDArray[np.intp]) -> NDArray[np.float64]:
    """The share of each list's pairs of codes (n, k) that differ, shape (n,); -1 is in no pair, NaN without one."""
    known = code >= 0
    other = known[:, :, None] & known[:, None, :] & ~np.eye(code.shape[1], dtype=bool)
    pairs = other.sum(axis=(1, 2))
    differ = (other & (code[:, :, None] != code[:, None, :])).sum(axis=(1, 2))
    return np.where(pairs > 0, differ / np.maximum(pairs, 1), np.nan)


def _cosine_diversity(unit: NDArray[np.float32], inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The mean of 1 - cosine of each list's pairs of unit vectors (n, k, d) where `inside` (n, k), shape (n,)."""
    unit = unit * inside[:, :, None]
    count = inside.sum(axis=1)
    pairs = count * (count - 1)
    # The squared length of the sum is the cosines of all pairs, and each vector's with itself.
    cosines = (unit.sum(axis=1, dtype=np.float64) ** 2).sum(axis=1) - (unit.astype(np.float64) ** 2).sum(axis=(1, 2))
    return np.where(pairs > 0, 1 - cosines / np.maximum(pairs, 1), np.nan)


def _mean(lists: list[NDArray[np.float64]]) -> float:
    values = np.concatenate([np.empty(0), *lists])
    return float(np.nanmean(values)) if np.isfinite(values).any() else np.nan


def _counts(group: NDArray[np.intp]) -> NDArray[np.int64]:
    return np.bincount(group, minlength=GROUPS)
