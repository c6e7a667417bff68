"""The script that joins records and barriers with what the online store holds, and how it is called."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from typing import Any, NamedTuple

from redis.exceptions import NoScriptError, RedisError, ResponseError

from segue.errors import StoreCorrupted, StoreUnavailable

CALLS_PER_TRIP = 20
"""Calls of the script sent in one round trip."""


class Joined(NamedTuple):
    """What the script says of a customer that has a barrier or links."""

    position: int
    barrier_ms: int | None
    targets: list[str]
    removed: list[bytes]


class HistoryScript:
    """The script in the Redis behind `redis`, for histories of at most `limit` records, some keys in each call."""

    def __init__(self, redis: Any, *, limit: int, keys_per_call: int) -> None:
        self._redis = redis
        self._limit = limit
        self._keys_per_call = keys_per_call
        self._text = resources.files("segue.adapters").joinpath("histories.lua").read_bytes()
        self._sha = hashlib.sha1(self._text, usedforsecurity=False).hexdigest()

    def join(self, keys: Sequence[str], records: Sequence[bytes], registers: Sequence[str | int] = ()) -> list[Joined]:
        """Merge `records[i]`, packed end to end, into the history under `keys[i]`.

        Args:
            keys: any number of them, copies allowed.
            records: as many.
            registers: erased_at, denied_at, granted_at, empty for none; they raise the barrier of the only key.
        """
        calls = []
        for first in range(0, len(keys), self._keys_per_call):
            part = slice(first, first + self._keys_per_call)
            calls.append(("EVALSHA", self._sha, len(keys[part]), *keys[part], self._limit, *records[part], *registers))
        found = []
        for first in range(0, len(calls), CALLS_PER_TRIP):
            for number, reply in enumerate(self._call(calls[first : first + CALLS_PER_TRIP]), start=first):
                for position, barrier_ms, targets, removed in reply:
                    at = number * self._keys_per_call + position
                    found.append(Joined(at, barrier_ms, [each.decode() for each in targets], removed))
        return found

    def _call(self, calls: Sequence[tuple]) -> list[Any]:
        """The replies to `calls` of the script, which a server that was restarted has to be told again."""
        with errors():
            try:
                return self._pipelined(calls)
            except NoScriptError:
                self._redis.script_load(self._text)
                return self._pipelined(calls)

    def _pipelined(self, calls: Sequence[tuple]) -> list[Any]:
        if len(calls) == 1 or self._keys_per_call == 1:
            # The client of a cluster takes no script in a pipeline.
            return [self._redis.execute_command(*call) for call in calls]
        pipe = self._redis.pipeline(transaction=False)
        for call in calls:
            pipe.execute_command(*call)
        return pipe.execute()


@contextmanager
def errors() -> Iterator[None]:
    """The store's errors for the client's."""
    try:
        yield
    except (RedisError, OSError) as error:
        # A key of another type, or a script that stumbles over what it finds: no later try will do better.
        if isinstance(error, ResponseError) and ("WRONGTYPE" in str(error) or "user_script" in str(error)):
            raise StoreCorrupted("the online store holds something else than histories") from error
        raise StoreUnavailable("the online store did not answer") from error
