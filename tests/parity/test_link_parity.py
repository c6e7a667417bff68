"""Linked customers: histories and snapshots from the lake are what the naive oracle says of all that flows in."""

import random

import numpy as np
import pyarrow.parquet as pq
import pytest

from segue.adapters.counted_events import CountedEvents
from segue.adapters.history_features import histories_as_of
from segue.adapters.lake import Lake
from segue.adapters.snapshots import write_item_stats, write_snapshots
from segue.customers import BARRED_MS, Barrier, Link
from tests import oracle, snapshot_oracle

NOW = 1_780_000_000_000


def counted(log, links, barriers):
    """The facts as they count: own ones, and copies along every path, each with the time it became known there."""

    def spread(fact, customer, available, barrier, path):
        barrier = max(barrier, barriers.get(customer, -(2**63)))
        if fact.time <= barrier:
            return
        yield fact._replace(customer=customer, available=available)
        for link in links:
            if link.source == customer and link.target not in path:
                known = max(available, link.available_time_ms)
                yield from spread(fact, link.target, known, barrier, {*path, link.target})

    return [copy for fact in log for copy in spread(fact, fact.customer, fact.available, -(2**63), {fact.customer})]


def world(seed):
    """A log of some customers, links at random times among them and others, and barriers."""
    rng = random.Random(seed)
    log = oracle.facts(seed, customers=9, count=700, now=NOW)
    names = [f"c{number:02}" for number in range(9)] + ["", "only-linked", "zz"]
    links = [
        Link(
            rng.choice(names),
            rng.choice(names),
            NOW - rng.choice([0, 100 * oracle.DAY, rng.randrange(60 * oracle.DAY)]),
        )
        for _ in range(rng.choice([0, 6, 12]))
    ]
    levels = [BARRED_MS, NOW - 40 * oracle.DAY, rng.choice(log).time]
    barriers = {name: rng.choice(levels) for name in rng.sample(names, rng.choice([0, 2, 4]))}
    return log, links, barriers


def fill(lake, log, links, barriers):
    half = len(log) // 2
    for part in (log[:half], log[half:]):
        lake.append(oracle.to_events(part))
    lake.append_links(links)
    lake.append_barriers(
        [
            Barrier(name, denied_at_ms=NOW) if at == BARRED_MS else Barrier(name, erased_at_ms=at)
            for name, at in barriers.items()
        ]
    )


@pytest.mark.parametrize("seed", range(12))
def test_linked_histories_as_of_any_time_are_what_the_oracle_says(tmp_path, seed):
    log, links, barriers = world(seed)
    lake = Lake(tmp_path / "lake")
    fill(lake, log, links, barriers)
    facts = counted(log, links, barriers)
    rng = random.Random(seed + 100)
    times = [NOW + 5 * oracle.DAY, *(fact.available for fact in facts), *(link.available_time_ms for link in links)]
    asked = [
        (rng.choice(["only-linked", "zz", "", *{fact.customer for fact in log}]), rng.choice(times)) for _ in range(80)
    ]
    customers, t_ms = [name for name, _ in asked], np.array([t for _, t in asked])
    for max_events in (300, 10**9):
        found = {}
        for positions, histories in histories_as_of(lake, customers, t_ms, max_events=max_events):
            found |= {at: oracle.to_history(histories, index) for index, at in enumerate(positions.tolist())}
        assert len(found) == len(asked)
        for position, (name, t) in enumerate(asked):
            mine = [fact for fact in facts if fact.customer == name]
            assert found[position] == oracle.as_of(mine, t), (name, t)


@pytest.mark.parametrize("seed", range(4))
def test_everyone_for_whom_something_counts_is_a_customer(tmp_path, seed):
    log, links, barriers = world(seed)
    lake = Lake(tmp_path / "lake")
    fill(lake, log, links, barriers)
    facts = counted(log, links, barriers)
    names = CountedEvents(lake).customers()
    assert names == sorted(set(names))
    assert {fact.customer for fact in facts} <= set(names)
    wanted = {name: [fact for fact in facts if fact.customer == name] for name in names}
    for first, past in CountedEvents(lake).customer_ranges(200):
        part = CountedEvents(lake).read(first_customer=first, past_customer=past)
        inside = [name for name in names if (first is None or name >= first) and (past is None or name < past)]
        assert {part.customers[code] for code in part.customer} <= set(inside)
        some = CountedEvents(lake).read_of(inside)
        for events in (part, some):
            keys = zip(events.customers[events.customer], events.event_id.tolist(), strict=True)
            assert set(keys) == {(fact.customer, fact.event_id) for name in inside for fact in wanted[name]}


def test_snapshots_count_linked_events_for_customers_but_once_for_items(tmp_path):
    log, links, barriers = world(3)
    links += [Link("c00", "c01", 0), Link("c01", "only-linked", 0)]
    lake = Lake(tmp_path / "lake")
    fill(lake, log, links, barriers)
    cut = NOW - oracle.DAY
    write_snapshots(lake, tmp_path, [cut], max_events=500)
    facts = counted(log, links, barriers)
    paths = sorted((tmp_path / "customer_lifetime").glob("*.parquet"))
    found = {row["customer"]: row for path in paths for row in pq.read_table(path).to_pylist()}
    for name in {fact.customer for fact in facts}:
        wanted = snapshot_oracle.lifetime([fact for fact in facts if fact.customer == name], cut)
        assert (name in found) == (wanted is not None)
        if wanted:
            assert {key: found[name][key] for key in wanted} == wanted
    own = [fact for fact in log if fact.time > barriers.get(fact.customer, -(2**63))]
    wanted = snapshot_oracle.item_stats(own, cut)
    for path in (tmp_path / "item_stats" / f"{cut}.parquet", write_item_stats(lake, tmp_path, cut, max_events=300)):
        rows = {row["item"]: row for row in pq.read_table(path).to_pylist()}
        assert {item: {key: rows[item][key] for key in counts} for item, counts in wanted.items()} == wanted
        assert rows.keys() == wanted.keys()
