"""The updater with a real store and a real lake: every entry once, whatever is interrupted."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis as AsyncRedis

from segue.adapters import progress
from segue.adapters.dead_letters import DeadLetters
from segue.adapters.erasures import Receipts, State
from segue.adapters.event_log import partition_of
from segue.adapters.event_log.redis_streams import RedisLogKeeper, RedisLogWriter
from segue.adapters.histories import HistoryStore
from segue.adapters.lake import Lake
from segue.adapters.progress import Progress
from segue.adapters.refills import Refills
from segue.adapters.replay import counted_histories
from segue.customers import BARRED_MS
from segue.errors import LogUnavailable, StoreUnavailable
from services.updater.metrics import Metrics
from services.updater.updater import Pace, Stores, Updater
from tests.conftest import ROOT, free_port, redis_url
from tests.log_entries import PARTITIONS, MemoryLog, MemoryReader, consent, erasure, event, link, pseudonym

NOW = 1_000_000
PREFIX = "segue:customer_history:"


@dataclass
class World:
    """A log in memory, an online store, a lake, and updaters made over them."""

    redis: object
    lake: Lake
    log: MemoryLog = field(default_factory=MemoryLog)

    def updater(self, *, reader=None, lake=None, histories=None, **pace):
        reader = reader or MemoryReader(self.log)
        stores = Stores(
            histories or HistoryStore(self.redis, PREFIX),
            lake or self.lake,
            DeadLetters(self.redis),
            Progress(self.redis, reader.log_id),
            Receipts(self.redis),
            Refills(self.redis),
        )
        metrics = Metrics(CollectorRegistry())
        return Updater(reader, stores, pace=Pace(**pace), metrics=metrics, clock_ms=lambda: NOW)

    def run(self, **options):
        """One updater, until everything is acked."""
        updater = self.updater(**options)
        while any(self.log.acked[each] < (rows[-1].offset if rows else 0) for each, rows in self.log.entries.items()):
            updater.step(0)
            updater.flush()
        return updater

    def in_lake(self):
        """How often each (name, event time, event id) is in the lake."""
        events = self.lake.read()
        names = [int(events.customers[each], 16).to_bytes(16).lstrip(b"\0").decode() for each in events.customer]
        return Counter(zip(names, events.event_time_ms.tolist(), events.event_id.tolist(), strict=True))

    def online(self, name):
        histories = HistoryStore(self.redis, PREFIX).read([pseudonym(name)])
        return histories.event_time_ms.tolist()

    def letters(self):
        return sorted((each.reason, each.problem) for each in DeadLetters(self.redis).list(1_000))


@pytest.fixture
def world(redis, tmp_path):
    return World(redis, Lake(tmp_path / "lake"))


def some_events(seed, count=60, customers="abcdefg"):
    rng = random.Random(seed)
    return [event(rng.choice(customers), rng.randrange(1, NOW), number) for number in range(count)]


def keys_of(messages):
    names = [int(each.customer, 16).to_bytes(16).lstrip(b"\0").decode() for each in messages]
    return {(name, each.event.event_time_ms, each.event.event_id) for name, each in zip(names, messages, strict=True)}


def assert_agree(world):
    """The lake holds each event once, and says of every customer what the online store says."""
    names = sorted({entry.customer for rows in world.log.entries.values() for entry in rows})
    online = HistoryStore(world.redis, PREFIX).read(names)
    expected = counted_histories(world.lake, names)
    for position, name in enumerate(names):
        assert online.records(position).tobytes() == expected.records(position).tobytes(), name
    assert not world.in_lake() or set(world.in_lake().values()) == {1}


def test_entries_are_in_the_store_at_once_and_in_the_lake_with_the_flush(world):
    world.log.append([event("a", 5, 1), event("a", 6, 2), event("b", 7, 3)])
    updater = world.updater()
    updater.step(0)
    assert (world.online("a"), world.online("b")) == ([5, 6], [7])
    assert world.lake.version() < 0
    assert set(world.log.acked.values()) == {0}
    updater.flush()
    assert world.in_lake() == dict.fromkeys([("a", 5, 1), ("a", 6, 2), ("b", 7, 3)], 1)
    assert world.lake.read().available_time_ms.tolist() == [NOW] * 3
    partition = partition_of(pseudonym("a"), PARTITIONS)
    last = world.log.entries[partition][-1].offset
    assert world.log.acked[partition] == world.lake.offset(f"memory/{partition}") == last
    assert int(world.redis.hget(progress.KEY, partition)) == last
    assert_agree(world)


@pytest.mark.parametrize("enough", [{"flush_seconds": 0.0}, {"flush_events": 2}, {"flush_bytes": 100}])
def test_a_flush_is_due_after_a_time_or_a_number_of_events_or_bytes(world, enough):
    world.log.append(some_events(1, 20))
    updater = world.updater(max_count=5, flush_seconds=enough.pop("flush_seconds", 60), **enough)
    for _ in range(6):
        updater.step(0)
    assert world.in_lake() == dict.fromkeys(keys_of(some_events(1, 20)), 1)


STEPS = [
    (HistoryStore, "add"),
    (HistoryStore, "link"),
    (HistoryStore, "raise_barrier"),
    (Receipts, "put"),
    (DeadLetters, "add"),
    (Progress, "advance"),
    (Lake, "append_links"),
    (Lake, "append_barriers"),
    (Lake, "append"),
    (Refills, "add"),
    (MemoryReader, "ack"),
]


class Crash(BaseException):
    """What no except clause catches, as no except clause catches a SIGKILL."""


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step[0].__name__}.{step[1]}")
def test_a_crash_between_any_two_steps_neither_loses_nor_doubles(world, monkeypatch, step, after):
    messages = some_events(2, 40)
    facts = [link("b", "a"), consent("c", 500_000, granted=False), erasure("d", 600_000), event("e", NOW + 10**6)]
    world.log.append([*messages[:20], *facts, *messages[20:]])
    owner, name = step
    real, calls = getattr(owner, name), []

    def crashing(*arguments, **options):
        calls.append(name)
        if not after and len(calls) % 2:
            raise Crash
        result = real(*arguments, **options)
        if len(calls) % 2:
            raise Crash
        return result

    monkeypatch.setattr(owner, name, crashing)
    for _ in range(40):
        updater = world.updater(max_count=7)
        try:
            for _ in range(3):
                updater.step(0)
                updater.flush()
        except Crash:
            continue
    assert calls
    monkeypatch.undo()
    world.run()
    expected = {each for each in keys_of(messages) if each[0] != "c" and not (each[0] == "d" and each[1] <= 600_000)}
    # What came before its barrier may be in the lake; it does not count there.
    assert expected <= set(world.in_lake()) <= keys_of(messages)
    assert_agree(world)
    assert {reason for reason, _ in world.letters()} == {"FUTURE"}
    assert Receipts(world.redis).get("erasure").state is State.ONLINE


def test_an_entry_delivered_again_after_the_lake_had_it_is_not_appended_again(world):
    world.log.append(some_events(3))
    world.run()
    world.log.acked = dict.fromkeys(world.log.acked, 0)
    world.log.append([event("a", 1, 999)])
    world.run()
    assert world.in_lake() == dict.fromkeys(keys_of(some_events(3)) | {("a", 1, 999)}, 1)
    assert_agree(world)


def test_when_another_updater_was_first_nothing_is_doubled(world):
    world.log.append(some_events(4))
    slow = world.updater()
    slow.step(0)
    world.run()
    world.log.append([event("a", 1, 999)])
    slow.step(0)
    slow.flush()  # refused: starts over from the last ack
    slow.step(0)
    slow.flush()
    assert world.in_lake() == dict.fromkeys(keys_of(some_events(4)) | {("a", 1, 999)}, 1)
    assert_agree(world)


def test_what_was_read_from_a_lost_partition_is_dropped_and_another_takes_it(world):
    world.log.append(some_events(5))
    reader = MemoryReader(world.log)
    updater = world.updater(reader=reader)
    updater.step(0)
    reader.own([0])
    updater.step(0)
    updater.flush()
    assert {partition_of(pseudonym(name), PARTITIONS) for name, *_ in world.in_lake()} == {0}
    world.run(reader=MemoryReader(world.log, [1, 2]))
    reader.own([0, 1])  # gained again, after another had it
    world.log.append([event("a", 1, 999), event("b", 2, 998), event("c", 3, 997)])
    updater.step(0)
    updater.flush()
    world.run()
    assert set(world.in_lake()) == keys_of(some_events(5)) | {("a", 1, 999), ("b", 2, 998), ("c", 3, 997)}
    assert_agree(world)


def test_a_partition_lost_and_gained_between_two_reads_is_not_doubled(world):
    world.log.append(some_events(12))
    reader = MemoryReader(world.log)
    updater = world.updater(reader=reader)
    updater.step(0)
    reader.own([])
    reader.own(range(PARTITIONS))
    updater.step(0)
    updater.flush()
    assert world.in_lake() == dict.fromkeys(keys_of(some_events(12)), 1)
    assert_agree(world)


def test_poison_becomes_dead_letters_and_the_rest_goes_on(world):
    world.log.append([event("a", 5)])
    world.log.put(pseudonym("b"), b"\xff\xff")
    world.log.append([event("c", 6, kind=""), event("d", NOW + 60_001), event("e", NOW + 60_000)])
    world.run()
    assert [reason for reason, _ in world.letters()] == ["FUTURE", "MALFORMED", "MALFORMED"]
    assert world.in_lake() == {("a", 5, 0): 1, ("e", NOW + 60_000, 0): 1}
    assert world.online("d") == []
    assert_agree(world)


def test_a_customer_the_store_refuses_blocks_nobody(world, redis):
    redis.set(f"{PREFIX}{pseudonym('c')}", "text")
    messages = some_events(6)
    world.log.append([*messages, link("c", "a"), link("b", "a")])
    world.run()
    refused = sum(name == "c" for name, *_ in keys_of(messages))
    assert [reason for reason, _ in world.letters()] == ["STORE_CORRUPTED"] * (refused + 1)
    assert set(world.in_lake()) == {each for each in keys_of(messages) if each[0] != "c"}
    assert {target for _, target in ((each.source, each.target) for each in world.lake.links())} == {pseudonym("a")}


def test_what_a_barrier_stopped_is_not_in_the_lake(world):
    world.log.append([consent("a", 10, granted=False), erasure("b", 10)])
    world.run()
    world.log.append([event("a", 5, 1), event("a", 15, 2), event("b", 10, 3), event("b", 11, 4)])
    world.run()
    assert world.in_lake() == {("b", 11, 4): 1}
    assert world.lake.barriers() == {pseudonym("a"): BARRED_MS, pseudonym("b"): 10}
    assert_agree(world)


def test_what_a_barrier_stops_before_the_flush_does_not_get_to_the_lake(world):
    world.log.append([event("a", 5, 1), event("a", 15, 2)])
    updater = world.updater()
    updater.step(0)
    world.log.append([erasure("a", 10)])
    updater.step(0)
    updater.flush()
    assert world.in_lake() == {("a", 15, 2): 1}
    assert_agree(world)


def test_an_erasure_reaches_all_who_flow_in_and_leaves_a_receipt(world):
    world.log.append([link("a", "b"), event("a", 5, 1), event("b", 6, 2), event("b", 20, 3)])
    world.run()
    world.log.append([erasure("b", 10, "order 1")])
    world.run()
    world.log.append([link("late", "a"), event("late", 7, 4)])
    world.run()
    receipt = Receipts(world.redis).get("order 1")
    assert (receipt.state, receipt.customers, receipt.erased_at_ms) == (
        State.ONLINE,
        (pseudonym("b"), pseudonym("a")),
        10,
    )
    assert world.lake.barriers() == dict.fromkeys([pseudonym(name) for name in ("a", "b", "late")], 10)
    assert (world.online("a"), world.online("b")) == ([], [20])
    noted = Refills(world.redis).pending(before_ms=NOW + 1)
    assert set(noted) == set(world.lake.barriers())
    assert_agree(world)


class Failing:
    """Stands before another object and fails while it is told to."""

    def __init__(self, real, error):
        self.real, self.error, self.failing = real, error, True

    def __getattr__(self, name):
        if self.failing and name in {"append", "append_links", "add", "offset_", "ack", "read_"}:
            raise self.error
        return getattr(self.real, name)


@pytest.mark.parametrize("error", [OSError("no disk"), StoreUnavailable("away")])
def test_a_lake_that_is_away_stops_the_acks_but_not_the_merging_until_memory_is_full(world, error):
    world.log.append(some_events(7, 200))
    lake = Failing(world.lake, error)
    updater = world.updater(lake=lake, max_count=10, flush_seconds=0.0, flush_events=10)
    for _ in range(30):
        updater.step(0)
    assert updater.full
    merged = sum(len(world.online(name)) for name in "abcdefg")
    assert 40 <= merged <= 50
    assert set(world.log.acked.values()) == {0}
    lake.failing = False
    for _ in range(60):
        updater.step(0)
    updater.flush()
    assert world.in_lake() == dict.fromkeys(keys_of(some_events(7, 200)), 1)
    assert_agree(world)


def test_a_store_that_is_away_loses_nothing(world):
    world.log.append(some_events(8))
    histories = Failing(HistoryStore(world.redis, PREFIX), StoreUnavailable("away"))
    updater = world.updater(histories=histories)
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            updater.step(0)
    histories.failing = False
    updater.step(0)
    updater.flush()
    assert world.in_lake() == dict.fromkeys(keys_of(some_events(8)), 1)
    assert_agree(world)


def test_an_ack_that_fails_is_made_later(world, monkeypatch):
    world.log.append(some_events(9))
    updater = world.updater()
    updater.step(0)

    def away(*_):
        raise LogUnavailable("away")

    monkeypatch.setattr(MemoryReader, "ack", away)
    with pytest.raises(LogUnavailable):
        updater.flush()
    monkeypatch.undo()
    world.log.append([event("a", 1, 999)])
    updater.step(0)
    updater.flush()
    assert world.in_lake() == dict.fromkeys(keys_of(some_events(9)) | {("a", 1, 999)}, 1)
    assert all(world.log.acked[each] == rows[-1].offset for each, rows in world.log.entries.items() if rows)


def test_closing_flushes_acks_and_leaves(world):
    world.log.append(some_events(10))
    reader = MemoryReader(world.log)
    updater = world.updater(reader=reader)
    updater.step(0)
    updater.close()
    assert world.in_lake() == dict.fromkeys(keys_of(some_events(10)), 1)
    assert reader.closed


def test_one_customer_may_have_any_number_of_events(world):
    world.log.append([event("a", time, time) for time in range(1, 5_001)])
    world.run()
    assert world.online("a") == list(range(4_745, 5_001))
    assert len(world.in_lake()) == 5_000


def test_the_lake_keeps_what_no_history_holds(world):
    world.log.append([event("a", 5, kind="page_scrolled", currency="EUR", properties_json='{"x": 1}')])
    world.run()
    (row,) = world.lake.dataset().to_table().to_pylist()
    assert (row["kind"], row["item_id"], row["currency"], row["properties"]) == (
        "page_scrolled",
        "shoe",
        "EUR",
        '{"x": 1}',
    )


async def append(address, messages):
    writer = RedisLogWriter(AsyncRedis.from_url(redis_url(address)), partitions=PARTITIONS)
    try:
        return await writer.append([(each.customer, each.SerializeToString()) for each in messages])
    finally:
        await writer.close()


def test_the_process_reads_the_redis_log_and_ends_in_order(world, scratch, tmp_path):
    messages = [*some_events(11, 300), link("a", "b"), consent("c", 10**6, granted=False)]
    port = free_port()
    settings = {
        "SEGUE_UPDATER_REDIS_URL": redis_url(scratch),
        "SEGUE_UPDATER_LAKE": world.lake.root,
        "SEGUE_UPDATER_LOG_PARTITIONS": str(PARTITIONS),
        "SEGUE_UPDATER_METRICS_PORT": str(port),
        "SEGUE_UPDATER_FLUSH_SECONDS": "60",
        "SEGUE_UPDATER_MAX_COUNT": "50",
    }
    offsets = asyncio.run(append(scratch, messages))
    command = [sys.executable, "-m", "services.updater"]
    with subprocess.Popen(command, env=os.environ | settings, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            asyncio.run(merged(scratch, offsets))
            metrics = urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0, process.stderr.read()
        finally:
            process.kill()
    assert 'segue_updater_facts_total{fact="link"} 1.0' in metrics
    assert "segue_updater_backlog 302.0" in metrics
    assert not world.letters()
    kept = {each for each in keys_of(messages[:300]) if each[0] != "c"}
    assert kept <= set(world.in_lake()) <= keys_of(messages[:300])
    keeper = RedisLogKeeper(world.redis)
    assert sum(keeper.backlog().values()) == 0
    for each in messages:
        world.log.append([each])
    assert_agree(world)


async def merged(address, offsets):
    """Wait until the updater has merged up to `offsets`."""
    async with AsyncRedis.from_url(redis_url(address)) as redis:
        await progress.wait(redis, offsets, timeout_seconds=30)


def test_settings_that_do_not_allow_a_start_are_told_in_a_line():
    environment = os.environ | {"SEGUE_UPDATER_LOG": "paper", "SEGUE_UPDATER_REDIS_URL": "redis://127.0.0.1:1"}
    command = [sys.executable, "-m", "services.updater"]
    result = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.strip() == "services.updater: SEGUE_UPDATER_LOG: must be one of redis, kafka"


@pytest.mark.parametrize(
    "log",
    [
        {"SEGUE_UPDATER_REDIS_URL": "redis://127.0.0.1:1"},
        {"SEGUE_UPDATER_LOG": "kafka", "SEGUE_UPDATER_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"},
    ],
    ids=["redis", "kafka"],
)
def test_a_log_that_is_not_there_yet_is_waited_for(log, tmp_path):
    environment = os.environ | {"SEGUE_UPDATER_LAKE": str(tmp_path), "SEGUE_UPDATER_METRICS_PORT": "0"} | log
    command = [sys.executable, "-m", "services.updater"]
    with subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert any("trying again" in line for line in process.stderr)
            assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()
