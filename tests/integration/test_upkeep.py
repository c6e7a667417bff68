"""The commands beside the stream, over a real store: replay, verify, compact, erase, dead letters, maintain."""

import asyncio
import threading

import pytest
from redis.asyncio import Redis

from segue import __main__ as command
from segue.adapters import maintenance
from segue.adapters.dead_letters import DeadLetter
from segue.adapters.erasures import Receipt, State
from segue.adapters.event_log.redis_streams import RedisLogWriter
from segue.adapters.maintenance import Job
from segue.adapters.upkeep import Upkeep
from segue.customers import Link
from segue.errors import LakeConflict
from tests import oracle

NOW = 1_780_000_000_000
LONG_AGO = 1_700_000_000_000
SECRET, COOKIE = "5ec2e7" * 5 + "00", "c00c1e" * 5 + "00"


@pytest.fixture
def upkeep(tmp_path, redis, scratch):
    return Upkeep.of(tmp_path, scratch)


@pytest.fixture
def segue(tmp_path, scratch, capsys):
    """Runs the command; returns its status and what it printed."""

    def run(*arguments):
        stored = ["--redis", scratch] if arguments[0] != "compact" else []
        status = command.main(["--home", str(tmp_path), *arguments, *stored])
        return status, "".join(capsys.readouterr())

    return run


@pytest.fixture
def log(upkeep):
    names = {"c00": SECRET, "c01": COOKIE}
    facts = oracle.facts(1, customers=5, count=200, now=NOW)
    facts = [fact._replace(customer=names.get(fact.customer, fact.customer)) for fact in facts]
    upkeep.lake.append(oracle.to_events(facts))
    upkeep.lake.append_links([Link(COOKIE, SECRET, NOW)])
    return facts


def test_replay_and_verify(segue, upkeep, log):
    status, text = segue("verify", "--settle-seconds", "0")
    assert status == 1
    assert "5 of at most 1000 histories differ, 0 are in flight" in text
    status, text = segue("replay")
    assert (status, f"{len(log)} events merged" in text) == (0, True)
    assert segue("verify") == (0, "0 of at most 1000 histories differ, 0 are in flight\n")
    upkeep.histories.delete([SECRET])
    status, text = segue("verify", "--sample", "10", "--settle-seconds", "0")
    assert status == 1
    assert f"{SECRET}: differs, 0 only online, " in text
    assert segue("replay", "--since", "2020-01-01", "--fresh")[0] == 0
    assert segue("verify")[0] == 0
    status, text = segue("replay", "--since", "7d")
    assert "events merged" in text


def test_compact(segue, upkeep, log):
    upkeep.lake.append(oracle.to_events(log))
    assert "copy_count=" in segue("compact")[1]
    assert segue("compact", "--no-sort", "--retention-hours", "0")[0] == 0
    assert len(upkeep.lake.read()) < 2 * len(log)


def test_erase(segue, upkeep, log):
    segue("replay")
    entries = [(name, b"body") for name in (SECRET, COOKIE, "c02", SECRET)]

    async def append():
        async with Redis.from_url(redis_url_of(upkeep)) as client:
            await RedisLogWriter(client).append(entries)

    asyncio.run(append())
    upkeep.letters.add([DeadLetter("MALFORMED", "no", name, 0, 1, b"", NOW) for name in (COOKIE, "c02")])
    status, text = segue("erase", SECRET)
    assert status == 0
    (receipt,) = [upkeep.erasures.receipts.get(key.decode().rsplit(":", 1)[1]) for key in erasure_keys(upkeep)]
    assert str(receipt) in text
    assert set(receipt.customers) == {SECRET, COOKIE}
    assert (receipt.log_entry_count, receipt.dead_letter_count) == (3, 1)
    assert receipt.lake_event_count == sum(fact.customer in {SECRET, COOKIE} for fact in log)
    assert segue("verify")[0] == 0


def test_dead_letters(segue, upkeep):
    upkeep.letters.add([DeadLetter(reason, "is odd", "c02", 3, 9, b"body", NOW) for reason in ("ODD", "STRANGE")])
    text = segue("dead-letters")[1]
    assert ["ODD 3:9 c02 is odd" in text, "STRANGE 3:9 c02 is odd" in text] == [True, True]
    assert "STRANGE" not in segue("dead-letters", "list", "--reason", "ODD")[1]
    first = upkeep.letters.list(1)[0].id
    status, text = segue("dead-letters", "replay", "--id", "wrong")
    assert (status, "is not the id of a dead letter" in text) == (2, True)

    async def describe():
        async with Redis.from_url(redis_url_of(upkeep)) as client:
            await RedisLogWriter(client).append([("c02", b"body")])

    asyncio.run(describe())
    assert "1 put back into the event log" in segue("dead-letters", "replay", "--id", first)[1]
    assert "1 put back into the event log" in segue("dead-letters", "replay")[1]
    assert upkeep.letters.count() == 0
    assert sum(upkeep.log.backlog().values()) in {0, 3}


def test_the_jobs_run_once_when_nothing_is_said(upkeep, log, monkeypatch):
    told = []
    upkeep.refills.add(["c02"], now_ms=1)
    upkeep.histories.erase(SECRET, NOW)
    upkeep.erasures.receipts.put(Receipt("e1", State.ONLINE, (SECRET, COOKIE), LONG_AGO))
    jobs = maintenance.jobs(upkeep.erasures, upkeep.refills, lambda: 7)
    assert maintenance.run(jobs, every_seconds=None, stopping=threading.Event(), tell=told.append) == 0
    assert [line.partition(":")[0] for line in told] == [
        "erasures",
        "refills",
        "item statistics",
        "sorting",
        "compaction",
    ]
    assert told[:3] == ["erasures: 1 completed", "refills: 1 customers", "item statistics: 7 items"]
    assert upkeep.refills.pending(before_ms=NOW * 2) == {}
    assert upkeep.erasures.receipts.get("e1").state is State.DONE


def test_without_a_lake_there_is_nothing_to_do(upkeep):
    told = []
    jobs = maintenance.jobs(upkeep.erasures, upkeep.refills, lambda: 7)
    assert maintenance.run(jobs, every_seconds=None, stopping=threading.Event(), tell=told.append) == 0
    assert told == []


def test_a_job_that_fails_does_not_keep_the_others_and_is_tried_again():
    stopping, told, runs = threading.Event(), [], []

    def failing():
        runs.append("failing")
        raise LakeConflict("appends came too close")

    def second():
        runs.append("second")
        if len(runs) == 6:
            stopping.set()
        return ""

    jobs = [Job("first", 0, failing), Job("rare", 1e9, lambda: "done"), Job("second", 0, second)]
    assert maintenance.run(jobs, every_seconds=0.001, stopping=stopping, tell=told.append) == 3
    assert runs == ["failing", "second"] * 3
    assert told.count("first: failed, LAKE_CONFLICT: appends came too close") == 3
    assert told.count("rare: done") == 1


def test_item_statistics_reach_the_online_store(filled_repo):
    from segue.adapters.feast import pipeline
    from segue.adapters.lake import Lake
    from segue.features.snapshots import ITEM_STATS
    from tests import snapshot_oracle
    from tests.conftest import SETTLED, at

    until = SETTLED + oracle.DAY
    count = pipeline.refresh_item_statistics(filled_repo.home, filled_repo.store, until=at(until))
    wanted = snapshot_oracle.item_stats(filled_repo.log, until)
    assert count == len(wanted)
    names = [feature.name for feature in ITEM_STATS]
    items = sorted(wanted)[:50]
    answer = filled_repo.store.get_online_features(
        [f"item_stats:{name}" for name in names], [{"item": item} for item in items]
    ).to_dict()
    for index, item in enumerate(items):
        assert {name: answer[name][index] for name in names} == wanted[item]
    assert Lake(filled_repo.home / "lake").version() > 0
    (filled_repo.home / "snapshots" / "item_stats" / "latest.parquet").unlink()


def erasure_keys(upkeep):
    return list(upkeep.redis.scan_iter(match="segue:erasure:*"))


def redis_url_of(upkeep):
    arguments = upkeep.redis.connection_pool.connection_kwargs
    return f"redis://{arguments['host']}:{arguments['port']}/{arguments['db']}"
