"""Evaluation: where the item that came next stood in a ranking of the whole vocabulary, in the future of training.

A recommender is asked the way a service is: a prefix in, the best items out. What is not among them counts as missed,
and so does an item that was new after training.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.sequence.dataset import Cases
from segue.errors import InvalidInput
from segue.features.sequence import Sequences
from segue.inference.sequence import SequenceScorer
from segue.inference.windows import Vocabulary

CUTOFFS = (1, 5, 10, 20)
LENGTHS = {
    "none": (0, 0),
    "1-2": (1, 2),
    "3-9": (3, 9),
    "10-29": (10, 29),
    "30-99": (30, 99),
    "100+": (100, 1 << 30),
}
"""Parts of the cases by the length of their prefix, from and to."""

RESAMPLES = 1000
CONFIDENCE = 0.95

MODEL = "model"

Recommender = Callable[[Sequences], NDArray[np.int64]]
"""From n prefixes to the ids of their best max(CUTOFFS) items, shape (n, 20), best first, NO_ITEM at the end."""


def by_scorer(scorer: SequenceScorer, *, include_seen: bool) -> Recommender:
    """The recommender that asks `scorer` exactly as a service does."""
    nothing = np.empty(0, np.int64)

    def recommend(prefixes: Sequences) -> NDArray[np.int64]:
        best = np.zeros((len(prefixes), max(CUTOFFS)), np.int64)
        exclude = [nothing] * len(prefixes)
        answers = scorer.recommend(prefixes, exclude=exclude, limit=max(CUTOFFS), include_seen=include_seen)
        for row, answer in zip(best, answers, strict=True):
            row[: len(answer.item)] = answer.item
        return best

    return recommend


def ranks(recommend: Recommender, cases: Cases) -> NDArray[np.int64]:
    """Where each case's item was recommended, 1 for first, 0 for not at all, shape (n,)."""
    return rank_in(recommend(cases.prefixes), cases)


def rank_in(best: NDArray[np.int64], cases: Cases) -> NDArray[np.int64]:
    """Where each case's item stands in its list of `best` (n, k), 1 for first, 0 for not at all, shape (n,)."""
    hit = best == cases.turns.item[:, None]
    return np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, 0)


def ndcg(rank: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """NDCG@k of each case, shape (n,): with one relevant item, 1 / log2(1 + rank) (Jarvelin and Kekalainen, 2002)."""
    return np.where((rank > 0) & (rank <= k), 1 / np.log2(1 + np.maximum(rank, 1)), 0.0)


def recall(rank: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """Recall@k of each case, shape (n,): with one relevant item, also the hit rate."""
    return ((rank > 0) & (rank <= k)).astype(np.float64)


def mrr(rank: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """Reciprocal rank of each case, 0 below place k, shape (n,)."""
    return np.where((rank > 0) & (rank <= k), 1 / np.maximum(rank, 1), 0.0)


METRICS: Mapping[str, Callable[[NDArray[np.int64], int], NDArray[np.float64]]] = {
    "ndcg": ndcg,
    "recall": recall,
    "mrr": mrr,
}


@dataclass(frozen=True)
class Estimate:
    """A mean over cases and its bootstrap interval; NaN where there is no case."""

    mean: float
    low: float
    high: float
    p_value: float
    """Of a mean of differences: how often, two-sided, resampling alone would turn its sign (paired bootstrap test)."""

    def __format__(self, sign: str) -> str:
        return f"{self.mean:{sign}.4f} [{self.low:{sign}.4f}, {self.high:{sign}.4f}]"


def bootstrap(values: NDArray[np.float64], customer: NDArray[np.int64], *, seed: int = 0) -> list[Estimate]:
    """The mean of each column of `values`, shape (n, c), and its percentile interval when customers are drawn anew.

    A customer's cases resemble each other: drawing single cases would promise too narrow an interval.
    """
    if not len(values):
        return [Estimate(np.nan, np.nan, np.nan, np.nan)] * values.shape[1]
    distinct, row = np.unique(customer, return_inverse=True)
    sums = np.zeros((len(distinct), values.shape[1] + 1))
    np.add.at(sums, row, np.column_stack([values, np.ones(len(values))]))
    rng = np.random.default_rng(seed)
    drawn = np.empty((RESAMPLES, sums.shape[1]))
    for resample in drawn:
        resample[:] = np.bincount(rng.integers(len(distinct), size=len(distinct)), minlength=len(distinct)) @ sums
    tail = (1 - CONFIDENCE) / 2
    means = drawn[:, :-1] / drawn[:, -1:]
    low, high = np.quantile(means, (tail, 1 - tail), axis=0)
    # One more resample on either side: no finite number of them can show a chance of 0.
    turned = (1 + np.minimum((means <= 0).sum(axis=0), (means >= 0).sum(axis=0))) / (1 + RESAMPLES)
    p_value = np.minimum(1, 2 * turned)
    return [Estimate(*map(float, each)) for each in zip(values.mean(axis=0), low, high, p_value, strict=True)]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What each recommender answered to each case, and what follows from it."""

    cases: Cases
    is_known: NDArray[np.bool_]  # (n,) whether the item was in the vocabulary: the others no recommender can name
    best: Mapping[str, NDArray[np.int64]]  # by recommender's name, the model first: item ids (n, 20), best first
    rank: Mapping[str, NDArray[np.int64]]  # (n,) each case's place in `best`, 0 where it is not there
    _scores: dict[str, dict[str, Estimate]] = field(default_factory=dict, repr=False)  # resampling takes its time:
    _margins: dict[tuple[str, str], dict[str, Estimate]] = field(default_factory=dict, repr=False)  # once is enough

    @property
    def rivals(self) -> list[str]:
        """The names of all recommenders but the model."""
        return [name for name in self.rank if name != MODEL]

    def scores(self, name: str) -> dict[str, Estimate]:
        """Every metric of one recommender, e.g. `ndcg@10`."""
        if name not in self._scores:
            self._scores[name] = self._estimates(_columns(self.rank[name]))
        return self._scores[name]

    def margins(self, rival: str, of: str = MODEL) -> dict[str, Estimate]:
        """By how much `of` beats `rival` in every metric, on the same cases."""
        if (pair := (of, rival)) not in self._margins:
            self._margins[pair] = self._estimates(_columns(self.rank[of]) - _columns(self.rank[rival]))
        return self._margins[pair]

    def slices(self) -> dict[str, dict[str, Estimate]]:
        """NDCG@10 where the item was known, and by the length of the prefix, as `by_part` gives it."""
        length = np.diff(self.cases.prefixes.offsets)
        parts = {"known item": self.is_known}
        return self.by_part(
            parts | {f"prefix {name}": (low <= length) & (length <= high) for name, (low, high) in LENGTHS.items()}
        )

    def by_part(self, parts: Mapping[str, NDArray[np.bool_]]) -> dict[str, dict[str, Estimate]]:
        """NDCG@10 of every recommender on parts of the cases, masks of shape (n,), as `{part: {recommender: ...}}`.

        The parts' names come back with their sizes; empty parts are left out.
        """
        values = np.stack([ndcg(rank, 10) for rank in self.rank.values()], axis=1)
        customer = self.cases.turns.customer
        return {
            f"{part} ({inside.sum():,})": dict(zip(self.rank, bootstrap(values[inside], customer[inside]), strict=True))
            for part, inside in parts.items()
            if inside.any()
        }

    def metrics(self) -> dict[str, float]:
        """The flat metrics that a bundle's manifest holds: the model's with their intervals, the baselines' plain."""
        flat = {"case_count": float(len(self.cases)), "known_ratio": float(self.is_known.mean())}
        for name, each in self.scores(MODEL).items():
            flat |= {name: each.mean, f"{name}_low": each.low, f"{name}_high": each.high}
        for rival in self.rivals:
            flat |= {f"{rival}_{name}": each.mean for name, each in self.scores(rival).items()}
        return flat

    def _estimates(self, values: NDArray[np.float64]) -> dict[str, Estimate]:
        names = [f"{metric}@{k}" for metric in METRICS for k in CUTOFFS]
        return dict(zip(names, bootstrap(values, self.cases.turns.customer), strict=True))


def _columns(rank: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.stack([metric(rank, k) for metric in METRICS.values() for k in CUTOFFS], axis=1)


def evaluate(cases: Cases, vocabulary: Vocabulary, model: Recommender, rivals: Mapping[str, Recommender]) -> Evaluation:
    """Ask the model and its rivals every case.

    Raises:
        InvalidInput: there is no case.
    """
    if not len(cases):
        raise InvalidInput.because("lake", "holds no turn in the test span; see test_ratio")
    return judge(cases, vocabulary, {MODEL: model, **rivals})


def judge(cases: Cases, vocabulary: Vocabulary, recommenders: Mapping[str, Recommender]) -> Evaluation:
    """Ask every recommender every case."""
    best = {name: recommend(cases.prefixes) for name, recommend in recommenders.items()}
    rank = {name: rank_in(each, cases) for name, each in best.items()}
    return Evaluation(cases, vocabulary.index(cases.turns.item) > 0, best, rank)


def joined(evaluations: Sequence[Evaluation]) -> Evaluation:
    """Evaluations of the same cases as one."""
    first, *_ = evaluations
    return Evaluation(
        first.cases,
        first.is_known,
        best={name: best for each in evaluations for name, best in each.best.items()},
        rank={name: rank for each in evaluations for name, rank in each.rank.items()},
    )
