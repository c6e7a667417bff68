"""Customers whose histories, and those of whom they flow into, are to be merged once more from the event lake.

A barrier that rises takes more from a full history than it forgets, and one that falls gives back less than counts
again (`HistoryStore.raise_barrier`). Whoever raises it notes the customer here; a job does the rest (`replay.refill`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from segue.adapters.history_script import errors


class Refills:
    """A sorted set of customers by the time they were noted, under `key` in the Redis behind `redis`."""

    def __init__(self, redis: Any, *, key: str = "segue:refills") -> None:
        self._redis = redis
        self._key = key

    def add(self, customers: Sequence[str], *, now_ms: int) -> None:
        """Note `customers`; one that was noted before is noted anew."""
        if customers:
            with errors():
                self._redis.zadd(self._key, dict.fromkeys(customers, now_ms))

    def pending(self, *, before_ms: int, limit: int = 1000) -> dict[str, int]:
        """At most `limit` customers noted before then, the longest waiting first, with the time they were noted."""
        with errors():
            found = self._redis.zrange(
                self._key, "-inf", f"({before_ms}", byscore=True, offset=0, num=limit, withscores=True
            )
        return {customer.decode(): int(at_ms) for customer, at_ms in found}

    def done(self, noted: Mapping[str, int]) -> None:
        """Strike out what `pending` returned, but not those that were noted anew since."""
        with errors():
            for customer, at_ms in noted.items():
                self._redis.eval(DONE, 1, self._key, customer, at_ms)


DONE = """
if tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or '-1') == tonumber(ARGV[2]) then
  redis.call('ZREM', KEYS[1], ARGV[1])
end
"""
