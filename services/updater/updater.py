"""The updater: entries of the event log into the online store at once, into the event lake in larger commits.

A micro-batch is read, merged into the online store, and kept until the next flush; a flush is one commit of the lake,
which moves the log's offsets with it, and then the ack. Whatever is interrupted is delivered again: merging again
changes nothing, and the lake refuses an offset that it has.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic, time_ns

import numpy as np
from deltalake.exceptions import DeltaError
from redis.exceptions import RedisError

from segue.adapters.dead_letters import DeadLetters
from segue.adapters.erasures import Receipts
from segue.adapters.event_log import Entry, LogReader
from segue.adapters.histories import HistoryStore
from segue.adapters.lake import Lake, OffsetStep
from segue.adapters.progress import Progress
from segue.adapters.refills import Refills
from segue.customers import Link
from segue.errors import LakeConflict, LogUnavailable, StoreUnavailable
from services.updater.buffer import Buffer
from services.updater.merging import Merged, Merging
from services.updater.metrics import Metrics

UNAVAILABLE = (StoreUnavailable, LogUnavailable, DeltaError, RedisError, OSError)
"""What a later try may not meet again."""

FULL_FLUSHES = 4
"""How many flushes may wait in memory for a lake that is away."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How much the updater takes at a time, and for how long."""

    max_count: int = 2_000
    """Entries in a micro-batch."""
    flush_seconds: float = 2.0
    flush_events: int = 50_000
    flush_bytes: int = 64 << 20
    """Of the entries of a flush."""
    future_skew_ms: int = 60_000
    """How far ahead of our clock an event may lie."""


@dataclass(frozen=True)
class Stores:
    """Where the updater writes."""

    histories: HistoryStore
    lake: Lake
    dead_letters: DeadLetters
    progress: Progress
    receipts: Receipts
    refills: Refills


class Updater:
    """Reads from `reader` into `stores`; not for several threads.

    What one call could not do for want of a store, the log or the lake, a later one does: an error loses nothing.
    """

    def __init__(
        self,
        reader: LogReader,
        stores: Stores,
        *,
        pace: Pace,
        metrics: Metrics,
        clock_ms: Callable[[], int] = lambda: time_ns() // 1_000_000,
    ) -> None:
        self._reader = reader
        self._stores = stores
        self._pace = pace
        self._metrics = metrics
        self._clock_ms = clock_ms
        self._merging = Merging(
            stores.histories, stores.receipts, future_skew_ms=pace.future_skew_ms, clock_ms=clock_ms
        )
        self._flush_at = self._retry_at = 0.0
        self._forget()

    def _forget(self) -> None:
        self._entries: list[Entry] = []
        """Read, and not merged yet."""
        self._buffer = Buffer()
        self._to_ack: dict[int, int] = {}
        self._merged: dict[int, int] = {}
        """The last offset merged of each partition."""
        self._in_lake: dict[int, int | None] = {}
        """The last offset of each partition that the lake has."""

    @property
    def full(self) -> bool:
        """Whether as much waits for the lake as may."""
        return self._buffer.holds(FULL_FLUSHES * self._pace.flush_events, FULL_FLUSHES * self._pace.flush_bytes)

    def step(self, timeout_ms: int) -> int:
        """Flush if it is time, then merge the next micro-batch; waits for one for `timeout_ms` at most.

        A lake that is away does not stop the merging before the buffer is full.

        Returns:
            How many entries were merged.

        Raises:
            StoreUnavailable, LogUnavailable, DeltaError, RedisError, OSError: to be tried again.
        """
        if self._due():
            self._try_flush()
        if self.full:
            return 0
        if not self._entries:
            self._entries = self._read(timeout_ms)
        count = len(self._entries)
        if count:
            self._merge()
        return count

    def flush(self) -> None:
        """Commit to the lake what was merged, then ack it.

        Raises:
            StoreUnavailable, LogUnavailable, DeltaError, RedisError, OSError: to be tried again.
        """
        started = monotonic()
        try:
            self._commit()
        except LakeConflict as conflict:
            # Another updater has taken some of it: read again from the last ack.
            log.warning("reading again: %s", conflict)
            self._metrics.conflicts.inc()
            self._forget()
            self._reader.rewind()
        if self._to_ack:
            self._reader.ack(self._to_ack)
            self._to_ack = {}
            self._metrics.flush_seconds.observe(monotonic() - started)
        self._metrics.buffered.set(len(self._buffer))

    def close(self) -> None:
        """Flush, ack and leave the group."""
        try:
            self.flush()
        finally:
            self._reader.close()

    def _due(self) -> bool:
        if not (self._buffer.upto or self._to_ack) or monotonic() < self._retry_at:
            return False
        return monotonic() >= self._flush_at or self._buffer.holds(self._pace.flush_events, self._pace.flush_bytes)

    def _try_flush(self) -> None:
        try:
            self.flush()
        except UNAVAILABLE as error:
            log.warning("the flush is tried again: %s", error)
            self._metrics.failures.labels("flush").inc()
            self._retry_at = monotonic() + self._pace.flush_seconds

    def _commit(self) -> None:
        """All of the buffer goes to the lake; from then on it only waits for the ack."""
        lake, buffer = self._stores.lake, self._buffer
        lake.append_links(buffer.links)
        lake.append_barriers(buffer.barriers)
        events, details = buffer.rows()
        if len(events):
            steps = {
                partition: OffsetStep(self._in_lake[partition], upto)
                for partition, upto in buffer.upto.items()
                if upto > (self._in_lake[partition] or 0)
            }
            offsets = {self._app_id(partition): step for partition, step in steps.items()}
            lake.append(events, details=details, offsets=offsets)
            self._in_lake |= {partition: step.upto for partition, step in steps.items()}
            self._metrics.written.inc(len(events))
        # Not before the lake knows the barriers.
        self._stores.refills.add(sorted({each.customer for each in buffer.barriers}), now_ms=self._clock_ms())
        self._to_ack |= buffer.upto
        self._buffer = Buffer()

    def _read(self, timeout_ms: int) -> list[Entry]:
        """The next entries of partitions owned, without those that were merged before."""
        entries = self._reader.read(self._pace.max_count, timeout_ms)
        owned = self._reader.owned
        lost = (self._merged.keys() | self._in_lake.keys()) - owned
        self._buffer.drop(lost)
        for partition in lost:
            for offsets in (self._merged, self._in_lake, self._to_ack):
                offsets.pop(partition, None)
        return [
            entry
            for entry in entries
            if entry.partition in owned and entry.offset > self._merged.get(entry.partition, 0)
        ]

    def _merge(self) -> None:
        """What was read into the online store, and then into the buffer."""
        for partition in {entry.partition for entry in self._entries} - self._in_lake.keys():
            self._in_lake[partition] = self._stores.lake.offset(self._app_id(partition))
        merged = self._merging.merge(self._entries)
        if merged.letters:
            self._stores.dead_letters.add(merged.letters)
        upto = {entry.partition: entry.offset for entry in self._entries}
        self._stores.progress.advance(upto)
        if not (self._buffer.upto or self._to_ack):
            self._flush_at = monotonic() + self._pace.flush_seconds
        self._keep(merged)
        self._buffer.upto |= upto
        self._merged |= upto
        self._entries = []
        self._metrics.batch(merged, now_ms=self._clock_ms())
        self._metrics.buffered.set(len(self._buffer))

    def _keep(self, merged: Merged) -> None:
        """Into the buffer what the lake does not have."""
        for customer, barrier_ms in merged.barriers.items():
            self._buffer.bar(customer, barrier_ms)
        self._buffer.links += [fact for fact in merged.facts if isinstance(fact, Link)]
        self._buffer.barriers += merged.raised
        batch = merged.batch
        in_lake = np.array([self._in_lake.get(each) or 0 for each in range(batch.partition.max(initial=0) + 1)])
        self._buffer.add(batch.keep(batch.offset > in_lake[batch.partition]))

    def _app_id(self, partition: int) -> str:
        """The partition by its name in the lake."""
        return f"{self._reader.log_id}/{partition}"
