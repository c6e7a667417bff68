"""From proto to domain: what a caller asks, checked field by field, as values the domain computes with.

All functions are pure. They report every violation at once, each with its path in the request.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from segue.errors import InvalidInput, Violation
from segue.events import KIND_BY_LABEL, NO_ITEM, Events, Kind, event_id, item_id
from segue.history import HISTORY_LIMIT
from segue.v1.events_pb2 import Event

EVENTS_MAX_COUNT = HISTORY_LIMIT
"""More events than a history keeps could not all count."""
ID_MAX_CHARS = 128
KIND_MAX_CHARS = 64
VALUE_LIMIT_MINOR = 2**53
"""Below it, every value survives a client that keeps numbers as doubles (JavaScript, JSON)."""
CLOCK_SKEW_MS = 60_000
"""How far a caller's clock may run ahead of the server's."""
CURRENCY = re.compile("[A-Z]{3}")
TIME_LIMIT_SECONDS = 253_402_300_800
"""The end of year 9999, where Timestamp ends (timestamp.proto)."""


class Dated(Protocol):
    """A request for an answer as of some time."""

    @property
    def as_of(self) -> Timestamp: ...  # noqa: D102

    def HasField(self, field_name: str, /) -> bool: ...  # noqa: D102, N802


class Asked(Dated, Protocol):
    """A request about one customer that may carry the newest events of the session."""

    @property
    def customer(self) -> str: ...  # noqa: D102

    @property
    def events(self) -> Sequence[Event]: ...  # noqa: D102


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked of which customer, as of when, with which events on top of the stored history."""

    customer: str
    as_of_ms: int
    events: Events


def question(request: Asked, *, clock_ms: int, further: Iterable[Violation] = ()) -> Question:
    """What `request` asks.

    Without a time of its own it asks as of now: `clock_ms`, or just after its newest event where the caller's clock
    runs ahead, so that the session's events count at once.

    Args:
        clock_ms: the server's clock.
        further: violations found in the request's other fields, to be reported with those found here.

    Raises:
        InvalidInput: with every violation.
    """
    as_of = as_of_ms(request, clock_ms=clock_ms)
    wrong_time = list(as_of_violations(request, clock_ms=clock_ms))
    # Held against a time that cannot be, every event would be at fault.
    wrong_events = [] if wrong_time else event_violations(request.events, customer=request.customer, as_of_ms=as_of)
    refuse([*further, *text("customer", request.customer), *wrong_time, *wrong_events])
    if request.events and not request.HasField("as_of"):
        as_of = max(as_of, 1 + max(to_ms(event.event_time) for event in request.events))
    return Question(request.customer, as_of, _columns(request.events, request.customer, as_of))


def events(messages: Sequence[Event], *, customer: str, as_of_ms: int) -> Events:
    """The events of one customer, available as of `as_of_ms`, in their order.

    Raises:
        InvalidInput: with every violation, by its path (`events[2].event_time`).
    """
    refuse(event_violations(messages, customer=customer, as_of_ms=as_of_ms))
    return _columns(messages, customer, as_of_ms)


def as_of_ms(request: Dated, *, clock_ms: int) -> int:
    """The time a request asks for, to be checked by `as_of_violations`; the server's clock when it names none."""
    return to_ms(request.as_of) if request.HasField("as_of") else clock_ms


def as_of_violations(request: Dated, *, clock_ms: int) -> Iterator[Violation]:
    """What is wrong with the time a request asks for."""
    if request.HasField("as_of"):
        yield from _time("as_of", request.as_of, latest_ms=clock_ms + CLOCK_SKEW_MS, than="the server's clock")


def event_violations(messages: Sequence[Event], *, customer: str, as_of_ms: int) -> Iterator[Violation]:
    """What is wrong with the events of one customer; of too many events, only that."""
    if len(messages) > EVENTS_MAX_COUNT:
        yield Violation("events", f"holds {len(messages)} events, at most {EVENTS_MAX_COUNT} are taken")
        return
    for position, event in enumerate(messages):
        for field, problem in _event(event, customer, as_of_ms + CLOCK_SKEW_MS):
            yield Violation(f"events[{position}].{field}", problem)


def text(field: str, value: str, *, limit: int = ID_MAX_CHARS, required: bool = True) -> Iterator[Violation]:
    """What is wrong with a text of at most `limit` characters."""
    if required and not value:
        yield Violation(field, "is empty")
    elif len(value) > limit:
        yield Violation(field, f"has {len(value)} characters, at most {limit} are allowed")


def within(field: str, value: float, low: float, high: float) -> Iterator[Violation]:
    """What is wrong with a number that must lie between `low` and `high`, both included."""
    if not low <= value <= high:
        yield Violation(field, f"must be from {low:,} to {high:,}")


def refuse(violations: Iterable[Violation]) -> None:
    """Raise InvalidInput with all `violations`, if there are any."""
    if found := tuple(violations):
        raise InvalidInput(*found)


def to_ms(timestamp: Timestamp) -> int:
    """Milliseconds since the Unix epoch, UTC; what is finer is cut off towards the past."""
    return timestamp.seconds * 1_000 + timestamp.nanos // 1_000_000


def to_timestamp(time_ms: int) -> Timestamp:
    """The Timestamp of a time in milliseconds since the Unix epoch, UTC."""
    seconds, rest_ms = divmod(time_ms, 1_000)
    return Timestamp(seconds=seconds, nanos=rest_ms * 1_000_000)


def _event(event: Event, customer: str, latest_ms: int) -> Iterator[Violation]:
    yield from text("event_id", event.event_id)
    if event.customer != customer:
        yield Violation("customer", "is another customer than the request's" if event.customer else "is empty")
    yield from text("kind", event.kind, limit=KIND_MAX_CHARS)
    yield from text("item", event.item, required=False)
    if event.HasField("event_time"):
        yield from _time("event_time", event.event_time, latest_ms=latest_ms, than="the request's as_of")
    else:
        yield Violation("event_time", "is missing")
    if abs(event.value_minor) >= VALUE_LIMIT_MINOR:
        yield Violation("value_minor", "must lie between -2^53 and 2^53")
    if event.currency and not CURRENCY.fullmatch(event.currency):
        yield Violation("currency", "must be an ISO 4217 code, three capital letters")


def _time(field: str, timestamp: Timestamp, *, latest_ms: int, than: str) -> Iterator[Violation]:
    if timestamp.seconds >= TIME_LIMIT_SECONDS or not 0 <= timestamp.nanos < 1_000_000_000:
        yield Violation(field, "is not a valid timestamp")
    elif timestamp.seconds < 0:
        yield Violation(field, "is before 1970")
    elif to_ms(timestamp) > latest_ms:
        yield Violation(field, f"is more than {CLOCK_SKEW_MS // 1_000} s later than {than}")


def _columns(messages: Sequence[Event], customer: str, available_time_ms: int) -> Events:
    customers = np.empty(1, np.object_)
    customers[0] = customer
    count = len(messages)
    return Events(
        customers,
        customer=np.zeros(count, np.int32),
        event_id=np.array([event_id(event.event_id) for event in messages], np.uint64),
        kind=np.array([KIND_BY_LABEL.get(event.kind, Kind.UNKNOWN) for event in messages], np.uint8),
        item=np.array([item_id(event.item) if event.item else NO_ITEM for event in messages], np.int64),
        event_time_ms=np.array([to_ms(event.event_time) for event in messages], np.int64),
        available_time_ms=np.full(count, available_time_ms, np.int64),
        value_minor=np.array([event.value_minor for event in messages], np.int64),
    )
