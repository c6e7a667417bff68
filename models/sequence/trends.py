"""Trends: what was happening when a question was asked, as the item statistics would have said it.

Letters in shapes: n cases, v vocabulary (index 0 is padding).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from models.sequence.blend import WEIGHTS, Blend
from models.sequence.dataset import Cases
from models.sequence.evaluate import CUTOFFS, bootstrap, by_scorer, ndcg
from models.sequence.ladder import REFRESH_MS, Live
from models.sequence.ranking import place_of
from segue.features.sequence import Sequences
from segue.inference.followers import LENGTHS, Mixture, part
from segue.inference.known import trend
from segue.inference.sequence import SequenceScorer
from segue.inference.trending import rate
from segue.inference.windows import Vocabulary


@dataclass(frozen=True, eq=False)
class Following:
    """Asks `scorer` each of `cases` as a service does that follows the item statistics, REFRESH_MS old at most."""

    scorer: SequenceScorer
    live: Live
    cases: Cases
    include_seen: bool

    def __call__(self, prefixes: Sequences) -> NDArray[np.int64]:
        """The ids of the best items of each case, shape (n, 20); `prefixes` are those of `cases`."""
        best = np.zeros((len(prefixes), max(CUTOFFS)), np.int64)
        for cut_ms, rows in by_cut(self.cases):
            self.scorer.follow(self.live.item, rate(self.live.counts(cut_ms)))
            best[rows] = by_scorer(self.scorer, include_seen=self.include_seen)(self.cases.take(rows).prefixes)
        return best


def choose(blend: Blend, live: Live, vocabulary: Vocabulary, cases: Cases, *, include_seen: bool) -> Mixture:
    """The mixture of `blend` with what the trend counts in it, by NDCG@10 on `cases`, one weight per part of LENGTHS.

    Where a 95 % interval does not show that all of it together is a gain, it counts nothing.
    """
    length = np.zeros(len(cases), np.int64)
    gain = np.zeros((len(cases), len(WEIGHTS)))
    target = vocabulary.index(cases.turns.item)
    for cut_ms, rows in by_cut(cases):
        now = trend_of(live, vocabulary, cut_ms)
        seen = vocabulary.windows(cases.take(rows).prefixes)
        barred = np.zeros((len(rows), 1), np.int64) if include_seen else seen.items
        scores = blend.scores(seen.newest(blend.length))
        length[rows] = part(seen.items)
        for which, tried in enumerate(WEIGHTS):
            gain[rows, which] = ndcg(place_of(scores + tried * now, barred, target[rows]), 10)
    best = [int(gain[length == at].sum(axis=0).argmax()) for at in range(len(LENGTHS))]
    ahead = gain[np.arange(len(cases)), np.array(best)[length]] - gain[:, 0]
    mixture = blend.followers.mixture
    if not (len(cases) and bootstrap(ahead[:, None], cases.turns.customer)[0].low > 0):
        return mixture
    return replace(mixture, trust=tuple(WEIGHTS[which] for which in best))


def trend_of(live: Live, vocabulary: Vocabulary, cut_ms: int) -> NDArray[np.float64]:
    """What was known at `cut_ms` of what happens with each item, shape (v,)."""
    rates = np.zeros(len(vocabulary))
    place = vocabulary.index(live.item)
    rates[place] = rate(live.counts(cut_ms))
    rates[0] = 0
    return trend(rates / max(rates.sum(), np.finfo(float).tiny)).astype(np.float64)


def by_cut(cases: Cases) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """The times at which statistics are made, and the cases that are asked before the next ones."""
    cut_ms = cases.turns.time_ms // REFRESH_MS * REFRESH_MS
    order = np.argsort(cut_ms, kind="stable")
    times, start = np.unique(cut_ms[order], return_index=True)
    for at, stop in enumerate([*start[1:], len(order)]) if len(order) else ():
        yield int(times[at]), order[start[at] : stop]
