"""Segment's messages to facts (Segment "Spec": track, identify, alias, page, screen, group).

Traits, and all of `context` but consent, are never kept: features are made of what customers do.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import orjson

from segue.v1.log_pb2 import LogEntry
from services.collector import clock, commerce, facts, kinds, traces
from services.collector.clock import Arrival, Times
from services.collector.commerce import Deal
from services.collector.identity import Identity
from services.collector.keys import KeyRing
from services.collector.refusal import ConsentWithheld, EventTooLarge, Refused
from services.collector.scrub import Scrubber
from services.collector.traces import Own

EVENT_ID_MAX_CHARS = 128
PREFERENCES = "context.consent.categoryPreferences"

Message = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Consent:
    """Of which category a person's consent is needed, and whether silence is a no."""

    category: str
    required: bool = False


@dataclass(frozen=True, eq=False)
class Segment:
    """Reads messages; `currency` is the shop's own, for amounts that name none."""

    ring: KeyRing
    scrubber: Scrubber
    consent: Consent
    currency: str

    def facts(self, message: Any, arrival: Arrival) -> list[LogEntry]:
        """What `message` says, as entries of the event log; none where it says nothing that is kept.

        Args:
            message: one message as parsed JSON, its `type` set.
            arrival: of the batch; the message's own `sentAt` goes before the batch's.

        Raises:
            Refused: the message cannot be used; nothing of it may be kept.
        """
        if not isinstance(message, dict):
            raise Refused.because("message", "must be an object")
        named = message.get("type")
        read = self.TYPES.get(named) if isinstance(named, str) else None
        if read is None:
            raise Refused.because("type", f"must be one of {', '.join(self.TYPES)}")
        identity = Identity(_id(message, "userId"), _id(message, "anonymousId"))
        identity = identity.checked(user_field="userId", anonymous_field="anonymousId")
        sent_ms = clock.parse(message.get("sentAt"), field="sentAt")
        return list(
            read(self, message, identity, arrival if sent_ms is None else arrival._replace(sent_time_ms=sent_ms))
        )

    def _track(self, message: Message, identity: Identity, arrival: Arrival) -> Iterator[LogEntry]:
        name = message.get("event")
        if not isinstance(name, str):
            raise Refused.because("event", "must be text" if name is not None else "is missing")
        kind = kinds.label(name, field="event")
        if kind == kinds.CONSENT_UPDATED:
            yield from self._preference(message, identity, arrival)
            return
        ids = identity.ids()
        if traces.tells(name, ids):
            raise Refused.because("event", "holds what identifies a person")
        yield from self._did(message, identity, arrival, kind, ids)

    def _page(self, message: Message, identity: Identity, arrival: Arrival) -> Iterator[LogEntry]:
        yield from self._did(message, identity, arrival, kinds.PAGE_VIEWED)

    def _screen(self, message: Message, identity: Identity, arrival: Arrival) -> Iterator[LogEntry]:
        yield from self._did(message, identity, arrival, kinds.SCREEN_VIEWED)

    def _group(self, message: Message, identity: Identity, arrival: Arrival) -> Iterator[LogEntry]:
        yield from self._did({**message, "properties": None}, identity, arrival, kinds.GROUP_JOINED)

    def _identify(self, message: Message, identity: Identity, arrival: Arrival) -> Iterator[LogEntry]:
        self._agreed(message)
        yield from facts.links(identity.resolved(self.ring)[1], arrival.receive_time_ms)

    def _alias(self, message: Message, identity: Identity, arrival: Arrival) -> Iterator[LogEntry]:
        """The previous id may be of either space, and the message does not say which: both are linked."""
        previous = _id(message, "previousId")
        if not identity.user_id or not previous:
            raise Refused.because("previousId" if identity.user_id else "userId", "is empty")
        former = Identity(previous, previous).checked(user_field="previousId", anonymous_field="previousId")
        self._agreed(message)
        target, own = identity.resolved(self.ring)
        pairs = [(source, target) for source in former.customers(self.ring) if source != target]
        yield from facts.links([*pairs, *own], arrival.receive_time_ms)

    def _preference(self, message: Message, identity: Identity, arrival: Arrival) -> Iterator[LogEntry]:
        granted = self._preferred(message)
        if granted is None:
            raise Refused.because(f"{PREFERENCES}.{self.consent.category}", "is missing")
        yield from facts.consent(
            identity.customers(self.ring),
            arrival.receive_time_ms,
            granted=granted,
            change_time_ms=_times(message, arrival).event_time_ms,
        )

    def _did(
        self, message: Message, identity: Identity, arrival: Arrival, kind: str, ids: Own | None = None
    ) -> Iterator[LogEntry]:
        self._agreed(message)
        properties = message.get("properties")
        if not isinstance(properties, dict | None):
            raise Refused.because("properties", "must be an object")
        (customer, pairs), times = identity.resolved(self.ring), _times(message, arrival)
        external_id = _event_id(message, customer, times)
        yield from facts.links(pairs, arrival.receive_time_ms)
        ids = ids or identity.ids()
        for suffix, part, deal in self._deals(kind, properties or {}):
            if traces.tells(deal.item, ids):
                raise Refused.because("properties.product_id", "holds what identifies a person")
            yield facts.event(
                customer,
                arrival.receive_time_ms,
                times,
                external_id=external_id + suffix,
                kind=part,
                item=deal.item,
                value_minor=deal.value_minor,
                currency=deal.currency,
                properties_json=self.scrubber.json(deal.properties, ids, field="properties"),
            )

    def _deals(self, kind: str, properties: dict[str, Any]) -> Iterator[tuple[str, str, Deal]]:
        """What one message did, part by part: what its id ends with, its kind, its item and value.

        An order is an event and one more for each line (docs/adr/0004). Another kind that says something of each item
        it lists is one event for each; all others are one event, and keep the list among their properties.
        """
        if kind == kinds.ORDER:
            order, bought = commerce.order(properties, "properties", shop_currency=self.currency)
            yield "", kind, order
            for index, line in enumerate(bought):
                yield f"/{index}", kinds.LINE, line
            return
        one = commerce.whole(properties, "properties", shop_currency=self.currency)
        listed = []
        if kind in kinds.ABOUT_ITEMS and not one.item:
            listed = commerce.lines(properties, "properties", shop_currency=self.currency)
        if len(listed) == 1:
            one = replace(one, item=listed[0].item, value_minor=one.value_minor or listed[0].value_minor)
        if len(listed) < 2:
            yield "", kind, one
            return
        for index, line in enumerate(listed):
            yield f"/{index}", kind, line

    def _agreed(self, message: Message) -> None:
        granted = self._preferred(message)
        if granted is False or (granted is None and self.consent.required):
            raise ConsentWithheld.because(f"{PREFERENCES}.{self.consent.category}", "is not granted")

    def _preferred(self, message: Message) -> bool | None:
        """What the person said about our category; None where the message does not tell."""
        told: Any = message
        for step in PREFERENCES.split("."):
            told = told.get(step) if isinstance(told, dict) else None
            if told is None:
                return None
        if not isinstance(told, dict):
            raise Refused.because(PREFERENCES, "must be an object")
        wanted = self.consent.category.casefold()
        found = [value for name, value in told.items() if name.casefold() == wanted]
        if not all(isinstance(value, bool) for value in found):
            raise Refused.because(f"{PREFERENCES}.{self.consent.category}", "must be true or false")
        return all(found) if found else None

    TYPES: ClassVar[Mapping[str, Callable[["Segment", Message, Identity, Arrival], Iterator[LogEntry]]]] = {
        "track": _track,
        "identify": _identify,
        "alias": _alias,
        "page": _page,
        "screen": _screen,
        "group": _group,
    }
    """How each type of message is read."""


def _id(message: Message, field: str) -> str:
    value = message.get(field)
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise Refused.because(field, "must be text or a whole number")


def _times(message: Message, arrival: Arrival) -> Times:
    field = "originalTimestamp" if message.get("originalTimestamp") else "timestamp"
    return clock.times(clock.parse(message.get(field), field=field), arrival, field=field)


def _event_id(message: Message, customer: str, times: Times) -> str:
    """The message's id; of one without, a hash of what it says and when, so that a copy of it is a copy."""
    told = _id(message, "messageId")
    if len(told) > EVENT_ID_MAX_CHARS:
        raise Refused.because("messageId", f"has {len(told)} characters, at most {EVENT_ID_MAX_CHARS} are allowed")
    if told:
        return told
    said = [customer, times.event_time_ms, message["type"], message.get("event"), message.get("properties")]
    try:
        return orjson.dumps(said, option=orjson.OPT_SORT_KEYS).decode()
    except orjson.JSONEncodeError:
        raise EventTooLarge.because("properties", "is nested too deeply") from None
