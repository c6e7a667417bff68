"""Who owns which partition of the event log on Redis Streams: leases that run out, and an equal share each."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from segue.adapters.event_log.redis_codec import Names, to_id, to_offset
from segue.adapters.event_log.redis_scripts import CLAIM, HOLD, JOIN, RELEASE, Call, run


class Leases:
    """What one consumer of a group holds. Times are the server's."""

    def __init__(
        self, redis: Redis, names: Names, group: str, consumer: str, *, lease_ms: int, retention_ms: int
    ) -> None:
        self.acked: dict[int, int] = {}
        """The last ack of each partition held."""
        self._redis = redis
        self._names = names
        self._group = group
        self._consumer = consumer
        self._lease_ms = lease_ms
        self._retention_ms = retention_ms

    def balance(self, partitions: int) -> None:
        """Renew what is held, let go of what is more than a fair share of `partitions`, claim what is less.

        When some was lost that is all, so that whoever looks at `acked` sees that it was, before it is claimed again.
        """
        if lost := self.hold({}):
            for partition in lost:
                del self.acked[partition]
            return
        join = Call([self._names.consumers(self._group)], [self._consumer, self._lease_ms])
        living = sorted(run(self._redis, JOIN, [join])[0])
        rank = living.index(self._consumer.encode())
        share = partitions // len(living) + (rank < partitions % len(living))
        surplus = sorted(self.acked)[share:]
        self._release(surplus)
        others = [each for each in range(partitions) if each not in self.acked and each not in surplus]
        if others and len(self.acked) < share:
            self._claim(others, share - len(self.acked))

    def hold(self, acks: Mapping[int, tuple[int, int]]) -> list[int]:
        """Renew every lease held, ack, trim.

        Args:
            acks: by partition the offset to ack, and how many entries were read up to it since the last ack.

        Returns:
            The partitions that turn out to be lost.
        """
        held = list(self.acked)
        replies = run(self._redis, HOLD, [self._ack(partition, *acks.get(partition, (0, 0))) for partition in held])
        lost = [partition for partition, reply in zip(held, replies, strict=True) if reply is None]
        for partition in acks.keys() & self.acked.keys() - set(lost):
            self.acked[partition] = max(self.acked[partition], acks[partition][0])
        return lost

    def leave(self) -> None:
        """Let go of everything, as far as the server answers."""
        with suppress(RedisError):
            self._redis.zrem(self._names.consumers(self._group), self._consumer)
            self._release(list(self.acked))
        self.acked = {}

    def _claim(self, partitions: Sequence[int], count: int) -> None:
        holders: Any = self._redis.mget([self._names.lease(partition, self._group) for partition in partitions])
        free = [
            each for each, holder in zip(partitions, holders, strict=True) if holder in {None, self._consumer.encode()}
        ]
        wanted = free[:count]
        replies = run(self._redis, CLAIM, [self._call(partition) for partition in wanted])
        for partition, entry_id in zip(wanted, replies, strict=True):
            if entry_id is not None:
                self.acked[partition] = to_offset(entry_id)

    def _release(self, partitions: Sequence[int]) -> None:
        run(self._redis, RELEASE, [self._call(partition) for partition in partitions])
        for partition in partitions:
            del self.acked[partition]

    def _ack(self, partition: int, offset: int, count: int) -> Call:
        return self._call(partition, self._retention_ms, to_id(offset) if offset else "", count)

    def _call(self, partition: int, *arguments: str | int) -> Call:
        keys = [self._names.stream(partition), self._names.lease(partition, self._group)]
        return Call(keys, [self._consumer, self._lease_ms, self._group, *arguments])
