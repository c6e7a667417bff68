"""What entries of the event log say, in columns: the updater's way from `segue.v1.LogEntry` to the domain.

Every entry ends in exactly one place: an event, a link, a barrier, an erasure, or poison with the reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import compress
from typing import Self

import numpy as np
import pyarrow as pa
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from segue.adapters.event_log import Entry
from segue.adapters.lake_rows import UTC_TIMESTAMP
from segue.customers import Barrier, Link
from segue.events import KIND_BY_LABEL, NO_ITEM, PSEUDONYM, Events, item_id
from segue.v1.log_pb2 import LogEntry, LoggedEvent

MALFORMED = "MALFORMED"
"""The body is no entry, or breaks a rule of `segue/v1/log.proto`: no later try will do better."""
FUTURE = "FUTURE"
"""The fact lies further in the future than clocks may differ: to be tried again when its time has come."""

KIND_MAX_CHARS = 64
ITEM_MAX_CHARS = 128
CURRENCY_MAX_CHARS = 3
ERASURE_ID_MAX_CHARS = 128
PROPERTIES_MAX_CHARS = 1 << 16
VALUE_MAX_MINOR = 2**53 - 1
TIME_END_MS = 253_402_300_800_000
"""The year 10000, the end of what tables of dates can hold."""

KIND_CODES = {label: int(kind) for label, kind in KIND_BY_LABEL.items()}


@dataclass(frozen=True, slots=True)
class Poison:
    """An entry that cannot be used as it is."""

    entry: Entry
    reason: str
    problem: str


@dataclass(frozen=True, slots=True)
class Erasure:
    """An order to forget what `customer`, and everyone who flows into it, did up to a moment."""

    erasure_id: str
    customer: str
    erased_at_ms: int


Fact = Link | Barrier | Erasure
"""What an entry says if it is no event; a change of consent is a barrier."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """Some entries, sorted by what they say."""

    events: Events
    """n events, in the order of their entries; `available_time_ms` is zero, nothing is available yet."""
    partition: NDArray[np.int32]  # (n,) of each event
    offset: NDArray[np.int64]  # (n,)
    details: "Details"
    """Their other fields."""
    facts: list[tuple[Entry, Fact]]
    """What is no event, in the order of the entries. A link's `available_time_ms` is zero."""
    poison: list[Poison]


@dataclass(frozen=True, eq=False)
class Details:
    """The fields of n events as they were read, and what the lake keeps of them beside the columns of `Events`."""

    facts: list[LoggedEvent]
    kind: list[str]
    item: list[str]
    currency: list[str]
    properties: list[str]
    event_time_ms: NDArray[np.int64]
    receive_time_ms: NDArray[np.int64]
    original_time_ms: NDArray[np.int64]
    """Zero also where it is not said."""
    sent_time_ms: NDArray[np.int64]
    """Zero also where it is not said."""
    value_minor: NDArray[np.int64]

    @classmethod
    def of(cls, messages: Sequence[LogEntry]) -> Self:
        """Read the events of `messages`."""
        facts = [message.event for message in messages]
        return cls(
            facts,
            [fact.kind for fact in facts],
            [fact.item for fact in facts],
            [fact.currency for fact in facts],
            [fact.properties_json for fact in facts],
            np.array([fact.event_time_ms for fact in facts], np.int64),
            np.array([message.receive_time_ms for message in messages], np.int64),
            np.array([fact.original_time_ms for fact in facts], np.int64),
            np.array([fact.sent_time_ms for fact in facts], np.int64),
            np.array([fact.value_minor for fact in facts], np.int64),
        )

    def table(self) -> pa.Table:
        """As the lake takes them, one row for each event."""
        return pa.table(
            {
                "kind": pa.array(self.kind, pa.string()),
                "item_id": _texts(self.item),
                "receive_time": _times(self.receive_time_ms),
                "original_time": self._said("original_time_ms"),
                "sent_time": self._said("sent_time_ms"),
                "currency": _texts(self.currency),
                "properties": _texts(self.properties),
            }
        )

    def _said(self, name: str) -> pa.Array:
        """An optional time, null where it is not said."""
        times_ms = getattr(self, name)
        unsaid = times_ms == 0
        unsaid[unsaid] = [not self.facts[row].HasField(name) for row in np.flatnonzero(unsaid)]
        return _times(times_ms, unsaid)

    def problems(self, latest_ms: int) -> dict[int, tuple[str, str]]:
        """Reason and problem of the events that break a rule, by position."""
        found: dict[int, tuple[str, str]] = {}
        future = self.event_time_ms > latest_ms
        found |= dict.fromkeys(_rows(future), (FUTURE, "event.event_time_ms: lies in the future"))
        for name, times_ms in (
            ("receive_time_ms", self.receive_time_ms),
            ("event.event_time_ms", np.where(future, 0, self.event_time_ms)),
            ("event.original_time_ms", self.original_time_ms),
            ("event.sent_time_ms", self.sent_time_ms),
        ):
            wrong = (times_ms < 0) | (times_ms >= TIME_END_MS)
            found |= dict.fromkeys(_rows(wrong), (MALFORMED, f"{name}: is before 1970 or after the year 9999"))
        wrong = (self.value_minor < -VALUE_MAX_MINOR) | (self.value_minor > VALUE_MAX_MINOR)
        problem = "event.value_minor: is not between -(2^53 - 1) and 2^53 - 1"
        found |= dict.fromkeys(_rows(wrong), (MALFORMED, problem))
        for name, texts, least, most in (
            ("kind", self.kind, 1, KIND_MAX_CHARS),
            ("item", self.item, 0, ITEM_MAX_CHARS),
            ("currency", self.currency, 0, CURRENCY_MAX_CHARS),
            ("properties_json", self.properties, 0, PROPERTIES_MAX_CHARS),
        ):
            lengths = np.fromiter(map(len, texts), np.int64, len(texts))
            wrong = (lengths < least) | (lengths > most)
            found |= dict.fromkeys(_rows(wrong), (MALFORMED, f"event.{name}: has not {least} to {most} characters"))
        return found


def _rows(mask: NDArray[np.bool_]) -> list[int]:
    return np.flatnonzero(mask).tolist()


def _pseudonym(name: str, text: str) -> str:
    if not PSEUDONYM.fullmatch(text):
        raise _Refused(MALFORMED, f"{name}: is no pseudonym")
    return text


def _texts(texts: Sequence[str]) -> pa.Array:
    """Null where it is not said."""
    return pa.array([text or None for text in texts], pa.string())


def _times(times_ms: NDArray[np.int64], unsaid: NDArray[np.bool_] | None = None) -> pa.Array:
    return pa.array(times_ms * 1000, mask=unsaid).cast(UTC_TIMESTAMP)


def decode(entries: Sequence[Entry], *, now_ms: int, skew_ms: int) -> Decoded:
    """Sort `entries` by what they say.

    Args:
        entries: of any partitions.
        now_ms: the time by our clock.
        skew_ms: how far ahead of it a fact may lie; what lies further is poison with the reason FUTURE.
    """
    sorter = _Sorter(now_ms + skew_ms)
    poison = [refused for entry in entries if (refused := sorter.take(entry))]
    return sorter.decoded(poison)


class _Refused(Exception):
    """The entry is poison; the arguments are reason and problem."""


class _Sorter:
    """Takes one entry at a time; a fact later than `latest_ms` lies too far in the future."""

    def __init__(self, latest_ms: int) -> None:
        self._latest_ms = latest_ms
        self._codes: dict[str, int] = {}
        self._entries: list[Entry] = []
        self._messages: list[LogEntry] = []
        self._facts: list[tuple[Entry, Fact]] = []

    def take(self, entry: Entry) -> Poison | None:
        """Put the entry where it belongs; returns the poison that it may be."""
        try:
            message = LogEntry.FromString(entry.body)
            if message.customer != entry.customer:
                raise _Refused(MALFORMED, "customer: is not the key of the entry")
            if entry.customer not in self._codes:
                self._codes[_pseudonym("customer", entry.customer)] = len(self._codes)
            which = message.WhichOneof("fact")
            if which == "event":
                self._entries.append(entry)
                self._messages.append(message)
            else:
                self._facts.append((entry, self._fact(message, which)))
        except DecodeError:
            return Poison(entry, MALFORMED, "body: is no entry of the log")
        except _Refused as refused:
            return Poison(entry, *refused.args)
        return None

    def _fact(self, message: LogEntry, which: str | None) -> Fact:
        match which:
            case "link":
                return Link(message.customer, _pseudonym("link.target", message.link.target), 0)
            case "consent":
                changed_ms = self._past("consent.change_time_ms", message.consent.change_time_ms)
                register = "granted_at_ms" if message.consent.granted else "denied_at_ms"
                return Barrier(message.customer, **{register: changed_ms})
            case "erasure":
                erasure = message.erasure
                if not 0 < len(erasure.erasure_id) <= ERASURE_ID_MAX_CHARS:
                    raise _Refused(MALFORMED, f"erasure.erasure_id: has not 1 to {ERASURE_ID_MAX_CHARS} characters")
                erased_at_ms = self._past("erasure.erased_at_ms", erasure.erased_at_ms)
                return Erasure(erasure.erasure_id, message.customer, erased_at_ms)
        raise _Refused(MALFORMED, "fact: is missing, or of a kind this program does not know")

    def _past(self, name: str, time_ms: int) -> int:
        if time_ms < 0:
            raise _Refused(MALFORMED, f"{name}: is before 1970")
        if time_ms > self._latest_ms:
            raise _Refused(FUTURE, f"{name}: lies in the future")
        return time_ms

    def decoded(self, poison: list[Poison]) -> Decoded:
        """All that was taken, in columns."""
        read = Details.of(self._messages)
        problems = read.problems(self._latest_ms)
        if problems:
            poison += [Poison(self._entries[row], *wrong) for row, wrong in problems.items()]
            bad = np.zeros(len(self._entries), bool)
            bad[list(problems)] = True
            self._entries = list(compress(self._entries, ~bad))
            self._messages = list(compress(self._messages, ~bad))
            read = Details.of(self._messages)
        names = np.empty(len(self._codes), np.object_)
        names[:] = list(self._codes)
        codes = self._codes
        events = Events(
            customers=names,
            customer=np.array([codes[entry.customer] for entry in self._entries], np.int32),
            event_id=np.array([fact.event_id for fact in read.facts], np.uint64),
            kind=np.array([KIND_CODES.get(kind, 0) for kind in read.kind], np.uint8),
            item=np.array([_item(item) for item in read.item], np.int64),
            event_time_ms=read.event_time_ms,
            available_time_ms=np.zeros(len(self._entries), np.int64),
            value_minor=read.value_minor,
        )
        partition = np.array([entry.partition for entry in self._entries], np.int32)
        offset = np.array([entry.offset for entry in self._entries], np.int64)
        return Decoded(events, partition, offset, read, self._facts, poison)


@lru_cache(1 << 16)
def _item(external_id: str) -> int:
    return item_id(external_id) if external_id else NO_ITEM
