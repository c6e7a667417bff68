"""Histories: a customer is the newest N of their events, and histories merge by union.

A history is a set of records, kept in record order and cut to the newest `HISTORY_LIMIT`. Union and cut form a
semilattice: merging is commutative, associative and idempotent, so late, repeated and reordered deliveries all end in
the same history, and a worker may crash anywhere and deliver again.

Record order is (event time, event id, item, kind, value), all but the time compared as unsigned big-endian bytes. A
Redis sorted set keeps members of `RECORD` bytes under the event time as score in that very order, so the store's order
and this module's are one. A copy re-sent with another time or payload is another record; `resolve` picks the one that
counts, the same one wherever it is asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from segue.errors import InvalidHistories
from segue.events import COLUMNS, Events

HISTORY_LIMIT = 256
"""How many records a history keeps."""

RECORD_COLUMNS = ("event_id", "event_time_ms", "item", "kind", "value_minor")

RECORD = np.dtype(list(zip(RECORD_COLUMNS, (">u8", ">i8", ">i8", "u1", ">i8"), strict=True)))
"""One packed record, 33 bytes: what the online store keeps for one event."""

Times = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Histories:
    """n histories as one ragged batch: history i is the slice `offsets[i]:offsets[i + 1]` of every column."""

    offsets: NDArray[np.int64]  # (n + 1,) from 0 to m, never decreasing
    event_time_ms: NDArray[np.int64]  # (m,)
    kind: NDArray[np.uint8]  # (m,)
    item: NDArray[np.int64]  # (m,)
    value_minor: NDArray[np.int64]  # (m,)
    event_id: NDArray[np.uint64]  # (m,)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Records per history, shape (n,)."""
        return np.diff(self.offsets)

    @property
    def row(self) -> NDArray[np.int64]:
        """The history each record belongs to, shape (m,)."""
        return np.repeat(np.arange(len(self)), self.lengths)

    @classmethod
    def empty(cls, count: int) -> Self:
        """`count` histories without a record."""
        columns = {name: np.empty(0, COLUMNS[name]) for name in RECORD_COLUMNS}
        return cls(np.zeros(count + 1, np.int64), **columns)

    def keep(self, mask: NDArray[np.bool_]) -> Self:
        """The same histories with only the records at which `mask`, shape (m,), is true."""
        kept = np.concatenate([[0], np.cumsum(mask)])[self.offsets]
        return type(self)(kept, **{name: getattr(self, name)[mask] for name in RECORD_COLUMNS})

    def take(self, index: NDArray[np.intp] | Sequence[int]) -> Self:
        """The histories at positions `index`, in that order; one may be taken many times."""
        index = np.asarray(index, np.intp)
        offsets, source = gather(self.offsets[:-1][index], self.offsets[1:][index])
        return type(self)(offsets, **{name: getattr(self, name)[source] for name in RECORD_COLUMNS})

    def records(self, index: int) -> NDArray[np.void]:
        """History `index` as packed `RECORD`s, in record order: byte for byte what the online store holds."""
        span = slice(self.offsets[index], self.offsets[index + 1])
        packed = np.empty(span.stop - span.start, RECORD)
        for name in RECORD_COLUMNS:
            packed[name] = getattr(self, name)[span]
        return packed

    @classmethod
    def from_records(cls, histories: Sequence[bytes]) -> Self:
        """Decode one bytes object of concatenated `RECORD`s per history; each must be in record order.

        Raises:
            InvalidHistories: a length is not a multiple of the record size.
        """
        for position, packed in enumerate(histories):
            if len(packed) % RECORD.itemsize:
                raise InvalidHistories.because(f"histories[{position}]", f"{len(packed)} bytes are not whole records")
        offsets = np.zeros(len(histories) + 1, np.int64)
        np.cumsum([len(packed) // RECORD.itemsize for packed in histories], out=offsets[1:])
        table = np.frombuffer(b"".join(histories), RECORD)
        return cls(offsets, **{name: table[name].astype(COLUMNS[name]) for name in RECORD_COLUMNS})


def gather(start: NDArray[np.int64], stop: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Offsets, shape (n + 1,), and source positions of the ragged batch made of the slices `start[i]:stop[i]`."""
    lengths = stop - start
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return offsets, np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], lengths)


def collect(row: NDArray[np.integer], count: int, columns: dict[str, NDArray], limit: int = HISTORY_LIMIT) -> Histories:
    """Build `count` histories from loose records, any order, copies allowed.

    Args:
        row: the history each record goes to, shape (m,), in [0, count).
        columns: the record columns, each of shape (m,).
        limit: how many newest records a history keeps.
    """
    order = record_order(row, columns)
    row = row[order]
    sorted_columns = {name: columns[name][order] for name in RECORD_COLUMNS}
    first = np.ones(len(row), bool)
    first[1:] = (row[1:] != row[:-1]) | differs(sorted_columns)
    offsets = np.searchsorted(row, np.arange(count + 1))
    return newest(Histories(offsets, **sorted_columns).keep(first), limit)


def histories_of(events: Events, limit: int = HISTORY_LIMIT) -> Histories:
    """The history of each of `events.customers`, from `events` alone."""
    return collect(events.customer, len(events.customers), record_columns(events), limit)


def record_columns(table: Events | Histories) -> dict[str, NDArray]:
    """The record columns of `table`, by name."""
    return {name: getattr(table, name) for name in RECORD_COLUMNS}


def record_order(row: NDArray[np.integer], columns: dict[str, NDArray]) -> NDArray[np.intp]:
    """Positions that sort records by (row, record order)."""
    if not len(row):
        return np.empty(0, np.intp)
    time = columns["event_time_ms"]
    earliest, span = int(time.min()), int(time.max()) - int(time.min()) + 1
    if (int(row.max()) + 1) * span >= 2**63:
        return _full_order(row, columns)
    # Nearly every record has its row and time to itself, and one key of both sorts many times faster than six keys:
    # only the ties are put in full order.
    key = row.astype(np.int64) * span + (time - earliest)
    order = np.argsort(key)
    key = key[order]
    same = key[1:] == key[:-1]
    tied = np.flatnonzero(np.concatenate([[False], same]) | np.concatenate([same, [False]]))
    part = order[tied]
    order[tied] = part[_full_order(row[part], {name: column[part] for name, column in columns.items()})]
    return order


def _full_order(row: NDArray[np.integer], columns: dict[str, NDArray]) -> NDArray[np.intp]:
    payload = [columns["value_minor"].view(np.uint64), columns["kind"], columns["item"].view(np.uint64)]
    return np.lexsort([*payload, columns["event_id"], columns["event_time_ms"], row])


def differs(columns: dict[str, NDArray]) -> NDArray[np.bool_]:
    """Whether each record but the first differs from the one before it, shape (m - 1,)."""
    return np.logical_or.reduce([columns[name][1:] != columns[name][:-1] for name in RECORD_COLUMNS])


def newest(histories: Histories, limit: int = HISTORY_LIMIT) -> Histories:
    """Cut every history to its newest `limit` records."""
    if not len(histories) or histories.lengths.max() <= limit:
        return histories
    from_end = np.repeat(histories.offsets[1:], histories.lengths) - np.arange(histories.offsets[-1])
    return histories.keep(from_end <= limit)


def merge(
    left: Histories, right: Histories, *, limit: int = HISTORY_LIMIT, erased_at_ms: Times | None = None
) -> Histories:
    """Union history i of `left` with history i of `right`, keep the newest `limit`.

    Args:
        erased_at_ms: shape (n,); records at or before it never come back.

    Raises:
        InvalidHistories: the two batches differ in length.
    """
    if len(left) != len(right):
        raise InvalidHistories.because("right", f"has {len(right)} histories, left has {len(left)}")
    columns = {name: np.concatenate([getattr(left, name), getattr(right, name)]) for name in RECORD_COLUMNS}
    merged = collect(np.concatenate([left.row, right.row]), len(left), columns, limit)
    return merged if erased_at_ms is None else erase(merged, erased_at_ms)


def erase(histories: Histories, erased_at_ms: Times) -> Histories:
    """Drop every record with an event time at or before its history's `erased_at_ms`, shape (n,)."""
    return histories.keep(histories.event_time_ms > np.repeat(erased_at_ms, histories.lengths))


def before(histories: Histories, now_ms: Times) -> Histories:
    """Only the records with event time strictly before their history's `now_ms`, shape (n,)."""
    past = histories.event_time_ms < np.repeat(now_ms, histories.lengths)
    return histories if past.all() else histories.keep(past)


def resolve(histories: Histories) -> Histories:
    """One record per event id: of several under one id, the first in record order counts."""
    # Equal (row, id) pairs give equal keys, so a batch without equal keys holds no copies and is done.
    row = histories.row.astype(np.uint64)
    keys = np.sort(histories.event_id ^ (row * np.uint64(0x9E3779B97F4A7C15)))
    if not (keys[1:] == keys[:-1]).any():
        return histories
    order = np.lexsort([np.arange(len(row)), histories.event_id, row])
    first = np.ones(len(row), bool)
    sorted_row, sorted_id = row[order], histories.event_id[order]
    first[order[1:]] = (sorted_row[1:] != sorted_row[:-1]) | (sorted_id[1:] != sorted_id[:-1])
    return histories if first.all() else histories.keep(first)


@dataclass(frozen=True, eq=False)
class Timelines:
    """Every customer's whole log in record order, without copies: what histories as of any time are cut from.

    A record delivered twice is available from its first delivery on. Timeline i is the slice
    `offsets[i]:offsets[i + 1]` of `events`, whose `customers[i]` it belongs to.
    """

    offsets: NDArray[np.int64]  # (c + 1,)
    events: Events

    @classmethod
    def of(cls, events: Events) -> Self:
        """Sort `events` into timelines, one for each of `events.customers`."""
        order = record_order(events.customer, record_columns(events))
        events = events.take(order)
        first = np.ones(len(events), bool)
        first[1:] = (events.customer[1:] != events.customer[:-1]) | differs(record_columns(events))
        if not first.all():
            starts = np.flatnonzero(first)
            available = np.minimum.reduceat(events.available_time_ms, starts)
            columns = {name: getattr(events, name)[starts] for name in COLUMNS} | {"available_time_ms": available}
            events = Events(events.customers, **columns)
        return cls(np.searchsorted(events.customer, np.arange(len(events.customers) + 1)), events)

    def as_of(self, customer: NDArray[np.integer], t_ms: Times, *, limit: int = HISTORY_LIMIT) -> Histories:
        """What the online system knew of each customer at each time.

        History i holds the newest `limit` records of `customer[i]` with event time < `t_ms[i]` and available time
        <= `t_ms[i]`.

        Args:
            customer: shape (n,), index into `events.customers`; -1 for a customer nobody has seen.
            t_ms: shape (n,).
        """
        seen = customer >= 0
        low = np.where(seen, self.offsets[customer], 0)
        high = np.where(seen, self._first_not_before(customer, t_ms), low)
        # Look a little further back than the limit, to make up for records not yet available at t; a row for which
        # that was not enough looks twice as far.
        reach = np.minimum(high - low, limit + limit // 8)
        while True:
            offsets, source = gather(high - reach, high)
            known = self.events.available_time_ms[source] <= np.repeat(t_ms, reach)
            kept = np.diff(np.concatenate([[0], np.cumsum(known)])[offsets])
            short = (kept < limit) & (reach < high - low)
            if not short.any():
                break
            reach = np.where(short, np.minimum(high - low, reach * 2), reach)
        columns = {name: getattr(self.events, name)[source] for name in RECORD_COLUMNS}
        return newest(Histories(offsets, **columns).keep(known), limit)

    def _first_not_before(self, customer: NDArray[np.integer], t_ms: Times) -> NDArray[np.int64]:
        """Position of each customer's first record with event time >= t, shape (n,): bisecting all rows at once."""
        low, high = self.offsets[customer], self.offsets[customer + 1]
        while (low < high).any():
            middle = (low + high) // 2
            earlier = (low < high) & (
                self.events.event_time_ms[np.minimum(middle, max(len(self.events) - 1, 0))] < t_ms
            )
            low, high = np.where(earlier, middle + 1, low), np.where(earlier | (low >= high), high, middle)
        return low
