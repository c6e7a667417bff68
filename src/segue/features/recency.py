"""Recency, frequency and value: how long ago, how often, how much."""

import numpy as np
from numpy.typing import NDArray

from segue.events import Kind
from segue.features.batch import DAY_MS, SIGNAL_COLUMN, SIGNALS, WINDOWS_MS, Batch, cumulative, ratio
from segue.features.family import Family, Feature, count


def seconds_since_signal(batch: Batch) -> NDArray[np.float64]:
    """Age in seconds of the newest record of each signal, shape (n, s)."""
    return batch.seconds_since(batch.last_signal).T


def seconds_since_ends(batch: Batch) -> NDArray[np.float64]:
    """Age in seconds of the newest and of the oldest record, shape (n, 2)."""
    some = batch.start < batch.stop
    ends = np.stack([batch.stop - 1, batch.start], axis=1)
    return batch.seconds_since(np.where(some[:, None], ends, -1))


def frequency_and_value(batch: Batch) -> NDArray[np.float64]:
    """Orders in the history, their summed and their mean value, active days in 30 days, shape (n, 4)."""
    histories = batch.histories
    orders = batch.in_history(batch.signals_before[SIGNAL_COLUMN["order"]])
    ordered = np.where(histories.kind == Kind.ORDER_COMPLETED, histories.value_minor, 0)
    value = batch.in_history(cumulative(ordered))
    return np.column_stack([orders, value, ratio(value, orders), active_days(batch)])


def active_days(batch: Batch) -> NDArray[np.int64]:
    """Distinct UTC days with a record in the last 30 days, shape (n,)."""
    day = batch.histories.event_time_ms // DAY_MS
    begins = batch.is_first.copy()
    begins[1:] |= day[1:] != day[:-1]
    start = batch.window_start[:, list(WINDOWS_MS).index("30d")]
    some = start < batch.stop
    # The window's first record opens a day, whether or not an older record shares it.
    begun = cumulative(begins)
    return np.where(some, begun[batch.stop] - begun[np.minimum(start + 1, batch.stop)] + 1, 0)


FAMILIES = (
    Family(
        tuple(
            Feature(
                f"customer_seconds_since_{signal}",
                "seconds",
                f"time since the newest {kind.label}",
                null=f"no {kind.label} in the history",
            )
            for signal, kind in SIGNALS.items()
        ),
        seconds_since_signal,
    ),
    Family(
        (
            Feature(
                "customer_seconds_since_event", "seconds", "time since the newest event", null="the history is empty"
            ),
            Feature(
                "customer_seconds_since_first", "seconds", "age of the oldest event kept", null="the history is empty"
            ),
        ),
        seconds_since_ends,
    ),
    Family(
        (
            count("customer_order_count_history", "orders in the history"),
            count("customer_order_value_minor_history", "summed value of the orders in the history", "minor"),
            Feature(
                "customer_order_value_minor_mean", "minor", "mean value of an order", null="no order in the history"
            ),
            count("customer_active_day_count_30d", "distinct UTC days with an event in the last 30d"),
        ),
        frequency_and_value,
    ),
)
