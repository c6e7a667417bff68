"""The event log on Redis (7 or later) or Valkey Streams, the embedded default: one stream for each partition.

An append is as durable as the server: with `appendfsync always` it survives a power cut. The log lives in memory and is
bounded by its capacity: acked entries go when they are older than the retention, or earlier when room is needed; what a
consumer group of the stream has not acked never goes. A server that may evict keys may evict the log: set
`maxmemory-policy noeviction`. A Redis Cluster is not served: the client's cluster pipelines refuse scripts.
"""

import math
import time
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from redis import Redis
from redis import asyncio as aioredis

from segue.adapters.event_log import Entry, Forgotten, LogKeeper, LogReader, LogWriter, Offsets, partition_of
from segue.adapters.event_log.redis_codec import (
    Names,
    appended,
    appending,
    available,
    describe_log,
    described,
    limit_of,
    to_entry,
    to_id,
)
from segue.adapters.event_log.redis_leases import Leases
from segue.adapters.event_log.redis_scripts import APPEND, FORGET, Call, run, run_async
from segue.errors import LogUnavailable

PREFIX = "segue:log"
PARTITIONS = 16
CAPACITY = 1_000_000
GROUP = "updater"
LEASE_MS = 10_000
RETENTION_MS = 24 * 3_600_000

_BLOCK_MAX_SECONDS = 1.0
"""How long one XREAD waits at most."""

_SCAN_COUNT = 1_000


class RedisLogWriter(LogWriter):
    """Appends through `redis`, which returns bytes and is closed with the writer.

    Args:
        redis: its own retries and timeouts say how long a dead server is waited for.
        stream_prefix: what the log's keys start with.
        partitions: how many there are; the first writer decides for good.
        capacity: entries not acked that the log holds before it refuses more, an equal part for each partition.

    Raises:
        InvalidSettings: `capacity` is less than one for each partition.
    """

    def __init__(
        self,
        redis: aioredis.Redis,
        *,
        stream_prefix: str = PREFIX,
        partitions: int = PARTITIONS,
        capacity: int = CAPACITY,
    ) -> None:
        self._redis = redis
        self._names = Names(stream_prefix)
        self._partitions = partitions
        self._limit = limit_of(capacity, partitions)
        self._described = False

    async def append(self, entries: Sequence[tuple[str, bytes]]) -> dict[int, int]:
        """As the port says; one round trip.

        Raises:
            InvalidSettings: the log has another number of partitions.
        """
        with available():
            if not self._described:
                await self._describe()
            calls = appending(self._names, entries, self._partitions, self._limit)
            replies = await run_async(self._redis, APPEND, list(calls.values()))
            # A new stream may be that of a log that was wiped, and its description with it.
            self._described = not any(isinstance(reply, list) and reply[1] for reply in replies)
        return appended(calls, replies)

    async def close(self) -> None:
        """Close the client."""
        await self._redis.aclose()

    async def _describe(self) -> None:
        pipe = self._redis.pipeline(transaction=True)
        describe_log(pipe, self._names, self._partitions)
        described(await pipe.execute(), self._partitions)
        self._described = True


class RedisLogReader(LogReader):
    """Reads through `redis`, which returns bytes and is closed with the reader.

    A partition belongs to who holds its lease; `read` renews it. A reader that does not call `read` for longer than the
    lease loses what it owned and learns so from `owned` after the next `read`. Partitions are shared equally among the
    living; a `read` that lost some returns at once, empty.

    Args:
        redis: a blocking client.
        group: the consumer group; every group gets every entry.
        consumer: unique among the living readers of the group. One that comes back under the name of a dead one has its
            partitions at once.
        stream_prefix: what the log's keys start with.
        lease_ms: after so long without a sign of life a reader is dead.
        retention_ms: how long acked entries are kept at most.
        partitions: how many there must be; None: as many as the log has.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        consumer: str,
        group: str = GROUP,
        stream_prefix: str = PREFIX,
        lease_ms: int = LEASE_MS,
        retention_ms: int = RETENTION_MS,
        partitions: int | None = None,
    ) -> None:
        self._redis = redis
        # As it comes: making dicts of a reply takes the client longer than all else that is done to read it.
        redis.set_response_callback("XREAD", lambda reply, **_: reply)
        self._names = Names(stream_prefix)
        self._partitions = partitions
        self._leases = Leases(redis, self._names, group, consumer, lease_ms=lease_ms, retention_ms=retention_ms)
        self._log_id = ""
        self._unacked: dict[int, list[int]] = {}
        """The offsets that were read of each partition owned, since its last ack."""
        # A wait as long as the socket's timeout would be taken for a failure.
        timeout_seconds = redis.get_connection_kwargs().get("socket_timeout") or math.inf
        self._wait_seconds = min(_BLOCK_MAX_SECONDS, timeout_seconds / 2)
        self._balance_seconds = lease_ms / 5_000
        self._balance_due = 0.0
        self._turn = 0

    @property
    def log_id(self) -> str:
        """A random id, new for a log whose keys were deleted."""
        if not self._log_id:
            with available():
                self._describe()
        return self._log_id

    @property
    def owned(self) -> frozenset[int]:
        """As the port says."""
        return frozenset(self._unacked)

    def read(self, max_count: int, timeout_ms: int) -> list[Entry]:
        """As the port says; none before the first writer has decided how many partitions there are.

        Raises:
            LogUnavailable: also when the log was deleted: start a new reader.
        """
        deadline = time.monotonic() + timeout_ms / 1_000
        while True:
            with available():
                if time.monotonic() >= self._balance_due and self._balance():
                    return []
                entries = self._fetch(max_count, min(deadline, self._balance_due))
            if entries or time.monotonic() >= deadline:
                return entries

    def rewind(self) -> None:
        """As the port says."""
        self._unacked = {partition: [] for partition in self._unacked}

    def ack(self, offsets: Offsets) -> None:
        """As the port says; one round trip."""
        mine = offsets.keys() & self._unacked.keys()
        acks = {each: (offsets[each], bisect_right(self._unacked[each], offsets[each])) for each in mine}
        with available():
            if self._leases.hold(acks):
                self._balance_due = 0.0
        for partition, (_, count) in acks.items():
            del self._unacked[partition][:count]

    def close(self) -> None:
        """As the port says; closes the client too. A server that does not answer lets the leases run out."""
        self._leases.leave()
        self._unacked = {}
        self._redis.close()

    def _describe(self) -> int | None:
        """The number of partitions; None: not decided yet."""
        pipe = self._redis.pipeline(transaction=True)
        describe_log(pipe, self._names, self._partitions)
        log_id, partitions = described(pipe.execute(), self._partitions)
        if self._log_id not in {"", log_id}:
            raise LogUnavailable("the event log was deleted and made anew; its reader has to start again")
        self._log_id = log_id
        return partitions

    def _balance(self) -> bool:
        """Whether partitions were lost while renewing leases and taking a fair share of the partitions."""
        partitions = self._describe()
        if partitions is not None:
            self._leases.balance(partitions)
        owned = self._leases.acked.keys()
        lost = not self._unacked.keys() <= owned
        self._unacked = {partition: self._unacked.get(partition, []) for partition in owned}
        self._balance_due = time.monotonic() + self._balance_seconds
        return lost

    def _fetch(self, max_count: int, until: float) -> list[Entry]:
        """The next entries; when there are none, waits for some until then."""
        wait_seconds = max(0.0, min(self._wait_seconds, until - time.monotonic()))
        if not self._unacked:
            time.sleep(wait_seconds)
        entries: dict[int, list[Entry]] = {partition: [] for partition in self._unacked}
        room = max_count
        # Another partition comes first each time, so that a small `max_count` leaves none out.
        self._turn += 1
        turn = self._turn % (len(entries) or 1)
        unread = [*entries][turn:] + [*entries][:turn]
        while unread and room > 0:
            count = -(-room // len(unread))
            block_ms = int(wait_seconds * 1_000) or None if room == max_count else None
            cursors = {partition: self._cursor(partition, entries[partition]) for partition in unread}
            rows = self._rows(cursors, count, block_ms)
            for partition in unread:
                some = [to_entry(partition, *row) for row in rows[partition][:room]]
                entries[partition] += some
                room -= len(some)
            unread = [partition for partition in unread if len(rows[partition]) == count]
        for partition, some in entries.items():
            self._unacked[partition] += [entry.offset for entry in some]
        return [entry for some in entries.values() for entry in some]

    def _cursor(self, partition: int, entries: Sequence[Entry]) -> int:
        """The offset behind which to read on, when `entries` were read just now."""
        if entries:
            return entries[-1].offset
        return (self._unacked[partition] or [self._leases.acked[partition]])[-1]

    def _rows(self, cursors: Mapping[int, int], count: int, block_ms: int | None) -> dict[int, list]:
        streams: Any = {self._names.stream(partition): to_id(offset) for partition, offset in cursors.items()}
        reply: Any = self._redis.xread(streams, count=count, block=block_ms)
        rows = dict(reply or ())
        return {partition: rows.get(self._names.stream(partition).encode(), []) for partition in cursors}


class RedisLogKeeper(LogKeeper):
    """Looks after the log through `redis`, which returns bytes and is closed with the keeper.

    Args:
        redis: a blocking client.
        group: the consumer group whose backlog it is.
        stream_prefix: what the log's keys start with.
        capacity: as of the writer.
    """

    def __init__(
        self, redis: Redis, *, group: str = GROUP, stream_prefix: str = PREFIX, capacity: int = CAPACITY
    ) -> None:
        self._redis = redis
        self._group = group
        self._names = Names(stream_prefix)
        self._capacity = capacity

    def backlog(self) -> dict[int, int]:
        """As the port says."""
        with available():
            return {partition: self._unacked(partition) for partition in range(self._partitions() or 0)}

    def forget(self, customers: Sequence[str]) -> Forgotten:
        """As the port says: nothing can be read any more when it returns.

        The server overwrites the bytes when the memory page's other entries are gone and its append-only file is
        rewritten.
        """
        removed_count = 0
        with available():
            partitions = self._partitions()
            for partition in sorted(
                {partition_of(customer, partitions) for customer in customers} if partitions else ()
            ):
                removed_count += self._forget(partition, {customer.encode() for customer in customers})
        return Forgotten(removed_count, expire_time_ms=None)

    def append(self, entries: Sequence[tuple[str, bytes]]) -> None:
        """As the port says.

        Raises:
            LogUnavailable: also while no writer has decided how many partitions there are.
        """
        with available():
            partitions = self._partitions()
            if partitions is None:
                raise LogUnavailable("the event log does not exist yet; its first writer makes it")
            calls = appending(self._names, entries, partitions, limit_of(self._capacity, partitions))
            replies = run(self._redis, APPEND, list(calls.values()))
        appended(calls, replies)

    def close(self) -> None:
        """Close the client."""
        self._redis.close()

    def _partitions(self) -> int | None:
        pipe = self._redis.pipeline(transaction=True)
        describe_log(pipe, self._names, None)
        return described(pipe.execute(), None)[1]

    def _unacked(self, partition: int) -> int:
        stream = self._names.stream(partition)
        if not self._redis.exists(stream):
            return 0
        info: Any = self._redis.xinfo_stream(stream)
        groups: Any = self._redis.xinfo_groups(stream)
        read = next((group["entries-read"] for group in groups if group["name"] == self._group.encode()), None)
        return int(info["length"] if read is None else info["entries-added"] - read)

    def _forget(self, partition: int, customers: set[bytes]) -> int:
        stream, first, removed_count = self._names.stream(partition), "-", 0
        while rows := self._page(stream, first):
            ids = [entry_id for entry_id, fields in rows if fields.get(b"customer") in customers]
            if ids:
                removed_count += run(self._redis, FORGET, [Call([stream], ids)])[0]
            first = f"({rows[-1][0].decode()}"
        return removed_count

    def _page(self, stream: str, first: str) -> Sequence[tuple[bytes, Mapping[bytes, bytes]]]:
        rows: Any = self._redis.xrange(stream, min=first, count=_SCAN_COUNT)
        return rows
