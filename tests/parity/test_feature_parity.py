"""Offline, online and the naive oracle give the same value for every feature of every row."""

import asyncio
import random
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from segue.adapters import plan_files
from segue.adapters.plan_reader import PlanReader
from segue.features import table
from segue.features.snapshots import CUSTOMER_LIFETIME, ITEM_STATS
from segue.history import histories_of
from segue.inference.answers import Status
from tests import oracle, snapshot_oracle
from tests.conftest import NOW, SETTLED, at, environment, forget, open_store, redis_url

LIFETIME_TTL, STATS_TTL = 60 * oracle.DAY, 14 * oracle.DAY
BEHAVIOUR = [feature.name for feature in table.FEATURES]
LIFETIME = [feature.name for feature in CUSTOMER_LIFETIME]
STATS = [feature.name for feature in ITEM_STATS]
NOBODY = "nobody"


@pytest.fixture(scope="module")
def facts_of(filled_repo):
    return filled_repo.facts_of() | {NOBODY: []}


@pytest.fixture(scope="module")
def expected(filled_repo, facts_of):
    """What propensity_v1 is of a customer at a time, by name, None for null."""

    def row(customer, t):
        facts = facts_of[customer]
        cut = snapshot_oracle.newest_cut(filled_repo.cuts_ms, t, LIFETIME_TTL)
        totals = None if cut is None else snapshot_oracle.lifetime(facts, cut)
        return oracle.features(oracle.as_of(facts, t), t) | (totals or dict.fromkeys(LIFETIME))

    return row


@pytest.fixture(scope="module")
def pairs(filled_repo):
    """1,000 random (customer, time) pairs: among and beside the log's own times, at cuts and ttls, some twice."""
    rng = random.Random(5)
    edges = [time for fact in filled_repo.log for time in (fact.time, fact.available)]
    edges += [cut + ttl for cut in filled_repo.cuts_ms for ttl in (0, LIFETIME_TTL)]
    times = [rng.choice([NOW - rng.randrange(100 * oracle.DAY), rng.choice(edges), SETTLED]) for _ in range(950)]
    drawn = [(rng.choice([*filled_repo.customers, NOBODY]), t + rng.choice([-1, 0, 0, 1])) for t in times]
    drawn += rng.choices(drawn, k=1000 - len(drawn))
    rng.shuffle(drawn)
    return drawn


def entities(pairs, **columns):
    times = pd.to_datetime([t for _, t in pairs], unit="ms", utc=True)
    labels = {"label": np.arange(len(pairs))}
    # An index of its own, to be ignored.
    index = np.arange(len(pairs))[::-1]
    return pd.DataFrame(
        {"customer": [name for name, _ in pairs], "event_timestamp": times, **columns, **labels}, index=index
    )


def historical(filled_repo, service, frame, **options):
    store = filled_repo.store
    return store.get_historical_features(frame, store.get_feature_service(service), **options).to_arrow()


def differences(rows, wanted):
    return [
        (position, name, row[name], value)
        for position, (row, values) in enumerate(zip(rows, wanted, strict=True))
        for name, value in values.items()
        if not same(row[name], value)
    ]


def same(found, value):
    """Equal, where null may be told by None or NaN."""
    return oracle.same(float("nan") if found is None else found, value)


@pytest.fixture(scope="module")
def offline(filled_repo, pairs):
    return historical(filled_repo, "propensity_v1", entities(pairs))


def test_one_row_comes_out_for_each_that_went_in_in_their_order(pairs, offline):
    assert offline.column_names == ["customer", "event_timestamp", "label", *BEHAVIOUR, *LIFETIME]
    assert offline["label"].to_pylist() == list(range(len(pairs)))
    assert offline["customer"].to_pylist() == [name for name, _ in pairs]
    assert offline["event_timestamp"].to_pylist() == [at(t) for _, t in pairs]


def test_offline_features_are_what_the_oracle_says(pairs, offline, expected):
    wanted = [expected(name, t) for name, t in pairs]
    assert differences(offline.to_pylist(), wanted) == []


def test_the_pairs_are_hard(filled_repo, pairs, facts_of):
    # What the parity above would not notice if the log were tame.
    known = [oracle.as_of(facts_of[name], t) for name, t in pairs]
    late = [any(fact.time < t < fact.available for fact in facts_of[name]) for name, t in pairs]
    cuts = [snapshot_oracle.newest_cut(filled_repo.cuts_ms, t, LIFETIME_TTL) for _, t in pairs]
    assert sum(late) > 100
    assert sum(len(history) == 256 for history in known) > 5
    assert sum(len(history) > len(oracle.resolved(history)) for history in known) > 100
    assert sum(not history for history in known) > 10
    assert None in cuts
    assert len(set(cuts)) > 10
    assert len(set(pairs)) < len(pairs)


def test_full_names_hold_the_same_values(filled_repo, pairs, offline):
    frame = entities(pairs)[:50]
    full = historical(filled_repo, "propensity_v1", frame, full_feature_names=True)
    names = [f"customer_behaviour__{name}" for name in BEHAVIOUR] + [f"customer_lifetime__{name}" for name in LIFETIME]
    assert full.column_names[3:] == names
    short = offline.slice(0, 50).to_pydict()
    for name, values in full.to_pydict().items():
        np.testing.assert_array_equal(values, short[name.split("__")[-1]])


def test_no_row_gives_no_row(filled_repo):
    frame = entities([(NOBODY, NOW)])[:0]
    empty = historical(filled_repo, "propensity_v1", frame)
    assert empty.num_rows == 0
    assert empty.column_names[3:] == [*BEHAVIOUR, *LIFETIME]


@pytest.mark.parametrize("column", ["customer", "event_timestamp"])
def test_a_null_in_a_key_is_refused_by_its_name(filled_repo, column):
    frame = entities([("c00", NOW), ("c01", NOW)])
    frame.loc[0, column] = None
    with pytest.raises(ValueError, match=f"entity_df.{column}: holds a null"):
        historical(filled_repo, "propensity_v1", frame)


def test_item_sequences_and_item_statistics_are_what_the_oracle_says(filled_repo, pairs, facts_of):
    rng = random.Random(6)
    asked = pairs[:150]
    items = [rng.choice([1, 5, -3, 12345, *(fact.item for fact in filled_repo.log[:50])]) for _ in asked]
    found = historical(filled_repo, "recommendation_v1", entities(asked, item=items)).to_pylist()
    cuts = filled_repo.cuts_ms
    stats = {cut: snapshot_oracle.item_stats(filled_repo.log, cut) for cut in cuts}
    for row, (name, t), item in zip(found, asked, items, strict=True):
        turns = oracle.item_sequence(oracle.as_of(facts_of[name], t), t)
        assert row["customer_item_sequence"] == [turn[0] for turn in turns]
        assert row["customer_kind_sequence"] == [turn[1] for turn in turns]
        assert row["customer_age_seconds_sequence"] == [turn[2] / 1000 for turn in turns]
        cut = snapshot_oracle.newest_cut(cuts, t, STATS_TTL)
        counts = {} if cut is None else stats[cut].get(item, {})
        assert {stat: row[stat] for stat in STATS} == dict.fromkeys(STATS) | counts


def read(filled_repo, customers, times, extra=None, service="propensity_v1"):
    """What the plan reader says, as rows by name."""
    from redis.asyncio import Redis

    async def answer():
        async with Redis.from_url(redis_url(filled_repo.address)) as redis:
            reader = PlanReader(plan_files.published(filled_repo.home / "plans", service), redis)
            return await reader.read("customer", customers, np.asarray(times, np.int64), extra=extra)

    features = asyncio.run(answer())
    return [dict(zip(features.names, row, strict=True)) for row in features.matrix], features


@pytest.mark.parametrize("days_later", [0, 40, 100])
def test_online_offline_and_oracle_agree_on_every_customer(filled_repo, expected, days_later):
    t = SETTLED + days_later * oracle.DAY
    customers = [*filled_repo.customers, NOBODY]
    wanted = [expected(name, t) for name in customers]
    online, features = read(filled_repo, customers, [t] * len(customers))
    assert list(features.names) == [*BEHAVIOUR, *LIFETIME]
    assert differences(online, wanted) == []
    offline = historical(filled_repo, "propensity_v1", entities([(name, t) for name in customers])).to_pylist()
    assert differences(offline, wanted) == []


def test_online_and_oracle_agree_on_the_past_where_nothing_came_late_since(filled_repo, pairs, facts_of):
    settled = [
        (name, t)
        for name, t in pairs
        if len(facts_of[name]) < 256 and not any(fact.time < t < fact.available for fact in facts_of[name])
    ]
    assert len(settled) > 200
    online, features = read(filled_repo, *zip(*settled, strict=True))
    wanted = [oracle.features(oracle.as_of(facts_of[name], t), t) for name, t in settled]
    assert differences(online, wanted) == []
    history, totals = features.parts
    assert [status is Status.PRESENT for status in history.status] == [
        bool(oracle.as_of(facts_of[name], t)) for name, t in settled
    ]
    # The store holds the last cut only, and nothing of it was known before.
    assert all(
        t >= filled_repo.cuts_ms[-1] or np.isnan(row[LIFETIME[0]]) for (_, t), row in zip(settled, online, strict=True)
    )
    assert not (totals.age_ms < 0).any()


def test_request_events_count_as_if_they_were_stored(filled_repo, facts_of):
    brought = oracle.facts(9, customers=8, count=200, now=SETTLED, span=20 * oracle.DAY)
    brought += [fact for fact in filled_repo.log if fact.customer == "c03"][:20]
    brought += [fact._replace(value=fact.value - 1) for fact in filled_repo.log if fact.customer == "c04"][:20]
    events = oracle.to_events(brought)
    customers = list(events.customers)
    online, _ = read(filled_repo, customers, [SETTLED] * len(customers), histories_of(events))
    wanted = []
    for name in customers:
        stored = oracle.union([fact.record for fact in facts_of[name]])
        extra = [fact.record for fact in brought if fact.customer == name]
        wanted.append(oracle.features(oracle.union(stored, extra), SETTLED))
    assert differences(online, wanted) == []


@pytest.fixture
def clock(monkeypatch):
    """The stock SDK reads histories as of SETTLED."""
    from segue.adapters.feast import online_store

    monkeypatch.setattr(online_store, "time", SimpleNamespace(time_ns=lambda: SETTLED * 1_000_000 + 999_999))


def stock_online(store, service, customers):
    """What the stock SDK reads of a service, and the time it read as of, in one call."""
    projections = store.get_feature_service(service).feature_view_projections
    refs = [f"{each.name}:{feature.name}" for each in projections for feature in each.features]
    answer = store.get_online_features([*refs, "customer_history:as_of_ms"], [{"customer": name} for name in customers])
    columns = answer.to_dict()
    return [{name: values[row] for name, values in columns.items()} for row in range(len(customers))]


def test_the_stock_sdk_reads_online_what_it_reads_offline_at_that_time(filled_repo, expected, clock):
    customers = [*filled_repo.customers, NOBODY]
    online = stock_online(filled_repo.store, "propensity_v1", customers)
    assert {row["as_of_ms"] for row in online} == {SETTLED}
    asked = [(row["customer"], row["as_of_ms"]) for row in online]
    assert [name for name, _ in asked] == customers
    offline = historical(filled_repo, "propensity_v1", entities(asked)).to_pylist()
    assert differences(online, [expected(*pair) for pair in asked]) == []
    assert differences(offline, [expected(*pair) for pair in asked]) == []


def test_the_stock_sdk_reads_item_sequences_online(filled_repo, facts_of, clock):
    store = filled_repo.store
    refs = [f"customer_sequence:customer_{word}_sequence" for word in ("item", "kind", "age_seconds")]
    customers = [*filled_repo.customers, NOBODY]
    columns = store.get_online_features(refs, [{"customer": name} for name in customers]).to_dict()
    for row, name in enumerate(customers):
        turns = oracle.item_sequence(oracle.as_of(facts_of[name], SETTLED), SETTLED)
        assert columns["customer_item_sequence"][row] == [turn[0] for turn in turns]
        assert columns["customer_kind_sequence"][row] == [turn[1] for turn in turns]
        assert columns["customer_age_seconds_sequence"][row] == [turn[2] / 1000 for turn in turns]


OWN_VIEWS = """
from customer_features import customer_history
from feast import FeatureService, Field
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Int64
from on_demand_features import customer_behaviour


@on_demand_feature_view(sources=[customer_history], schema=[Field(name="odd_item_count", dtype=Int64)], mode="python")
def own_view(inputs):
    return {"odd_item_count": [sum(item % 2 for item in items or []) for items in inputs["item"]]}


@on_demand_feature_view(sources=[customer_history], schema=[Field(name="newest_value_minor", dtype=Int64)])
def own_pandas_view(inputs):
    import pandas as pd

    newest = inputs["value_minor"].map(lambda values: int(values[-1]) if values is not None and len(values) else 0)
    return pd.DataFrame({"newest_value_minor": newest})


own_v1 = FeatureService(name="own_v1", features=[own_view, customer_behaviour, own_pandas_view])
"""


def test_views_of_a_users_own_work_beside_ours(filled_repo, pairs, facts_of, clock, tmp_path):
    from segue.adapters.feast import pipeline

    root = shutil.copytree(filled_repo.repo.parent, tmp_path / "own")
    repo = root / "feature_repo"
    (repo / "own_features.py").write_text(OWN_VIEWS)
    with environment({"SEGUE_REDIS": filled_repo.address}, without="SEGUE_HOME"):
        forget(repo)
        pipeline.apply(repo)
        store = open_store(repo)

    def wanted(name, t):
        history = oracle.as_of(facts_of[name], t)
        own = {
            "odd_item_count": sum(record[2] % 2 for record in history),
            "newest_value_minor": history[-1][4] if history else 0,
        }
        return own | oracle.features(history, t)

    asked = pairs[:100]
    offline = store.get_historical_features(entities(asked), store.get_feature_service("own_v1")).to_arrow()
    assert {"odd_item_count", "newest_value_minor", *BEHAVIOUR} <= set(offline.column_names)
    assert differences(offline.to_pylist(), [wanted(*pair) for pair in asked]) == []
    customers = [*filled_repo.customers, NOBODY]
    online = stock_online(store, "own_v1", customers)
    assert differences(online, [wanted(name, SETTLED) for name in customers]) == []
