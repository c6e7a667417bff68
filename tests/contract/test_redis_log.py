"""The event log on Streams in a real server: leases, bounds, lag, and what is deleted."""

import asyncio
import random
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis

from segue.adapters.event_log.redis_codec import to_id, to_offset
from segue.adapters.event_log.redis_streams import RedisLogReader
from segue.errors import InvalidSettings, LogUnavailable, Overloaded
from tests.conftest import redis_url
from tests.contract.logs import (
    CUSTOMERS,
    PARTITIONS,
    PREFIX,
    Log,
    bodies,
    ends,
    facts,
    read_all,
    read_until,
    redis_log,
)


@pytest.fixture
def streams(scratch) -> Iterator[Log]:
    """A log on Redis Streams."""
    with redis_log(scratch) as each:
        yield each


def test_a_dead_reader_is_replaced_when_its_lease_runs_out(streams):
    streams.write(facts(30))
    dead = streams.reader("dead", lease_ms=600)
    read_all(dead, 30)
    heir = streams.reader("heir")
    entries = read_until(heir, lambda: len(heir.owned) == PARTITIONS)
    entries += read_all(heir, 30 - len(entries)) if len(entries) < 30 else []
    assert bodies(entries) == [body for _, body in facts(30)]
    # Back to life it learns that it owns nothing, once, and what it has is not acked.
    assert dead.owned == frozenset(range(PARTITIONS))
    dead.ack(dict.fromkeys(range(PARTITIONS), entries[-1].offset))
    assert sum(streams.keeper().backlog().values()) == 30
    assert dead.read(100, 5_000) == []
    assert dead.owned == frozenset()


def test_a_reader_that_paused_sees_that_it_lost_its_partitions_before_it_has_them_again(streams):
    streams.write(facts(30))
    reader = streams.reader(lease_ms=100)
    read_all(reader, 30)
    time.sleep(0.15)
    assert reader.read(100, 5_000) == []
    assert reader.owned == frozenset()
    assert bodies(read_all(reader, 30)) == [body for _, body in facts(30)]


def test_reading_for_long_keeps_the_lease(streams):
    streams.write(facts(4))
    reader = streams.reader(lease_ms=1_000)
    read_all(reader, 4)
    assert reader.read(100, 1_500) == []
    assert reader.owned == frozenset(range(PARTITIONS))


def test_who_comes_back_under_its_name_has_its_partitions_at_once(streams):
    streams.write(facts(30))
    read_all(streams.reader("a", lease_ms=60_000), 30)
    assert bodies(streams.reader("a", lease_ms=60_000).read(100, 0)) == [body for _, body in facts(30)]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6])
def test_readers_have_equal_shares(streams, count):
    streams.write(facts(1))
    readers = [streams.reader(str(number), lease_ms=2_000) for number in range(count)]
    shares = sorted(PARTITIONS // count + (rank < PARTITIONS % count) for rank in range(count))
    read_until(readers[0], lambda: sorted(len(reader.owned) for reader in readers) == shares, *readers[1:])


def test_a_reader_before_the_first_writer_waits(streams):
    reader = streams.reader(lease_ms=500)
    assert reader.read(100, 50) == []
    log_id = reader.log_id
    streams.write(facts(10))
    assert bodies(read_all(reader, 10)) == [body for _, body in facts(10)]
    assert reader.log_id == log_id


def test_a_reader_and_a_keeper_need_no_log(streams):
    keeper = streams.keeper()
    assert keeper.backlog() == {}
    assert keeper.forget(CUSTOMERS).entry_count == 0
    with pytest.raises(LogUnavailable):
        keeper.append(facts(1))


def test_a_reader_of_another_number_of_partitions_is_refused(streams):
    streams.write(facts(1))
    with pytest.raises(InvalidSettings):
        streams.reader(partitions=PARTITIONS + 1).read(1, 0)


def test_a_log_made_anew_has_another_id(streams, redis):
    streams.write(facts(10))
    reader = streams.reader(lease_ms=100)
    read_all(reader, 10)
    log_id = reader.log_id
    redis.flushdb()
    streams.write(facts(10))
    with pytest.raises(LogUnavailable, match="anew"):
        read_until(reader, lambda: False)
    assert streams.reader("b").log_id != log_id


def test_a_writer_outlives_its_log(streams, redis):
    async def run():
        writer = streams.writer()
        await writer.append(facts(10))
        redis.flushdb()
        await writer.append(facts(10))
        await writer.append(facts(10, start=10))
        await writer.close()

    asyncio.run(run())
    assert bodies(read_all(streams.reader(), 20)) == [body for _, body in facts(20)]


def test_a_full_log_refuses_more_until_some_is_acked(streams):
    one = CUSTOMERS[0]
    batch = [(one, b"x")] * 10
    limits = {"partitions": 2, "capacity": 40}
    streams.write(batch, batch, **limits)
    with pytest.raises(Overloaded):
        streams.write([(one, b"y")], **limits)
    keeper = streams.keeper(capacity=40)
    with pytest.raises(Overloaded):
        keeper.append([(one, b"y")])
    assert sum(keeper.backlog().values()) == 20
    reader = streams.reader()
    entries = read_all(reader, 20)
    assert [entry.body for entry in entries] == [b"x"] * 20
    reader.ack({entries[14].partition: entries[14].offset})
    streams.write(batch, [(one, b"y")] * 5, **limits)
    with pytest.raises(Overloaded):
        streams.write([(one, b"z")], **limits)
    reader.rewind()
    assert [entry.body for entry in read_all(reader, 20)] == [b"x"] * 15 + [b"y"] * 5


def test_a_capacity_for_less_than_one_entry_a_partition_is_refused(streams):
    with pytest.raises(InvalidSettings):
        streams.write(facts(1), capacity=PARTITIONS - 1)


def test_room_is_made_of_acked_entries_only(streams, redis):
    limits = {"partitions": 1, "capacity": 1_000}
    reader = streams.reader()
    written = facts(5_000)
    came = []
    for start in range(0, 5_000, 250):
        streams.write(written[start : start + 250], **limits)
        came += read_all(reader, 250)
        if start % 1_000:
            reader.ack(ends(came))
        assert redis.xlen(f"{PREFIX}:{{0}}") <= 1_200
    assert [(entry.customer, entry.body) for entry in came] == written


def test_every_group_keeps_what_it_has_not_acked(streams):
    limits = {"partitions": 1, "capacity": 20}
    streams.write(facts(20), **limits)
    fast, slow = streams.reader(group="fast", retention_ms=0), streams.reader(group="slow", retention_ms=0)
    slow.read(0, 0)
    fast.ack(ends(read_all(fast, 20)))
    with pytest.raises(Overloaded):
        streams.write(facts(1), **limits)
    slow.ack(ends(read_all(slow, 20)))
    streams.write(facts(20), **limits)


def test_retention_trims_only_what_is_acked_and_old(streams, redis):
    stream = f"{PREFIX}:{{0}}"
    streams.write(facts(30), partitions=1)
    keeps = streams.reader("keeps", lease_ms=1_000)
    entries = read_all(keeps, 30)
    keeps.ack({0: entries[9].offset})
    assert redis.xlen(stream) == 30
    streams.close()
    trims = streams.reader("trims", lease_ms=1_000, retention_ms=0)
    time.sleep(0.01)
    assert bodies(read_all(trims, 20)) == [body for _, body in facts(20, start=10)]
    trims.ack({0: entries[14].offset})
    assert redis.xlen(stream) == 15
    # A reader that only waits trims as well.
    redis.xtrim(stream, maxlen=1_000)
    read_until(trims, lambda: redis.xlen(stream) == 15)


def test_the_group_shows_its_lag_to_standard_tools(streams, redis):
    def groups() -> list[tuple[int, int | None, int]]:
        return [(each["entries-read"], each["lag"], each["pending"]) for each in redis.xinfo_groups(f"{PREFIX}:{{0}}")]

    streams.write(facts(30), partitions=1)
    reader = streams.reader(retention_ms=0)
    entries = read_all(reader, 30)
    assert groups() == [(0, 30, 0)]
    reader.ack({0: entries[9].offset})
    assert groups() == [(10, 20, 0)]
    streams.keeper().forget([entries[20].customer])
    gone = sum(entry.customer == entries[20].customer for entry in entries[10:])
    assert groups() == [(10 + gone, None, 0)]
    assert streams.keeper().backlog() == {0: 20 - gone}
    reader.ack({0: entries[24].offset})
    left = sum(entry.customer != entries[20].customer for entry in entries[25:])
    assert streams.keeper().backlog() == {0: left}
    reader.ack({0: entries[29].offset})
    assert groups() == [(30, 0, 0)]


def test_a_group_made_by_hand_is_counted_right(streams, redis):
    stream = f"{PREFIX}:{{0}}"
    streams.write(facts(30), partitions=1)
    redis.xtrim(stream, maxlen=25, approximate=False)
    redis.xgroup_create(stream, "updater", redis.xrange(stream, count=5)[-1][0])
    reader = streams.reader()
    assert len(read_all(reader, 20)) == 20
    assert streams.keeper().backlog() == {0: 20}


def test_to_forget_removes_what_was_read_and_what_was_not(streams, redis):
    streams.write(facts(2_500))
    reader = streams.reader()
    entries = read_all(reader, 2_500)
    reader.ack(ends([entry for entry in entries if entry.body < b"fact 001000"]))
    gone = CUSTOMERS[3:5]
    count = sum(customer in gone for customer, _ in facts(2_500))
    keeper = streams.keeper()
    forgotten = keeper.forget(gone)
    assert (forgotten.entry_count, forgotten.expire_time_ms) == (count, None)
    assert keeper.forget(gone).entry_count == 0
    left = [
        fields[b"customer"]
        for partition in range(PARTITIONS)
        for _, fields in redis.xrange(f"{PREFIX}:{{{partition}}}")
    ]
    assert len(left) == 2_500 - count
    assert not {customer.encode() for customer in gone} & set(left)
    reader.rewind()
    unread = [body for customer, body in facts(1_500, start=1_000) if customer not in gone]
    assert sum(keeper.backlog().values()) == len(unread)
    assert bodies(read_all(reader, len(unread))) == unread


@pytest.mark.parametrize("seed", range(8))
def test_any_history_of_a_partition_is_that_of_a_list(streams, redis, seed):
    chance = random.Random(seed)
    limits = {"partitions": 1, "capacity": 150}
    streams.write(facts(1), **limits)
    keeper = streams.keeper(capacity=150)
    reader = streams.reader(lease_ms=60_000, retention_ms=chance.choice([0, 3_600_000]))
    # The naive log: what is not acked, how much of it was read, and the entries as they were read.
    unacked, read_count = [body for _, body in facts(1)], 0
    offsets: dict[bytes, int] = {}
    number = 1
    for _ in range(120):
        move = chance.choice(["append", "append", "read", "read", "ack", "ack", "rewind", "forget"])
        if move == "append":
            batch = facts(chance.randint(1, 30), start=number)
            if len(unacked) + len(batch) > 150:
                with pytest.raises(Overloaded):
                    keeper.append(batch)
            else:
                keeper.append(batch)
                unacked += [body for _, body in batch]
                number += len(batch)
        elif move == "read":
            count = chance.randint(1, 40)
            entries = reader.read(count, 0)
            assert [entry.body for entry in entries] == unacked[read_count : read_count + count]
            offsets |= {entry.body: entry.offset for entry in entries}
            read_count += len(entries)
        elif move == "ack" and read_count:
            count = chance.randint(1, read_count)
            reader.ack({0: offsets[unacked[count - 1]]})
            unacked, read_count = unacked[count:], read_count - count
        elif move == "rewind":
            reader.rewind()
            read_count = 0
        elif move == "forget" and chance.random() < 0.3:
            gone = chance.choice(CUSTOMERS)
            stays = [facts(1, start=int(body[5:]))[0][0] != gone for body in unacked]
            keeper.forget([gone])
            read_count = sum(stays[:read_count])
            unacked = [body for body, kept in zip(unacked, stays, strict=True) if kept]
        assert keeper.backlog() == {0: len(unacked)}
        lag = redis.xinfo_groups(f"{PREFIX}:{{0}}")[0]["lag"] if reader.owned else None
        assert lag in {None, len(unacked)}


def test_a_server_that_lost_its_scripts_gets_them_again(streams, redis):
    async def run():
        writer = streams.writer()
        await writer.append(facts(20))
        redis.script_flush()
        offsets = await writer.append(facts(20, start=20))
        await writer.close()
        return offsets

    assert asyncio.run(run())
    reader = streams.reader()
    entries = read_all(reader, 40)
    assert bodies(entries) == [body for _, body in facts(40)]
    redis.script_flush()
    reader.ack(ends(entries))
    redis.script_flush()
    assert sum(streams.keeper().backlog().values()) == 0
    redis.script_flush()
    assert streams.keeper().forget(CUSTOMERS[:1]).entry_count == 2


def test_a_clock_that_stands_still_is_carried_over(streams, redis):
    stream = f"{PREFIX}:{{0}}"
    ahead_ms = int(time.time() * 1_000) + 3_600_000
    streams.write(facts(1), partitions=1)
    redis.execute_command("XSETID", stream, f"{ahead_ms}-{(1 << 19) - 5}")
    offsets = [offset[0] for offset in streams.write(facts(3), facts(3), facts(3), partitions=1)]
    assert offsets == sorted(set(offsets))
    assert to_id(offsets[1]) == f"{ahead_ms}-{(1 << 19) + 1}"
    assert to_id(offsets[2]) == f"{ahead_ms + 1}-3"
    reader = streams.reader()
    entries = read_all(reader, 10)
    reader.ack(ends(entries))
    assert streams.keeper().backlog() == {0: 0}


def test_an_entry_that_somebody_else_put_there_is_read_as_it_is(streams, redis):
    streams.write(facts(1), partitions=1)
    redis.xadd(f"{PREFIX}:{{0}}", {"other": "x", "customer": b"\xff"})
    entry = read_all(streams.reader(), 2)[1]
    assert (entry.customer, entry.body) == ("\N{REPLACEMENT CHARACTER}", b"")


def test_a_short_socket_timeout_is_no_failure(streams, scratch):
    streams.write(facts(1))
    reader = RedisLogReader(Redis.from_url(redis_url(scratch), socket_timeout=0.6), consumer="a")
    read_all(reader, 1)
    assert reader.read(100, 1_000) == []
    reader.close()


@given(st.integers(0, 2**43 - 1), st.integers(0, 2**20 - 1))
def test_an_offset_is_a_stream_id_in_63_bits(time_ms, sequence):
    offset = to_offset(b"%d-%d" % (time_ms, sequence))
    assert to_id(offset) == f"{time_ms}-{sequence}"
    assert 0 <= offset < 2**63


def test_an_id_without_an_offset_is_an_error():
    with pytest.raises(LogUnavailable):
        to_offset(b"1700000000000-%d" % 2**20)
