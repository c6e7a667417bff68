"""The entries of the event log, as the collector makes them; `protos/segue/v1/log.proto` says what they mean."""

from collections.abc import Iterable

from segue.events import event_id
from segue.v1.log_pb2 import ConsentChange, CustomerErasure, CustomerLink, LogEntry, LoggedEvent
from services.collector.clock import Times


def event(
    customer: str,
    receive_time_ms: int,
    times: Times,
    *,
    external_id: str,
    kind: str,
    item: str = "",
    value_minor: int = 0,
    currency: str = "",
    properties_json: str = "",
) -> LogEntry:
    """The customer did something; of the caller's id of the event only the hash is kept."""
    did = LoggedEvent(
        event_id=event_id(external_id),
        kind=kind,
        item=item,
        event_time_ms=times.event_time_ms,
        original_time_ms=times.original_time_ms,
        sent_time_ms=times.sent_time_ms,
        value_minor=value_minor,
        currency=currency,
        properties_json=properties_json,
    )
    return LogEntry(customer=customer, receive_time_ms=receive_time_ms, event=did)


def links(pairs: Iterable[tuple[str, str]], receive_time_ms: int) -> list[LogEntry]:
    """What each source does also counts for its target."""
    return [
        LogEntry(customer=source, receive_time_ms=receive_time_ms, link=CustomerLink(target=target))
        for source, target in pairs
    ]


def consent(customers: Iterable[str], receive_time_ms: int, *, granted: bool, change_time_ms: int) -> list[LogEntry]:
    """Consent is given or withdrawn for each of `customers`."""
    change = ConsentChange(granted=granted, change_time_ms=change_time_ms)
    return [LogEntry(customer=customer, receive_time_ms=receive_time_ms, consent=change) for customer in customers]


def erasure(customer: str, receive_time_ms: int, *, erasure_id: str) -> LogEntry:
    """The customer is to be forgotten up to now."""
    order = CustomerErasure(erased_at_ms=receive_time_ms, erasure_id=erasure_id)
    return LogEntry(customer=customer, receive_time_ms=receive_time_ms, erasure=order)
