"""How fast events get from the event log into the online store and the event lake.

Segue's updater reads the embedded log, merges into the histories of the embedded store (barriers checked by the server,
on disk before it answers) and commits to a Delta Lake table with the log's offsets, as it runs in production, in this
process, on one core. Every event is of a customer drawn at random: hardly two of a batch share a history.

The reference is Feast's own way in: `FeatureStore.push` of the same columns to the online store (Feast's Redis store)
and the offline store (Feast's DuckDB store over a Parquet file, which it writes anew each time; with deltalake 1 it
cannot push to Delta tables), one row at a time, and as many rows at once as the updater flushes. It keeps the newest
row of each customer, not a history, and promises nothing about copies.

CPU is this process's, all threads; the store's own is not in it, for either.
"""

import argparse
import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from redis import Redis

from benchmarks.command import command
from benchmarks.home import HOME, open_store, private_home
from benchmarks.log_filling import KINDS, entries, fill
from benchmarks.table import Comparison
from benchmarks.timing import Contender, Turn, take_turns
from services.updater.__main__ import event_log
from services.updater.__main__ import updater as make_updater
from services.updater.settings import UpdaterSettings
from services.updater.updater import Updater

if TYPE_CHECKING:
    import pandas as pd
    from feast import FeatureStore

PUSH = "events_push"
VIEW = "customer_events"


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.updater", description=__doc__)
    sizes = {"customers": 50_000, "events": 50_000, "single_pushes": 30, "turns": 3, "seed": 0}
    for name, default in sizes.items():
        options.add_argument(f"--{name.replace('_', '-')}", type=int, default=default, help="default: %(default)s")
    return options


def measure(options: argparse.Namespace) -> list[Comparison]:
    """Take turns; each of Segue's takes as many events of a log that was filled before."""
    with private_home() as processes:
        port = open_store(processes)
        url = f"redis://127.0.0.1:{port}/0"
        total = options.events * (options.turns + 1)
        fill(url, entries(total, customers=options.customers, seed=options.seed), capacity=2 * total)
        settings = UpdaterSettings(redis_url=url, lake=str(HOME / "lake"), metrics_port=0)
        updater = make_updater(settings, *event_log(settings))
        stock = stock_store(f"127.0.0.1:{port},db=1")
        rng = np.random.default_rng(options.seed)
        taking = Taking(updater, url)
        name = f"stock Feast push, {options.events:,} rows at once"
        # As the updater's command sets it; it serves the others as well.
        gc.set_threshold(100_000, 50, 100)
        timings = take_turns(
            {
                "Segue": lambda: taking.turn(options.events),
                name: pushing(stock, lambda: rows(rng, options.events, options.customers), 1),
                "stock Feast push, one row": pushing(
                    stock, lambda: rows(rng, 1, options.customers), options.single_pushes
                ),
            },
            turns=options.turns,
        )
        updater.close()
    store_us = 1e6 * taking.store_seconds / taking.count
    size = f"{options.events:,} events a turn, of {options.customers:,} customers"
    return [
        Comparison(
            "one event into store and lake", timings, f"{size}; the store's own processor time: {store_us:.0f} us"
        )
    ]


class Taking:
    """Lets `updater` take events from the log, and has them in the lake.

    Attributes:
        count: events taken so far.
        store_seconds: processor time of the store, the server at `url`, in that time.
    """

    def __init__(self, updater: Updater, url: str) -> None:
        self.count = 0
        self.store_seconds = 0.0
        self._updater = updater
        self._redis = Redis.from_url(url)

    def turn(self, count: int) -> Turn:
        """Take `count` events."""
        upto, used = self.count + count, self._store_seconds()
        while self.count < upto:
            self.count += self._updater.step(100)
        self._updater.flush()
        self.store_seconds += self._store_seconds() - used
        return Turn(self.count - upto + count)

    def _store_seconds(self) -> float:
        used: dict[str, float] = self._redis.info("cpu")
        return used["used_cpu_user"] + used["used_cpu_sys"]


def pushing(store: "FeatureStore", make: Callable[[], "pd.DataFrame"], pushes: int) -> Contender:
    """Push so many frames, made beforehand."""
    from feast.data_source import PushMode

    def turn() -> Turn:
        frames = [make() for _ in range(pushes)]
        for frame in frames:
            store.push(PUSH, frame, to=PushMode.ONLINE_AND_OFFLINE)
        return Turn(sum(map(len, frames)))

    return turn


def rows(rng: np.random.Generator, count: int, customers: int) -> "pd.DataFrame":
    """Events as a caller of Feast has them."""
    import pandas as pd

    now_ms = time.time_ns() // 1_000_000
    times = pd.to_datetime(now_ms - rng.integers(60_000, size=count), unit="ms", utc=True)
    return pd.DataFrame(
        {
            "customer": [f"{each:032x}" for each in rng.integers(customers, size=count)],
            "event_id": rng.integers(2**63, size=count),
            "kind": np.array(KINDS)[rng.integers(len(KINDS), size=count)],
            "item": [f"item-{each}" for each in rng.integers(20_000, size=count)],
            "value_minor": rng.integers(10_000, size=count),
            "properties": '{"list":"home","position":3}',
            "event_timestamp": times,
            "created_timestamp": times,
        }
    )


def stock_store(redis: str) -> "FeatureStore":
    """Feast as it comes, with one view of events that can be pushed."""
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, PushSource, RepoConfig, ValueType
    from feast.data_format import ParquetFormat
    from feast.types import Int64, String

    lake = str(Path(HOME / "stock-lake.parquet").resolve())
    rows(np.random.default_rng(0), 1, 1).to_parquet(lake)
    source = FileSource(
        name="events",
        path=lake,
        file_format=ParquetFormat(),
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
    )
    config = RepoConfig(
        project="stock",
        provider="local",
        registry=str(HOME.resolve() / "stock-push.db"),
        offline_store={"type": "duckdb"},
        online_store={"type": "redis", "connection_string": redis},
        entity_key_serialization_version=3,
    )
    store = FeatureStore(config=config)
    customer = Entity(name="customer", join_keys=["customer"], value_type=ValueType.STRING)
    dtypes = {"event_id": Int64, "kind": String, "item": String, "value_minor": Int64, "properties": String}
    view = FeatureView(
        name=VIEW,
        entities=[customer],
        schema=[Field(name=name, dtype=dtype) for name, dtype in dtypes.items()],
        source=PushSource(name=PUSH, batch_source=source),
    )
    store.apply([customer, view])
    return store


if __name__ == "__main__":
    command(parser(), measure)
