"""A batch: histories as of their times, with what several features need computed once.

Almost every feature here is a difference of two cumulative columns: count up to the end of the history minus count up
to the start of a window. One history or a million, the numpy calls are the same.
"""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from segue.events import NO_ITEM, Kind
from segue.history import HISTORY_LIMIT, Histories, Times, before, resolve

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
WINDOWS_MS = {"1h": HOUR_MS, "1d": DAY_MS, "7d": 7 * DAY_MS, "30d": 30 * DAY_MS, "90d": 90 * DAY_MS}
"""The windows by the word in a feature's name; a window holds the records with age in (0, window]."""

WINDOW_MS = np.array(list(WINDOWS_MS.values()))

SIGNALS = {
    "view": Kind.PRODUCT_VIEWED,
    "add": Kind.PRODUCT_ADDED,
    "remove": Kind.PRODUCT_REMOVED,
    "checkout": Kind.CHECKOUT_STARTED,
    "order": Kind.ORDER_COMPLETED,
    "search": Kind.PRODUCTS_SEARCHED,
    "engage": Kind.CONTENT_ENGAGED,
    "wishlist": Kind.PRODUCT_WISHLISTED,
    "review": Kind.PRODUCT_REVIEWED,
}
"""The kinds that are counted, by the word in a feature's name."""

SIGNAL_KINDS = np.array(list(SIGNALS.values()), np.uint8)
SIGNAL_COLUMN = {signal: column for column, signal in enumerate(SIGNALS)}


class Batch:
    """n histories, each as of its `now_ms`: only records before it, one record per event id.

    Attributes:
        now_ms: shape (n,).
        full: shape (n,), whether the history held as many records as it keeps, so that older ones may be missing.
        start: shape (n,), position of each history's first record among the m records.
        stop: shape (n,), position after its last.
    """

    def __init__(self, histories: Histories, now_ms: Times, *, limit: int = HISTORY_LIMIT) -> None:
        self.now_ms = now_ms
        self.full = histories.lengths >= limit
        self.histories = resolve(before(histories, now_ms))
        self.start = self.histories.offsets[:-1]
        self.stop = self.histories.offsets[1:]

    def __len__(self) -> int:
        return len(self.now_ms)

    @cached_property
    def row(self) -> NDArray[np.int64]:
        """The history of each record, shape (m,)."""
        return self.histories.row

    @cached_property
    def age_ms(self) -> NDArray[np.int64]:
        """Now - event time of each record, > 0, shape (m,)."""
        return self.now_ms[self.row] - self.histories.event_time_ms

    @cached_property
    def is_first(self) -> NDArray[np.bool_]:
        """Whether each record is its history's first, shape (m,)."""
        first = np.zeros(len(self.row), bool)
        first[self.start[self.start < self.stop]] = True
        return first

    @cached_property
    def is_signal(self) -> NDArray[np.bool_]:
        """Whether each record is of each of SIGNALS, shape (s, m)."""
        return self.histories.kind == SIGNAL_KINDS[:, None]

    @cached_property
    def signals_before(self) -> NDArray[np.int64]:
        """Cumulative count of each of SIGNALS before every position, shape (s, m + 1)."""
        return cumulative(self.is_signal)

    @cached_property
    def last_signal(self) -> NDArray[np.int64]:
        """Position of each history's newest record of each of SIGNALS, or -1, shape (s, n)."""
        _, position = np.nonzero(self.is_signal)  # all records of the first signal, then of the second, ...
        if not len(position):
            return np.full((len(SIGNALS), len(self)), -1)
        first = cumulative(self.signals_before[:, -1])[:-1, None]
        newest = position[np.maximum(first + self.signals_before[:, self.stop] - 1, 0)]
        return np.where(self.in_history(self.signals_before) > 0, newest, -1)

    @cached_property
    def window_start(self) -> NDArray[np.int64]:
        """Position of each history's first record inside each of WINDOWS_MS, shape (n, w)."""
        # One sorted key for all histories: the row, then how near the record is, capped just outside the widest window.
        cap = int(WINDOW_MS[-1]) + 1
        nearness = self.row * (2 * cap) + cap - np.minimum(self.age_ms, cap)
        wanted = np.arange(len(self))[:, None] * (2 * cap) + cap - WINDOW_MS
        return np.searchsorted(nearness, wanted)

    def in_windows(self, before: NDArray) -> NDArray:
        """Sums over each window of columns given as their `cumulative`, shape (..., n, w) for (..., m + 1)."""
        return before[..., self.stop, None] - before[..., self.window_start]

    def in_history(self, before: NDArray) -> NDArray:
        """Sums over each whole history of columns given as their `cumulative`, shape (..., n) for (..., m + 1)."""
        return before[..., self.stop] - before[..., self.start]

    @cached_property
    def by_item(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positions of the records that concern an item, those of one history and item together, and a key for each.

        Both of shape (i,); the key is the same where history and item are the same.
        """
        position = np.flatnonzero(self.histories.item != NO_ITEM)
        _, code = np.unique(self.histories.item[position], return_inverse=True)
        key = self.row[position] * (len(position) + 1) + code
        order = np.argsort(key)
        return position[order], key[order]

    def last_of_item(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Whether each record is the newest of its history and item among those at which `mask`, shape (m,), is true.

        Counting these inside a window counts the distinct items in it: a window ends where the history ends.
        """
        position, key = self.by_item
        wanted = mask[position]
        position, key = position[wanted], key[wanted]
        last = np.zeros(len(mask), bool)
        if len(key):
            groups = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
            last[np.maximum.reduceat(position, groups)] = True
        return last

    def seconds_since(self, position: NDArray[np.int64]) -> NDArray[np.float64]:
        """Age in seconds of the records at `position`, any shape (n, ...); NaN where the position is -1."""
        if not len(self.row):
            return np.full(position.shape, np.nan)
        return np.where(position >= 0, self.age_ms[position] / 1000, np.nan)


def cumulative(values: NDArray) -> NDArray:
    """Exact sums of `values`, shape (..., m), before every position: int64, shape (..., m + 1)."""
    sums = np.zeros((*values.shape[:-1], values.shape[-1] + 1), np.int64)
    np.cumsum(values, axis=-1, out=sums[..., 1:])
    return sums


def ratio(part: NDArray, whole: NDArray) -> NDArray[np.float64]:
    """Part / whole, NaN where `whole` is zero."""
    return np.divide(part, whole, out=np.full(np.broadcast(part, whole).shape, np.nan), where=whole != 0)
