"""Histories in a real server: the merge of the domain, done by the server, whatever the order of the deliveries."""

import random

import numpy as np
import pytest

from segue.adapters import histories as codec
from segue.adapters.histories import HistoryStore
from segue.errors import InvalidHistories
from segue.history import HISTORY_LIMIT, RECORD, Histories, histories_of
from tests import oracle

PREFIX = "shop:customer_history:"


@pytest.fixture
def store(redis):
    return HistoryStore(redis, PREFIX)


def union_of(log, customer):
    return oracle.union([fact.record for fact in log if fact.customer == customer])


def stored(store, customers):
    histories = store.read(customers)
    return [oracle.to_history(histories, index) for index in range(len(customers))]


def test_what_was_added_is_read_back_as_the_union(store):
    log = oracle.facts(1, customers=5, count=500)
    for start in range(0, len(log), 100):
        store.add(oracle.to_events(log[start : start + 100]))
    names = ["c03", "c00", "nobody", "c03", "c04"]
    assert stored(store, names) == [union_of(log, name) for name in names]


def test_members_are_packed_records_in_record_order(store, redis):
    log = oracle.facts(2, customers=1, count=100)
    store.add(oracle.to_events(log))
    members = redis.zrange(f"{PREFIX}c00", 0, -1, withscores=True)
    expected = histories_of(oracle.to_events(log)).records(0)
    assert [(member, int(score)) for member, score in members] == [
        (record.tobytes(), int(record["event_time_ms"])) for record in expected
    ]
    time, event_id, item, kind, value = union_of(log, "c00")[0]
    assert members[0][0] == b"".join(
        [
            event_id.to_bytes(8, "big"),
            time.to_bytes(8, "big", signed=True),
            item.to_bytes(8, "big", signed=True),
            kind.to_bytes(1, "big"),
            value.to_bytes(8, "big", signed=True),
        ]
    )


def test_any_order_any_split_and_any_number_of_deliveries_leave_the_same_bytes(redis):
    # More than a history keeps, so that the cut is under test as well.
    log = oracle.facts(3, customers=2, count=700)
    rng = random.Random(3)
    seen = set()
    for _ in range(50):
        deliveries = log + rng.choices(log, k=len(log) // 3)
        rng.shuffle(deliveries)
        store = HistoryStore(redis, PREFIX)
        while deliveries:
            size = rng.choice([1, 7, 50, 300])
            store.add(oracle.to_events(deliveries[:size]))
            deliveries = deliveries[size:]
        seen.add(tuple(tuple(redis.zrange(f"{PREFIX}{name}", 0, -1)) for name in ("c00", "c01")))
        redis.flushdb()
    (state,) = seen
    for name, members in zip(("c00", "c01"), state, strict=True):
        decoded = codec.decode([members])
        assert oracle.to_history(decoded, 0) == union_of(log, name)


def test_a_customer_with_a_thousand_events_keeps_the_newest(store, redis):
    log = oracle.facts(4, customers=1, count=1000)
    store.add(oracle.to_events(log[:600]))
    store.add(oracle.to_events(log[600:]))
    assert redis.zcard(f"{PREFIX}c00") == HISTORY_LIMIT == 256
    assert stored(store, ["c00"]) == [union_of(log, "c00")]
    # What is older than all that is kept does not come in.
    store.add(oracle.to_events([log[0]._replace(time=1, event_id=1)]))
    assert stored(store, ["c00"]) == [union_of(log, "c00")]


def test_a_limit_of_ones_own_is_kept(redis):
    log = oracle.facts(5, customers=1, count=50)
    store = HistoryStore(redis, PREFIX, limit=10)
    store.add(oracle.to_events(log))
    assert stored(store, ["c00"]) == [oracle.union([fact.record for fact in log], limit=10)]


def test_a_full_history_stays_in_the_servers_compact_encoding(store, redis):
    store.add(oracle.to_events(oracle.facts(6, customers=1, count=400)))
    assert redis.object("encoding", f"{PREFIX}c00") == b"listpack"


def test_many_customers_take_several_pipelines(store, monkeypatch):
    monkeypatch.setattr(codec, "CUSTOMERS_PER_PIPELINE", 3)
    log = oracle.facts(7, customers=10, count=200)
    store.add(oracle.to_events(log))
    names = [f"c{number:02}" for number in range(10)]
    assert stored(store, names) == [union_of(log, name) for name in names]


def test_histories_merge_into_what_is_there(store):
    left, right = (oracle.facts(seed, customers=2, count=300) for seed in (8, 9))
    store.add(oracle.to_events(left))
    events = oracle.to_events(right)
    store.merge(list(events.customers), histories_of(events))
    assert stored(store, ["c00", "c01"]) == [union_of(left + right, name) for name in ("c00", "c01")]


def test_nothing_is_nothing(store, redis):
    store.add(oracle.to_events([]))
    store.merge(["c00"], Histories.empty(1))
    store.delete([])
    assert redis.dbsize() == 0
    assert len(store.read([])) == 0


def test_there_must_be_a_customer_for_every_history(store):
    with pytest.raises(InvalidHistories, match="customers: are 1 for 2 histories"):
        store.merge(["c00"], Histories.empty(2))


def test_some_are_deleted(store):
    log = oracle.facts(10, customers=3, count=60)
    store.add(oracle.to_events(log))
    store.delete(["c00", "c02", "nobody"])
    assert stored(store, ["c00", "c01", "c02"]) == [[], union_of(log, "c01"), []]


@pytest.mark.parametrize("prefix", [PREFIX, "sh*p:", "[s-z]hop:", "s?op:", "back\\slash:"])
def test_all_under_one_prefix_are_deleted_and_no_others(redis, prefix):
    events = oracle.to_events(oracle.facts(11, customers=2, count=10))
    others = HistoryStore(redis, "shop:customer_sessions:")
    for store in (HistoryStore(redis, prefix), others):
        store.add(events)
    redis.set("shop:", b"of somebody else")
    HistoryStore(redis, prefix).delete_all()
    assert set(redis.keys()) == {b"shop:", b"shop:customer_sessions:c00", b"shop:customer_sessions:c01"}


def test_half_a_record_in_the_store_is_refused(store, redis):
    redis.zadd(f"{PREFIX}c00", {b"x" * (RECORD.itemsize - 1): 1})
    with pytest.raises(InvalidHistories, match="32 bytes are not whole records"):
        store.read(["c00"])


def test_times_before_1970_and_ids_of_any_sign_survive(store):
    fact = oracle.Fact("c00", -1, 2**64 - 1, -(2**63), 255, -(2**63))
    store.add(oracle.to_events([fact, fact._replace(time=-(2**40), item=2**63 - 1, value=2**63 - 1, event_id=0)]))
    assert stored(store, ["c00"]) == [
        union_of([fact, fact._replace(time=-(2**40), item=2**63 - 1, value=2**63 - 1, event_id=0)], "c00")
    ]
    assert store.read(["c00"]).event_time_ms.dtype == np.int64
