"""Snapshots: what a history cannot hold, computed from the whole log up to a cut.

A customer's lifetime totals, and what happened to each item of late. Both use only what was known at the cut: events
before it that were available by then.
"""

import numpy as np
from numpy.typing import NDArray

from segue.events import NO_ITEM, Events, Kind
from segue.features.batch import DAY_MS, WINDOWS_MS
from segue.features.family import Feature, count

CUSTOMER_LIFETIME = (
    count("customer_event_count_lifetime", "events ever"),
    count("customer_order_count_lifetime", "order_completed events ever"),
    count("customer_order_value_minor_lifetime", "summed value of all orders", "minor"),
    count("customer_age_days_lifetime", "whole days from the first event to the cut", "days"),
)

ITEM_WINDOWS = ("1h", "1d", "7d", "30d")
ITEM_SIGNALS = {"view": Kind.PRODUCT_VIEWED, "add": Kind.PRODUCT_ADDED, "purchase": Kind.PRODUCT_PURCHASED}

ITEM_STATS: tuple[Feature, ...] = (
    *(
        count(f"item_{signal}_count_{window}", f"{kind.label} events of the item in the last {window}")
        for signal, kind in ITEM_SIGNALS.items()
        for window in ITEM_WINDOWS
    ),
    *(
        count(f"item_event_count_{window}", f"events of any kind of the item in the last {window}")
        for window in ITEM_WINDOWS
    ),
)


def known_at(events: Events, cut_ms: int) -> Events:
    """The events before the cut that were available by then, one for each event id: the first, as in a history.

    `events` must be in record order and hold no copies, as those of `Timelines` are.
    """
    known = events.take((events.event_time_ms < cut_ms) & (events.available_time_ms <= cut_ms))
    order = np.lexsort((known.event_id, known.customer))  # stable: under one id, record order stays
    customer, event_id = known.customer[order], known.event_id[order]
    first = np.ones(len(known), bool)
    first[1:] = (customer[1:] != customer[:-1]) | (event_id[1:] != event_id[:-1])
    return known.take(np.sort(order[first]))


def customer_lifetime(events: Events, cut_ms: int) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """CUSTOMER_LIFETIME of every customer with an event known at the cut.

    Args:
        events: a log in record order, without copies.
        cut_ms: the cut.

    Returns:
        Positions in `events.customers`, shape (c,), and shape (c, len(CUSTOMER_LIFETIME)).
    """
    known = known_at(events, cut_ms)
    total = len(events.customers)
    is_order = known.kind == Kind.ORDER_COMPLETED
    value = np.zeros(total, np.int64)
    np.add.at(value, known.customer[is_order], known.value_minor[is_order])
    first = np.full(total, cut_ms)
    np.minimum.at(first, known.customer, known.event_time_ms)
    counts = np.bincount(known.customer, minlength=total)
    orders = np.bincount(known.customer[is_order], minlength=total)
    present = np.flatnonzero(counts)
    return present, np.column_stack([counts, orders, value, (cut_ms - first) // DAY_MS])[present]


def item_stats(events: Events, cut_ms: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """ITEM_STATS of every item with an event known at the cut.

    Args:
        events: a log in record order, without copies.
        cut_ms: the cut.

    Returns:
        Item ids, ascending, shape (i,), and shape (i, len(ITEM_STATS)).
    """
    known = known_at(events, cut_ms)
    known = known.take(known.item != NO_ITEM)
    items, row = np.unique(known.item, return_inverse=True)
    age_ms = cut_ms - known.event_time_ms
    columns = [
        np.bincount(row[(age_ms <= WINDOWS_MS[window]) & is_kind], minlength=len(items))
        for is_kind in (*(known.kind == kind for kind in ITEM_SIGNALS.values()), np.ones(len(known), bool))
        for window in ITEM_WINDOWS
    ]
    return items, np.column_stack(columns).astype(np.int64).reshape(len(items), len(ITEM_STATS))


def add_item_stats(
    left: tuple[NDArray[np.int64], NDArray[np.int64]], right: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Statistics of two disjoint parts of a log, added up."""
    items, row = np.unique(np.concatenate([left[0], right[0]]), return_inverse=True)
    sums = np.zeros((len(items), len(ITEM_STATS)), np.int64)
    np.add.at(sums, row, np.concatenate([left[1], right[1]]))
    return items, sums
