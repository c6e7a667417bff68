"""Entries of the event log, as the collector writes them, by the thousand."""

import asyncio
import time
from collections.abc import Iterator

import numpy as np
from redis import asyncio as aioredis

from segue.adapters.event_log.redis_streams import RedisLogWriter
from segue.v1.log_pb2 import LogEntry, LoggedEvent

KINDS = ("product_viewed", "product_viewed", "product_viewed", "product_added", "order_completed", "products_searched")

APPENDED_TOGETHER = 2_000


def entries(
    count: int, *, customers: int, seed: int, heavy_count: int = 0, now_ms: int | None = None
) -> Iterator[tuple[str, bytes]]:
    """`count` entries of customers drawn at random, the events of the last minute.

    Args:
        count: how many.
        customers: of how many customers.
        seed: of the drawing.
        heavy_count: how many of the entries are of one customer more.
        now_ms: the end of that minute; by default now.
    """
    rng = np.random.default_rng(seed)
    now_ms = now_ms or time.time_ns() // 1_000_000
    for first in range(0, count, APPENDED_TOGETHER):
        size = min(APPENDED_TOGETHER, count - first)
        who = rng.integers(customers, size=size)
        who[rng.random(size) < heavy_count / count] = customers
        columns = (
            who,
            rng.integers(2**63, size=size),
            rng.integers(len(KINDS), size=size),
            rng.integers(20_000, size=size),
        )
        for customer, event_id, kind, item in zip(*(column.tolist() for column in columns), strict=True):
            pseudonym = f"{customer:032x}"
            event = LoggedEvent(
                event_id=event_id,
                kind=KINDS[kind],
                item=f"item-{item}",
                event_time_ms=now_ms - event_id % 60_000,
                value_minor=event_id % 10_000,
                properties_json='{"list":"home","position":3}',
            )
            yield pseudonym, LogEntry(customer=pseudonym, receive_time_ms=now_ms, event=event).SerializeToString()


def fill(url: str, filling: Iterator[tuple[str, bytes]], *, capacity: int) -> int:
    """Append all of `filling` to the log in the Redis at `url`; returns how many there were."""

    async def append() -> int:
        writer = RedisLogWriter(aioredis.Redis.from_url(url), capacity=capacity)
        count = 0
        try:
            while batch := [each for _, each in zip(range(APPENDED_TOGETHER), filling, strict=False)]:
                await writer.append(batch)
                count += len(batch)
        finally:
            await writer.close()
        return count

    return asyncio.run(append())
