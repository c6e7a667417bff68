"""Dead letters in a real server."""

import asyncio
from dataclasses import replace

import pytest
from redis import Redis
from redis import asyncio as aioredis
from redis.backoff import NoBackoff
from redis.retry import Retry

from segue.adapters.dead_letters import DeadLetter, DeadLetters
from segue.adapters.event_log.redis_streams import RedisLogKeeper, RedisLogReader, RedisLogWriter
from segue.errors import InvalidInput, LogUnavailable, StoreUnavailable
from tests.conftest import free_port, redis_url

LETTERS = [
    DeadLetter(
        reason=("UNREADABLE", "FROM_THE_FUTURE")[number % 2],
        problem=f"problem {number} 🙂",
        customer=f"{number % 5:032x}",
        partition=number % 16,
        offset=2**62 + number,
        body=bytes([number % 256]) * number,
        time_ms=1_700_000_000_000 + number,
    )
    for number in range(30)
]


@pytest.fixture
def letters(redis):
    return DeadLetters(redis)


@pytest.fixture
def keeper(scratch):
    """A keeper of an empty log."""

    async def make():
        writer = RedisLogWriter(aioredis.Redis.from_url(redis_url(scratch)), partitions=4)
        await writer.append([("c" * 32, b"first")])
        await writer.close()

    asyncio.run(make())
    made = RedisLogKeeper(Redis.from_url(redis_url(scratch)))
    yield made
    made.close()


def logged(scratch) -> list[tuple[str, bytes]]:
    reader = RedisLogReader(Redis.from_url(redis_url(scratch)), consumer="a")
    entries = reader.read(10_000, 0)
    reader.close()
    return sorted((entry.customer, entry.body) for entry in entries if entry.body != b"first")


def unnumbered(found) -> list[DeadLetter]:
    return [replace(letter, id="") for letter in found]


def test_letters_are_listed_as_they_were_added(letters):
    assert (letters.list(10), letters.count()) == ([], 0)
    letters.add([])
    letters.add(LETTERS[:20])
    letters.add(LETTERS[20:])
    assert unnumbered(letters.list(1_000)) == LETTERS
    assert unnumbered(letters.list(7)) == LETTERS[:7]
    assert unnumbered(letters.list(3, reason="FROM_THE_FUTURE")) == LETTERS[1:7:2]
    assert letters.list(3, reason="OTHER") == []
    assert letters.count() == 30
    assert len({letter.id for letter in letters.list(1_000)}) == 30


def test_they_are_bounded_and_the_newest_stay(redis):
    letters = DeadLetters(redis, max_count=100)
    for _ in range(30):
        letters.add(LETTERS)
    assert 100 <= letters.count() <= 250
    assert unnumbered(letters.list(1_000))[-30:] == LETTERS


def test_more_than_a_page_is_listed_replayed_and_forgotten(letters, keeper, scratch):
    for _ in range(40):
        letters.add(LETTERS)
    assert len(letters.list(10_000)) == 1_200
    assert letters.forget([LETTERS[0].customer, LETTERS[1].customer, "nobody"]) == 480
    assert letters.forget([LETTERS[0].customer]) == 0
    assert letters.replay(keeper, None) == 720
    assert letters.count() == 0
    kept = [(letter.customer, letter.body) for letter in LETTERS if letter.customer not in {f"{0:032x}", f"{1:032x}"}]
    assert logged(scratch) == sorted(kept * 40)


def test_chosen_letters_are_replayed_once(letters, keeper, scratch):
    letters.add(LETTERS)
    found = letters.list(100)
    ids = [found[3].id, found[20].id, found[3].id, "1-1"]
    assert letters.replay(keeper, ids) == 2
    assert logged(scratch) == sorted((letter.customer, letter.body) for letter in (found[3], found[20]))
    assert [letter.id for letter in letters.list(100)] == [each.id for each in found if each.id not in ids]
    assert letters.replay(keeper, ids) == 0
    assert letters.replay(keeper, []) == 0
    assert letters.count() == 28


@pytest.mark.parametrize("wrong", ["", "*", "1", "-", "+", "1-", "-1", "1-1-1", "1-1\n", "١-١", "9" * 30 + "-0"])
def test_what_is_no_id_is_refused(letters, keeper, wrong):
    letters.add(LETTERS)
    with pytest.raises(InvalidInput) as refused:
        letters.replay(keeper, [letters.list(1)[0].id, wrong])
    assert [violation.field for violation in refused.value.violations] == ["ids[1]"]
    assert letters.count() == 30


def test_what_the_log_does_not_take_stays(letters):
    letters.add(LETTERS)
    away = RedisLogKeeper(Redis(port=free_port(), retry=Retry(NoBackoff(), 0)))
    with pytest.raises(LogUnavailable):
        letters.replay(away, None)
    assert unnumbered(letters.list(100)) == LETTERS


def test_a_store_that_is_away_is_a_typed_error(keeper):
    letters = DeadLetters(Redis(port=free_port(), retry=Retry(NoBackoff(), 0)))
    for call in (
        lambda: letters.add(LETTERS),
        lambda: letters.list(1),
        lambda: letters.replay(keeper, None),
        lambda: letters.forget(["c"]),
        letters.count,
    ):
        with pytest.raises(StoreUnavailable):
            call()
