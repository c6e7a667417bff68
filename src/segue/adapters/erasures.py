"""Erasure receipts: how far each erasure is, kept in the online store for a year."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import IntEnum, unique
from typing import Any

import redis.asyncio

from segue.errors import StoreCorrupted

TTL_SECONDS = 366 * 86_400
KEY_PREFIX = "segue:erasure:"
PENDING_KEY = "segue:erasures_pending"


@unique
class State(IntEnum):
    """How far an erasure is, numbered as in `segue.v1.ErasureState`."""

    ORDERED = 1
    """In the event log."""
    ONLINE = 2
    """Gone from the online store, and nothing of before can come back there."""
    DONE = 3
    """Gone everywhere."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an erasure removed, and where: `segue.v1.ErasureReceipt` in the domain."""

    erasure_id: str
    state: State
    customers: tuple[str, ...]
    """The pseudonyms that are erased: the customer's first, then those whose events counted for them."""
    erased_at_ms: int
    done_time_ms: int | None = None
    lake_event_count: int = 0
    log_entry_count: int = 0
    dead_letter_count: int = 0
    log_expire_time_ms: int | None = None
    """When the last copy in the event log expires; None: none is left."""
    model_versions: tuple[str, ...] = ()
    """The bundles trained on data that held a customer, `name:version`."""


def to_fields(receipt: Receipt) -> dict[str, str]:
    """The receipt as the fields of a hash; what is unset is left out."""
    found = {}
    for field in fields(receipt):
        value = getattr(receipt, field.name)
        if isinstance(value, tuple):
            # Neither pseudonyms nor tags hold a space.
            found[field.name] = " ".join(value)
        elif value is not None:
            found[field.name] = str(int(value)) if isinstance(value, int) else value
    return found


def from_fields(found: Mapping[bytes, bytes]) -> Receipt:
    """The receipt in the fields of a hash.

    Raises:
        StoreCorrupted: they are no receipt.
    """
    text = {name.decode(): value.decode() for name, value in found.items()}
    try:
        return Receipt(
            erasure_id=text["erasure_id"],
            state=State(int(text["state"])),
            customers=tuple(text["customers"].split()),
            erased_at_ms=int(text["erased_at_ms"]),
            done_time_ms=_time(text, "done_time_ms"),
            lake_event_count=int(text["lake_event_count"]),
            log_entry_count=int(text["log_entry_count"]),
            dead_letter_count=int(text["dead_letter_count"]),
            log_expire_time_ms=_time(text, "log_expire_time_ms"),
            model_versions=tuple(text["model_versions"].split()),
        )
    except (KeyError, ValueError) as error:
        raise StoreCorrupted(f"an erasure receipt cannot be read: {error!r}") from error


async def get(store: redis.asyncio.Redis, erasure_id: str) -> Receipt | None:
    """The receipt with this id; None where there is none any more."""
    found = await store.hgetall(KEY_PREFIX + erasure_id)  # type: ignore[misc]
    return from_fields(found) if found else None


class Receipts:
    """Receipts in the Redis behind `store`, a blocking client that returns bytes."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def put(self, receipt: Receipt) -> None:
        """Write `receipt` over the one with its id. A state never goes back: an older one is left out."""
        key = KEY_PREFIX + receipt.erasure_id
        found = self.get(receipt.erasure_id)
        if found is not None and found.state > receipt.state:
            return
        pipe = self._store.pipeline(transaction=True)
        pipe.hset(key, mapping=to_fields(receipt))
        pipe.expire(key, TTL_SECONDS)
        if receipt.state is State.ONLINE:
            pipe.sadd(PENDING_KEY, receipt.erasure_id)
        elif receipt.state is State.DONE:
            pipe.srem(PENDING_KEY, receipt.erasure_id)
        pipe.execute()

    def get(self, erasure_id: str) -> Receipt | None:
        """The receipt with this id; None where there is none any more."""
        found = self._store.hgetall(KEY_PREFIX + erasure_id)
        return from_fields(found) if found else None

    def pending(self) -> list[Receipt]:
        """The erasures that are gone from the online store but not yet from everywhere, the longest ordered first."""
        found = [self.get(name.decode()) for name in self._store.smembers(PENDING_KEY)]
        waiting = [each for each in found if each is not None and each.state is State.ONLINE]
        return sorted(waiting, key=lambda each: (each.erased_at_ms, each.erasure_id))


def _time(text: Mapping[str, str], name: str) -> int | None:
    return int(text[name]) if name in text else None
