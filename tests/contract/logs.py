"""An empty event log for a test, on Streams in a real server or on librdkafka's mock cluster, over sockets."""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Producer
from redis import Redis
from redis import asyncio as aioredis

from segue.adapters.event_log import Entry, LogKeeper, LogReader, LogWriter
from segue.adapters.event_log.kafka import KafkaLogKeeper, KafkaLogReader, KafkaLogWriter
from segue.adapters.event_log.redis_streams import RedisLogKeeper, RedisLogReader, RedisLogWriter
from tests.conftest import redis_url

PARTITIONS = 4
"""As many as the mock cluster gives to a new topic."""

CUSTOMERS = [f"{number:032x}" for number in range(20)]

PREFIX = "segue:log"

WAIT_SECONDS = 15.0


@dataclass
class Log:
    """One empty log: `write`, `reader` and `keeper` open what they say; what is still open at the end is closed."""

    writer: Callable[..., LogWriter]
    open_reader: Callable[..., LogReader]
    open_keeper: Callable[..., LogKeeper]
    opened: list[Any]

    def reader(self, consumer: str = "a", **settings: Any) -> LogReader:
        self.opened.append(self.open_reader(consumer=consumer, **settings))
        return self.opened[-1]

    def keeper(self, **settings: Any) -> LogKeeper:
        self.opened.append(self.open_keeper(**settings))
        return self.opened[-1]

    def close(self) -> None:
        while self.opened:
            self.opened.pop().close()

    def write(self, *batches: list[tuple[str, bytes]], **settings: Any) -> list[dict[int, int]]:
        """The offsets of each batch."""

        async def run() -> list[dict[int, int]]:
            writer = self.writer(**settings)
            try:
                return [await writer.append(batch) for batch in batches]
            finally:
                await writer.close()

        return asyncio.run(run())


@contextmanager
def redis_log(address: str) -> Iterator[Log]:
    url = redis_url(address)

    def writer(partitions: int = PARTITIONS, **settings: Any) -> LogWriter:
        return RedisLogWriter(aioredis.Redis.from_url(url), partitions=partitions, **settings)

    def reader(**settings: Any) -> LogReader:
        return RedisLogReader(Redis.from_url(url), **{"lease_ms": 3_000, **settings})

    def keeper(**settings: Any) -> LogKeeper:
        return RedisLogKeeper(Redis.from_url(url), **settings)

    log = Log(writer, reader, keeper, [])
    try:
        yield log
    finally:
        log.close()


KAFKA_READER = {"group.protocol": "consumer", "fetch.wait.max.ms": 50, "log_level": 2}
"""In the mock cluster the classic protocol takes three seconds to form a group."""


@contextmanager
def mock_cluster() -> Iterator[str]:
    """The addresses of librdkafka's mock cluster."""
    cluster = Producer({"bootstrap.servers": "none", "test.mock.num.brokers": 1, "log_level": 2})
    yield ",".join(f"{each.host}:{each.port}" for each in cluster.list_topics(timeout=10).brokers.values())
    cluster.flush(1)


@contextmanager
def kafka_log(brokers: str) -> Iterator[Log]:
    where = (brokers, f"events-{os.urandom(4).hex()}")

    def writer(partitions: int = PARTITIONS, **settings: Any) -> LogWriter:
        return KafkaLogWriter(*where, partitions=partitions, options={"log_level": 2}, **settings)

    def reader(**settings: Any) -> LogReader:
        return KafkaLogReader(*where, **{"group": where[1], "options": KAFKA_READER, **settings})

    def keeper(**settings: Any) -> LogKeeper:
        return KafkaLogKeeper(*where, group=where[1], options={"log_level": 2}, **settings)

    log = Log(writer, reader, keeper, [])
    try:
        yield log
    finally:
        log.close()


def facts(count: int, start: int = 0) -> list[tuple[str, bytes]]:
    return [(CUSTOMERS[number * 7 % len(CUSTOMERS)], b"fact %06d" % number) for number in range(start, start + count)]


def read_all(reader: LogReader, count: int, **limits: int) -> list[Entry]:
    """At least `count` entries, and whatever comes with them."""
    entries: list[Entry] = []
    deadline = time.monotonic() + WAIT_SECONDS
    while len(entries) < count:
        assert time.monotonic() < deadline, f"{len(entries)} of {count} entries"
        entries += reader.read(limits.get("max_count", 1_000), 100)
    return entries


def read_until(reader: LogReader, done: Callable[[], bool], *others: LogReader) -> list[Entry]:
    entries: list[Entry] = []
    deadline = time.monotonic() + WAIT_SECONDS
    while not done():
        assert time.monotonic() < deadline, "it did not come to that"
        for each in (reader, *others):
            entries += each.read(1_000, 20)
    return entries


def bodies(entries: list[Entry]) -> list[bytes]:
    return sorted(entry.body for entry in entries)


def ends(entries: list[Entry]) -> dict[int, int]:
    """The last offset of each partition."""
    return {entry.partition: entry.offset for entry in entries}
