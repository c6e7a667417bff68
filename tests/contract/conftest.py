"""What stock Feast writes into its own Redis store, and what the plan reader makes of it."""

import asyncio
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from segue.adapters.plan_reader import PlanReader
from tests import oracle
from tests.conftest import NOW, at, forget, open_store, redis_url

WRITTEN = NOW + 123
"""When the values are as of."""

TTL = timedelta(hours=2)
TTL_MS = 2 * oracle.HOUR

SHOPPERS = {
    "anna": {"visit_count": 0, "debt_minor": -1, "basket_minor_mean": 0.1},
    "bjørn 🙂": {"visit_count": 2**53, "debt_minor": -(2**63), "basket_minor_mean": -1e300},
    "c:*[x]": {"visit_count": 127, "debt_minor": 2**62, "basket_minor_mean": None},
    "d" * 200: {"visit_count": None, "debt_minor": None, "basket_minor_mean": 0.0},
}

ITEMS = {7: 5, 0: -128, -1: None, -(2**63): 2**31, 2**63 - 1: 1}


@pytest.fixture(scope="session")
def shop(tmp_path_factory, valkey):
    """A feature store of stock Feast's own Redis store, with what it wrote; two entities, three views, two services."""
    from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float64, Int64

    directory = tmp_path_factory.mktemp("shop")
    address = f"{valkey},db=2"
    config = RepoConfig(
        project="shop",
        provider="local",
        registry=str(directory / "registry.db"),
        offline_store={"type": "duckdb"},
        online_store={"type": "redis", "connection_string": address},
        entity_key_serialization_version=3,
        repo_path=directory,
    )
    source = FileSource(name="any", path=str(directory / "any.parquet"), timestamp_field="event_timestamp")
    shopper = Entity(name="shopper", join_keys=["shopper"], value_type=ValueType.STRING)
    item = Entity(name="item", join_keys=["item"], value_type=ValueType.INT64)
    fields = [Field(name="visit_count", dtype=Int64), Field(name="debt_minor", dtype=Int64)]
    fields.append(Field(name="basket_minor_mean", dtype=Float64))
    shopper_stats = FeatureView(name="shopper_stats", entities=[shopper], schema=fields, source=source, ttl=TTL)
    stock = Field(name="stock_count", dtype=Int64)
    item_stock = FeatureView(name="item_stock", entities=[item], schema=[stock], source=source, ttl=timedelta(0))
    rating = Field(name="rating_mean", dtype=Float64)
    ratings = FeatureView(name="shopper_ratings", entities=[shopper], schema=[rating], source=source, ttl=TTL)
    mixed = [ratings, item_stock, shopper_stats[["debt_minor", "basket_minor_mean", "visit_count"]]]
    services = [FeatureService(name="mixed", features=mixed), FeatureService(name="stats", features=[shopper_stats])]
    store = FeatureStore(config=config)
    store.apply([shopper, item, shopper_stats, item_stock, ratings, *services])
    write(store, "shopper_stats", "shopper", SHOPPERS)
    write(store, "item_stock", "item", {each: {"stock_count": count} for each, count in ITEMS.items()})
    write(store, "shopper_ratings", "shopper", {"anna": {"rating_mean": 4.5}})
    return store


def write(store, view, key, rows, time_ms=WRITTEN):
    frame = pd.DataFrame([{key: name, **values} for name, values in rows.items()])
    for column in frame.columns.drop(key):
        if column.endswith(("count", "minor")):
            frame[column] = pd.array([values[column] for values in rows.values()], "Int64")
    store.write_to_online_store(view, frame.assign(event_timestamp=at(time_ms), created_timestamp=at(time_ms)))


@pytest.fixture(scope="session")
def plan(shop):
    from segue.adapters.feast.plans import compile_plan

    return compile_plan(shop, "mixed")


def read(plan, address, entity, ids, times, **options):
    from redis.asyncio import Redis

    async def answer():
        async with Redis.from_url(redis_url(address)) as redis:
            return await PlanReader(plan, redis).read(entity, ids, np.asarray(times, np.int64), **options)

    return asyncio.run(answer())


def address_of(store):
    return store.config.online_store.connection_string


@pytest.fixture
def applied(feast_repo):
    """The feature repo, applied over an empty online store."""
    from segue.adapters.feast import pipeline

    forget(feast_repo)
    pipeline.apply(feast_repo)
    return open_store(feast_repo)
