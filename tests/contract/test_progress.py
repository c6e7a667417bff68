"""How far the updater is, told through a real server."""

import asyncio
import random
import time

import pytest
from redis import Redis
from redis import asyncio as aioredis
from redis.backoff import NoBackoff
from redis.retry import Retry

from segue.adapters.progress import KEY, Progress, wait
from segue.errors import DeadlineExceeded, StoreUnavailable
from tests.conftest import free_port, redis_url

LOG = "5eed"

BIG = 1_700_000_000_000 << 20
"""An offset as the log on Redis gives them, beyond what a double holds exactly."""


@pytest.fixture
def waits(scratch):
    """Calls `wait`."""

    def call(offsets, timeout_seconds, meanwhile=None):
        async def run():
            async with aioredis.Redis.from_url(redis_url(scratch)) as redis:
                waiting = asyncio.ensure_future(wait(redis, offsets, timeout_seconds=timeout_seconds))
                if meanwhile:
                    await asyncio.sleep(0.05)
                    assert not waiting.done()
                    meanwhile()
                await waiting

        asyncio.run(run())

    return call


def test_what_is_merged_is_not_waited_for(redis, waits):
    progress = Progress(redis, LOG)
    progress.advance({0: 5, 7: BIG})
    progress.advance({})
    for offsets in ({}, {0: 5}, {0: 1, 7: BIG}, {7: BIG - 1}):
        waits(offsets, 0)


def test_what_is_not_merged_is_waited_for_until_the_deadline(redis, waits):
    Progress(redis, LOG).advance({0: 5, 7: BIG})
    for offsets in ({0: 6}, {0: 5, 7: BIG + 1}, {1: 1}, {0: 5, 1: 1}):
        with pytest.raises(DeadlineExceeded):
            waits(offsets, 0.03)


def test_another_log_begins_anew(redis, waits):
    Progress(redis, LOG).advance({0: BIG})
    Progress(redis, "another").advance({0: 3})
    waits({0: 3}, 0)
    with pytest.raises(DeadlineExceeded):
        waits({0: 4}, 0)


def test_a_waiting_caller_goes_on_when_all_is_merged(redis, waits):
    progress = Progress(redis, LOG)
    progress.advance({0: 5, 1: 5})
    started = time.monotonic()
    waits({0: 9, 1: 7}, 30, meanwhile=lambda: progress.advance({0: 9, 1: 7}))
    assert time.monotonic() - started < 10


def test_it_only_grows_whatever_the_order(redis):
    numbers = [*range(1, 12), 99, 100, 101, 2**53, 2**53 + 1, BIG, BIG + 1, BIG + 2**20, 2**63 - 1]
    random.Random(1).shuffle(numbers)
    progress = Progress(redis, LOG)
    highest = 0
    for number in numbers:
        progress.advance({3: number, 4: 1})
        highest = max(highest, number)
        assert redis.hgetall(KEY) == {b"log_id": LOG.encode(), b"3": b"%d" % highest, b"4": b"1"}


def test_a_server_that_lost_its_scripts_gets_them_again(redis):
    progress = Progress(redis, LOG)
    progress.advance({0: 1})
    redis.script_flush()
    progress.advance({0: 2})
    assert redis.hgetall(KEY) == {b"log_id": LOG.encode(), b"0": b"2"}


def test_a_store_that_is_away_is_a_typed_error():
    port = free_port()

    async def run():
        await wait(aioredis.Redis(port=port, retry=Retry(NoBackoff(), 0)), {0: 1}, timeout_seconds=5)

    with pytest.raises(StoreUnavailable):
        Progress(Redis(port=port, retry=Retry(NoBackoff(), 0)), LOG).advance({0: 1})
    with pytest.raises(StoreUnavailable):
        asyncio.run(run())
