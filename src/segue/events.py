"""Events: what customers did, as immutable facts in columns.

An event says who did what, to which item, when, and for how much. It is never changed: a correction is another
event. Times are int64 milliseconds since the Unix epoch, UTC; money is int64 minor units (cents), so that sums are
exact on every engine.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum, unique
from typing import Self

import numpy as np
from numpy.typing import NDArray

from segue.errors import InvalidEvents

NO_ITEM = 0
"""The `item` of an event that concerns no item (a search, a checkout)."""


PSEUDONYM = re.compile("[0-9a-f]{32}")
"""The form of a customer's pseudonym, as `pseudonym` makes them."""


@unique
class Kind(IntEnum):
    """Canonical event types. The codes are part of stored data: never renumber, only add.

    `UNKNOWN` stands for every name not listed here; the lake keeps the name itself, so nothing is lost.
    """

    UNKNOWN = 0
    PRODUCT_VIEWED = 1
    PRODUCT_ADDED = 2
    PRODUCT_REMOVED = 3
    CHECKOUT_STARTED = 4
    ORDER_COMPLETED = 5
    """One per order; `value` is the order's total, `item` is `NO_ITEM`."""
    PRODUCT_PURCHASED = 6
    """One per line of a completed order; `value` is the line's total."""
    PRODUCTS_SEARCHED = 7
    CONTENT_ENGAGED = 8
    """A like, a comment, a bookmark, a follow: attention that costs the customer an action."""
    RECOMMENDATION_SHOWN = 9
    RECOMMENDATION_CLICKED = 10
    PRODUCT_WISHLISTED = 11
    PRODUCT_REVIEWED = 12
    PRODUCT_SHARED = 13
    FILTER_APPLIED = 14

    @property
    def label(self) -> str:
        """The name used in protos, in the lake and in documents, e.g. `product_viewed`."""
        return self.name.lower()


KIND_BY_LABEL: Mapping[str, Kind] = {kind.label: kind for kind in Kind}


def item_id(external_id: str) -> int:
    """The stable int64 id of an item: the first 8 bytes of BLAKE2b over its external id, never `NO_ITEM`."""
    digest = hashlib.blake2b(external_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True) or 1


def event_id(external_id: str) -> int:
    """The stable uint64 id of an event: the first 8 bytes of BLAKE2b over its external id."""
    return int.from_bytes(hashlib.blake2b(external_id.encode(), digest_size=8).digest(), "big")


def event_ids(namespace: str, serial: NDArray[np.integer]) -> NDArray[np.uint64]:
    """The stable ids of numbered facts, for sources that number their rows: SplitMix64 (Steele et al., OOPSLA 2014).

    Args:
        namespace: names the source, e.g. `deskdrop`; it seeds the sequence.
        serial: shape (n,), >= 0; the mixing is a bijection, so distinct serials of one namespace get distinct ids.
    """
    mixed = np.uint64(event_id(namespace)) + serial.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def pseudonym(user_id: str, key: bytes) -> str:
    """The customer id that stands for `user_id`: 32 hex digits of HMAC-SHA256 under `key` (RFC 2104).

    Without the key nobody can tell whose id it is, nor test a guess.

    Raises:
        InvalidEvents: `user_id` is empty, or `key` is shorter than 16 bytes.
    """
    if not user_id:
        raise InvalidEvents.because("customer", "the user id is empty")
    if len(key) < 16:
        raise InvalidEvents.because("key", "a pseudonym key has at least 16 bytes")
    return hmac.digest(key, user_id.encode(), "sha256").hex()[:32]


@dataclass(frozen=True, eq=False)
class Events:
    """A columnar batch of n events, in no particular order, copies allowed.

    `customers` holds the distinct pseudonyms once; `customer` points into it. `available_time_ms` is the moment from
    which the online system could know the event: what training may use as of t is what was available by t.
    """

    customers: NDArray[np.object_]  # (c,) str, distinct
    customer: NDArray[np.int32]  # (n,) index into customers
    event_id: NDArray[np.uint64]  # (n,)
    kind: NDArray[np.uint8]  # (n,) a Kind
    item: NDArray[np.int64]  # (n,) item_id() or NO_ITEM
    event_time_ms: NDArray[np.int64]  # (n,)
    available_time_ms: NDArray[np.int64]  # (n,)
    value_minor: NDArray[np.int64]  # (n,)

    def __post_init__(self) -> None:
        for column, dtype in COLUMNS.items():
            values = getattr(self, column)
            if values.dtype != dtype:
                raise InvalidEvents.because(column, f"has dtype {values.dtype}, must be {np.dtype(dtype)}")
            if values.shape != self.customer.shape or values.ndim != 1:
                raise InvalidEvents.because(column, f"has shape {values.shape}, must be {self.customer.shape}")
        if len(self) and (self.customer.min() < 0 or self.customer.max() >= len(self.customers)):
            raise InvalidEvents.because("customer", f"points outside the {len(self.customers)} customers")

    def __len__(self) -> int:
        return len(self.customer)

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_] | slice) -> Self:
        """The events at `index` (positions, mask or slice), with the same `customers`."""
        return type(self)(self.customers, **{column: getattr(self, column)[index] for column in COLUMNS})

    @classmethod
    def empty(cls) -> Self:
        """No events of nobody."""
        columns = {column: np.empty(0, dtype) for column, dtype in COLUMNS.items()}
        return cls(np.empty(0, np.object_), **columns)

    @classmethod
    def concat(cls, batches: Iterable["Events"]) -> Self:
        """All events of `batches`, in their order, over one common list of customers."""
        parts = list(batches)
        index: dict[str, int] = {}
        codes = []
        for part in parts:
            mapped = [index.setdefault(name, len(index)) for name in part.customers]
            codes.append(np.asarray(mapped, np.int32)[part.customer])
        columns = {
            column: np.concatenate([np.empty(0, dtype)] + [getattr(part, column) for part in parts])
            for column, dtype in COLUMNS.items()
        }
        columns["customer"] = np.concatenate([np.empty(0, np.int32), *codes])
        customers = np.empty(len(index), np.object_)
        customers[:] = list(index)
        return cls(customers, **columns)


COLUMNS: Mapping[str, type[np.generic]] = {
    "customer": np.int32,
    "event_id": np.uint64,
    "kind": np.uint8,
    "item": np.int64,
    "event_time_ms": np.int64,
    "available_time_ms": np.int64,
    "value_minor": np.int64,
}
"""The columns of `Events` that hold one value per event, with their dtypes."""
