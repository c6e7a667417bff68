"""The event log: the stream between the collector and the updater, partitioned by customer.

Two adapters keep it: `redis_streams` (embedded default) and `kafka`. Delivery is at least once and, within a partition,
in order. An offset is a positive int64 that grows within its partition; it names an entry for good.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from segue.errors import InvalidInput

Offsets = Mapping[int, int]
"""An offset for some partitions, by partition: everything of the partition up to and including it."""


class Entry(NamedTuple):
    """One entry of the log: `body` is a serialized `segue.v1.LogEntry`, about `customer`."""

    partition: int
    offset: int
    customer: str
    body: bytes


@dataclass(frozen=True)
class Forgotten:
    """What a log did to forget a customer."""

    entry_count: int
    """Entries removed."""
    expire_time_ms: int | None
    """When the last copy expires, where single entries cannot be removed; None: none is left."""


class LogWriter(Protocol):
    """The collector's side; one for a process, in one event loop."""

    async def append(self, entries: Sequence[tuple[str, bytes]]) -> dict[int, int]:
        """Append (customer, body) entries; returns once all of them are durable.

        After an error any part of them may be in the log; appending them again is right.

        Returns:
            The offset of the last entry in each partition that got some.

        Raises:
            Overloaded: the log holds as many entries that nobody has read as it may.
            LogUnavailable: the log did not take them in time.
        """

    async def close(self) -> None:
        """Let go of the connections."""


class LogReader(Protocol):
    """The updater's side: one member of the group of readers that share the partitions.

    A partition has one owner at a time. One that loses it, without always knowing, may go on for a while: whatever it
    writes must be refused or harmless. Not for several threads.
    """

    @property
    def log_id(self) -> str:
        """Names this log among all logs a lake is fed from; offsets of one log are comparable."""

    @property
    def owned(self) -> frozenset[int]:
        """The partitions owned as of the last `read`. What was read from others since its `ack` is another's now."""

    def read(self, max_count: int, timeout_ms: int) -> list[Entry]:
        """The next entries of the owned partitions, each partition's in order; empty when none comes in time.

        The first read of a partition starts behind the last `ack` of whoever owned it before.

        Raises:
            LogUnavailable: the log does not answer.
        """

    def rewind(self) -> None:
        """Read every owned partition from behind its last `ack` again."""

    def ack(self, offsets: Offsets) -> None:
        """Say that all is done up to `offsets`; of partitions that are no longer owned it is ignored.

        Raises:
            LogUnavailable: the log does not answer.
        """

    def close(self) -> None:
        """Leave the group at once, so that others take over without waiting."""


class LogKeeper(Protocol):
    """What jobs and monitoring ask of the log."""

    def backlog(self) -> dict[int, int]:
        """Entries not acked yet, by partition."""

    def forget(self, customers: Sequence[str]) -> Forgotten:
        """Remove what is in the log about `customers`, read or unread."""

    def append(self, entries: Sequence[tuple[str, bytes]]) -> None:
        """As `LogWriter.append`, from a job."""

    def close(self) -> None:
        """Let go of the connections."""


def partition_of(customer: str, partitions: int) -> int:
    """The partition of a customer, in [0, partitions): CRC-32 (ISO 3309) of the pseudonym, modulo."""
    return zlib.crc32(customer.encode()) % partitions


def to_token(offsets: Offsets) -> str:
    """Offsets as the text a caller carries: `2:1789400.7:1789412`."""
    return ".".join(f"{partition}:{offset}" for partition, offset in sorted(offsets.items()))


TOKEN_MAX_CHARS = 8_192


def from_token(token: str) -> dict[int, int]:
    """The offsets in a token; none in an empty one.

    Raises:
        InvalidInput: it is no token.
    """
    try:
        if len(token) > TOKEN_MAX_CHARS:
            raise ValueError
        pairs = [part.split(":") for part in token.split(".") if token]
        offsets = {int(partition): int(offset) for partition, offset in pairs}
        if token != to_token(offsets):
            raise ValueError
    except ValueError:
        raise InvalidInput.because("read_after", "is not a token of the collector") from None
    return offsets
