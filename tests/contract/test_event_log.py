"""The event log's two adapters: one suite."""

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis
from redis import asyncio as aioredis
from redis.backoff import NoBackoff
from redis.retry import Retry

from segue.adapters.event_log import LogWriter, from_token, partition_of, to_token
from segue.adapters.event_log.kafka import KafkaLogKeeper, KafkaLogReader, KafkaLogWriter
from segue.adapters.event_log.redis_streams import RedisLogKeeper, RedisLogReader, RedisLogWriter
from segue.errors import InvalidInput, InvalidSettings, LogUnavailable
from tests.conftest import free_port
from tests.contract.logs import (
    PARTITIONS,
    Log,
    bodies,
    ends,
    facts,
    kafka_log,
    mock_cluster,
    read_all,
    read_until,
    redis_log,
)


@pytest.fixture(scope="module")
def brokers() -> Iterator[str]:
    with mock_cluster() as addresses:
        yield addresses


@pytest.fixture(params=["redis", "kafka"])
def log(request) -> Iterator[Log]:
    made = redis_log if request.param == "redis" else kafka_log
    needs = request.getfixturevalue("scratch" if request.param == "redis" else "brokers")
    with made(needs) as each:
        yield each


def test_every_entry_comes_once_in_the_order_of_its_partition(log):
    written = facts(300)
    log.write(written[:100], written[100:101], written[101:])
    entries = read_all(log.reader(), 300)
    for partition in range(PARTITIONS):
        expected = [fact for fact in written if partition_of(fact[0], PARTITIONS) == partition]
        came = [entry for entry in entries if entry.partition == partition]
        assert [(entry.customer, entry.body) for entry in came] == expected
        offsets = [entry.offset for entry in came]
        assert offsets == sorted(set(offsets))
        assert offsets[0] > 0
    assert len(entries) == 300


def test_an_append_tells_the_last_offset_of_each_partition_it_wrote_to(log):
    first, second = log.write(facts(50), facts(3, start=50))
    entries = read_all(log.reader(), 53)
    assert second.keys() == {partition_of(customer, PARTITIONS) for customer, _ in facts(3, start=50)}
    assert first == ends([entry for entry in entries if entry.body < b"fact 000050"])
    assert first | second == ends(entries)
    assert all(second[partition] > first[partition] for partition in second)


def test_a_small_read_leaves_nothing_out(log):
    log.write(facts(40))
    reader = log.reader()
    entries = []
    while len(entries) < 40:
        some = reader.read(3, 200)
        assert len(some) <= 3
        entries += some
    assert bodies(entries) == [body for _, body in facts(40)]


def test_an_empty_append_and_an_empty_read_are_nothing(log):
    assert log.write([]) == [{}]
    log.write(facts(4))
    reader = log.reader()
    read_all(reader, 4)
    started = time.monotonic()
    assert reader.read(100, 200) == []
    assert 0.1 < time.monotonic() - started < 2


def test_an_entry_wakes_a_waiting_reader(log):
    log.write(facts(1))
    reader = log.reader()
    read_all(reader, 1)
    log.write(facts(1, start=1))
    started = time.monotonic()
    assert bodies(reader.read(100, 10_000)) == [b"fact 000001"]
    assert time.monotonic() - started < 5


def test_reading_goes_on_behind_the_last_ack(log):
    log.write(facts(60))
    reader = log.reader()
    log_id = reader.log_id
    entries = read_all(reader, 60)
    half = [entry for entry in entries if entry.body < b"fact 000030"]
    reader.ack(ends(half))
    log.close()
    later = log.reader("b")
    assert bodies(read_all(later, 30)) == [body for _, body in facts(30, start=30)]
    assert later.log_id == log_id


def test_rewind_reads_again_from_behind_the_last_ack(log):
    log.write(facts(60))
    reader = log.reader()
    entries = read_all(reader, 60)
    reader.rewind()
    assert bodies(read_all(reader, 60)) == bodies(entries)
    reader.ack(ends([entry for entry in entries if entry.body < b"fact 000040"]))
    log.write(facts(5, start=60))
    reader.rewind()
    assert bodies(read_all(reader, 25)) == [body for _, body in facts(25, start=40)]


def test_an_older_ack_takes_nothing_back(log):
    log.write(facts(60))
    reader = log.reader()
    entries = read_all(reader, 60)
    reader.ack(ends(entries))
    reader.ack({entry.partition: entry.offset for entry in reversed(entries)})
    reader.rewind()
    assert reader.read(100, 200) == []
    assert sum(log.keeper().backlog().values()) == 0


def test_two_readers_share_the_partitions_until_one_leaves(log):
    log.write(facts(40))
    one = log.reader("a")
    one.ack(ends(read_all(one, 40)))
    assert one.owned == frozenset(range(PARTITIONS))
    two = log.reader("b")
    read_until(one, lambda: len(one.owned) == len(two.owned) == PARTITIONS // 2, two)
    kept = one.owned
    assert not kept & two.owned
    log.write(facts(60, start=40))
    expected = facts(60, start=40)
    mine = [body for customer, body in expected if partition_of(customer, PARTITIONS) in kept]
    assert bodies(read_all(one, len(mine))) == mine
    assert len(read_all(two, 60 - len(mine))) == 60 - len(mine)
    # What the other had read and not acked comes again.
    log.opened.remove(two)
    two.close()
    entries = read_until(one, lambda: len(one.owned) == PARTITIONS)
    entries += read_all(one, 60 - len(mine) - len(entries))
    assert bodies([entry for entry in entries if entry.partition not in kept]) == sorted(
        body for customer, body in expected if partition_of(customer, PARTITIONS) not in kept
    )


def test_the_backlog_is_what_is_not_acked(log):
    keeper = log.keeper()
    log.write(facts(60))
    assert sum(keeper.backlog().values()) == 60
    reader = log.reader()
    entries = read_all(reader, 60)
    assert sum(keeper.backlog().values()) == 60
    reader.ack(ends([entry for entry in entries if entry.body < b"fact 000045"]))
    assert sum(keeper.backlog().values()) == 15
    left = {partition_of(customer, PARTITIONS) for customer, _ in facts(15, start=45)}
    assert {partition for partition, count in keeper.backlog().items() if count} == left
    assert keeper.backlog().keys() == set(range(PARTITIONS))


def test_a_job_appends_as_the_collector_does(log):
    log.write(facts(5))
    log.keeper().append(facts(20, start=5))
    entries = read_all(log.reader(), 25)
    assert bodies(entries) == [body for _, body in facts(25)]
    assert all(entry.partition == partition_of(entry.customer, PARTITIONS) for entry in entries)


def test_another_number_of_partitions_is_refused(log):
    log.write(facts(1))
    with pytest.raises(InvalidSettings) as refused:
        log.write(facts(1), partitions=PARTITIONS + 1)
    assert [violation.field for violation in refused.value.violations] == ["partitions"]


def test_a_log_that_is_away_is_a_typed_error():
    port = free_port()
    now = Retry(NoBackoff(), 0)
    options = {"log_level": 0}
    writers = [
        lambda: RedisLogWriter(aioredis.Redis(port=port, retry=now)),
        lambda: KafkaLogWriter(f"127.0.0.1:{port}", timeout_ms=200, options=options),
    ]
    for writer in writers:

        async def write(writer: Callable[[], LogWriter] = writer) -> None:
            await writer().append(facts(1))

        with pytest.raises(LogUnavailable):
            asyncio.run(write())
    reader = RedisLogReader(Redis(port=port, retry=now), consumer="a")
    with pytest.raises(LogUnavailable):
        reader.read(1, 100)
    with pytest.raises(LogUnavailable):
        _ = reader.log_id
    reader.close()
    for keeper in (
        RedisLogKeeper(Redis(port=port, retry=now)),
        KafkaLogKeeper(f"127.0.0.1:{port}", timeout_ms=200, options=options),
    ):
        with pytest.raises(LogUnavailable):
            keeper.backlog()
        with pytest.raises(LogUnavailable):
            keeper.append(facts(1))
    member = KafkaLogReader(f"127.0.0.1:{port}", consumer="a", timeout_ms=200, options=options)
    with pytest.raises(LogUnavailable):
        _ = member.log_id
    with pytest.raises(LogUnavailable):
        read_all(member, 1)
    member.close()


@given(st.dictionaries(st.integers(0, 4_095), st.integers(1, 2**63 - 1), max_size=50))
def test_a_token_brings_the_offsets_back(offsets):
    assert from_token(to_token(offsets)) == offsets


@pytest.mark.parametrize(
    "token",
    ["x", ":", "1:", ":1", "1:2:3", "1:2.", ".1:2", "1:2..3:4", "2:1.1:1", "1:1.1:2", " 1:2", "1: 2", "01:2", "+1:2",
     "1_0:2", "١:٢", "1:2\n", "1:1e3", "1:0x1", "1:" + "9" * 9_000, "\0", "💥"],
)  # fmt: skip
def test_what_is_no_token_is_refused(token):
    with pytest.raises(InvalidInput) as refused:
        from_token(token)
    assert [violation.field for violation in refused.value.violations] == ["read_after"]


@given(st.text(max_size=60))
def test_any_text_is_a_token_or_refused(text):
    try:
        offsets = from_token(text)
    except InvalidInput:
        return
    assert to_token(offsets) == text
