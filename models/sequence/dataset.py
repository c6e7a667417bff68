"""What the model learns from and is judged by: item sequences known at a time, and the turns taken after it.

The split is global in time: validation asks for the turns in [cuts_ms[0], cuts_ms[1]), test for those from `cuts_ms[1]`
on. Every sequence, in training and in a question, is made by `item_sequences`, the function that serves.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.sequence.config import Config
from segue.errors import InvalidInput
from segue.events import NO_ITEM, Events
from segue.features.sequence import SEQUENCE_KINDS, Sequences, item_sequences
from segue.history import HISTORY_LIMIT, Histories, Timelines, gather, record_columns, resolve
from segue.inference.windows import Vocabulary, gap_buckets

CASES_SEED = 0
"""Draws which turns are asked for: not the training seed, so that runs with other seeds answer the same questions."""

CHUNK_CASES = 8192
"""Prefixes cut at a time, of at most HISTORY_LIMIT records each."""


@dataclass(frozen=True, eq=False)
class Turns:
    """n turns: each is the first record of a run of records by which a customer turned to one item."""

    customer: NDArray[np.int64]  # (n,)
    item: NDArray[np.int64]  # (n,)
    time_ms: NDArray[np.int64]  # (n,)

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> "Turns":
        """The turns at `index`, positions or mask."""
        return Turns(self.customer[index], self.item[index], self.time_ms[index])


@dataclass(frozen=True, eq=False)
class Cases:
    """n questions: after this prefix, known just before the turn, which item came next?"""

    turns: Turns
    prefixes: Sequences
    seen_count: int
    """Turns that went back to an item of their prefix and are not asked for."""
    turn_count: int
    """All turns in the span, of which at most `max_cases` are drawn."""

    def __len__(self) -> int:
        return len(self.turns.item)

    def take(self, index: NDArray[np.intp]) -> "Cases":
        """The questions at positions `index`."""
        return Cases(self.turns.take(index), take(self.prefixes, index), self.seen_count, self.turn_count)


@dataclass(frozen=True, eq=False)
class Corpus:
    """What is learned from: all that customers were known, at one time, to have turned to."""

    vocabulary: Vocabulary
    offsets: NDArray[np.int64]  # (s + 1,) one slice per customer with a turn
    index: NDArray[np.int64]  # (m,) vocabulary indices, oldest first
    kind: NDArray[np.uint8]  # (m,)
    gap: NDArray[np.int64]  # (m,) bucket of the time until the customer's next turn
    popularity: NDArray[np.int64]  # (v,) turns to each item

    @property
    def columns(self) -> tuple[NDArray, NDArray, NDArray]:
        """Items, kinds and gaps, as `Windows` orders them."""
        return self.index, self.kind, self.gap

    @classmethod
    def of(cls, sequences: Sequences) -> Self:
        """Learn from `sequences`, each a customer's own; the vocabulary is the items in them."""
        vocabulary = Vocabulary.of(sequences.item)
        index = vocabulary.index(sequences.item)
        return cls(
            vocabulary,
            np.unique(sequences.offsets),
            index,
            sequences.kind,
            gap_buckets(sequences.offsets, sequences.age_ms),
            np.bincount(index, minlength=len(vocabulary)),
        )

    @classmethod
    def known_at(cls, timelines: Timelines, t_ms: int) -> Self:
        """What was known at `t_ms`.

        Raises:
            InvalidInput: nobody had turned to a second item, so that there is nothing to learn.
        """
        sequences = known_sequences(timelines, t_ms)
        if np.diff(sequences.offsets).max(initial=0) < 2:
            raise InvalidInput.because("lake", f"holds no customer who turned to two items before {t_ms} ms")
        return cls.of(sequences)


@dataclass(frozen=True, eq=False, kw_only=True)
class Split:
    """Two corpora, and the questions to ask of what was learned from each."""

    choosing: Corpus
    """Known when validation begins: what a model is trained on to find out for how long."""
    final: Corpus
    """What the exported model is trained on: known when test begins, or `choosing` itself without a refit."""
    validation: Cases
    test: Cases


@dataclass(frozen=True, eq=False, kw_only=True)
class Dataset(Split):
    """A split at two times."""

    cuts_ms: tuple[int, int]
    """When validation begins, and when test begins."""
    end_ms: int
    """Just after the newest event."""


def split(events: Events, config: Config, cuts_ms: tuple[int, int] | None = None) -> Dataset:
    """The dataset of `events`.

    Args:
        cuts_ms: when validation and test begin; where the configured shares put them unless given. A bundle is judged
            again by its own cuts: what it was trained on stays out of the test, however the lake has grown.

    Raises:
        InvalidInput: there is no event, or nothing to learn from in the time left for training.
    """
    validation_ms, test_ms = cuts_ms or shares(events.event_time_ms, config)
    timelines = Timelines.of(events)
    turns = turns_of(timelines)
    choosing = Corpus.known_at(timelines, validation_ms)
    return Dataset(
        choosing=choosing,
        final=Corpus.known_at(timelines, test_ms) if config.refit else choosing,
        validation=cases(timelines, turns.take((validation_ms <= turns.time_ms) & (turns.time_ms < test_ms)), config),
        test=cases(timelines, turns.take(test_ms <= turns.time_ms), config),
        cuts_ms=(validation_ms, test_ms),
        end_ms=int(events.event_time_ms.max()) + 1,
    )


def shares(event_time_ms: NDArray[np.int64], config: Config) -> tuple[int, int]:
    """When validation and test begin, so that each has its configured share of the events."""
    if not len(event_time_ms):
        raise InvalidInput.because("lake", "holds no event")
    before = np.array([1 - config.validation_ratio - config.test_ratio, 1 - config.test_ratio])
    place = np.rint(before * len(event_time_ms)).astype(np.intp)
    times = np.append(np.sort(event_time_ms), event_time_ms.max() + 1)
    return int(times[place[0]]), int(times[place[1]])


def known_sequences(timelines: Timelines, t_ms: int) -> Sequences:
    """Everything each customer was known at `t_ms` to have turned to: whole logs, not only the newest records."""
    everyone = np.arange(len(timelines.events.customers))
    whole = max(1, len(timelines.events))
    now_ms = np.full(len(everyone), t_ms, np.int64)
    return item_sequences(timelines.as_of(everyone, now_ms, limit=whole), now_ms, length=whole)


def turns_of(timelines: Timelines) -> Turns:
    """Every turn in the log, by customer and time: where each run that `item_sequences` tells as one item begins."""
    histories = resolve(Histories(timelines.offsets, **record_columns(timelines.events)))
    histories = histories.keep((histories.item != NO_ITEM) & np.isin(histories.kind, SEQUENCE_KINDS))
    row = histories.row
    begins = np.ones(len(row), bool)
    begins[1:] = (row[1:] != row[:-1]) | (histories.item[1:] != histories.item[:-1])
    return Turns(row, histories.item, histories.event_time_ms).take(begins)


def cases(timelines: Timelines, turns: Turns, config: Config) -> Cases:
    """Ask for the turns in `turns`, within the configuration's limits, from what was known before each."""
    drawn = turns.take(draw(turns.customer, config))
    prefixes = prefixes_of(timelines, drawn)
    asked = Cases(drawn, prefixes, seen_count=0, turn_count=len(turns.item))
    return asked if config.include_seen else without_seen(asked)


def without_seen(cases: Cases) -> Cases:
    """Leave out, and count, the questions for an item of their own prefix."""
    row = np.repeat(np.arange(len(cases)), np.diff(cases.prefixes.offsets))
    again = np.bincount(row[cases.prefixes.item == cases.turns.item[row]], minlength=len(cases)) > 0
    return replace(cases.take(np.flatnonzero(~again)), seen_count=int(again.sum()))


def sample(cases: Cases, count: int) -> Cases:
    """At most `count` of `cases`, drawn at random."""
    if len(cases) <= count:
        return cases
    return cases.take(np.sort(np.random.default_rng(CASES_SEED).choice(len(cases), count, replace=False)))


def draw(customer: NDArray[np.int64], config: Config) -> NDArray[np.intp]:
    """Positions of a random choice of turns, few enough per customer and in all, in their old order."""
    shuffled = np.random.default_rng(CASES_SEED).permutation(len(customer))
    by_customer = shuffled[np.argsort(customer[shuffled], kind="stable")]
    grouped = customer[by_customer]
    place = np.arange(len(grouped)) - np.searchsorted(grouped, grouped)
    allowed = np.zeros(len(customer), bool)
    allowed[by_customer[place < config.max_cases_per_customer]] = True
    return np.sort(shuffled[allowed[shuffled]][: config.max_cases])


def prefixes_of(timelines: Timelines, turns: Turns) -> Sequences:
    """What serving would have read just before each turn: the sequence of the whole history as it was known."""
    parts = []
    for start in range(0, len(turns.item), CHUNK_CASES):
        rows = slice(start, start + CHUNK_CASES)
        now_ms = turns.time_ms[rows]
        parts.append(item_sequences(timelines.as_of(turns.customer[rows], now_ms), now_ms, length=HISTORY_LIMIT))
    return concat(parts)


def concat(parts: list[Sequences]) -> Sequences:
    """All sequences of `parts`, in their order."""
    lengths = np.concatenate([np.zeros(1, np.int64), *(np.diff(part.offsets) for part in parts)])
    columns = {
        name: np.concatenate([np.empty(0, dtype), *(getattr(part, name) for part in parts)])
        for name, dtype in (("item", np.int64), ("kind", np.uint8), ("age_ms", np.int64))
    }
    return Sequences(np.cumsum(lengths), **columns)


def sequences_of(rows: Sequence[NDArray[np.int64]]) -> Sequences:
    """Sequences of these items, all viewed a millisecond ago."""
    offsets = np.cumsum([0, *map(len, rows)])
    item = np.concatenate([np.empty(0, np.int64), *rows])
    return Sequences(offsets, item, np.ones(offsets[-1], np.uint8), np.ones(offsets[-1], np.int64))


def take(sequences: Sequences, index: NDArray[np.intp]) -> Sequences:
    """The sequences at positions `index`, in that order."""
    offsets, source = gather(sequences.offsets[:-1][index], sequences.offsets[1:][index])
    return Sequences(offsets, sequences.item[source], sequences.kind[source], sequences.age_ms[source])
