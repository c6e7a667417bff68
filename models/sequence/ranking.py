"""Ranking: from a score for every item to the best of them, by the same rules for whatever gives the scores.

Letters in shapes: n prefixes, v vocabulary (index 0 is padding), m barred items, k best.
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.sequence.dataset import Cases, take
from models.sequence.evaluate import CUTOFFS, Recommender
from segue.features.sequence import Sequences
from segue.inference.sequence import POSITIONS_MAX, SCORES_MAX
from segue.inference.windows import Vocabulary, Windows

Chunk = tuple[NDArray[np.intp], Windows, NDArray[np.int64]]


class ItemScorer(Protocol):
    """Scores every item, index 0 included, for n windows."""

    @property
    def length(self) -> int:
        """How many newest items of a prefix it reads."""

    def scores(self, windows: Windows) -> NDArray[np.float64]:
        """Shape (n, v); higher is better. A new array: its reader writes into it."""


def recommender(scorer: ItemScorer, vocabulary: Vocabulary, *, include_seen: bool) -> Recommender:
    """The recommender that ranks `vocabulary` by `scorer`; unless `include_seen`, without all items of the prefix."""

    def recommend(prefixes: Sequences) -> NDArray[np.int64]:
        best = np.zeros((len(prefixes), max(CUTOFFS)), np.int64)
        for rows, windows, barred in chunks(scorer.length, vocabulary, prefixes, include_seen=include_seen):
            best[rows] = top(scorer.scores(windows), barred, max(CUTOFFS))
        return vocabulary.item[best]

    return recommend


def places(scorer: ItemScorer, vocabulary: Vocabulary, cases: Cases, *, include_seen: bool) -> NDArray[np.int64]:
    """Where `scorer` ranks each case's item in the whole vocabulary, 1 for first, 0 for an unknown item, shape (n,)."""
    target = vocabulary.index(cases.turns.item)
    place = np.zeros(len(cases), np.int64)
    for rows, windows, barred in chunks(scorer.length, vocabulary, cases.prefixes, include_seen=include_seen):
        place[rows] = place_of(scorer.scores(windows), barred, target[rows])
    return place


def chunks(length: int, vocabulary: Vocabulary, prefixes: Sequences, *, include_seen: bool) -> Iterator[Chunk]:
    """Chunks of rows of `prefixes`, their windows of `length` items and the indices (n, m) they may not recommend.

    Rows of like length go together: little of a chunk is padding.
    """
    order = np.argsort(np.diff(prefixes.offsets), kind="stable")
    size = max(1, min(SCORES_MAX // len(vocabulary), POSITIONS_MAX // length))
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        seen = vocabulary.windows(take(prefixes, rows))
        barred = np.zeros((len(rows), 1), np.int64) if include_seen else seen.items
        yield rows, seen.newest(length), barred


def top(scores: NDArray[np.float64], barred: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """The k best indices of each row of `scores` (n, v), lower first among equals, never those in `barred` (n, m).

    Padded with 0 where a row has fewer. Writes into `scores`.
    """
    _bar(scores, barred)
    best = np.zeros((len(scores), k), np.int64)
    floor = np.partition(scores, -min(k, scores.shape[1]), axis=1)[:, -min(k, scores.shape[1])]
    for out, row, least in zip(best, scores, floor, strict=True):
        candidates = np.flatnonzero((row >= least) & np.isfinite(row))
        chosen = candidates[np.argsort(-row[candidates], kind="stable")[:k]]
        out[: len(chosen)] = chosen
    return best


def place_of(scores: NDArray[np.float64], barred: NDArray[np.int64], target: NDArray[np.int64]) -> NDArray[np.int64]:
    """The place of each `target` (n,) in the ranking of which `top` gives the beginning; 0 where it is barred.

    Writes into `scores`.
    """
    _bar(scores, barred)
    own = np.take_along_axis(scores, target[:, None], axis=1)
    before = (scores == own) & (np.arange(scores.shape[1]) < target[:, None])
    return np.where(np.isfinite(own[:, 0]), 1 + ((scores > own) | before).sum(axis=1), 0)


def _bar(scores: NDArray[np.float64], barred: NDArray[np.int64]) -> None:
    scores[:, 0] = -np.inf
    np.put_along_axis(scores, barred, -np.inf, axis=1)
