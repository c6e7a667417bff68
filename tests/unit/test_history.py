"""Histories merge like sets, and are what the naive oracle says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.errors import InvalidHistories
from segue.events import Kind
from segue.history import (
    HISTORY_LIMIT,
    RECORD,
    RECORD_COLUMNS,
    Histories,
    Timelines,
    before,
    collect,
    merge,
    resolve,
)
from tests import oracle

LIMIT = 5

# Few distinct values, so that ties, copies and conflicting copies are common.
records = st.tuples(
    st.integers(-3, 12),  # time
    st.sampled_from([0, 1, 2, 2**64 - 1]),  # event id
    st.sampled_from([-(2**63), -1, 0, 1]),  # item
    st.sampled_from([0, 1, 255]),  # kind
    st.sampled_from([-1, 0, 7]),  # value
)
histories = st.lists(records, max_size=12)


def build(*lists, limit=LIMIT):
    row = np.repeat(np.arange(len(lists)), [len(each) for each in lists])
    flat = [record for each in lists for record in each]
    time, event_id, item, kind, value = zip(*flat, strict=True) if flat else ([], [], [], [], [])
    columns = {
        "event_time_ms": np.array(time, np.int64),
        "event_id": np.array(event_id, np.uint64),
        "item": np.array(item, np.int64),
        "kind": np.array(kind, np.uint8),
        "value_minor": np.array(value, np.int64),
    }
    return collect(row, len(lists), columns, limit)


def plain(batch):
    return [oracle.to_history(batch, index) for index in range(len(batch))]


@given(histories, histories)
def test_merge_is_what_the_oracle_says(left, right):
    merged = merge(build(left), build(right), limit=LIMIT)
    assert plain(merged) == [oracle.union(oracle.union(left, limit=LIMIT), right, limit=LIMIT)]


@given(histories, histories)
def test_merge_is_commutative(left, right):
    assert plain(merge(build(left), build(right), limit=LIMIT)) == plain(merge(build(right), build(left), limit=LIMIT))


@given(histories, histories, histories)
def test_merge_is_associative(a, b, c):
    one = merge(merge(build(a), build(b), limit=LIMIT), build(c), limit=LIMIT)
    other = merge(build(a), merge(build(b), build(c), limit=LIMIT), limit=LIMIT)
    assert plain(one) == plain(other)


@given(histories)
def test_merge_is_idempotent(history):
    once = build(history)
    assert plain(merge(once, once, limit=LIMIT)) == plain(once)


@given(histories, st.randoms(use_true_random=False))
def test_any_order_and_any_number_of_deliveries_give_the_same_history(history, random):
    deliveries = history + random.choices(history, k=len(history)) if history else []
    random.shuffle(deliveries)
    state = Histories.empty(1)
    while deliveries:
        size = random.randint(1, 4)
        state = merge(state, build(deliveries[:size]), limit=LIMIT)
        deliveries = deliveries[size:]
    assert plain(state) == [oracle.union(history, limit=LIMIT)]


@given(histories, histories, st.integers(-4, 13))
def test_what_was_erased_never_comes_back(left, right, erased_at):
    at = np.array([erased_at])
    merged = merge(
        merge(build(left), build(right), limit=LIMIT, erased_at_ms=at), build(left), limit=LIMIT, erased_at_ms=at
    )
    assert plain(merged) == [oracle.union(left, right, limit=LIMIT, erased_at=erased_at)]


@given(st.lists(histories, min_size=1, max_size=4))
def test_histories_of_one_batch_do_not_touch(batch):
    assert plain(build(*batch)) == [oracle.union(history, limit=LIMIT) for history in batch]


@given(histories)
def test_one_record_counts_for_each_event_id(history):
    assert plain(resolve(build(history))) == [oracle.resolved(oracle.union(history, limit=LIMIT))]


@given(histories)
def test_packed_records_read_back_and_sort_by_their_bytes_within_a_millisecond(history):
    batch = build(history)
    packed = batch.records(0)
    assert plain(Histories.from_records([packed.tobytes()])) == plain(batch)
    members = [(int(record["event_time_ms"]), record.tobytes()) for record in packed]
    assert members == sorted(members)


@given(histories, st.integers(-4, 13))
def test_before_is_strict(history, now):
    kept = plain(before(build(history), np.array([now])))[0]
    assert kept == [record for record in oracle.union(history, limit=LIMIT) if record[0] < now]


def test_a_record_is_33_bytes():
    assert RECORD.itemsize == 33


def test_half_a_record_is_refused():
    with pytest.raises(InvalidHistories, match=r"histories\[1\]: 32 bytes are not whole records"):
        Histories.from_records([b"", b"x" * 32])


def test_batches_of_different_length_do_not_merge():
    with pytest.raises(InvalidHistories, match="right: has 2 histories, left has 1"):
        merge(Histories.empty(1), Histories.empty(2))


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.sampled_from([3, 20, HISTORY_LIMIT]))
def test_as_of_is_what_the_online_system_knew(seed, limit):
    log = oracle.facts(seed, customers=3, count=120)
    timelines = Timelines.of(oracle.to_events(log))
    names = list(timelines.events.customers)
    rng = np.random.default_rng(seed)
    rows = rng.integers(-1, len(names), 40)
    times = rng.choice([fact.time + shift for fact in log for shift in (0, 1)], 40)
    found = timelines.as_of(rows, times, limit=limit)
    for index, (row, time) in enumerate(zip(rows, times, strict=True)):
        facts = [fact for fact in log if row >= 0 and fact.customer == names[row]]
        assert oracle.to_history(found, index) == oracle.as_of(facts, time, limit=limit)


def test_as_of_looks_past_any_number_of_records_not_yet_available():
    late = [oracle.Fact("c", time, time, 1, int(Kind.PRODUCT_VIEWED), 0, 10_000) for time in range(100, 400)]
    early = [oracle.Fact("c", time, time, 1, int(Kind.PRODUCT_VIEWED), 0, time) for time in range(100)]
    timelines = Timelines.of(oracle.to_events(late + early))
    found = timelines.as_of(np.array([0]), np.array([500]), limit=10)
    assert found.event_time_ms.tolist() == list(range(90, 100))


def test_an_empty_log_has_empty_histories():
    timelines = Timelines.of(oracle.to_events([]))
    found = timelines.as_of(np.array([-1, -1]), np.array([5, 6]))
    assert len(found) == 2
    assert all(len(getattr(found, name)) == 0 for name in RECORD_COLUMNS)
