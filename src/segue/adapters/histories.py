"""The history store: one Redis sorted set of packed records per customer, merged by the server itself.

`ZADD NX` is the union, `ZREMRANGEBYRANK` the cut to the newest N: both are idempotent and commute, so a micro-batch
needs no read before it writes and may be delivered any number of times, in any order.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from segue.errors import InvalidHistories
from segue.events import Events
from segue.history import HISTORY_LIMIT, RECORD, Histories, histories_of

CUSTOMERS_PER_PIPELINE = 500


class HistoryStore:
    """Histories under `key_prefix` + customer in the Redis behind `redis`, a blocking client that returns bytes."""

    def __init__(self, redis: Any, key_prefix: str, *, limit: int = HISTORY_LIMIT) -> None:
        self._redis = redis
        self._prefix = key_prefix
        self._limit = limit

    def add(self, events: Events) -> None:
        """Merge `events` into their customers' histories: one pipelined round trip per 500 customers."""
        histories = histories_of(events, self._limit)
        present = np.flatnonzero(histories.lengths)
        self.merge([events.customers[index] for index in present], histories.take(present))

    def merge(self, customers: Sequence[str], histories: Histories) -> None:
        """Union history i into that of `customers[i]`.

        Raises:
            InvalidHistories: there are not as many customers as histories.
        """
        if len(customers) != len(histories):
            raise InvalidHistories.because("customers", f"are {len(customers)} for {len(histories)} histories")
        for first in range(0, len(customers), CUSTOMERS_PER_PIPELINE):
            pipe = self._redis.pipeline(transaction=False)
            for index in range(first, min(first + CUSTOMERS_PER_PIPELINE, len(customers))):
                records = histories.records(index)
                if len(records):
                    key = self._prefix + customers[index]
                    pipe.zadd(key, dict(zip(members(records), records["event_time_ms"].tolist(), strict=True)), nx=True)
                    pipe.zremrangebyrank(key, 0, -(self._limit + 1))
            pipe.execute()

    def read(self, customers: Sequence[str]) -> Histories:
        """The history of each of `customers`, empty where there is none: one round trip."""
        pipe = self._redis.pipeline(transaction=False)
        for customer in customers:
            pipe.zrange(self._prefix + customer, 0, -1)
        return decode(pipe.execute())

    def delete(self, customers: Iterable[str]) -> None:
        """Remove the histories of `customers`."""
        if keys := [self._prefix + customer for customer in customers]:
            self._redis.delete(*keys)

    def delete_all(self) -> None:
        """Remove every history under the prefix."""
        for key in self._redis.scan_iter(match=_literal(self._prefix) + "*", count=1000):
            self._redis.delete(key)


def members(records: np.ndarray) -> list[bytes]:
    """The sorted set members of packed records."""
    packed = records.tobytes()
    return [packed[start : start + RECORD.itemsize] for start in range(0, len(packed), RECORD.itemsize)]


def decode(replies: Sequence[Sequence[bytes]]) -> Histories:
    """Histories from the replies to one ZRANGE each."""
    return Histories.from_records([b"".join(reply) for reply in replies])


def _literal(prefix: str) -> str:
    """`prefix` with the characters that SCAN's patterns give a meaning escaped."""
    return "".join(f"\\{character}" if character in r"*?[]\^-" else character for character in prefix)
