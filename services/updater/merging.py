"""A micro-batch into the online store.

The order within it does not matter: links are a set, barriers only rise, histories are unions, and whichever of two
comes second makes up for what the first could not see (`HistoryStore`). One thing depends on the order: an event that
is delivered while consent is withdrawn, before the news that it was given again, is dropped. So events go last.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from segue.adapters.dead_letters import DeadLetter
from segue.adapters.erasures import Receipt, Receipts, State
from segue.adapters.event_log import Entry
from segue.adapters.histories import HistoryStore
from segue.adapters.log_entries import Decoded, Erasure, Fact, decode
from segue.customers import BARRED_MS, Barrier, Link
from segue.errors import InvalidInput, SegueError, StoreCorrupted
from segue.events import Events
from services.updater.buffer import Batch

REFUSED = (InvalidInput, StoreCorrupted)
"""What every later try meets again; all else is worth another try."""


@dataclass(frozen=True, eq=False)
class Merged:
    """What became of a micro-batch."""

    decoded: Decoded
    batch: Batch
    """The events that were merged."""
    facts: list[Fact]
    """What was applied besides events, links with the time from which they count."""
    raised: list[Barrier]
    """Every barrier that the facts raised, also those of others."""
    barriers: dict[str, int]
    """The barrier in force, ms, of each customer of `raised` that has one."""
    letters: list[DeadLetter]
    barred_count: int
    """Events that a barrier stopped."""


class Merging:
    """Merges into `histories`; erasures are noted in `receipts`.

    Merging is idempotent: what was interrupted anywhere is merged again.

    Args:
        histories: the online store.
        receipts: where the receipts of erasures are.
        future_skew_ms: how far ahead of our clock an event may lie.
        clock_ms: our clock.
    """

    def __init__(
        self, histories: HistoryStore, receipts: Receipts, *, future_skew_ms: int, clock_ms: Callable[[], int]
    ) -> None:
        self._histories = histories
        self._receipts = receipts
        self._future_skew_ms = future_skew_ms
        self._clock_ms = clock_ms

    def merge(self, entries: Sequence[Entry]) -> Merged:
        """Merge what `entries` say; what cannot be merged becomes a dead letter.

        Raises:
            StoreUnavailable, RedisError: part of it may be merged.
        """
        decoded = decode(entries, now_ms=self._clock_ms(), skew_ms=self._future_skew_ms)
        letters = [self._letter(each.entry, each.reason, each.problem) for each in decoded.poison]
        facts: list[Fact] = []
        raised: list[Barrier] = []
        for entry, fact in decoded.facts:
            try:
                raised += self._apply(fact)
            except REFUSED as error:
                letters.append(self._letter(entry, error.reason, str(error)))
            else:
                facts.append(replace(fact, available_time_ms=self._clock_ms()) if isinstance(fact, Link) else fact)
        refused: dict[str, SegueError] = {}
        barriers = self._add(decoded.events, refused) if len(decoded.events) else {}
        # From here on the online store has them.
        events = replace(decoded.events, available_time_ms=np.full(len(decoded.events), self._clock_ms()))
        passed = _passed(events, barriers)
        merged = passed & _passed(events, dict.fromkeys(refused, BARRED_MS))
        letters += self._letters(entries, decoded, refused)
        size_bytes = sum(len(entry.body) for entry in entries)
        batch = Batch(events, decoded.details.table(), decoded.partition, decoded.offset, size_bytes).keep(merged)
        in_force = self._histories.barriers([each.customer for each in raised]) if raised else {}
        return Merged(decoded, batch, facts, raised, in_force, letters, int((~passed).sum()))

    def _apply(self, fact: Fact) -> list[Barrier]:
        """What is no event into the online store; returns the barriers it raised."""
        match fact:
            case Link():
                return self._histories.link(fact.source, fact.target)
            case Barrier():
                self._histories.raise_barrier(fact)
                return [fact]
            case Erasure():
                erased = self._histories.erase(fact.customer, fact.erased_at_ms)
                self._receipts.put(Receipt(fact.erasure_id, State.ONLINE, tuple(erased), fact.erased_at_ms))
                return [Barrier(each, erased_at_ms=fact.erased_at_ms) for each in erased]

    def _add(self, events: Events, refused: dict[str, SegueError]) -> dict[str, int]:
        """Add events; where the store refuses, find whose it refuses by halves. Returns the barriers in force."""
        try:
            return self._histories.add(events)
        except REFUSED as error:
            customers = np.unique(events.customer)
            if len(customers) == 1:
                refused[events.customers[customers[0]]] = error
                return {}
            first = events.customer < customers[len(customers) // 2]
            return self._add(events.take(first), refused) | self._add(events.take(~first), refused)

    def _letters(self, entries: Sequence[Entry], decoded: Decoded, refused: dict[str, SegueError]) -> list[DeadLetter]:
        """The letters of the events of refused customers."""
        if not refused:
            return []
        where = set(zip(decoded.partition.tolist(), decoded.offset.tolist(), strict=True))
        return [
            self._letter(entry, refused[entry.customer].reason, str(refused[entry.customer]))
            for entry in entries
            if entry.customer in refused and (entry.partition, entry.offset) in where
        ]

    def _letter(self, entry: Entry, reason: str, problem: str) -> DeadLetter:
        where = (entry.customer, entry.partition, entry.offset)
        return DeadLetter(reason, problem, *where, entry.body, self._clock_ms())


def _passed(events: Events, barriers: dict[str, int]) -> NDArray[np.bool_]:
    """Which events are later than the barrier of their customer, shape (n,)."""
    if not barriers:
        return np.ones(len(events), bool)
    barrier_ms = np.array([barriers.get(name, -1) for name in events.customers], np.int64)
    return events.event_time_ms > barrier_ms[events.customer]
