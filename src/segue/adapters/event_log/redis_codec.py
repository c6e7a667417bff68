"""How the event log on Redis Streams is written down: its keys, ids, entries, what it says of itself."""

import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError

from segue.adapters.event_log import Entry, partition_of
from segue.adapters.event_log.redis_scripts import Call
from segue.errors import InvalidSettings, LogUnavailable, Overloaded

SEQUENCE_BITS = 20

_FIELDS = [b"customer", b"entry"]


@dataclass(frozen=True)
class Names:
    """The keys under `prefix`. A partition's keys carry one hash tag, for the scripts that touch several."""

    prefix: str

    @property
    def description(self) -> str:
        """A hash: `log_id`, `partitions`."""
        return f"{self.prefix}:description"

    def stream(self, partition: int) -> str:
        """The partition's stream; its entries have the fields `customer` and `entry`."""
        return f"{self.prefix}:{{{partition}}}"

    def lease(self, partition: int, group: str) -> str:
        """A string: the consumer of `group` that owns the partition; it expires."""
        return f"{self.prefix}:{{{partition}}}:lease:{group}"

    def consumers(self, group: str) -> str:
        """A sorted set: the living consumers of `group`."""
        return f"{self.prefix}:consumers:{group}"


def to_offset(entry_id: bytes) -> int:
    """The offset of a stream's entry `<ms>-<seq>`: ms * 2^20 + seq, positive and below 2^63 until the year 2248.

    Raises:
        LogUnavailable: `seq` is 2^20 or more.
    """
    time_ms, _, sequence = entry_id.partition(b"-")
    if int(sequence) >> SEQUENCE_BITS:
        raise LogUnavailable(f"entry {entry_id.decode()} of the event log has no offset: too many in a millisecond")
    return int(time_ms) << SEQUENCE_BITS | int(sequence)


def to_id(offset: int) -> str:
    """The id of the entry at `offset`."""
    return f"{offset >> SEQUENCE_BITS}-{offset & ((1 << SEQUENCE_BITS) - 1)}"


def limit_of(capacity: int, partitions: int) -> int:
    """Entries not acked that a partition may hold."""
    if not 1 <= partitions <= capacity:
        raise InvalidSettings.because("capacity", f"is {capacity} for {partitions} partitions: less than one for each")
    return capacity // partitions


def appending(names: Names, entries: Iterable[tuple[str, bytes]], partitions: int, limit: int) -> dict[int, Call]:
    """The call of `APPEND` for each partition that gets some of `entries`."""
    arguments: dict[int, list[str | bytes | int]] = {}
    for customer, body in entries:
        arguments.setdefault(partition_of(customer, partitions), [limit]).extend((customer, body))
    return {partition: Call([names.stream(partition)], values) for partition, values in arguments.items()}


def appended(calls: Iterable[int], replies: Sequence[Any]) -> dict[int, int]:
    """The last offset of each partition, from the replies to its call of `APPEND`.

    Raises:
        Overloaded: a partition is full.
    """
    if b"FULL" in replies:
        raise Overloaded("the event log holds as many entries that nobody has acked as it may")
    return {partition: to_offset(reply[0]) for partition, reply in zip(calls, replies, strict=True)}


def to_entry(partition: int, entry_id: bytes, fields: Sequence[bytes]) -> Entry:
    """The entry with `fields`, names and values by turns; what others put there may lack the customer or the body."""
    found = fields if fields[::2] == _FIELDS else _found(fields)
    return Entry(partition, to_offset(entry_id), found[1].decode(errors="replace"), found[3])


def _found(fields: Sequence[bytes]) -> Sequence[bytes]:
    values = dict(zip(fields[::2], fields[1::2], strict=False))
    return [part for name in _FIELDS for part in (name, values.get(name, b""))]


def describe_log(pipe: Any, names: Names, partitions: int | None) -> None:
    """Queue on `pipe` what reads the log's description, and writes what it lacks."""
    pipe.hsetnx(names.description, "log_id", secrets.token_hex(8))
    if partitions is not None:
        pipe.hsetnx(names.description, "partitions", partitions)
    pipe.hmget(names.description, "log_id", "partitions")


def described(replies: Sequence[Any], partitions: int | None) -> tuple[str, int | None]:
    """The log's id and its number of partitions, None when no writer came yet, from the replies to `describe_log`.

    Raises:
        InvalidSettings: the log has another number of partitions.
    """
    log_id, count = replies[-1]
    if partitions is not None and int(count) != partitions:
        raise InvalidSettings.because("partitions", f"is {partitions}, but the event log was made with {int(count)}")
    return log_id.decode(), None if count is None else int(count)


@contextmanager
def available() -> Iterator[None]:
    """Turn an error of the client into that of the log.

    Raises:
        LogUnavailable: the server did not answer, or not as it should.
    """
    try:
        yield
    except RedisError as error:
        raise LogUnavailable(f"the event log does not answer: {error}") from error
