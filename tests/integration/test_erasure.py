"""An erasure reaches store, log, dead letters and lake, whatever dies on the way, and says what it did."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest
from redis.asyncio import Redis

from segue.adapters import erasures, lake_jobs
from segue.adapters.batch_views import BatchViews
from segue.adapters.erasure_job import ErasureJob
from segue.adapters.erasures import Receipt, Receipts, State, from_fields, to_fields
from segue.adapters.event_log import Forgotten
from segue.adapters.histories import HistoryStore
from segue.adapters.lake import Lake
from segue.adapters.replay import replay, verify
from segue.customers import Barrier, Link
from segue.errors import BundleError, StoreCorrupted
from tests import oracle
from tests.conftest import redis_url

NOW = 1_780_000_000_000
LATER = NOW + oracle.DAY
SECRET, COOKIE, FRIEND = "5ec2e7" * 5 + "00", "c00c1e" * 5 + "00", "f21e4d" * 5 + "00"


class Log:
    """Holds two entries and one letter of each customer, once."""

    def __init__(self, expire_time_ms=None):
        self.expire_time_ms = expire_time_ms
        self.forgotten = []

    def forget(self, customers):
        new = [name for name in customers if name not in self.forgotten]
        self.forgotten += new
        return Forgotten(2 * len(new), self.expire_time_ms)


class Letters:
    def __init__(self):
        self.forgotten = []

    def forget(self, customers):
        new = [name for name in customers if name not in self.forgotten]
        self.forgotten += new
        return len(new)


class Bundles:
    """Models by tag, newest first, with the time up to which each was trained."""

    def __init__(self, cuts):
        self.cuts = cuts

    def tags(self):
        return list(self.cuts)

    def get(self, tag):
        if self.cuts[tag] is None:
            raise BundleError(f"bundle {tag}: cannot be read")
        return SimpleNamespace(manifest=SimpleNamespace(data_cut_ms=self.cuts[tag]))


@pytest.fixture
def lake(tmp_path):
    return Lake(tmp_path / "lake")


@pytest.fixture
def job(tmp_path, lake, redis):
    bundles = Bundles({"purchase_7d:c": LATER, "next_item:broken": None, "purchase_7d:b": NOW - 400 * oracle.DAY})
    views = BatchViews(tmp_path / "snapshots", tmp_path / "plans", redis)
    histories = HistoryStore(redis, "segue:customer_history:")
    return ErasureJob(lake, histories, Receipts(redis), Log(), Letters(), views, bundles)


@pytest.fixture
def log(lake, job):
    """A log in lake and store: the erased customer, their cookie, a friend into whom both flow, and others."""
    facts = oracle.facts(1, customers=6, count=400, now=NOW)
    names = {"c00": SECRET, "c01": COOKIE, "c02": FRIEND}
    facts = [fact._replace(customer=names.get(fact.customer, fact.customer)) for fact in facts]
    lake.append_links([Link(COOKIE, SECRET, NOW), Link(SECRET, FRIEND, NOW)])
    lake.append(oracle.to_events(facts))
    replay(lake, job.histories)
    assert verify(lake, job.histories) == []
    return facts


def mentions(root, text):
    files = (path for path in Path(root).rglob("*") if path.is_file())
    return {path.relative_to(root).parts[0] for path in files if text.encode() in path.read_bytes()}


def online(job, erasure_id="e1"):
    """What the updater does when it reads the order."""
    gone = job.histories.erase(SECRET, LATER)
    job.receipts.put(Receipt(erasure_id, State.ONLINE, (SECRET, COOKIE), LATER))
    return gone


def test_an_erasure_reaches_everything(job, lake, log):
    online(job)
    (receipt,) = job.run()
    count = sum(fact.customer in {SECRET, COOKIE} for fact in log)
    assert receipt == Receipt(
        "e1",
        State.DONE,
        (SECRET, COOKIE),
        LATER,
        done_time_ms=receipt.done_time_ms,
        lake_event_count=count,
        log_entry_count=4,
        dead_letter_count=2,
        model_versions=("next_item:broken", "purchase_7d:c"),
    )
    assert receipt.done_time_ms
    assert job.receipts.get("e1") == receipt
    assert job.receipts.pending() == []
    # The tombstone stays: up to when, and that they are linked, which holds for what comes later.
    assert mentions(lake.root, SECRET) == mentions(lake.root, COOKIE) == {"barriers", "links"}
    assert lake.read(customers=[SECRET, COOKIE]).customer.tolist() == []
    assert verify(lake, job.histories) == []
    assert [len(job.histories.read([name]).item) for name in (SECRET, COOKIE)] == [0, 0]
    assert len(job.histories.read([FRIEND]).item) > 0


def test_what_was_erased_does_not_come_back_by_a_replay(job, lake, log):
    online(job)
    job.run()
    late = [fact for fact in log if fact.customer == COOKIE][:20]
    lake.append(oracle.to_events(late))  # an updater that had them in hand
    for fresh in (False, True):
        replay(lake, job.histories, fresh=fresh)
        assert len(job.histories.read([SECRET, COOKIE]).item) == 0
        assert verify(lake, job.histories) == []
    assert lake_jobs.compact(lake).forgotten_count == len(late)


@pytest.mark.parametrize("step", ["log", "letters", "lake", "refill"])
def test_a_job_that_dies_is_simply_run_again(job, lake, log, step, monkeypatch):
    online(job)

    def die(*_args, **_options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if step == "lake":
            patch.setattr("segue.adapters.erasure_job.lake_jobs.erase", die)
        elif step == "refill":
            patch.setattr("segue.adapters.erasure_job.replay.refill", die)
        else:
            patch.setattr(getattr(job, step), "forget", die)
        with pytest.raises(KeyboardInterrupt):
            job.run()
    assert [each.erasure_id for each in job.receipts.pending()] == ["e1"]
    (receipt,) = job.run()
    assert receipt.state is State.DONE
    assert receipt.model_versions == ("next_item:broken", "purchase_7d:c")
    assert (receipt.log_entry_count, receipt.dead_letter_count) == (4, 2)
    assert receipt.lake_event_count == sum(fact.customer in {SECRET, COOKIE} for fact in log)
    assert verify(lake, job.histories) == []


def test_a_customer_is_erased_by_hand_with_all_who_flow_into_them(job, lake, log):
    receipt = job.order("by-hand", SECRET, LATER)
    assert receipt.state is State.DONE
    assert set(receipt.customers) == {SECRET, COOKIE}
    assert lake.barriers() == {SECRET: LATER, COOKIE: LATER}
    assert verify(lake, job.histories) == []


def test_a_log_that_cannot_delete_says_when_the_last_copy_expires(job, lake, log):
    job.log.expire_time_ms = LATER + 7
    assert job.order("e1", SECRET, LATER).log_expire_time_ms == LATER + 7


def test_somebody_nobody_has_seen_is_erased_too(job):
    receipt = job.order("e1", SECRET, LATER)
    assert (receipt.state, receipt.lake_event_count, receipt.model_versions) == (State.DONE, 0, ())
    assert job.lake.barriers() == {SECRET: LATER}


FULL = Receipt("e1", State.DONE, ("a", "b"), 5, 6, 7, 8, 9, 10, ("m:1", "n:2"))
BARE = Receipt("e2", State.ORDERED, (), 5)


@pytest.mark.parametrize("receipt", [FULL, BARE])
def test_a_receipt_is_read_as_it_was_written(receipt, redis, scratch):
    fields = {name.encode(): value.encode() for name, value in to_fields(receipt).items()}
    assert from_fields(fields) == receipt
    Receipts(redis).put(receipt)
    assert 360 * 86_400 < redis.ttl(f"segue:erasure:{receipt.erasure_id}") <= 366 * 86_400

    async def ask(erasure_id):
        async with Redis.from_url(redis_url(scratch)) as client:
            return await erasures.get(client, erasure_id)

    assert asyncio.run(ask(receipt.erasure_id)) == receipt
    assert asyncio.run(ask("another")) is None


def test_a_state_never_goes_back(redis):
    receipts = Receipts(redis)
    receipts.put(FULL)
    receipts.put(Receipt("e1", State.ONLINE, ("a", "b"), 5))
    assert receipts.get("e1") == FULL
    assert receipts.pending() == []


def test_pending_erasures_are_those_gone_online_only(redis):
    receipts = Receipts(redis)
    for state in State:
        receipts.put(Receipt(state.name, state, (), 5))
    receipts.put(Receipt("earlier", State.ONLINE, (), 3))
    assert [each.erasure_id for each in receipts.pending()] == ["earlier", "ONLINE"]


@pytest.mark.parametrize("wrong", [{b"state": b"9"}, {b"erased_at_ms": b"soon"}])
def test_a_receipt_that_is_none_is_called_corrupt(wrong):
    fields = {name.encode(): value.encode() for name, value in to_fields(FULL).items()}
    with pytest.raises(StoreCorrupted, match="an erasure receipt cannot be read"):
        from_fields(fields | wrong)
    with pytest.raises(StoreCorrupted):
        from_fields({})


def test_a_barrier_before_the_end_leaves_what_came_later(job, lake, log):
    times = sorted(fact.time for fact in log if fact.customer == SECRET)
    cut = times[len(times) // 2]
    job.order("e1", SECRET, cut)
    kept = {(fact.customer, fact.time) for fact in log if fact.customer in {SECRET, COOKIE} and fact.time > cut}
    events = lake.read(customers=[SECRET, COOKIE])
    found = zip(events.customers[events.customer].tolist(), events.event_time_ms.tolist(), strict=True)
    assert set(found) == kept
    assert lake.barrier_registers()[SECRET] == Barrier(SECRET, erased_at_ms=cut)
    assert verify(lake, job.histories) == []
