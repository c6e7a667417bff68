"""Time of day and week, and how much of the customer's past the history holds."""

import numpy as np
from numpy.typing import NDArray

from segue.features.batch import DAY_MS, HOUR_MS, Batch, cumulative, ratio
from segue.features.family import Family, Feature, count

DAYPART_MS = 6 * HOUR_MS
MONDAY_OFFSET_DAYS = 3  # 1970-01-01 was a Thursday


def calendar_features(batch: Batch) -> NDArray[np.float64]:
    """Hour, weekday, share of records in the present daypart and on the present weekday, shape (n, 4)."""
    time, now = batch.histories.event_time_ms, batch.now_ms
    same = np.stack([_daypart(time) == _daypart(now)[batch.row], _weekday(time) == _weekday(now)[batch.row]])
    shares = ratio(batch.in_history(cumulative(same)), batch.stop - batch.start)
    return np.column_stack([now % DAY_MS // HOUR_MS, _weekday(now), *shares])


def extent(batch: Batch) -> NDArray[np.int64]:
    """Records used, and whether the history was full, shape (n, 2)."""
    return np.column_stack([batch.stop - batch.start, batch.full])


def _daypart(time_ms: NDArray[np.int64]) -> NDArray[np.int64]:
    return time_ms % DAY_MS // DAYPART_MS


def _weekday(time_ms: NDArray[np.int64]) -> NDArray[np.int64]:
    return (time_ms // DAY_MS + MONDAY_OFFSET_DAYS) % 7


EMPTY = "the history is empty"

FAMILIES = (
    Family(
        (
            count("customer_hour_of_day", "hour of the time asked about, UTC, 0 to 23", "hour"),
            count("customer_day_of_week", "day of the time asked about, UTC, Monday is 0", "day"),
            Feature("customer_daypart_ratio", "ratio", "share of events in the same six hours of the day", null=EMPTY),
            Feature("customer_weekday_ratio", "ratio", "share of events on the same day of the week", null=EMPTY),
        ),
        calendar_features,
    ),
    Family(
        (
            count("customer_history_event_count", "events the features are computed from"),
            count(
                "customer_history_is_truncated",
                "1 when the history is full, so that older events may be missing",
                "flag",
            ),
        ),
        extent,
    ),
)
