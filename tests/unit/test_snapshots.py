"""Snapshots are what the naive oracle says, from a whole log or by ranges of customers."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.adapters.lake import Lake
from segue.adapters.snapshots import write_snapshots
from segue.features import snapshots
from segue.history import Timelines
from tests import oracle, snapshot_oracle

NOW = 1_780_000_000_000

CUTS = [NOW - 95 * oracle.DAY, NOW - 3 * oracle.DAY, NOW - oracle.HOUR, NOW, NOW + 10 * oracle.DAY]


def by_id(found, features):
    """Rows by entity, as the oracle has them."""
    ids, values = found
    names = [feature.name for feature in features]
    return {each: dict(zip(names, row, strict=True)) for each, row in zip(ids.tolist(), values.tolist(), strict=True)}


def lifetimes(log, cut):
    names = sorted({fact.customer for fact in log})
    totals = {name: snapshot_oracle.lifetime([fact for fact in log if fact.customer == name], cut) for name in names}
    return {name: each for name, each in totals.items() if each is not None}


logs = st.builds(
    lambda seed, count: oracle.facts(seed, customers=4, count=count, now=NOW),
    st.integers(0, 2**32),
    st.sampled_from([0, 1, 150]),
)


@settings(max_examples=20, deadline=None)
@given(logs, st.sampled_from(CUTS), st.integers(-1, 1))
def test_totals_of_customers_are_what_the_oracle_says(log, cut, shift):
    events = Timelines.of(oracle.to_events(log)).events
    present, totals = snapshots.customer_lifetime(events, cut + shift)
    names = events.customers[present]
    assert by_id((names, totals), snapshots.CUSTOMER_LIFETIME) == lifetimes(log, cut + shift)
    assert totals.dtype == np.int64


@settings(max_examples=20, deadline=None)
@given(logs, st.sampled_from(CUTS), st.integers(-1, 1))
def test_counts_of_items_are_what_the_oracle_says(log, cut, shift):
    events = Timelines.of(oracle.to_events(log)).events
    items, counts = snapshots.item_stats(events, cut + shift)
    assert by_id((items, counts), snapshots.ITEM_STATS) == snapshot_oracle.item_stats(log, cut + shift)
    assert items.tolist() == sorted(items.tolist())
    assert counts.shape == (len(items), len(snapshots.ITEM_STATS))


@settings(max_examples=15, deadline=None)
@given(logs, st.sampled_from(CUTS))
def test_counts_of_two_parts_of_a_log_add_up(log, cut):
    parts = [
        snapshots.item_stats(Timelines.of(oracle.to_events(part)).events, cut)
        for part in ([fact for fact in log if fact.customer < "c02"], [fact for fact in log if fact.customer >= "c02"])
    ]
    both = by_id(snapshots.add_item_stats(*parts), snapshots.ITEM_STATS)
    assert both == snapshot_oracle.item_stats(log, cut)


def test_events_of_one_id_count_once():
    view = oracle.Fact("c", NOW, 1, 5, 1, 0, NOW)
    events = Timelines.of(oracle.to_events([view, view._replace(time=NOW + 1)])).events
    _, totals = snapshots.customer_lifetime(events, NOW + 10)
    assert totals[0, 0] == 1
    _, counts = snapshots.item_stats(events, NOW + 10)
    assert counts[0].max() == 1


@pytest.fixture(scope="module")
def log():
    return oracle.facts(3, customers=12, count=400, now=NOW)


@pytest.fixture(scope="module")
def lake(log, tmp_path_factory):
    lake = Lake(tmp_path_factory.mktemp("lake"))
    lake.append(oracle.to_events(log))
    return lake


def written(directory, entity):
    """Rows by entity of each cut in ms, in the files of one view."""
    found = {}
    for path in directory.glob("*.parquet"):
        for row in pq.read_table(path).to_pylist():
            times = {int(row.pop(name).timestamp() * 1000 + 0.5) for name in ("event_timestamp", "created_timestamp")}
            (cut,) = times
            rows = found.setdefault(cut, {})
            key = row.pop(entity)
            assert key not in rows, "an entity is twice in one snapshot"
            rows[key] = row
    return found


@pytest.mark.parametrize("max_events", [1, 100, 10**9])
def test_files_hold_every_cut(lake, log, tmp_path, max_events):
    shares = []
    write_snapshots(lake, tmp_path, CUTS, max_events=max_events, progress=shares.append)
    expected = {cut: lifetimes(log, cut) for cut in CUTS}
    assert written(tmp_path / "customer_lifetime", "customer") == {cut: each for cut, each in expected.items() if each}
    stats = {cut: snapshot_oracle.item_stats(log, cut) for cut in CUTS}
    assert written(tmp_path / "item_stats", "item") == {cut: each for cut, each in stats.items() if each}
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_writing_a_cut_again_replaces_it_and_leaves_the_others(lake, log, tmp_path):
    write_snapshots(lake, tmp_path, CUTS[:4], max_events=10**9)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")}
    write_snapshots(lake, tmp_path, CUTS[2:], max_events=10**9)
    after = {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")}
    assert {path: after[path] for path in before} == before
    assert len(after) == len(before) + 2


def test_a_cut_written_again_by_other_ranges_holds_nobody_twice(lake, log, tmp_path):
    for max_events in (1, 10**9, 100):
        write_snapshots(lake, tmp_path, [NOW], max_events=max_events)
    assert written(tmp_path / "customer_lifetime", "customer") == {NOW: lifetimes(log, NOW)}


def test_no_cut_writes_nothing(lake, tmp_path):
    write_snapshots(lake, tmp_path, [])
    assert list(tmp_path.rglob("*")) == []
