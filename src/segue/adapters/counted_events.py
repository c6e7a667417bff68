"""Events as they count: each customer's own, and of everyone who flows into them, without what a barrier stops.

The one place where links and barriers are applied to the lake: features, snapshots, labels and replays read from here.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from segue.adapters.lake import Lake, ranges_of
from segue.events import COLUMNS, Events
from segue.history import gather
from segue.identity import ALWAYS_MS, Flow, flows


class CountedEvents:
    """The events of `lake` as they count, by the links and barriers it held when they were first asked for."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake

    @cached_property
    def barriers(self) -> dict[str, int]:
        """The barrier in force, ms, of each customer that has one."""
        return self.lake.barriers()

    @cached_property
    def flows(self) -> list[Flow]:
        """Who counts for whom else, in order of the target."""
        return flows(self.lake.links(), self.barriers)

    @cached_property
    def targets(self) -> list[str]:
        """The target of each flow, in order."""
        return [flow.target for flow in self.flows]

    def read(self, *, first_customer: str | None = None, past_customer: str | None = None) -> Events:
        """The events that count for customers in [first_customer, past_customer), in no particular order.

        A copy for another customer became available when both the event and the way to that customer were. One that
        came by several ways is there several times: of equal records the earliest available counts (`Timelines.of`).

        Raises:
            InvalidInput: the lake holds no event table.
        """
        own = self.lake.read(first_customer=first_customer, past_customer=past_customer)
        low = 0 if first_customer is None else bisect_left(self.targets, first_customer)
        high = len(self.targets) if past_customer is None else bisect_left(self.targets, past_customer)
        return self._counted(own, self.flows[low:high])

    def read_of(self, customers: Collection[str]) -> Events:
        """As `read`, of `customers`."""
        wanted = set(customers)
        return self._counted(self.lake.read(customers=wanted), [flow for flow in self.flows if flow.target in wanted])

    def own(self, *, first_customer: str | None = None, past_customer: str | None = None) -> Events:
        """As `read`, but each event once, for the customer it is of."""
        return self._unbarred(self.lake.read(first_customer=first_customer, past_customer=past_customer))

    def time_range(self) -> tuple[int, int]:
        """Event times in ms of the oldest and the newest event, whether or not they count.

        Raises:
            InvalidInput: the lake holds no event.
        """
        return self.lake.time_range()

    def customers(self) -> list[str]:
        """Every customer for whom an event may count, in order."""
        return self._counts[0]

    def customer_ranges(self, max_events: int) -> Iterator[tuple[str | None, str | None]]:
        """Consecutive ranges of customers for whom about `max_events` events count at most, as `ranges_of`."""
        return ranges_of(*self._counts, max_events)

    @cached_property
    def _counts(self) -> tuple[list[str], NDArray[np.int64]]:
        names, counts = self.lake.event_counts()
        if not self.flows:
            return names, counts
        own = dict(zip(names, counts.tolist(), strict=True))
        counted = dict(own)
        for flow in self.flows:
            if flow.source in own:
                counted[flow.target] = counted.get(flow.target, 0) + own[flow.source]
        ordered = sorted(counted)
        return ordered, np.array([counted[name] for name in ordered], np.int64)

    def _counted(self, own: Events, inward: list[Flow]) -> Events:
        if not inward:
            return self._unbarred(own)
        outside = {flow.source for flow in inward} - set(own.customers)
        others = self.lake.read(customers=outside) if outside else Events.empty()
        return Events.concat([self._unbarred(own), _copies(Events.concat([own, others]), inward)])

    def _unbarred(self, events: Events) -> Events:
        if not self.barriers:
            return events
        barrier_ms = np.array([self.barriers.get(name, ALWAYS_MS) for name in events.customers], np.int64)
        return events.take(events.event_time_ms > barrier_ms[events.customer])


def _copies(events: Events, inward: list[Flow]) -> Events:
    """A copy for the target of each flow of every event of its source that passes."""
    order = np.argsort(events.customer, kind="stable")
    bounds = np.searchsorted(events.customer[order], np.arange(len(events.customers) + 1))
    code = {name: position for position, name in enumerate(events.customers)}
    passing = [flow for flow in inward if flow.source in code]
    source = np.array([code[flow.source] for flow in passing], np.intp)
    targets = {name: position for position, name in enumerate(dict.fromkeys(flow.target for flow in passing))}
    offsets, position = gather(bounds[source], bounds[source + 1])
    flow = np.repeat(np.arange(len(passing)), np.diff(offsets))
    columns = {name: getattr(events, name)[order[position]] for name in COLUMNS}
    available_ms = np.array([each.available_time_ms for each in passing], np.int64)[flow]
    columns["available_time_ms"] = np.maximum(columns["available_time_ms"], available_ms)
    columns["customer"] = np.array([targets[each.target] for each in passing], np.int32)[flow]
    names = np.empty(len(targets), np.object_)
    names[:] = list(targets)
    barrier_ms = np.array([each.barrier_ms for each in passing], np.int64)[flow]
    return Events(names, **columns).take(columns["event_time_ms"] > barrier_ms)
