"""News: a ranking of what is known now, for logs whose items live for hours.

Retrieval by what updates online (`live.py`) and, where there is one, a deep model; ranking of what was retrieved by
trees (LambdaMART; Burges, 2010) that learn on validation how much each source is worth, e.g. by the time since the
newest item. Sources are counted as of each turn. Only the trees and the deep model are fitted, both before test begins.

Letters in shapes: n cases, c candidates of all cases, f features.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import xgboost
from numpy.typing import NDArray

from models.sequence.dataset import Cases, sample
from models.sequence.evaluate import CUTOFFS, Recommender, ndcg
from models.sequence.live import HOUR_MS, Stream, Votes
from models.sequence.ranking import ItemScorer
from segue.inference.windows import Vocabulary

HALF_LIVES_HOURS = (0.05, 0.02, 0.1, 0.2, 0.4, 0.8, 1.6, 6.4, 24.0)
"""Choices for popularity, of which all are features."""
VOTES: Mapping[str, tuple[float, ...]] = {
    "half_life_hours": (1.0, 0.25, 4.0, 24.0),
    "age_decay": (0.55, 0.3, 0.8),
    "step_decay": (0.6, 0.3, 1.0),
    "backward": (0.0, 0.5),
    "shrinkage": (5.0, 60.0),
}
"""Choices for live Markov, found one parameter at a time from the first of each."""
BELOW = (0.03, 0.3, 1.0)
"""Choices of what fading popularity counts below its votes."""

CHOOSING_CASES = 1000
RETRIEVED = 50
"""Candidates from each source."""
FADED = 1e-6
"""An item whose slowest popularity is no more than this is no candidate, and no share below it makes a difference."""
CHUNK = 64
"""Cases that a deep model is asked at a time."""
TREES = {
    "objective": "rank:ndcg",
    "lambdarank_pair_method": "topk",
    "lambdarank_num_pair_per_sample": 10,
    "eta": 0.1,
    "max_depth": 5,
    "min_child_weight": 5,
    "subsample": 0.8,
    "nthread": 1,
}
ROUNDS = 100


@dataclass(frozen=True)
class Trending:
    """What many turned to lately: as popularity, but as of now and fading."""

    half_life_hours: float

    def rows(self, stream: Stream, cases: Cases) -> Iterator[NDArray[np.float64]]:
        """Scores of every item for each of `cases`, which ascend in time, (v,)."""
        return stream.fading(cases.turns.time_ms, self.half_life_hours)


@dataclass(frozen=True)
class LiveMarkov:
    """Votes of the prefix, with what is trending below them."""

    votes: Votes
    below: float
    trending: Trending

    def rows(self, stream: Stream, cases: Cases) -> Iterator[NDArray[np.float64]]:
        """Scores of every item for each of `cases`, which ascend in time, (v,)."""
        times = cases.turns.time_ms.tolist()
        for now, prefix, popular in zip(times, prefixes(stream, cases), self.trending.rows(stream, cases), strict=True):
            yield self.votes.scores(stream.pairs, prefix, now) + self.below * popular


Live = Trending | LiveMarkov


def prefixes(stream: Stream, cases: Cases) -> Iterator[NDArray[np.int64]]:
    """The prefix of each case as vocabulary indices of the stream, oldest first."""
    index = stream.vocabulary.index(cases.prefixes.item)
    offsets = cases.prefixes.offsets.tolist()
    return (index[start:stop] for start, stop in pairwise(offsets))


def in_time(cases: Cases) -> tuple[Cases, NDArray[np.intp]]:
    """The cases in order of their turns, and which they are."""
    order = np.argsort(cases.turns.time_ms, kind="stable")
    return cases.take(order), order


def recommender(live: Live, stream: Stream, cases: Cases, *, include_seen: bool) -> Recommender:
    """Answers `cases`, and only them: what it says depends on when it is asked."""

    def recommend(_: object) -> NDArray[np.int64]:
        ascending, order = in_time(cases)
        best = np.zeros((len(cases), max(CUTOFFS)), np.int64)
        rows = zip(order, live.rows(stream, ascending), prefixes(stream, ascending), strict=True)
        for place, scores, prefix in rows:
            chosen = best_of(scores, prefix[:0] if include_seen else prefix, max(CUTOFFS))
            best[place, : len(chosen)] = chosen
        return stream.vocabulary.item[best]

    return recommend


def best_of(scores: NDArray[np.float64], barred: NDArray[np.int64], k: int) -> NDArray[np.intp]:
    """At most `k` indices of scores above 0, best first, the lower first among equals. Writes into `scores`."""
    scores[barred] = 0.0
    if not len(scores):
        return np.empty(0, np.intp)
    floor = np.partition(scores, -min(k, len(scores)))[-min(k, len(scores))]
    candidates = np.flatnonzero((scores >= floor) & (scores > 0))
    return candidates[np.argsort(-scores[candidates], kind="stable")[:k]]


def choose(stream: Stream, cases: Cases, *, include_seen: bool) -> tuple[Trending, LiveMarkov]:
    """The parameters that rank a sample of `cases` best by NDCG@10."""
    asked = sample(cases, CHOOSING_CASES)

    def value(live: Live) -> float:
        best = recommender(live, stream, asked, include_seen=include_seen)(asked.prefixes)
        hit = best == asked.turns.item[:, None]
        return float(ndcg(np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, 0), 10).sum())

    trending = max((Trending(each) for each in HALF_LIVES_HOURS), key=value)
    tried = [LiveMarkov(Votes(), below, trending) for below in BELOW]
    best = max(tried, key=value)
    for name, choices in VOTES.items():
        changes: list[dict[str, Any]] = [{name: choice} for choice in choices]
        tried = [replace(best, votes=replace(best.votes, **change)) for change in changes]
        best = max(tried, key=value)
    return trending, best


@dataclass(frozen=True, eq=False)
class Candidates:
    """What was retrieved for n cases in order of time."""

    cases: Cases
    order: NDArray[np.intp]  # (n,) which cases of those asked they are
    offsets: NDArray[np.int64]  # (n + 1,)
    item: NDArray[np.int64]  # (c,) item ids
    features: NDArray[np.float32]  # (c, f) NaN where a source does not know the item

    def matrix(self, *, labelled: bool) -> xgboost.DMatrix:
        """For trees; `labelled` with what was turned to, without the cases for which it was not retrieved."""
        counts = np.diff(self.offsets)
        hit = self.item == np.repeat(self.cases.turns.item, counts)
        if not labelled:
            return xgboost.DMatrix(self.features)
        row = np.repeat(np.arange(len(counts)), counts)
        useful = np.bincount(row[hit], minlength=len(counts)) > 0
        kept = useful[row]
        matrix = xgboost.DMatrix(self.features[kept], hit[kept])
        matrix.set_group(counts[useful])
        return matrix

    def recommend(self, trees: xgboost.Booster) -> NDArray[np.int64]:
        """The best of each case, in the order in which they were asked, item ids (n, 20)."""
        scores = trees.predict(self.matrix(labelled=False))
        best = np.zeros((len(self.cases), max(CUTOFFS)), np.int64)
        for place, start, stop in zip(self.order, self.offsets[:-1], self.offsets[1:], strict=True):
            chosen = start + np.argsort(-scores[start:stop], kind="stable")[: max(CUTOFFS)]
            best[place, : len(chosen)] = self.item[chosen]
        return best


@dataclass(frozen=True, eq=False)
class News:
    """The sources of candidates and of what is known about them."""

    stream: Stream
    trending: Trending
    markov: LiveMarkov
    include_seen: bool

    def retrieve(self, cases: Cases, deep: ItemScorer | None, vocabulary: Vocabulary) -> Candidates:
        """The candidates of each case; `deep` scores the items of `vocabulary`."""
        ascending, order = in_time(cases)
        voters = variants(self.markov.votes)
        items, features = [], []
        for now, age, prefix, popular, deep_row in zip(
            ascending.turns.time_ms.tolist(),
            newest_age_hours(ascending),
            prefixes(self.stream, ascending),
            zip(*(self.stream.fading(ascending.turns.time_ms, each) for each in HALF_LIVES_HOURS), strict=True),
            _deep_rows(deep, vocabulary, self.stream.vocabulary, ascending),
            strict=True,
        ):
            alive = np.flatnonzero(popular[-1] > FADED)
            voted = (each.scores(self.stream.pairs, prefix, now) for each in voters)
            shares = np.stack([row[alive] for row in (*popular, *voted)], axis=1)  # (alive, sources)
            barred = np.flatnonzero(np.isin(alive, prefix) & (not self.include_seen))
            chosen = union(np.column_stack([shares, np.nan_to_num(np.exp(deep_row[alive]))]), barred)
            since = np.log1p((now - self.stream.first_ms[alive[chosen]]) / HOUR_MS)
            case = np.broadcast_to([age, len(prefix)], (len(chosen), 2))
            items.append(self.stream.vocabulary.item[alive[chosen]])
            features.append(np.column_stack([described(shares[chosen]), since, case, deep_row[alive[chosen]]]))
        offsets = np.cumsum([0, *map(len, items)])
        nothing = np.empty((0, 2 * (len(HALF_LIVES_HOURS) + len(voters)) + 4))
        columns = np.concatenate([nothing, *features]).astype(np.float32)
        return Candidates(ascending, order, offsets, np.concatenate([np.empty(0, np.int64), *items]), columns)


def variants(votes: Votes) -> tuple[Votes, ...]:
    """The chosen votes, slower ones, quicker ones that also look back, and those of the newest item alone."""
    return (
        votes,
        replace(votes, half_life_hours=votes.half_life_hours * 6),
        replace(votes, half_life_hours=votes.half_life_hours / 4, age_decay=0.8, backward=0.3),
        replace(votes, items=1, step_decay=0.3),
    )


def union(shares: NDArray[np.float64], barred: NDArray[np.intp]) -> NDArray[np.intp]:
    """The rows that are among the RETRIEVED best of any column, ascending, without those in `barred`."""
    return np.unique(np.concatenate([best_of(column.copy(), barred, RETRIEVED) for column in shares.T]))


def described(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """What each source, a column, says of the candidates of one case, the rows: logarithms, then places from 0."""
    rank = (-shares).argsort(axis=0, kind="stable").argsort(axis=0, kind="stable")
    return np.hstack([np.log(shares + FADED), rank])


def newest_age_hours(cases: Cases) -> NDArray[np.float64]:
    """The time since the newest item of each prefix, (n,), in logarithms of hours; NaN without one."""
    ages = np.full(len(cases), np.nan)
    some = np.diff(cases.prefixes.offsets) > 0
    ages[some] = np.log1p(cases.prefixes.age_ms[cases.prefixes.offsets[1:][some] - 1] / HOUR_MS)
    return ages


def _deep_rows(
    deep: ItemScorer | None, known: Vocabulary, whole: Vocabulary, cases: Cases
) -> Iterator[NDArray[np.float64]]:
    """The logarithm of what `deep` expects of each item of `whole`, (v,), NaN for those it does not know."""
    size = len(whole)
    if deep is None:
        yield from (np.full(size, np.nan) for _ in range(len(cases)))
        return
    columns = whole.index(known.item[1:])
    for start in range(0, len(cases), CHUNK):
        part = cases.take(np.arange(start, min(start + CHUNK, len(cases))))
        scores = deep.scores(known.windows(part.prefixes, deep.length))[:, 1:]
        scores -= scores.max(axis=1, keepdims=True)
        scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
        rows = np.full((len(part), size), np.nan)
        rows[:, columns] = scores
        yield from rows


def fit_trees(candidates: Candidates, seed: int) -> xgboost.Booster:
    """The trees that rank `candidates` best."""
    return xgboost.train(TREES | {"seed": seed}, candidates.matrix(labelled=True), ROUNDS)


def ages_of(stream: Stream, cases: Cases, vocabulary: Vocabulary) -> dict[str, NDArray[np.bool_]]:
    """Parts of the cases by how long before the turn its item was first turned to by anybody, masks (n,)."""
    first_ms = stream.first_ms[stream.vocabulary.index(cases.turns.item)]
    hours = (cases.turns.time_ms - first_ms) / HOUR_MS
    unknown = vocabulary.index(cases.turns.item) == 0
    edges = [("never before", -np.inf, 0.0), ("within the hour", 0.0, 1.0), ("1 to 24 h before", 1.0, 24.0)]
    parts = {
        name: (low <= hours) & (hours < high) for name, low, high in (*edges, ("a day or more before", 24.0, np.inf))
    }
    return {"all": np.ones(len(cases), bool), **parts, "new since training": unknown}
