"""The online store from the lake: what replays and the updater's path leave is the lake's history, byte for byte."""

import random

import numpy as np
import pytest

from segue.adapters import replay as replaying
from segue.adapters.counted_events import CountedEvents
from segue.adapters.histories import HistoryStore
from segue.adapters.lake import Lake
from segue.adapters.replay import Mismatch, counted_histories, refill, replay, verify
from segue.customers import Barrier, Link
from tests import oracle
from tests.parity.test_link_parity import counted

NOW = 1_780_000_000_000
LATER = NOW + oracle.DAY


@pytest.fixture
def lake(tmp_path):
    return Lake(tmp_path / "lake")


@pytest.fixture
def histories(redis):
    return HistoryStore(redis, "segue:customer_history:")


def world(seed):
    """A log in which two customers have more than a history holds, links and barriers among the customers."""
    rng = random.Random(seed)
    log = oracle.facts(seed, customers=12, count=600, now=NOW) + oracle.facts(
        50 + seed, customers=2, count=700, now=NOW
    )
    names = [*sorted({fact.customer for fact in log}), "only-linked"]
    links = [Link(*rng.sample(names, 2), NOW - rng.randrange(oracle.DAY)) for _ in range(8)]
    barriers = [Barrier(name, erased_at_ms=rng.choice(log).time) for name in rng.sample(names, 3)]
    barriers += [Barrier(names[0], denied_at_ms=LATER), Barrier(names[3], denied_at_ms=5, granted_at_ms=log[0].time)]
    return log, links, barriers


def fill(lake, log, links, barriers):
    """As the updater would: what erases a customer also erases who flows into them."""
    erased = {barrier.customer: barrier.erased_at_ms for barrier in barriers if barrier.erased_at_ms}
    grown = True
    while grown:
        before = dict(erased)
        for link in links:
            if link.target in erased:
                erased[link.source] = max(erased.get(link.source, 0), erased[link.target])
        grown = erased != before
    lake.append_barriers([*barriers, *(Barrier(name, erased_at_ms=at) for name, at in erased.items())])
    lake.append_links(links)
    lake.append(oracle.to_events(log))


def online(histories, names):
    found = histories.read(names)
    return {name: found.records(index).tobytes() for index, name in enumerate(names)}


@pytest.mark.parametrize("seed", range(4))
def test_a_replay_leaves_the_lakes_histories(lake, histories, seed):
    log, links, barriers = world(seed)
    fill(lake, log, links, barriers)
    shares = []
    assert replay(lake, histories, max_events=400, progress=shares.append) == len(log)
    assert shares[-1] == 1.0
    names = CountedEvents(lake).customers()
    expected = counted_histories(lake, names)
    facts = counted(log, links, lake.barriers())
    for index, name in enumerate(names):
        wanted = oracle.union([fact.record for fact in facts if fact.customer == name])
        assert oracle.to_history(expected, index) == wanted
    assert online(histories, names) == {name: expected.records(at).tobytes() for at, name in enumerate(names)}
    assert verify(lake, histories, sample=10**6) == []
    replay(lake, histories, fresh=seed % 2 == 0)
    assert verify(lake, histories, sample=10**6) == []


def test_a_fresh_replay_takes_away_what_the_lake_does_not_hold(lake, histories):
    log, links, barriers = world(7)
    fill(lake, log, links, barriers)
    stranger = oracle.Fact("c05", LATER - 1, 10**6, 1, 1, 1)
    histories.add(oracle.to_events([stranger, stranger._replace(customer="not-in-the-lake")]))
    replay(lake, histories)
    assert "c05" in {each.customer for each in verify(lake, histories, sample=10**6)}
    replay(lake, histories, fresh=True)
    assert verify(lake, histories, sample=10**6) == []
    assert online(histories, ["not-in-the-lake"]) == {"not-in-the-lake": b""}


def test_a_replay_since_a_time_is_of_the_customers_touched_since(lake, histories):
    old = [fact._replace(available=1) for fact in oracle.facts(1, customers=4, count=50, now=NOW)]
    new = [oracle.Fact("c01", NOW, 10**6, 1, 1, 1, available=NOW)]
    lake.append(oracle.to_events(old + new))
    assert replay(lake, histories, since_ms=NOW) == sum(fact.customer == "c01" for fact in old + new)
    names = lake.customers()
    present = {name for name, packed in online(histories, names).items() if packed}
    assert present == {"c01"}
    assert {each.customer for each in verify(lake, histories)} == set(names) - {"c01"}


def test_an_empty_lake_is_replayed_in_no_time(lake, histories):
    assert replay(lake, histories) == 0
    lake.append_barriers([Barrier("a", erased_at_ms=7)])
    assert replay(lake, histories) == 0
    assert histories.barriers(["a"]) == {"a": 7}


def test_a_mismatch_is_told_from_what_is_on_its_way(lake, histories):
    log = [fact._replace(available=fact.time) for fact in oracle.facts(1, customers=5, count=100, now=NOW)]
    lake.append(oracle.to_events(log))
    replay(lake, histories)
    flushed_ms = max(fact.time for fact in log)
    coming = oracle.Fact("c01", flushed_ms + 1, 10**6, 1, 1, 1)
    wrong = oracle.Fact("c02", flushed_ms - 1, 10**6, 1, 1, 1)
    histories.add(oracle.to_events([coming, wrong]))
    histories.delete(["c03"])
    count = len(oracle.union([fact.record for fact in log if fact.customer == "c03"]))
    assert verify(lake, histories) == [
        Mismatch("c01", 1, 0, in_flight=True),
        Mismatch("c02", 1, 0, in_flight=False),
        Mismatch("c03", 0, count, in_flight=False),
    ]


def test_what_gets_to_the_lake_meanwhile_is_no_mismatch(lake, histories, monkeypatch):
    log = oracle.facts(1, customers=5, count=100, now=NOW)
    late = [oracle.Fact("c01", NOW - oracle.DAY, 10**6, 1, 1, 1)]
    lake.append(oracle.to_events(log))
    replay(lake, histories)
    histories.add(oracle.to_events(late))
    slept = []

    def flush(seconds):
        slept.append(seconds)
        lake.append(oracle.to_events(late))

    monkeypatch.setattr(replaying.time, "sleep", flush)
    assert verify(lake, histories, settle_seconds=7.5) == []
    assert slept == [7.5]


def test_a_sample_is_drawn_by_its_seed(lake, histories):
    lake.append(oracle.to_events(oracle.facts(1, customers=30, count=200, now=NOW)))
    samples = [[each.customer for each in verify(lake, histories, sample=5, seed=seed)] for seed in (0, 0, 1)]
    assert samples[0] == samples[1] != samples[2]
    assert len(set(samples[0])) == 5


def test_a_refill_gives_back_what_an_erased_customer_had_pushed_out(lake, histories):
    mine = [oracle.Fact("known", NOW - 1000 + n, n, 1, 1, 1, NOW) for n in range(300)]
    theirs = [oracle.Fact("anonymous", NOW + n, 1000 + n, 1, 1, 1, NOW) for n in range(200)]
    links = [Link("anonymous", "known", NOW)]
    fill(lake, mine + theirs, links, [])
    replay(lake, histories)
    assert verify(lake, histories) == []
    gone = Barrier("anonymous", erased_at_ms=LATER)
    lake.append_barriers([gone])
    histories.raise_barrier(gone)
    assert [each.customer for each in verify(lake, histories)] == ["known"]
    assert refill(lake, histories, ["anonymous"]) == ["anonymous", "known"]
    assert verify(lake, histories) == []
    assert np.diff(histories.read(["known"]).offsets).tolist() == [256]
