"""Examples: histories, what was recommended after them, and why.

Why is found by asking: of all items the model read, the one without which a recommended item's score falls most
(leave-one-out ablation; occlusion in Zeiler and Fergus, 2014). Nothing is read off the model's inside, so that it holds
for every family and every rung, and the answers compared are those that a service gives.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.sequence.dataset import CASES_SEED, Cases, concat, take
from models.sequence.evaluate import Evaluation
from segue.features.sequence import Sequences
from segue.inference.sequence import LIMIT_MAX, Recommendation, Rung, SequenceScorer

EXAMPLES = 8

LENGTHS_FROM = (1, 3, 10, 30)
"""Where the parts by length of history begin from which examples are drawn in turn."""

SHOWN = 5
"""Recommended items of an example."""


@dataclass(frozen=True)
class Reason:
    """The past item without which a recommended one falls most."""

    item: int
    drop: float
    """By how much its score falls, > 0; infinite where without it a lower rung answers, of other scores."""
    place: int
    """Where it stands then, 1 for first; 0 where it is not among the LIMIT_MAX best, and fell by more than `drop`."""


@dataclass(frozen=True)
class Recommended:
    """One recommended item."""

    item: int
    score: float
    reason: Reason | None
    """None where no single item's absence lowers its score, or the answer was not the history's."""


@dataclass(frozen=True, eq=False)
class Example:
    """One history, what was recommended after it, and what came next."""

    past: Sequences  # one, whole
    fallback: Rung
    recommended: Sequence[Recommended]
    next_item: int
    place: int
    """Of the next item among the LIMIT_MAX best, 1 for first; 0 where it was not there."""
    is_known: bool
    """Whether the next item was in the vocabulary."""


def examples(evaluation: Evaluation, scorer: SequenceScorer, *, include_seen: bool) -> list[Example]:
    """At most EXAMPLES, drawn whatever the answers were, shortest history first."""
    return [
        _example(evaluation, scorer, int(row), include_seen=include_seen) for row in draw(evaluation.cases, EXAMPLES)
    ]


def draw(cases: Cases, count: int) -> NDArray[np.intp]:
    """Rows of at most `count` cases, no two of one customer, as many from each part of LENGTHS_FROM as there are."""
    length = np.diff(cases.prefixes.offsets)
    order = np.random.default_rng(CASES_SEED).permutation(len(cases))
    order = order[length[order] > 0]
    order = order[np.sort(np.unique(cases.turns.customer[order], return_index=True)[1])]
    part = np.digitize(length[order], LENGTHS_FROM)
    by_part = np.argsort(part, kind="stable")
    turn = np.empty(len(part), np.intp)
    turn[by_part] = np.arange(len(part)) - np.searchsorted(part[by_part], part[by_part])
    chosen = order[np.lexsort((part, turn))[:count]]
    return chosen[np.argsort(length[chosen], kind="stable")]


def _example(evaluation: Evaluation, scorer: SequenceScorer, row: int, *, include_seen: bool) -> Example:
    prefix = take(evaluation.cases.prefixes, np.array([row]))
    next_item = int(evaluation.cases.turns.item[row])
    answer, reasons = explain(scorer, prefix, include_seen=include_seen)
    offered = zip(answer.item.tolist(), answer.score.tolist(), reasons, strict=False)
    return Example(
        past=prefix,
        fallback=answer.fallback,
        recommended=[Recommended(*each) for each in offered],
        next_item=next_item,
        place=_place(answer, next_item),
        is_known=bool(evaluation.is_known[row]),
    )


def explain(
    scorer: SequenceScorer, prefix: Sequences, *, include_seen: bool, shown: int = SHOWN
) -> tuple[Recommendation, list[Reason | None]]:
    """The answer to one prefix, and the reason for each of its `shown` best.

    One call asks for the prefix and, for every distinct item among the newest `scorer.length` known ones, for the
    prefix without that item.
    """
    index = scorer.vocabulary.index(prefix.item)
    removed = np.unique(prefix.item[index > 0][-scorer.length :])
    newest_first = removed[np.argsort([-np.flatnonzero(prefix.item == item)[-1] for item in removed], kind="stable")]
    rows = concat([prefix, *(without(prefix, item) for item in newest_first)])
    # A removed item stays barred: what it left behind is asked for, not whether it comes back itself.
    barred = np.empty(0, np.int64) if include_seen else removed
    whole, *ablated = scorer.recommend(rows, exclude=[barred] * len(rows), limit=LIMIT_MAX, include_seen=include_seen)
    reasons = [
        _strongest(item, score, whole.fallback, list(zip(newest_first.tolist(), ablated, strict=True)))
        for item, score in zip(whole.item[:shown].tolist(), whole.score[:shown].tolist(), strict=True)
    ]
    return whole, reasons


def without(prefix: Sequences, item: int) -> Sequences:
    """One prefix as it would be had the customer never turned to `item`."""
    kept = prefix.item != item
    return Sequences(np.array([0, kept.sum()]), prefix.item[kept], prefix.kind[kept], prefix.age_ms[kept])


def _strongest(item: int, score: float, rung: Rung, ablated: Sequence[tuple[int, Recommendation]]) -> Reason | None:
    """The reason of the greatest drop, the newest of equal ones."""
    reasons = [Reason(removed, _drop(item, score, rung, answer), _place(answer, item)) for removed, answer in ablated]
    best = max(reasons, key=lambda reason: reason.drop, default=None)
    return best if best is not None and best.drop > 0 else None


def _drop(item: int, score: float, rung: Rung, answer: Recommendation) -> float:
    if answer.fallback != rung or not len(answer.item):
        return math.inf
    place = _place(answer, item)
    return score - float(answer.score[place - 1 if place else -1])


def _place(answer: Recommendation, item: int) -> int:
    """Where `item` stands in `answer`, 1 for first, 0 where it does not."""
    found = np.flatnonzero(answer.item == item)
    return int(found[0]) + 1 if len(found) else 0
