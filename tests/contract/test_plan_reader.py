"""The plan reader reads what the stock SDK wrote, and says what of it can be used."""

from dataclasses import replace

import numpy as np
import pytest

from segue.adapters.plan_reader import MAX_ENTITIES, PlanReader, scalar
from segue.errors import InvalidInput, StoreCorrupted, StoreUnavailable
from segue.inference.answers import Status
from segue.inference.plan import Column
from tests import oracle
from tests.conftest import free_port
from tests.contract.conftest import ITEMS, SHOPPERS, TTL_MS, WRITTEN, address_of, read


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
    with pytest.raises(StoreCorrupted, match="is not a number"):
        scalar(encoded)


@pytest.fixture(scope="module")
def filled_plan(filled_repo):
    from segue.adapters.feast.plans import compile_plan

    return compile_plan(filled_repo.store, "propensity_v1")
