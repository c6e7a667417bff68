"""The online store from the event lake: filled again, and compared."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from segue.adapters.counted_events import CountedEvents
from segue.adapters.histories import HistoryStore, members
from segue.adapters.history_features import MAX_EVENTS
from segue.adapters.lake import Lake
from segue.errors import InvalidInput, Violation
from segue.history import RECORD, Histories, collect, record_columns


@dataclass(frozen=True, slots=True)
class Mismatch:
    """How a customer's online history differs from the lake's, in records."""

    customer: str
    online_only_count: int
    lake_only_count: int
    in_flight: bool
    """Whether all of it is online only, and newer than what the lake held: on its way there, as far as one can tell."""


def replay(
    lake: Lake,
    histories: HistoryStore,
    *,
    since_ms: int | None = None,
    fresh: bool = False,
    max_events: int = MAX_EVENTS,
    progress: Callable[[float], None] = lambda _share: None,
) -> int:
    """Merge the lake into the online store by the updater's own path; returns how many events were merged.

    What is there already stays, so it may run beside an updater and any number of times.

    Args:
        lake: what is true.
        histories: where to.
        since_ms: only customers with an event that became available since then; all unless given.
        fresh: remove every history first; until the end, answers know too little.
        max_events: events held in memory at a time.
        progress: called with the share that is done, in [0, 1].

    Raises:
        InvalidInput: some customers flow into more others than a store allows; all else is merged.
    """
    if fresh:
        histories.delete_all()
    for barrier in lake.barrier_registers().values():
        histories.raise_barrier(barrier)
    for link in lake.links():
        histories.link(link.source, link.target)
    touched = None if since_ms is None else set(lake.customers(available_since_ms=since_ms))
    merged_count = 0
    refused: list[Violation] = []
    ranges = list(lake.customer_ranges(max_events)) if lake.version() >= 0 else []
    for done, (first, past) in enumerate(ranges, start=1):
        events = lake.read(first_customer=first, past_customer=past)
        if touched is not None:
            chosen = np.array([name in touched for name in events.customers], bool)
            events = events.take(chosen[events.customer])
        try:
            histories.add(events)
        except InvalidInput as error:
            refused += error.violations
        merged_count += len(events)
        progress(done / len(ranges))
    if refused:
        raise InvalidInput(*refused)
    return merged_count


def refill(lake: Lake, histories: HistoryStore, customers: Iterable[str]) -> list[str]:
    """Merge again what a barrier of `customers` took too much of; returns those whose histories were filled.

    A history that was full lost older records for ones that were then taken back, and events that came while consent
    was withdrawn count once it turns out to have been given before them.
    """
    reached = {target for customer in customers for target in histories.targets(customer)}
    if lake.version() >= 0 and reached:
        histories.add(lake.read(customers={source for target in reached for source in histories.sources(target)}))
    return sorted(reached)


def verify(
    lake: Lake, histories: HistoryStore, *, sample: int = 1000, seed: int = 0, settle_seconds: float = 0.0
) -> list[Mismatch]:
    """Compare the bytes of some customers' histories, online and of the lake.

    Args:
        lake: what is true.
        histories: what to check.
        sample: how many customers, chosen by `seed`; all of them where there are no more.
        seed: chooses them.
        settle_seconds: those that differ are looked at once more after this time: what a reader of the event log has
            merged gets to the lake a few seconds later.
    """
    counted = CountedEvents(lake)
    known = sorted({*counted.customers(), *counted.barriers})
    drawn = np.random.default_rng(seed).permutation(len(known))[:sample]
    chosen = [known[index] for index in np.sort(drawn)]
    found = _differences(lake, histories, chosen)
    if found and settle_seconds:
        time.sleep(settle_seconds)
        found = _differences(lake, histories, [each.customer for each in found])
    return found


def _differences(lake: Lake, histories: HistoryStore, customers: Sequence[str]) -> list[Mismatch]:
    # The lake first: what it holds by now, the store holds too.
    flushed_ms = lake.available_range()[1]
    expected = counted_histories(lake, customers)
    online = histories.read(customers)
    found = []
    for position, customer in enumerate(customers):
        there = set(members(online.records(position).tobytes()))
        wanted = set(members(expected.records(position).tobytes()))
        if there != wanted:
            extra = there - wanted
            newer = all(_time_ms(record) > flushed_ms for record in extra)
            # A full history lost its oldest record for each newer one.
            in_flight = newer and len(wanted - there) <= len(extra)
            found.append(Mismatch(customer, len(extra), len(wanted - there), in_flight))
    return found


def counted_histories(lake: Lake, customers: Sequence[str]) -> Histories:
    """The histories of `customers` as the lake has them by now, in their order."""
    events = CountedEvents(lake).read_of(customers)
    position = {name: index for index, name in enumerate(customers)}
    row = np.array([position[name] for name in events.customers], np.int64)[events.customer]
    return collect(row, len(customers), record_columns(events))


def _time_ms(record: bytes) -> int:
    return int(np.frombuffer(record, RECORD)["event_time_ms"][0])
