"""Baselines by counting: what a model must beat to be worth its cost, fitted on the corpus it was trained on."""

from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from models.sequence.config import Config
from models.sequence.dataset import Corpus
from models.sequence.evaluate import CUTOFFS, Recommender
from segue.features.sequence import Sequences
from segue.history import HISTORY_LIMIT, gather
from segue.inference.sequence import SCORES_MAX

REACH = 10
"""How many turns after an item still count as following it."""

STEP_DECAY = 0.7
"""What a follower counts per turn further on."""

AGE_DECAY = 0.7
"""What an item of the prefix counts per turn further back."""

SHRINKAGE = 20.0
"""Followers added to every item's total, so that one seen once does not decide."""


class Baseline(Protocol):
    """Scores every item, index 0 included, for windows of indices (n, w) left-padded with 0."""

    def scores(self, windows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Shape (n, v); higher is better."""


@dataclass(frozen=True, eq=False)
class Popularity:
    """What was turned to most."""

    share: NDArray[np.float64]  # (v,) of the training turns

    @classmethod
    def fit(cls, corpus: Corpus) -> Self:
        """Count."""
        return cls(corpus.popularity / corpus.popularity.sum())

    def scores(self, windows: NDArray[np.int64]) -> NDArray[np.float64]:
        """The same for everyone."""
        return np.tile(self.share, (len(windows), 1))


@dataclass(frozen=True, eq=False)
class Markov:
    """What followed the newest items, nearer ones counting more; popularity where that says nothing.

    The followers of item a are the slice `offsets[a]:offsets[a + 1]`.
    """

    offsets: NDArray[np.int64]  # (v + 1,)
    follower: NDArray[np.int64]  # (f,)
    weight: NDArray[np.float64]  # (f,) below 1 in sum per item
    popularity: Popularity

    @classmethod
    def fit(cls, corpus: Corpus) -> Self:
        """Count pairs up to REACH turns apart."""
        size = len(corpus.vocabulary)
        row = np.repeat(np.arange(len(corpus.offsets) - 1), np.diff(corpus.offsets))
        keys: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
        counts: list[NDArray[np.float64]] = [np.empty(0)]
        for distance in range(1, REACH + 1):
            together = row[distance:] == row[:-distance]
            pairs = corpus.index[:-distance] * size + corpus.index[distance:]
            key, count = np.unique(pairs[together], return_counts=True)
            keys.append(key)
            counts.append(np.float64(STEP_DECAY ** (distance - 1)) * count)
        key, pair = np.unique(np.concatenate(keys), return_inverse=True)
        count = np.bincount(pair, np.concatenate(counts), minlength=len(key))
        source, follower = np.divmod(key, size)
        total = np.bincount(source, count, minlength=size) + SHRINKAGE
        offsets = np.searchsorted(source, np.arange(size + 1))
        return cls(offsets, follower, count / total[source], Popularity.fit(corpus))

    def scores(self, windows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Followers of the whole window, each item counting AGE_DECAY of the next newer one."""
        decay = AGE_DECAY ** np.arange(windows.shape[1] - 1, -1, -1)
        row, place = np.nonzero(windows)
        item = windows[row, place]
        offsets, source = gather(self.offsets[item], self.offsets[item + 1])
        lengths = np.diff(offsets)
        cell = np.repeat(row * len(self.popularity.share), lengths) + self.follower[source]
        votes = self.weight[source] * np.repeat(decay[place], lengths)
        scores = np.bincount(cell, votes, minlength=windows.shape[0] * len(self.popularity.share))
        # A share of popularity too small to outvote anything that was counted.
        return scores.reshape(len(windows), -1) + 1e-9 * self.popularity.share


def recommender(baseline: Baseline, corpus: Corpus, config: Config) -> Recommender:
    """The recommender that ranks by `baseline`, under the same rules as the model."""

    def recommend(prefixes: Sequences) -> NDArray[np.int64]:
        windows = corpus.vocabulary.windows(prefixes, config.length)
        seen = corpus.vocabulary.windows(prefixes, 0 if config.include_seen else HISTORY_LIMIT)
        size = max(1, SCORES_MAX // len(corpus.vocabulary))
        parts = [np.empty((0, max(CUTOFFS)), np.int64)]
        for start in range(0, len(windows), size):
            rows = slice(start, start + size)
            parts.append(top(baseline.scores(windows[rows]), seen[rows], max(CUTOFFS)))
        return corpus.vocabulary.item[np.concatenate(parts)]

    return recommend


def top(scores: NDArray[np.float64], barred: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """The k best indices of each row of `scores` (n, v), lower first among equals, never those in `barred` (n, m).

    Padded with 0 where a row has fewer.
    """
    scores[:, 0] = -np.inf
    np.put_along_axis(scores, barred, -np.inf, axis=1)
    best = np.zeros((len(scores), k), np.int64)
    floor = np.partition(scores, -min(k, scores.shape[1]), axis=1)[:, -min(k, scores.shape[1])]
    for out, row, least in zip(best, scores, floor, strict=True):
        candidates = np.flatnonzero((row >= least) & np.isfinite(row))
        chosen = candidates[np.argsort(-row[candidates], kind="stable")[:k]]
        out[: len(chosen)] = chosen
    return best


def recommenders(corpus: Corpus, config: Config) -> dict[str, Recommender]:
    """Every baseline by name, fitted on `corpus`."""
    fitted: dict[str, Baseline] = {"markov": Markov.fit(corpus), "popularity": Popularity.fit(corpus)}
    return {name: recommender(baseline, corpus, config) for name, baseline in fitted.items()}
