"""Sessions: runs of events with no gap of 30 minutes or more, and what the newest one looks like."""

import numpy as np
from numpy.typing import NDArray

from segue.events import NO_ITEM
from segue.features.batch import HOUR_MS, SIGNAL_COLUMN, WINDOWS_MS, Batch, cumulative, ratio
from segue.features.family import Family, Feature, count

SESSION_GAP_MS = HOUR_MS // 2
"""A gap of at least this long ends a session."""

SESSION_SIGNALS = ("view", "add", "search", "engage")
COUNT_WINDOWS = ("1d", "7d", "30d", "90d")


def session_starts(batch: Batch) -> NDArray[np.bool_]:
    """Whether each record opens a session, shape (m,)."""
    opens = batch.is_first.copy()
    opens[1:] |= np.diff(batch.histories.event_time_ms) >= SESSION_GAP_MS
    return opens


def newest_session(batch: Batch, opens: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Position of the record that opens each newest session, `batch.stop` for an empty history, shape (n,)."""
    positions = np.append(np.flatnonzero(opens), len(opens))
    opened = positions[np.searchsorted(positions, batch.stop) - 1]
    return np.where(batch.start < batch.stop, opened, batch.stop)


def session_features(batch: Batch) -> NDArray[np.float64]:
    """The newest session and the rhythm of sessions, shape (n, len(FAMILIES[0].features))."""
    opens = session_starts(batch)
    opened = newest_session(batch, opens)
    some = opened < batch.stop
    time = np.append(batch.histories.event_time_ms, 0)
    events = batch.stop - opened
    length_s = np.where(some, (time[batch.stop - 1] - time[opened]) / 1000, 0)
    signals = batch.signals_before[:, batch.stop] - batch.signals_before[:, opened]
    items = cumulative(batch.last_of_item(batch.histories.item != NO_ITEM))
    is_open = some & (batch.now_ms - time[batch.stop - 1] < SESSION_GAP_MS)
    has_previous = some & (opened > batch.start)
    pause_s = np.where(has_previous, (time[opened] - time[opened - 1]) / 1000, np.nan)
    return np.column_stack(
        [
            is_open,
            events,
            length_s,
            ratio(length_s, np.maximum(events - 1, 0)),
            items[batch.stop] - items[opened],
            *(signals[SIGNAL_COLUMN[signal]] for signal in SESSION_SIGNALS),
            pause_s,
            *rhythm(batch, opens),
        ]
    )


def rhythm(batch: Batch, opens: NDArray[np.bool_]) -> tuple[NDArray, NDArray, NDArray]:
    """Sessions opened per window (n, 4), their mean length in seconds (n,) and mean number of events (n,)."""
    opened = cumulative(opens)
    columns = [list(WINDOWS_MS).index(window) for window in COUNT_WINDOWS]
    sessions = batch.in_history(opened)
    gaps = np.diff(batch.histories.event_time_ms, prepend=0)
    length_s = batch.in_history(cumulative(np.where(opens, 0, gaps))) / 1000
    return batch.in_windows(opened)[:, columns], ratio(length_s, sessions), ratio(batch.stop - batch.start, sessions)


EMPTY = "the history is empty"

FAMILIES = (
    Family(
        (
            count(
                "customer_session_is_open", "1 while the newest session's last event is under 30 minutes old", "flag"
            ),
            count("customer_session_event_count", "events of the newest session"),
            Feature("customer_session_length_seconds", "seconds", "first to last event of the newest session"),
            Feature(
                "customer_session_dwell_seconds_mean",
                "seconds",
                "mean time between two events of the newest session",
                null="the newest session has fewer than two events",
            ),
            count("customer_session_item_distinct_count", "distinct items acted on in the newest session"),
            *(
                count(f"customer_session_{signal}_count", f"{signal} events of the newest session")
                for signal in SESSION_SIGNALS
            ),
            Feature(
                "customer_session_pause_seconds",
                "seconds",
                "from the last event before the newest session to its first",
                null="the history holds one session or none",
            ),
            *(
                count(f"customer_session_count_{window}", f"sessions opened in the last {window}")
                for window in COUNT_WINDOWS
            ),
            Feature("customer_session_length_seconds_mean", "seconds", "mean length of a session", null=EMPTY),
            Feature("customer_session_event_count_mean", "count", "mean number of events of a session", null=EMPTY),
        ),
        session_features,
    ),
)
