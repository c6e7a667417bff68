"""Events as backends submit them over gRPC, to facts."""

import math
from dataclasses import dataclass
from typing import Any

from google.protobuf.struct_pb2 import ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from segue.events import PSEUDONYM
from segue.rpc import convert
from segue.v1 import collector_pb2 as pb
from segue.v1.log_pb2 import LogEntry
from services.collector import clock, facts, kinds, money, traces
from services.collector.clock import Arrival
from services.collector.commerce import item
from services.collector.door import EVENT_MAX_BYTES
from services.collector.identity import Identity
from services.collector.keys import KeyRing
from services.collector.refusal import EventTooLarge, Refused
from services.collector.scrub import DEPTH_MAX, Scrubber

WHOLE_LIMIT = 2.0**53
"""Below it a Struct's number without a fraction is written without one."""


@dataclass(frozen=True, eq=False)
class Submitted:
    """Reads submitted events; consent is the backend's to know, and to tell by ChangeConsent."""

    ring: KeyRing
    scrubber: Scrubber

    def facts(self, event: pb.SubmittedEvent, arrival: Arrival) -> list[LogEntry]:
        """What `event` says, as entries of the event log.

        Raises:
            Refused: it cannot be used; nothing of it may be kept.
        """
        if event.ByteSize() > EVENT_MAX_BYTES:
            raise EventTooLarge.because("event", f"has {event.ByteSize()} bytes, at most {EVENT_MAX_BYTES} are allowed")
        for violation in convert.text("event_id", event.event_id):
            raise Refused(violation)
        for violation in convert.text("kind", event.kind, limit=kinds.KIND_MAX_CHARS):
            raise Refused(violation)
        identity = identity_of(event.customer, "customer")
        what, kind = item(event.item, field="item"), kinds.label(event.kind, field="kind")
        ids = identity.ids()
        for field, value in (("kind", event.kind), ("item", what)):
            if traces.tells(value, ids):
                raise Refused.because(field, "holds what identifies a person")
        if abs(event.value_minor) >= money.LIMIT_MINOR:
            raise Refused.because("value_minor", "must lie between -2^53 and 2^53")
        if event.currency and not money.CURRENCY.fullmatch(event.currency):
            raise Refused.because("currency", "must be an ISO 4217 code, three capital letters")
        original_ms = time_of(event.event_time, "event_time") if event.HasField("event_time") else None
        customer, pairs = identity.resolved(self.ring)
        made = facts.event(
            customer,
            arrival.receive_time_ms,
            clock.times(original_ms, arrival, field="event_time"),
            external_id=event.event_id,
            kind=kind,
            item=what,
            value_minor=event.value_minor,
            currency=event.currency,
            properties_json=self.scrubber.json(_object(event.properties, 1), ids, field="properties"),
        )
        return [*facts.links(pairs, arrival.receive_time_ms), made]


def identity_of(customer: pb.CustomerId, field: str) -> Identity:
    """Whom `customer` names.

    Raises:
        Refused: nobody, by an id that is too long, or by a pseudonym that is none.
    """
    if customer.WhichOneof("id") == "customer" and not PSEUDONYM.fullmatch(customer.customer):
        raise Refused.because(f"{field}.customer", "must be 32 hex digits in lower case")
    identity = Identity(customer.user_id, customer.anonymous_id, customer.customer)
    return identity.checked(user_field=f"{field}.user_id", anonymous_field=f"{field}.anonymous_id")


def time_of(timestamp: Timestamp, field: str) -> int:
    """A Timestamp in milliseconds since the Unix epoch.

    Raises:
        Refused: it is outside the years 1 to 9999, or its nanoseconds are none.
    """
    time_ms = convert.to_ms(timestamp)
    if not (clock.START_MS <= time_ms < clock.END_MS and 0 <= timestamp.nanos < 1_000_000_000):
        raise Refused.because(field, "is not a valid timestamp")
    return time_ms


def _object(struct: Struct, depth: int) -> dict[str, Any]:
    return {name: _value(value, depth) for name, value in struct.fields.items()}


def _array(values: ListValue, depth: int) -> list[Any]:
    return [_value(value, depth) for value in values.values]


def _value(value: Value, depth: int) -> Any:
    match value.WhichOneof("kind"):
        # What is too deep ends in an empty object, one level beyond what the scrubber lets pass.
        case "struct_value":
            return _object(value.struct_value, depth + 1) if depth <= DEPTH_MAX else {}
        case "list_value":
            return _array(value.list_value, depth + 1) if depth <= DEPTH_MAX else []
        case "number_value":
            number = value.number_value
            whole = math.isfinite(number) and number.is_integer() and abs(number) < WHOLE_LIMIT
            return int(number) if whole else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
    return None
