"""How far the updater is, for callers that want to read what they wrote.

The acknowledgement of a batch names its place in the event log. Where the online store has the log merged up to that
place, an answer includes the batch. An online store is fed from one log; when that is replaced by another, what was
known of the former is forgotten, and a place in it is waited for in vain or not at all.
"""

import asyncio
import time
from typing import Any

from redis import Redis
from redis import asyncio as aioredis
from redis.exceptions import RedisError

from segue.adapters.event_log import Offsets
from segue.errors import DeadlineExceeded, StoreUnavailable

KEY = "segue:progress"

_PAUSE_SECONDS = 0.002
_PAUSE_MAX_SECONDS = 0.020

# Lua's numbers are exact to 2^53 only, so offsets, positive and without leading zeros, are compared as text.
_ADVANCE = """
if redis.call('HGET', KEYS[1], 'log_id') ~= ARGV[1] then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'log_id', ARGV[1])
end
for i = 2, #ARGV, 2 do
  local partition, offset = ARGV[i], ARGV[i + 1]
  local before = redis.call('HGET', KEYS[1], partition) or ''
  if #offset > #before or (#offset == #before and offset > before) then
    redis.call('HSET', KEYS[1], partition, offset)
  end
end
"""


class Progress:
    """The offset up to which each partition of the log is merged into the online store; it only grows.

    A hash, `segue:progress`: partition -> offset, and the id of the log. Whoever merged a partition may say so late.
    """

    def __init__(self, redis: Redis, log_id: str) -> None:
        self._log_id = log_id
        self._advance = redis.register_script(_ADVANCE)

    def advance(self, offsets: Offsets) -> None:
        """Say that everything up to `offsets` is merged; one round trip.

        Raises:
            StoreUnavailable: the online store did not answer.
        """
        if not offsets:
            return
        try:
            self._advance(keys=[KEY], args=[self._log_id, *(number for pair in offsets.items() for number in pair)])
        except RedisError as error:
            raise StoreUnavailable("the online store did not answer") from error


async def wait(redis: aioredis.Redis, offsets: Offsets, *, timeout_seconds: float) -> None:
    """Return once the online store has the log merged up to `offsets`, an unknown partition being at none.

    Raises:
        DeadlineExceeded: it has not within the timeout.
        StoreUnavailable: the online store did not answer.
    """
    if not offsets:
        return
    deadline = time.monotonic() + timeout_seconds
    pause_seconds = _PAUSE_SECONDS
    while not await _reached(redis, offsets):
        left_seconds = deadline - time.monotonic()
        if left_seconds <= 0:
            raise DeadlineExceeded("the batch that the request is to be answered from is not merged yet")
        await asyncio.sleep(min(pause_seconds, left_seconds))
        pause_seconds = min(2 * pause_seconds, _PAUSE_MAX_SECONDS)


async def _reached(redis: aioredis.Redis, offsets: Offsets) -> bool:
    try:
        reply: Any = redis.hmget(KEY, [str(partition) for partition in offsets])
        values = await reply
    except RedisError as error:
        raise StoreUnavailable("the online store did not answer") from error
    return all(
        value is not None and int(value) >= offset for value, offset in zip(values, offsets.values(), strict=True)
    )
