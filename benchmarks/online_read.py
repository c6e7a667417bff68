"""How fast the online store is read: everything propensity_v1 needs of one customer, by one caller and by many.

All contenders read the same embedded server from this process, for the same customers.

- Segue: the plan reader through one asyncio client; one round trip, then all features are computed from the history.
- Feast SDK, Segue's plug-in: `get_online_features` of the same feature service over the same data; Feast's own
  machinery around the same functions.
- Feast SDK, Feast's store: `get_online_features` from Feast's own Redis store, where the same columns were written
  beforehand as plain values. It computes nothing, and what it reads is as old as the last write.
- bare commands: the same HMGET and ZRANGE through redis-py's pipeline on the same client, replies thrown away: the
  floor of every reader written in Python on it.
- bare PING: the floor of a round trip.

Before anything is timed, all readers are shown to return the same values as of the same moment. CPU is that of this
process; the server's own is about the same for all but PING.
"""

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from redis.asyncio import Redis

from benchmarks.callers import Callers
from benchmarks.command import command
from benchmarks.home import HOME, fill, longest_histories, open_store, private_home
from benchmarks.stock_feast import SERVICE, VIEW, stock_store
from benchmarks.table import Comparison
from benchmarks.timing import take_turns
from segue.adapters import plan_files
from segue.adapters.plan_reader import PlanReader, hash_key

if TYPE_CHECKING:
    from feast import FeatureStore

AS_OF = "customer_history:as_of_ms"
CHECKED_COUNT = 50


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = argparse.ArgumentParser(
        prog="python -m benchmarks.online_read",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, default, meaning in (
        ("customers", 300, "of the simulated shop; the half with the longest histories is asked for"),
        ("items", 2_000, "of the simulated shop"),
        ("days", 60, "of the simulated shop"),
        ("seed", 1, "of the simulated shop"),
        ("reads", 300, "per turn"),
        ("sdk-reads", 30, "per turn through Feast's SDK"),
        ("turns", 5, "per contender"),
        ("callers", 32, "at once, in the second comparison"),
    ):
        options.add_argument(f"--{name}", type=int, default=default, help=f"{meaning} (default: %(default)s)")
    return options


def measure(options: argparse.Namespace) -> list[Comparison]:
    """Fill a store, check that all readers agree, time them."""
    with private_home() as processes:
        port = open_store(processes)
        fill(customers=options.customers, items=options.items, days=options.days, seed=options.seed)
        with asyncio.Runner() as runner:
            return compare(runner, port, options)


def compare(runner: asyncio.Runner, port: int, options: argparse.Namespace) -> list[Comparison]:
    """The comparisons, for one caller and for many."""
    from feast import FeatureStore

    redis: Any = Redis(port=port)
    reader = PlanReader(plan_files.published(HOME / "plans", SERVICE), redis)
    customers, mean_length = longest_histories(options.customers // 2)
    plugged = FeatureStore("feature_repo")
    everything = runner.run(reader.read("customer", customers, np.repeat(now_ms(), len(customers)))).matrix
    stock = written(reader, customers, everything, f"127.0.0.1:{port},db=1")
    with_plugin, without = read_by_sdk(plugged), read_by_sdk(stock)
    check(runner, reader, plugged, customers[:CHECKED_COUNT])
    np.testing.assert_array_equal(everything, [row(without(customer), reader) for customer in customers])
    size = f"{len(reader.scalar_columns)} columns, histories of {mean_length:.0f} events on average"
    comparisons = []
    for callers in (1, options.callers):
        make = Callers(runner, customers, callers)
        contenders = {
            "Segue": make.tasks(lambda customer: reader.read("customer", [customer], now_ms()), options.reads),
            "Feast SDK, Segue's plug-in": make.threads(with_plugin, options.sdk_reads),
            "Feast SDK, Feast's store": make.threads(without, options.sdk_reads),
            "bare HMGET + ZRANGE": make.tasks(bare(reader, redis), options.reads),
            "bare PING": make.tasks(lambda _: redis.execute_command("PING"), options.reads),
        }
        what = f"one online read, {callers} caller" + ("s" if callers > 1 else "")
        comparisons.append(Comparison(what, take_turns(contenders, turns=options.turns), size))
    runner.run(redis.aclose())
    return comparisons


def read_by_sdk(store: "FeatureStore") -> Callable[[str], dict[str, list[Any]]]:
    """A read through the stock SDK, as its documents show it."""
    service = store.get_feature_service(SERVICE)

    def read(customer: str) -> dict[str, list[Any]]:
        return store.get_online_features(features=service, entity_rows=[{"customer": customer}]).to_dict()

    return read


def bare(reader: PlanReader, redis: Any) -> Callable[[str], Awaitable[object]]:
    """The commands of a read by the plan, and nothing around them."""
    (part,), (history,) = reader.plan.hashes, reader.plan.histories
    fields = [bytes.fromhex(field.field_hex) for field in part.fields] + [part.timestamp_field]

    def read(customer: str) -> Awaitable[object]:
        pipe = redis.pipeline(transaction=False)
        pipe.hmget(hash_key(part, customer), fields)
        pipe.zrange(f"{history.key_prefix}{customer}", 0, -1)
        return pipe.execute()

    return read


def written(reader: PlanReader, customers: Sequence[str], matrix: NDArray[np.float64], redis: str) -> "FeatureStore":
    """Feast as it comes, whose customers have the values of `matrix`."""
    dtypes = {each.name: each.dtype for each in reader.scalar_columns}
    store = stock_store(dtypes, redis=redis)
    values = pd.DataFrame(matrix, columns=list(dtypes)).astype(dtypes)
    now = pd.Timestamp.now("UTC")
    store.write_to_online_store(VIEW, values.assign(customer=customers, event_timestamp=now))
    return store


def check(runner: asyncio.Runner, reader: PlanReader, store: "FeatureStore", customers: Sequence[str]) -> None:
    """Make sure that the plan reader returns what the SDK returns, as of the moment the SDK answered for."""
    views = store.get_feature_service(SERVICE).feature_view_projections
    refs = [f"{view.name}:{feature.name}" for view in views for feature in view.features]
    for customer in customers:
        entity_rows = [{"customer": customer}]
        answer = store.get_online_features(features=[*refs, AS_OF], entity_rows=entity_rows).to_dict()
        read = runner.run(reader.read("customer", [customer], np.array(answer["as_of_ms"])))
        np.testing.assert_array_equal(read.matrix[0], row(answer, reader))


def row(answer: dict[str, list[Any]], reader: PlanReader) -> NDArray[np.float64]:
    """The only row of an answer of the SDK in the order of the plan, NaN for null."""
    return np.array([answer[column.name][0] for column in reader.scalar_columns], np.float64)


def now_ms() -> NDArray[np.int64]:
    """This moment, shape (1,)."""
    return np.array([time.time_ns() // 1_000_000])


if __name__ == "__main__":
    command(parser(), measure)
