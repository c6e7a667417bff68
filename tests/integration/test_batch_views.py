"""What batch views keep of a customer goes when it is to be forgotten, and nothing else does."""

import pyarrow.parquet as pq

from segue.adapters import plan_files
from segue.adapters.batch_views import BatchViews
from segue.adapters.lake import Lake
from segue.adapters.plan_reader import hash_key
from segue.adapters.snapshots import write_snapshots
from segue.inference.plan import Column, HashField, HashPart, Plan
from tests import oracle

NOW = 1_700_000_000_000

PART = HashPart(
    "customer_lifetime", "customer", "string", "01", "02", "_ts:customer_lifetime", 0, (HashField("a", "03"),)
)
OTHER = HashPart("item_stats", "item", "int64", "04", "05", "_ts:item_stats", 0, (HashField("b", "06"),))


def test_a_customer_is_forgotten_in_files_and_online(tmp_path, redis):
    lake = Lake(tmp_path / "lake")
    lake.append(oracle.to_events(oracle.facts(1, customers=6, count=300, now=NOW)))
    cuts = [NOW - oracle.DAY, NOW]
    write_snapshots(lake, tmp_path / "snapshots", cuts, max_events=100)
    columns = (Column("a", "int64", PART.view), Column("b", "int64", OTHER.view))
    plan_files.publish(tmp_path / "plans", Plan("any_v1", "segue", columns, (PART, OTHER), ()))
    names = lake.customers()
    for name in names:
        redis.hset(hash_key(PART, name), "03", 1)
    redis.hset(hash_key(OTHER, 7), "06", 1)
    files = sorted((tmp_path / "snapshots" / "customer_lifetime").glob("*.parquet"))
    before = {path: pq.read_table(path).to_pylist() for path in files}
    gone = {names[0], names[3], "nobody"}

    views = BatchViews(tmp_path / "snapshots", tmp_path / "plans", redis)
    for _ in range(2):
        views.forget(gone)
        after = {path: pq.read_table(path).to_pylist() for path in files}
        assert after == {path: [row for row in rows if row["customer"] not in gone] for path, rows in before.items()}
        assert after != before
        kept = {hash_key(PART, name) for name in names if name not in gone} | {hash_key(OTHER, 7)}
        assert set(redis.keys()) == kept


def test_without_snapshots_or_plans_nothing_is_to_be_done(tmp_path, redis):
    BatchViews(tmp_path / "snapshots", tmp_path / "plans", redis).forget(["anybody"])
