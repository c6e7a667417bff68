"""The log in any order, cut anywhere, with any number of copies, leaves one state of the online store: the oracle's.

What is not order-proof is told here by what the logs leave out. What a customer did after giving consent again is
dropped for good when it is delivered before the news of the withdrawal or of the consent: here it comes after both. A
history that was full, or held an equal record of its own, gets back only from the event lake what left it when a
barrier took back what had flowed in: whoever a barred customer flows into has neither.
"""

import itertools
import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segue.adapters.erasures import Receipts
from segue.adapters.event_log import Entry
from segue.adapters.histories import HistoryStore
from segue.customers import Barrier
from segue.events import NO_ITEM, Kind, item_id
from segue.features import table
from segue.history import HISTORY_LIMIT
from services.updater.merging import Merging
from tests import oracle
from tests.log_entries import consent, erasure, event, link, pseudonym

PREFIX = "segue:customer_history:"
NOW = 1_780_000_000_000

LINKS = [
    *("ab", "bc", "ca"),  # in a circle
    *("cd", "de", "ef"),  # out of it along a chain; f's history is full of what others did
    *("af", "gg"),
    *("io", "jo", "lk", "nl", "kp"),  # into and out of customers that are barred
]
DENIED = [("i", NOW - oracle.DAY)]
DENIED_THEN_GRANTED = [("j", NOW - 40 * oracle.DAY, NOW - 20 * oracle.DAY)]
ERASED = [("k", NOW - 30 * oracle.DAY), ("l", NOW - 10 * oracle.DAY), ("n", NOW - 60 * oracle.DAY)]


def facts():
    """What the customers a to p did: copies, conflicting copies, ties; h alone did more than a history keeps."""
    names = {f"c{number:02}": name for number, name in enumerate("abcdefgijklmnop")}
    log = [fact._replace(customer=names[fact.customer]) for fact in oracle.facts(1, customers=15, count=640, now=NOW)]
    busy = oracle.facts(2, customers=1, count=280, now=NOW)
    log += [fact._replace(customer="h", event_id=fact.event_id + 10_000) for fact in busy]
    # The log tells items by name.
    return [fact._replace(item=item_id(str(fact.item)) if fact.item != NO_ITEM else NO_ITEM) for fact in log], [
        event(
            fact.customer,
            fact.time,
            fact.event_id,
            kind=Kind(fact.kind).label,
            item=str(fact.item) if fact.item != NO_ITEM else "",
            value_minor=fact.value,
        )
        for fact in log
    ]


def pieces_of(events):
    """What is delivered, in pieces whose inner order stays."""
    pieces = [[link(source, target)] for source, target in LINKS]
    pieces += [[consent(name, at, granted=False)] for name, at in DENIED]
    pieces += [[erasure(name, at, f"of {name}")] for name, at in ERASED]
    for name, denied, granted in DENIED_THEN_GRANTED:
        after = [each for each in events if each.customer == pseudonym(name) and each.event.event_time_ms > granted]
        assert after
        events = [each for each in events if each not in after]
        pieces.append([consent(name, denied, granted=False), consent(name, granted, granted=True), *after])
    return pieces + [[each] for each in events]


def barriers():
    """The barriers in force once all is delivered."""
    registers = {name: Barrier(name, erased_at_ms=at) for name, at in oracle.erased(LINKS, ERASED).items()}
    consents = [Barrier(name, denied_at_ms=at) for name, at in DENIED]
    consents += [Barrier(name, denied_at_ms=denied, granted_at_ms=at) for name, denied, at in DENIED_THEN_GRANTED]
    for each in consents:
        registers[each.customer] = registers.get(each.customer, Barrier(each.customer)).merge(each)
    return {name: barrier.effective_ms for name, barrier in registers.items()}


def deliver(redis, messages, cuts):
    """Merge `messages` in micro-batches of the sizes that `cuts` yields; returns the store."""
    store = HistoryStore(redis, PREFIX)
    merging = Merging(store, Receipts(redis), future_skew_ms=oracle.DAY, clock_ms=lambda: NOW)
    entries = [
        Entry(0, offset, message.customer, message.SerializeToString())
        for offset, message in enumerate(messages, start=1)
    ]
    while entries:
        size = next(cuts)
        assert not merging.merge(entries[:size]).letters
        entries = entries[size:]
    return store


def state(redis):
    """All that the store holds about customers, byte for byte."""
    found = {}
    for key in redis.keys(f"*{PREFIX}*"):
        match redis.type(key):
            case b"zset":
                found[key] = redis.zrange(key, 0, -1, withscores=True)
            case b"hash":
                found[key] = redis.hgetall(key)
            case b"set":
                found[key] = redis.smembers(key)
    return found


@pytest.mark.parametrize("seeds", [range(20), pytest.param(range(20, 200), marks=pytest.mark.slow)], ids=["20", "180"])
def test_two_hundred_orders_end_in_one_state_and_it_is_the_oracles(redis, seeds):
    done, events = facts()
    pieces = pieces_of(events)
    assert len(events) >= 990
    names = sorted({fact.customer for fact in done})
    in_force = barriers()
    expected = {name: oracle.linked(name, done, LINKS, in_force) for name in names}
    assert [len(expected[name]) for name in "fh"] == [HISTORY_LIMIT] * 2
    everything = [fact.customer for fact in done]
    assert all(sum(map(everything.count, into)) < HISTORY_LIMIT for into in ("oij", "pkln"))
    assert expected["i"] == []
    first = None
    for seed in seeds:
        rng = random.Random(seed)
        delivered = pieces + rng.choices(pieces, k=len(pieces) // 5)
        rng.shuffle(delivered)
        redis.flushdb()
        messages = [message for piece in delivered for message in piece]
        store = deliver(redis, messages, iter(rng.choices([1, 20, 150, 400], k=len(messages))))
        histories = store.read([pseudonym(name) for name in names])
        computed = table.compute(histories, np.full(len(names), NOW))
        if first is None:
            first = state(redis), computed
        assert state(redis) == first[0]
        assert np.array_equal(computed, first[1], equal_nan=True)
    assert {name: oracle.to_history(histories, row) for row, name in enumerate(names)} == expected
    for row, name in enumerate(names):
        wanted = oracle.features(expected[name], NOW)
        for feature, found in zip(table.FEATURES, computed[row], strict=True):
            assert oracle.same(found, wanted[feature.name]), (name, feature.name)


people = st.sampled_from("abcd")
moments = st.integers(1, 9)


@st.composite
def small_logs(draw):
    """Events, links, withdrawals and erasures, some of them twice, in any order, and where to cut."""
    did = draw(st.lists(st.tuples(people, moments), max_size=8))
    # A number for each: nobody did the very same as somebody else.
    did = [(name, time, number) for number, (name, time) in enumerate(did)]
    links = draw(st.lists(st.tuples(people, people), max_size=6))
    denied = draw(st.lists(st.tuples(people, moments), max_size=1))
    erased = draw(st.lists(st.tuples(people, moments), max_size=2))
    messages = [event(*each) for each in did] + [link(*each) for each in links]
    messages += [consent(*each, granted=False) for each in denied] + [erasure(*each) for each in erased]
    again = draw(st.lists(st.sampled_from(messages), max_size=4)) if messages else []
    order = draw(st.permutations(messages + again))
    return did, links, denied, erased, order, draw(st.integers(1, 5))


@given(small_logs())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_small_log_ends_where_the_oracle_does(redis, log):
    did, links, denied, erased, order, size = log
    redis.flushdb()
    store = deliver(redis, order, itertools.repeat(size))
    barriers = oracle.erased(links, erased) | {name: 10**15 for name, _ in denied}
    done = [oracle.Fact(name, time, number, item_id("shoe"), Kind.PRODUCT_VIEWED, 0) for name, time, number in did]
    expected = [oracle.linked(name, done, links, barriers) for name in "abcd"]
    found = histories_of(store)
    if denied:
        # One's own event that went around in a circle through somebody barred is taken back too: what is missing is
        # merged again from the lake, and nothing is ever there that should not be.
        assert all(set(some) <= set(all_of) for some, all_of in zip(found, expected, strict=True))
        store.add(oracle.to_events([fact._replace(customer=pseudonym(fact.customer)) for fact in done]))
        found = histories_of(store)
    assert found == expected


def histories_of(store):
    histories = store.read([pseudonym(name) for name in "abcd"])
    return [oracle.to_history(histories, row) for row in range(4)]
