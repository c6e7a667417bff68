"""Histories in a real server: the merge of the domain, done by the server, whatever the order of the deliveries."""

import random

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from segue.adapters import histories as codec
from segue.adapters.histories import HistoryStore
from segue.adapters.history_script import HistoryScript
from segue.customers import BARRED_MS, Barrier
from segue.errors import InvalidHistories, InvalidInput, StoreCorrupted, StoreUnavailable
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


def test_many_customers_take_several_calls_and_trips(redis):
    store = HistoryStore(redis, PREFIX, customers_per_call=1)
    log = oracle.facts(7, customers=50, count=400)
    store.add(oracle.to_events(log))
    names = [f"c{number:02}" for number in range(50)]
    assert stored(store, names) == [union_of(log, name) for name in names]


def test_a_server_that_forgot_the_script_is_told_again(store, redis):
    log = oracle.facts(12, customers=250, count=600)
    store.add(oracle.to_events(log[:300]))
    redis.script_flush()
    store.add(oracle.to_events(log[300:]))
    redis.script_flush()
    assert store.raise_barrier(Barrier("c00", denied_at_ms=1)) == BARRED_MS
    assert stored(store, ["c00", "c01"]) == [[], union_of(log, "c01")]


def view(customer, time, number=0):
    return oracle.Fact(customer, time, number, 7, 1, 0)


def add(store, *facts):
    return store.add(oracle.to_events(list(facts)))


def times(store, customer):
    return store.read([customer]).event_time_ms.tolist()


# Links.


def test_what_a_source_did_and_will_do_counts_for_the_target(store):
    add(store, view("anonymous", 1), view("known", 2))
    assert store.link("anonymous", "known") == []
    add(store, view("anonymous", 3), view("known", 4))
    assert times(store, "known") == [1, 2, 3, 4]
    assert times(store, "anonymous") == [1, 3]
    assert store.targets("anonymous") == ["anonymous", "known"]
    assert store.sources("known") == ["known", "anonymous"]


def test_linking_again_or_to_oneself_changes_nothing(store, redis):
    add(store, view("a", 1))
    store.link("a", "a")
    assert set(redis.keys()) == {f"{PREFIX}a".encode()}
    for _ in range(2):
        store.link("a", "b")
    assert times(store, "b") == [1]


def test_links_chain_in_any_order(store):
    add(store, view("a", 1), view("b", 2), view("c", 3))
    store.link("b", "c")
    store.link("a", "b")
    add(store, view("a", 4))
    assert (times(store, "a"), times(store, "b"), times(store, "c")) == ([1, 4], [1, 2, 4], [1, 2, 3, 4])
    assert store.sources("c") == ["c", "b", "a"]


def test_links_may_run_in_a_circle(store):
    for source, target in ("ab", "bc", "ca"):
        store.link(source, target)
    add(store, view("a", 1), view("b", 2))
    assert all(times(store, name) == [1, 2] for name in "abc")


def test_what_flows_in_is_cut_to_the_newest_too(redis):
    store = HistoryStore(redis, PREFIX, limit=5)
    store.link("a", "b")
    add(store, *(view("a", time) for time in range(1, 9)), *(view("b", time) for time in (2, 20)))
    assert times(store, "b") == [5, 6, 7, 8, 20]


def test_one_may_flow_into_so_many_and_no_more(store, monkeypatch):
    monkeypatch.setattr(codec, "MAX_REACHED", 3)
    for target in "bcd":
        store.link("a", target)
    with pytest.raises(InvalidInput, match="a would flow into more than 3 customers"):
        store.link("a", "e")
    assert store.targets("a") == ["a", "b", "c", "d"]
    store.link("z", "y")
    # Whoever is linked to a later flows into all of those: refused when it acts, and nobody else with it.
    monkeypatch.setattr(codec, "MAX_REACHED", 10)
    store.link("x", "a")
    monkeypatch.setattr(codec, "MAX_REACHED", 3)
    with pytest.raises(InvalidInput, match="x would flow"):
        add(store, view("x", 1), view("z", 2), view("a", 3))
    assert (times(store, "x"), times(store, "y"), times(store, "d")) == ([1], [2], [3])


# Barriers.


def test_what_is_at_or_before_a_barrier_goes_and_never_comes_back(store):
    add(store, view("a", 4), view("a", 5), view("a", 6))
    assert store.raise_barrier(Barrier("a", erased_at_ms=5)) == 5
    assert times(store, "a") == [6]
    assert add(store, view("a", 5), view("a", 7), view("b", 1)) == {"a": 5}
    assert times(store, "a") == [6, 7]
    assert store.barriers(["a", "b"]) == {"a": 5}


def test_a_barrier_only_rises(store):
    store.raise_barrier(Barrier("a", erased_at_ms=5))
    assert store.raise_barrier(Barrier("a", erased_at_ms=3)) == 5


def test_without_consent_there_is_no_history(store):
    add(store, view("a", 1))
    assert store.raise_barrier(Barrier("a", denied_at_ms=2)) == BARRED_MS
    assert times(store, "a") == []
    assert add(store, view("a", 3)) == {"a": BARRED_MS}
    assert times(store, "a") == []
    assert store.raise_barrier(Barrier("a", granted_at_ms=4)) == 4
    add(store, view("a", 4), view("a", 5))
    assert times(store, "a") == [5]


def test_consent_of_somebody_who_never_withdrew_it_is_no_barrier(store):
    add(store, view("a", 1))
    assert store.raise_barrier(Barrier("a", granted_at_ms=9)) is None
    assert times(store, "a") == [1]
    assert store.raise_barrier(Barrier("a", denied_at_ms=5)) == 9


@given(st.lists(st.builds(Barrier, st.just("a"), *[st.none() | st.integers(0, 9)] * 3), max_size=4))
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_servers_barrier_is_the_domains(store, redis, raised):
    redis.flushdb()
    merged = Barrier("a")
    for barrier in raised:
        merged = merged.merge(barrier)
        assert store.raise_barrier(barrier) == merged.effective_ms
    assert store.barriers(["a"]).get("a") == merged.effective_ms


def test_barriers_stop_what_flows_through(store):
    store.link("a", "b")
    store.link("b", "c")
    store.raise_barrier(Barrier("b", erased_at_ms=5))
    add(store, view("a", 5), view("a", 6))
    assert [times(store, name) for name in "abc"] == [[5, 6], [6], [6]]


def test_a_way_around_a_barrier_is_taken(store):
    # a flows into d through b, which is barred, and by a longer way, which is not.
    for source, target in ("ab", "bd", "ac", "ce", "ed"):
        store.link(source, target)
    store.raise_barrier(Barrier("b", denied_at_ms=1))
    add(store, view("a", 5))
    assert [times(store, name) for name in "abcde"] == [[5], [], [5], [5], [5]]


def test_what_had_flowed_on_is_taken_back(store):
    for source, target in ("ab", "bc", "xc"):
        store.link(source, target)
    add(store, view("a", 1), view("b", 2), view("c", 3), view("x", 1))
    assert times(store, "c") == [1, 2, 3]
    store.raise_barrier(Barrier("b", erased_at_ms=9))
    # x did the very same: that still counts.
    assert [times(store, name) for name in "abcx"] == [[1], [], [1, 3], [1]]


def test_what_went_around_through_somebody_barred_is_mended_by_merging_again(store):
    store.link("a", "b")
    store.link("b", "a")
    add(store, view("a", 1), view("b", 2))
    store.raise_barrier(Barrier("b", denied_at_ms=1))
    assert times(store, "a") == []  # its own 1 had come back through b
    add(store, view("a", 1), view("b", 2))
    assert (times(store, "a"), times(store, "b")) == ([1], [])


def test_a_barrier_that_rises_while_something_flows_through_stops_it(store, monkeypatch):
    store.link("a", "b")
    store.link("b", "c")
    join, calls = HistoryScript.join, []

    def interrupted(script, keys, records, registers=()):
        calls.append(keys)
        if keys == [f"{PREFIX}c"] and len(calls) == 3:
            HistoryStore(store._redis, PREFIX).raise_barrier(Barrier("b", erased_at_ms=9))
        return join(script, keys, records, registers)

    monkeypatch.setattr(HistoryScript, "join", interrupted)
    add(store, view("a", 1), view("a", 10))
    assert [times(store, name) for name in "abc"] == [[1, 10], [10], [10]]


def test_what_others_did_counts_again_with_consent(store):
    store.link("a", "b")
    store.raise_barrier(Barrier("b", denied_at_ms=1))
    add(store, view("a", 5))
    store.raise_barrier(Barrier("b", granted_at_ms=3))
    assert times(store, "b") == [5]


def test_an_erasure_holds_for_all_who_flow_in_whenever_they_were_linked(store):
    store.link("a", "b")
    add(store, view("a", 1), view("b", 2), view("late", 3), view("later", 4))
    assert store.erase("b", 9) == ["b", "a"]
    assert store.link("late", "b") == [Barrier("late", erased_at_ms=9)]
    assert store.link("later", "late") == [Barrier("later", erased_at_ms=9)]
    assert all(times(store, name) == [] for name in ("a", "b", "late", "later"))
    assert store.barriers(["a", "b", "late", "later"]) == dict.fromkeys(["a", "b", "late", "later"], 9)


def test_barriers_and_links_outlive_histories(store):
    add(store, view("a", 1))
    store.link("a", "b")
    store.raise_barrier(Barrier("a", erased_at_ms=5))
    store.delete(["a"])
    store.delete_all()
    assert add(store, view("a", 5), view("a", 6)) == {"a": 5}
    assert times(store, "b") == [6]


# What is wrong with the server.


def test_a_key_of_another_type_is_told_and_does_no_harm_to_others(store, redis):
    redis.set(f"{PREFIX}b", "text")
    with pytest.raises(StoreCorrupted):
        add(store, view("b", 1))
    with pytest.raises(StoreCorrupted):
        store.read(["b"])
    add(store, view("a", 1))
    assert times(store, "a") == [1]


def test_a_server_that_is_away_is_told():
    store = HistoryStore(Redis(port=1, retry=Retry(NoBackoff(), 0)), PREFIX)
    for call in (
        lambda: add(store, view("a", 1)),
        lambda: store.read(["a"]),
        lambda: store.link("a", "b"),
        lambda: store.raise_barrier(Barrier("a", erased_at_ms=1)),
        lambda: store.sources("a"),
        store.delete_all,
    ):
        with pytest.raises(StoreUnavailable):
            call()


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_order_of_events_links_and_erasures_ends_where_the_oracle_does(store, redis, data):
    redis.flushdb()
    names = st.sampled_from("abcd")
    events = data.draw(st.lists(st.builds(view, names, st.integers(1, 9), st.integers(0, 3)), max_size=8))
    links = data.draw(st.lists(st.tuples(names, names), max_size=6))
    erasures = data.draw(st.lists(st.tuples(names, st.integers(1, 9)), max_size=2))
    steps = [(add, (store, event)) for event in events]
    steps += [(store.link, link) for link in links]
    steps += [(store.erase, erasure) for erasure in erasures]
    # One's own record that equals one taken back is lost until the lake is merged again: draw none.
    assume(len({event.record for event in events}) == len(events))
    for step, arguments in data.draw(
        st.permutations(steps + data.draw(st.lists(st.sampled_from(steps))) if steps else [])
    ):
        step(*arguments)
    barriers = oracle.erased(links, erasures)
    assert store.barriers("abcd") == barriers
    assert stored(store, "abcd") == [oracle.linked(name, events, links, barriers) for name in "abcd"]
