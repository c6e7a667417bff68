"""Cohorts are counted here: which stems are common enough, and what their customers turned to next.

Letters in shapes: n customers, s stems, p pairs of a stem and a turn after it, v vocabulary (index 0 is padding).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.sequence.dataset import Cases, Corpus
from models.sequence.evaluate import CUTOFFS, ndcg, rank_in
from segue.features.sequence import SEQUENCE_KINDS, Sequences
from segue.history import Histories, Timelines, Times
from segue.inference.cohorts import (
    DEPTH,
    NO_STEM,
    STEM_ITEMS_MAX,
    STEMS_MAX,
    Categories,
    Cohorts,
    beginning,
    stems,
    told,
    word_count,
)
from segue.inference.ladder import Popular, by_cohort
from segue.inference.windows import Vocabulary

REACH = 10
"""How many turns after a stem count as what came next."""

CHOICES: Mapping[str, Sequence[float]] = {
    "support": (20, 5, 100),
    "smoothing": (30.0, 3.0, 300.0),
    "step_decay": (0.7, 0.4, 1.0),
}
"""What the parameters of `cohorts_of` may be; the first of each is where the search begins."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """What followed stems: a turn to `index` after `stem`; for each customer, length of stem and near turn one."""

    customer: NDArray[np.int64]  # (p,)
    stem: NDArray[np.int64]  # (p,)
    index: NDArray[np.int64]  # (p,) > 0
    step: NDArray[np.int64]  # (p,) 0 for the turn that came first

    @classmethod
    def known_at(cls, timelines: Timelines, t_ms: int, vocabulary: Vocabulary, categories: Categories) -> Self:
        """Of everybody, as they were known at `t_ms`."""
        everyone = np.arange(len(timelines.events.customers))
        now_ms = np.full(len(everyone), t_ms, np.int64)
        histories = timelines.as_of(everyone, now_ms, limit=max(1, len(timelines.events)))
        return cls.of(histories, now_ms, vocabulary, categories)

    @classmethod
    def of(cls, histories: Histories, now_ms: Times, vocabulary: Vocabulary, categories: Categories) -> Self:
        """Every stem of `histories` with the turns to known items that came next.

        A turn back to an item of the stem's own events does not count: it would not be recommended.
        """
        whole = stems(histories, now_ms, categories)
        own = told(histories, now_ms)
        known = vocabulary.index(own.item)
        place = np.arange(len(known)) - np.repeat(own.offsets[:-1], own.lengths)
        again = np.zeros(len(known), bool)
        again[1:] = (own.row[1:] == own.row[:-1]) & (own.item[1:] == own.item[:-1])
        fresh = (known > 0) & np.isin(own.kind, SEQUENCE_KINDS)
        parts = []
        for depth in range(DEPTH + 1):
            if depth:
                newest = np.minimum(own.offsets[:-1] + depth - 1, max(len(known) - 1, 0))
                fresh &= (place >= depth) & (own.item != np.repeat(own.item[newest], own.lengths))
            turn = fresh.copy()
            turn[1:] &= ~(again[1:] & fresh[:-1])
            at = np.flatnonzero(turn)
            row = own.row[at]
            step = np.arange(len(at)) - np.searchsorted(row, row)
            near = step < REACH
            parts.append((row[near], beginning(whole[row[near]], depth), known[at[near]], step[near]))
        return cls(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def cohorts_of(
    pairs: Pairs,
    popularity: NDArray[np.int64],
    categories: Categories,
    *,
    support: float,
    smoothing: float,
    step_decay: float,
) -> Cohorts:
    """The cohorts over a vocabulary as popular as `popularity` (v,) says.

    The share of an item among n turns that followed a stem is `(its turns + smoothing * share at the beginning) /
    (n + smoothing)`: Dirichlet smoothing (MacKay and Peto, 1995), level by level.

    Args:
        support: customers a stem needs to be kept.
        smoothing: turns that every stem is given in advance, spread as those of the stem without its last word are,
            and those of the empty stem by popularity.
        step_decay: what a turn counts per turn further on.
    """
    kept = supported(pairs, support)
    order = np.argsort(pairs.stem, kind="stable")
    bounds = (np.searchsorted(pairs.stem[order], kept, side=side) for side in ("left", "right"))
    weight = step_decay ** pairs.step.astype(np.float64)
    indices, shares, rests = [], [], []
    above: list[tuple[NDArray[np.float64], float]] = []
    for words, start, stop in zip(word_count(kept).tolist(), *bounds, strict=True):
        # Stems ascend: what is left of those before are this one's beginnings, shortest first.
        del above[words:]
        prior, prior_rest = above[-1] if above else (popularity / popularity.sum(), 1.0)
        own = order[start:stop]
        counted = np.bincount(pairs.index[own], weight[own], minlength=len(prior))
        total = counted.sum() + smoothing
        share, rest = (counted + smoothing * prior) / total, prior_rest * smoothing / total
        above.append((share, rest))
        best = np.argsort(-share, kind="stable")[:STEM_ITEMS_MAX]
        indices.append(best[share[best] > 0].astype(np.int32))
        shares.append(share[indices[-1]].astype(np.float32))
        rests.append(rest)
    offsets = np.cumsum([0, *map(len, indices)])
    arrays = (np.concatenate(indices), np.concatenate(shares), np.array(rests, np.float32))
    return Cohorts(categories, kept, offsets, *arrays)


def supported(pairs: Pairs, support: float) -> NDArray[np.int64]:
    """The stems that `support` customers or more turned on from, the STEMS_MAX most common of them, ascending.

    A stem is at most as common as its beginnings, which are kept with it.
    """
    once = np.unique(np.stack([pairs.stem, pairs.customer], axis=1), axis=0)
    stem, customers = np.unique(once[:, 0], return_counts=True)
    enough = (customers >= support) | (stem == NO_STEM)
    stem, customers = stem[enough], customers[enough]
    # Among equals the lower one, and with it the beginnings, first.
    return np.sort(stem[np.lexsort((stem, -customers))[:STEMS_MAX]])


def choose(
    pairs: Pairs, corpus: Corpus, categories: Categories, stem: NDArray[np.int64], cases: Cases
) -> dict[str, float]:
    """The parameters of `cohorts_of` that rank `cases` best by NDCG@10, one at a time.

    Args:
        pairs: known before the cases, as `corpus` is.
        stem: of each case's history, shape (n,).
    """

    def judged(parameters: dict[str, float]) -> float:
        cohorts = cohorts_of(pairs, corpus.popularity, categories, **parameters)
        return float(ndcg(rank_in(recommend(cohorts, corpus, stem, cases.prefixes), cases), 10).sum())

    parameters = {name: choices[0] for name, choices in CHOICES.items()}
    value = judged(parameters)
    for name, choices in CHOICES.items():
        for choice in choices[1:]:
            tried = parameters | {name: choice}
            if (reached := judged(tried)) > value:
                value, parameters = reached, tried
    return parameters


def recommend(cohorts: Cohorts, corpus: Corpus, stem: NDArray[np.int64], prefixes: Sequences) -> NDArray[np.int64]:
    """What the cohorts recommend for each stem (n,), without the items of its prefix: item ids (n, 20)."""
    popular = Popular.of(corpus.popularity)
    best = np.zeros((len(stem), max(CUTOFFS)), np.int64)
    barred = corpus.vocabulary.windows(prefixes).items
    for row, position in enumerate(cohorts.find(stem).tolist()):
        index, _ = by_cohort(cohorts, position, popular, barred[row], best.shape[1])
        best[row, : len(index)] = corpus.vocabulary.item[index]
    return best
