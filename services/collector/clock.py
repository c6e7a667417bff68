"""The clock rule: when an event happened, by the server's clock, however wrong the client's is.

The client's clock is off by `receive - sent`, in which the way to the server counts as well. Up to ten seconds that is
taken for the way, and the client's time for right; beyond, the time is moved by the whole seconds of it: Segment's
`receivedAt - (sentAt - originalTimestamp)`, to the second. So a message that is sent again, with a new sending time,
nearly always gets the time that it got first, and is the same record.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from services.collector.refusal import Refused

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)
RIGHT_MS = 10_000
"""A message that was under way for less shows no wrong clock."""
SKEW_MS = 60_000
"""How far in the future an event may lie, its clock repaired."""
START_MS, END_MS = -62_135_596_800_000, 253_402_300_800_000
"""The years 1 to 9999."""
TEXT_MAX_CHARS = 64


class Arrival(NamedTuple):
    """When a message was received, and sent by the client's clock if it says so; milliseconds since the Unix epoch."""

    receive_time_ms: int
    sent_time_ms: int | None = None


class Times(NamedTuple):
    """When an event happened, and what the client's clock said; milliseconds since the Unix epoch, UTC.

    Of a client whose clock stands before 1970 only the repaired time is told.
    """

    event_time_ms: int
    original_time_ms: int | None
    sent_time_ms: int | None


def times(original_ms: int | None, arrival: Arrival, *, field: str) -> Times:
    """The times of an event.

    Args:
        original_ms: when it happened by the client's clock; None: when it was sent, or else received.
        arrival: of its message.
        field: what the original time is called in the message.

    Raises:
        Refused: it happened before 1970, or more than 60 s from now.
    """
    receive_ms, sent_ms = arrival
    happened_ms = next((known for known in (original_ms, sent_ms) if known is not None), receive_ms)
    if sent_ms is not None and not 0 <= receive_ms - sent_ms < RIGHT_MS:
        happened_ms += (receive_ms - sent_ms) // 1_000 * 1_000
    if happened_ms < 0:
        raise Refused.because(field, "is before 1970")
    if happened_ms > receive_ms + SKEW_MS:
        raise Refused.because(field, f"is more than {SKEW_MS // 1_000} s later than the server's clock")
    return Times(happened_ms, _since_1970(original_ms), _since_1970(sent_ms))


def parse(value: Any, *, field: str) -> int | None:
    """Milliseconds since the Unix epoch of ISO 8601 text, UTC unless it says otherwise, or of such a number itself.

    What is finer than a millisecond is cut off towards the past; None for nothing.

    Raises:
        Refused: it is no time in the years 1 to 9999.
    """
    if value is None or value == "":
        return None
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < END_MS:
        return value
    if isinstance(value, str) and len(value) <= TEXT_MAX_CHARS:
        try:
            moment = datetime.fromisoformat(value)
            return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - EPOCH) // MILLISECOND
        except (ValueError, OverflowError):
            pass
    raise Refused.because(field, "must be a time such as 2026-01-31T12:00:00.000Z")


def _since_1970(time_ms: int | None) -> int | None:
    return time_ms if time_ms is not None and time_ms >= 0 else None
