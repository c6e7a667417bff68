"""What the online store has and the event lake does not have yet."""

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from segue.customers import Barrier, Link
from segue.events import Events


@dataclass(frozen=True, eq=False)
class Batch:
    """Events of one micro-batch."""

    events: Events
    details: pa.Table
    """A row of the lake's DETAILS_SCHEMA for each event."""
    partition: NDArray[np.int32]  # (n,)
    offset: NDArray[np.int64]  # (n,)
    size_bytes: int

    def keep(self, mask: NDArray[np.bool_]) -> "Batch":
        """Only the events at which `mask`, shape (n,), is true."""
        if mask.all():
            return self
        return replace(
            self,
            events=self.events.take(mask),
            details=self.details.filter(pa.array(mask)),
            partition=self.partition[mask],
            offset=self.offset[mask],
        )


class Buffer:
    """Events, links and barriers on their way to the lake.

    Attributes:
        upto: by partition, the offset of the last entry whose fact is here or needs no way to the lake.
        links: copies do no harm in the lake, so they stay when their partition is dropped.
        barriers: likewise.
    """

    def __init__(self) -> None:
        self.upto: dict[int, int] = {}
        self.links: list[Link] = []
        self.barriers: list[Barrier] = []
        self._batches: list[Batch] = []

    def __len__(self) -> int:
        """How many events there are."""
        return sum(len(batch.events) for batch in self._batches)

    def holds(self, events_count: int, size_bytes: int) -> bool:
        """Whether it holds that many events, or events whose entries were that large."""
        return len(self) >= events_count or sum(batch.size_bytes for batch in self._batches) >= size_bytes

    def add(self, batch: Batch) -> None:
        """Take the events of a micro-batch."""
        if len(batch.events):
            self._batches.append(batch)

    def bar(self, customer: str, barrier_ms: int) -> None:
        """Drop the events of `customer` at or before the barrier."""
        for index, batch in enumerate(self._batches):
            barred = batch.events.customers[batch.events.customer] == customer
            self._batches[index] = batch.keep(~(barred & (batch.events.event_time_ms <= barrier_ms)))

    def drop(self, partitions: Collection[int]) -> None:
        """Forget what came from `partitions`."""
        if dropped := [each for each in partitions if self.upto.pop(each, None) is not None]:
            self._batches = [batch.keep(~np.isin(batch.partition, dropped)) for batch in self._batches]

    def rows(self) -> tuple[Events, pa.Table | None]:
        """All events, and their details."""
        if not self._batches:
            return Events.empty(), None
        details = pa.concat_tables([batch.details for batch in self._batches])
        return Events.concat(batch.events for batch in self._batches), details
