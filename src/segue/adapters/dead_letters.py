"""Dead letters: what the updater could not take from the event log, kept with the reason until somebody looks.

They lie in one Redis stream beside the online store, whichever log is used. The oldest go when there are too many.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from segue.adapters.event_log import LogKeeper
from segue.errors import InvalidInput, StoreUnavailable

KEY = "segue:dead_letters"
MAX_COUNT = 100_000

_PAGE_COUNT = 500
_ID = re.compile(r"[0-9]{1,15}-[0-9]{1,15}", re.ASCII)


@dataclass(frozen=True)
class DeadLetter:
    """An entry of the event log that could not be taken.

    Attributes:
        reason: an UPPER_SNAKE word for the kind of problem.
        problem: what is wrong, for people.
        customer: the pseudonym the entry is about.
        partition: where it lay in the event log.
        offset: where it lay in the partition.
        body: a serialized `segue.v1.LogEntry`, or what should have been one.
        time_ms: when it was given up, since the Unix epoch, UTC.
        id: its own; empty until it is kept.
    """

    reason: str
    problem: str
    customer: str
    partition: int
    offset: int
    body: bytes
    time_ms: int
    id: str = ""


class DeadLetters:
    """The dead letters under `key` in the Redis behind `redis`, a blocking client that returns bytes.

    Every method raises StoreUnavailable when the server does not answer.

    Args:
        redis: the online store's.
        key: of the stream.
        max_count: how many are kept, to within about a hundred.
    """

    def __init__(self, redis: Redis, *, key: str = KEY, max_count: int = MAX_COUNT) -> None:
        self._redis = redis
        self._key = key
        self._max_count = max_count

    def add(self, letters: Iterable[DeadLetter]) -> None:
        """Keep `letters`, one round trip; their ids are given here. Adding one again keeps it twice."""
        with _available():
            pipe = self._redis.pipeline(transaction=False)
            for letter in letters:
                pipe.xadd(self._key, _to_fields(letter), maxlen=self._max_count, approximate=True)
            pipe.execute()

    def list(self, limit: int, *, reason: str | None = None) -> list[DeadLetter]:
        """The oldest `limit` letters, those for `reason` if given."""
        with _available():
            letters = (letter for page in self._pages() for letter in page if reason in {None, letter.reason})
            return list(islice(letters, limit))

    def replay(self, keeper: LogKeeper, ids: Sequence[str] | None) -> int:
        """Append letters to the event log again, all that are there now or those with `ids`, and drop them here.

        A crash in between may append some twice, which is harmless.

        Returns:
            How many there were.

        Raises:
            InvalidInput: an id has not the form of one.
            Overloaded, LogUnavailable: of the log; what it has not taken is still here.
        """
        replayed_count = 0
        with _available():
            for letters in self._pages() if ids is None else [self._found(ids)]:
                keeper.append([(letter.customer, letter.body) for letter in letters])
                replayed_count += self._drop(letters)
        return replayed_count

    def forget(self, customers: Sequence[str]) -> int:
        """Drop the letters about `customers`; how many."""
        gone = set(customers)
        with _available():
            return sum(self._drop([each for each in page if each.customer in gone]) for page in self._pages())

    def count(self) -> int:
        """How many there are."""
        with _available():
            length: Any = self._redis.xlen(self._key)
        return int(length)

    def _pages(self) -> Iterator[Sequence[DeadLetter]]:
        """All letters that are there now, oldest first; one that comes meanwhile is left for the next time."""
        newest: Any = self._redis.xrevrange(self._key, count=1)
        last = newest[0][0] if newest else b"0-0"
        first = b"-"
        while page := self._read(first, last):
            yield page
            first = b"(" + page[-1].id.encode()

    def _found(self, ids: Sequence[str]) -> Sequence[DeadLetter]:
        for index, each in enumerate(ids):
            if not _ID.fullmatch(each):
                raise InvalidInput.because(f"ids[{index}]", "is not the id of a dead letter")
        return [letter for each in dict.fromkeys(ids) for letter in self._read(each.encode(), each.encode())]

    def _read(self, first: bytes, last: bytes) -> Sequence[DeadLetter]:
        rows: Any = self._redis.xrange(self._key, first, last, count=_PAGE_COUNT)
        return [_from_fields(entry_id, fields) for entry_id, fields in rows]

    def _drop(self, letters: Sequence[DeadLetter]) -> int:
        if not letters:
            return 0
        dropped: Any = self._redis.xdel(self._key, *[letter.id for letter in letters])
        return int(dropped)


def _to_fields(letter: DeadLetter) -> dict[Any, Any]:
    return {
        "reason": letter.reason,
        "problem": letter.problem,
        "customer": letter.customer,
        "partition": letter.partition,
        "offset": letter.offset,
        "body": letter.body,
        "time": letter.time_ms,
    }


def _from_fields(entry_id: bytes, fields: Mapping[bytes, bytes]) -> DeadLetter:
    return DeadLetter(
        reason=fields[b"reason"].decode(),
        problem=fields[b"problem"].decode(),
        customer=fields[b"customer"].decode(),
        partition=int(fields[b"partition"]),
        offset=int(fields[b"offset"]),
        body=fields[b"body"],
        time_ms=int(fields[b"time"]),
        id=entry_id.decode(),
    )


@contextmanager
def _available() -> Iterator[None]:
    try:
        yield
    except RedisError as error:
        raise StoreUnavailable("the dead letters' store did not answer") from error
