"""Protocols: what is learned from, what is asked and what is filtered, as the published results have it.

`leave-one-out` and `published-split` compare with papers; `temporal` is what a shop would see. All rank the whole
vocabulary, never a sample. An item that training does not hold counts as missed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from models.sequence.config import Config
from models.sequence.dataset import Cases, Corpus, Split, Turns, sample, split, without_seen
from segue.adapters.datasets import Dataset
from segue.errors import InvalidInput
from segue.events import NO_ITEM, Events
from segue.features.sequence import SEQUENCE_KINDS, Sequences
from segue.history import gather

VALIDATION_SESSIONS_RATIO = 0.1
"""Share of the training sessions, the newest, by which a published split chooses."""


@dataclass(frozen=True, eq=False)
class Posed:
    """A data set as one protocol poses it."""

    split: Split
    config: Config
    """The configuration with what the protocol decides."""
    rules: list[str]
    """The protocol in sentences."""


@dataclass(frozen=True, eq=False)
class Log:
    """Whole sequences by customer, in the order of the log: nothing merged, cut or left out."""

    offsets: NDArray[np.int64]  # (s + 1,)
    item: NDArray[np.int64]  # (m,)
    kind: NDArray[np.uint8]  # (m,)
    time_ms: NDArray[np.int64]  # (m,)

    @classmethod
    def of(cls, events: Events) -> "Log":
        """The events by which customers turned to an item; those of one time keep their order in `events`."""
        rows = np.flatnonzero((events.item != NO_ITEM) & np.isin(events.kind, SEQUENCE_KINDS))
        rows = rows[np.lexsort((events.event_time_ms[rows], events.customer[rows]))]
        customer = events.customer[rows]
        offsets = np.searchsorted(customer, np.arange(len(events.customers) + 1))
        return cls(offsets, events.item[rows], events.kind[rows], events.event_time_ms[rows])

    def sequences(self, start: NDArray, stop: NDArray, now_ms: NDArray) -> Sequences:
        """The slices `start[i]:stop[i]` as of `now_ms[i]`."""
        offsets, source = gather(start, stop)
        age_ms = np.repeat(now_ms, stop - start) - self.time_ms[source]
        return Sequences(offsets, self.item[source], self.kind[source], age_ms)

    def corpus(self, start: NDArray, stop: NDArray) -> Corpus:
        """What is learned from the slices `start[i]:stop[i]`.

        Raises:
            InvalidInput: none of them holds two items.
        """
        if (stop - start).max(initial=0) < 2:
            raise InvalidInput.because("data", "holds no sequence of two items to learn from")
        return Corpus.of(self.sequences(start, stop, self.time_ms[np.maximum(stop, start + 1) - 1]))

    def cases(self, customer: NDArray, start: NDArray, asked: NDArray) -> Cases:
        """Ask for the turns at positions `asked`, each after all that `start` begins."""
        turns = Turns(customer, self.item[asked], self.time_ms[asked])
        return Cases(turns, self.sequences(start, asked, turns.time_ms), seen_count=0, turn_count=len(asked))


def leave_one_out(data: Dataset, config: Config) -> Posed:
    """Every customer's last item is the test, the one before it validation, the rest training.

    As SASRec (Kang and McAuley, 2018) and those after it; customers with fewer than three items only train.
    """
    log = Log.of(data.events)
    nonempty = np.diff(log.offsets) > 0
    start, stop = log.offsets[:-1][nonempty], log.offsets[1:][nonempty]
    asked = stop - start >= 3
    customer = np.flatnonzero(asked)
    choosing = log.corpus(start, stop - 2 * asked)
    final = log.corpus(start, stop - asked) if config.refit else choosing
    validation = without_seen(log.cases(customer, start[asked], stop[asked] - 2))
    test = without_seen(log.cases(customer, start[asked], stop[asked] - 1))
    kept = sample(validation, config.max_cases)
    posed = Split(choosing=choosing, final=final, validation=kept, test=test)
    rules = [
        f"leave-one-out over {_size(log)}: each customer's last item is asked for in the test, the one before it in "
        "validation; the prefix is all before it.",
        "Filtered: all items of the prefix, however old; the whole vocabulary is ranked.",
        "Fitted without the test item, the validation item included, for as many epochs as validation chose."
        if config.refit
        else "Strict: fitted without the validation and the test item; the test prefix holds the validation item.",
        f"Chosen on {len(kept):,} of {len(validation):,} validation items: parameters, epochs, blending weights.",
        f"Judged on {len(test):,} items; {test.seen_count:,} that were in their own prefix are not asked for.",
    ]
    return Posed(posed, replace(config, include_seen=False), rules)


def published_split(data: Dataset, config: Config) -> Posed:
    """The test part that the data set itself names, every prefix of every session asked for its next item.

    As SR-GNN (Wu et al., AAAI 2019): nothing is filtered. The newest of the training sessions choose.

    Raises:
        InvalidInput: the data set names no test part.
    """
    if data.test_from_ms is None:
        raise InvalidInput.because("data", f"{data.name} has no test part of its own")
    log = Log.of(data.events)
    nonempty = np.flatnonzero(np.diff(log.offsets) > 0)
    nonempty = nonempty[np.argsort(log.time_ms[log.offsets[nonempty]], kind="stable")]
    start, stop = log.offsets[nonempty], log.offsets[nonempty + 1]
    trains = int((log.time_ms[start] < data.test_from_ms).sum())
    chooses = round(trains * (1 - VALIDATION_SESSIONS_RATIO))
    choosing = log.corpus(start[:chooses], stop[:chooses])
    final = log.corpus(start[:trains], stop[:trains]) if config.refit else choosing
    validation = every_prefix(log, start[chooses:trains], stop[chooses:trains])
    test = every_prefix(log, start[trains:], stop[trains:])
    kept = sample(validation, config.max_cases)
    rules = [
        f"The data set's own split of {_size(log)}: each prefix of each test session is asked for its next item.",
        "Filtered: nothing; the whole vocabulary is ranked.",
        f"Chosen on {len(kept):,} prefixes of the newest {trains - chooses:,} of {trains:,} training sessions, which "
        + ("the final fit includes." if config.refit else "nothing was fitted on."),
        f"Judged on {len(test):,} prefixes.",
    ]
    posed = Split(choosing=choosing, final=final, validation=kept, test=test)
    return Posed(posed, replace(config, include_seen=True), rules)


def temporal(data: Dataset, config: Config) -> Posed:
    """One split in time for everyone, as `dataset.split` and the services have it."""
    posed = split(data.events, config)
    rules = [
        "Global split in time: each turn of the test span is asked for, from the newest events known just before it.",
        "Filtered: "
        + ("nothing" if config.include_seen else "the items of the prefix")
        + "; the vocabulary is ranked.",
        f"Chosen on {len(posed.validation):,} turns of the validation span; fitted on what was known when "
        f"{'test' if config.refit else 'validation'} began.",
        f"Judged on {len(posed.test):,} of {posed.test.turn_count:,} turns; {posed.test.seen_count:,} back to an item "
        "of their prefix are not asked for.",
    ]
    return Posed(posed, config, rules)


PROTOCOLS: Mapping[str, Callable[[Dataset, Config], Posed]] = {
    "leave-one-out": leave_one_out,
    "published-split": published_split,
    "temporal": temporal,
}


def pose(name: str, data: Dataset, config: Config) -> Posed:
    """`data` by the protocol of that name.

    Raises:
        InvalidInput: there is no such protocol, or it does not fit the data.
    """
    if name not in PROTOCOLS:
        raise InvalidInput.because("protocol", f"{name!r} is unknown; there are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name](data, config)


def every_prefix(log: Log, start: NDArray[np.int64], stop: NDArray[np.int64]) -> Cases:
    """Every item of the slices but their first, each asked for after those before it."""
    offsets, asked = gather(start + 1, np.maximum(stop, start + 1))
    session = np.repeat(np.arange(len(start)), np.diff(offsets))
    return log.cases(session, start[session], asked)


def _size(log: Log) -> str:
    return f"{len(log.item):,} turns of {int((np.diff(log.offsets) > 0).sum()):,} customers"
