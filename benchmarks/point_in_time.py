"""How fast historical features are made: windowed features of random customers as of random times.

All contenders read files on one disk and answer this process with an Arrow table; as of t means what was known at t:
`event_time < t` and `available_time <= t`. 20 columns are counts of three kinds and the value of orders over five
windows; 70 columns are every windowed count, sum and number of distinct items that there is.

- Segue: Feast's `get_historical_features` with Segue's offline store, straight from the event lake. Whatever columns
  are asked for, it computes the whole table of features, sessions, carts and recency included.
- DuckDB SQL: one hand-written and tuned query over the lake's own Parquet files, with the columns asked for and no
  other. Its result is Segue's, value for value.
- stock Feast, from a table: `get_historical_features` with Feast's own DuckDB store. Feast has no engine for windows on
  one machine, so it joins rows computed beforehand (and not timed): the 20 columns after each event. That is what it
  can do, not the same answer: between two events its windows do not move, and the note says how many values are wrong
  for it. Its result is checked against an ASOF join of the same rows.

Rows whose history is full, 256 events, are not drawn: there Segue's windows are cut and SQL's are not.
"""

import argparse
import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.command import command
from benchmarks.duckdb_sql import EXPRESSIONS, windows_sql
from benchmarks.home import HOME, private_home
from benchmarks.memory import held_mib, peak_mib
from benchmarks.stock_feast import SERVICE, VALUES, stock_store
from benchmarks.table import Comparison
from benchmarks.timing import Contender, Turn, take_turns
from segue.adapters.history_features import feature_table
from segue.adapters.lake import UTC_TIMESTAMP, Lake
from segue.features.batch import WINDOWS_MS
from segue.simulator import Shop, ShopConfig

if TYPE_CHECKING:
    from feast import FeatureStore

FEW = (
    *(f"customer_{signal}_count_{window}" for signal in ("view", "add", "order") for window in WINDOWS_MS),
    *(f"customer_order_value_minor_{window}" for window in WINDOWS_MS),
)
MANY = tuple(EXPRESSIONS)
TRUNCATED = "customer_history_is_truncated"

MOMENTS = 20_000
"""Rows of stock Feast's table that are computed at a time."""

COMMIT_EVENTS = 250_000

DAYS = 60
EVENTS_PER_CUSTOMER = 100


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = argparse.ArgumentParser(
        prog="python -m benchmarks.point_in_time",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, default, meaning in (
        ("rows", 5_000, "customers and times to answer for"),
        ("events", 200_000, "in the lake, roughly"),
        ("turns", 3, "per contender"),
        ("seed", 1, "of the simulated shop and of the rows"),
    ):
        options.add_argument(f"--{name}", type=int, default=default, help=f"{meaning} (default: %(default)s)")
    options.add_argument("--ours-only", action="store_true", help="time Segue alone, for sizes the others do not take")
    return options


def measure(options: argparse.Namespace) -> list[Comparison]:
    """Fill a lake, check that the answers are right, time them."""
    with private_home():
        lake = Lake(HOME / "lake")
        event_count = write_lake(lake, options.events, options.seed)
        store = segue_store()
        labels = draw(lake, options.rows, options.seed)
        if options.ours_only:
            before_mib = held_mib()
            timings = take_turns({"Segue": timed(lambda: historical(store, labels, MANY))}, turns=options.turns)
            note = f"{peak_mib() - before_mib:,.0f} MiB of memory"
            comparisons = [Comparison(f"historical row, {len(MANY)} columns", timings, note)]
        else:
            labels = labels[~historical(store, labels, [TRUNCATED])[TRUNCATED].to_numpy().astype(bool)]
            comparisons = list(compare(lake, store, labels, options.turns))
    size = f"{len(labels):,} rows over {event_count:,} events"
    return [replace(each, note="; ".join(filter(None, (size, each.note)))) for each in comparisons]


def write_lake(lake: Lake, about_events: int, seed: int) -> int:
    """Simulate a shop into the lake; returns how many events it had."""
    customers = max(1, about_events // EVENTS_PER_CUSTOMER)
    event_count = 0
    for block in Shop(ShopConfig(customers=customers, days=DAYS, seed=seed)).stream(block_events=COMMIT_EVENTS):
        lake.append(block)
        event_count += len(block)
    return event_count


def draw(lake: Lake, rows: int, seed: int) -> pd.DataFrame:
    """Random customers at random times in the newer half of the log."""
    random = np.random.default_rng(seed)
    oldest_ms, newest_ms = lake.time_range()
    t_ms = random.integers((oldest_ms + newest_ms) // 2, newest_ms, rows)
    customers = random.choice(np.asarray(lake.customers(), object), rows)
    times = pd.to_datetime(t_ms, unit="ms", utc=True)
    return pd.DataFrame({"customer": customers, "event_timestamp": times, "row": np.arange(rows)})


def segue_store() -> "FeatureStore":
    """Feast with Segue's plug-ins, on the repository's own definitions."""
    from segue.adapters.feast import pipeline

    with contextlib.redirect_stdout(io.StringIO()):
        return pipeline.apply(Path("feature_repo").resolve())


def historical(store: "FeatureStore", labels: pd.DataFrame, names: Sequence[str]) -> pa.Table:
    """The columns `names` of the behaviour view, one row for each label."""
    return store.get_historical_features(labels, [f"customer_behaviour:{name}" for name in names]).to_arrow()


def compare(lake: Lake, store: "FeatureStore", labels: pd.DataFrame, turns: int) -> Iterator[Comparison]:
    """Segue and the others for the few columns and for the many, each shown to be right."""
    import duckdb

    database = duckdb.connect()
    database.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
    database.register("labels", labels)
    for columns in (FEW, MANY):
        query = windows_sql(lake, columns)
        wanted = historical(store, labels, columns)
        assert_equal(answer(database, query), wanted, columns)
        contenders = {
            "Segue": timed(partial(historical, store, labels, columns)),
            "DuckDB SQL": timed(partial(answer, database, query)),
        }
        note = ""
        if columns is FEW:
            write_values(lake)
            joined = from_stock(labels)
            assert_equal(joined().sort_by("row"), answer(database, ASOF_SQL), columns)
            contenders["stock Feast, from a table"] = timed(joined)
            stale = np.mean(matrix(joined().sort_by("row"), columns) != matrix(wanted, columns))
            note = f"{stale:.1%} of stock Feast's values are not what the windows held"
        yield Comparison(f"historical row, {len(columns)} columns", take_turns(contenders, turns=turns), note)


def from_stock(labels: pd.DataFrame) -> Callable[[], pa.Table]:
    """FEW through stock Feast."""
    store = stock_store(dict.fromkeys(FEW, "int64"))
    service = store.get_feature_service(SERVICE)
    return lambda: store.get_historical_features(labels, service).to_arrow()


def answer(database: Any, query: str) -> pa.Table:
    """What DuckDB answers."""
    return database.sql(query).to_arrow_table()


def timed(query: Callable[[], pa.Table]) -> Contender:
    """One operation is one row."""
    return lambda: Turn(query().num_rows)


def assert_equal(left: pa.Table, right: pa.Table, columns: Sequence[str]) -> None:
    """Make sure that two tables hold the same values in the same order."""
    np.testing.assert_array_equal(matrix(left, columns), matrix(right, columns))


def matrix(table: pa.Table, columns: Sequence[str]) -> NDArray[np.int64]:
    """The columns side by side, 0 for null."""
    return np.column_stack([table[name].fill_null(0).to_numpy() for name in columns])


ASOF_SQL = f"""
    SELECT held.* FROM labels ASOF LEFT JOIN read_parquet('{VALUES}') AS held
        ON held.customer = labels.customer AND labels.event_timestamp >= held.event_timestamp
    ORDER BY labels.row
"""


def write_values(lake: Lake) -> None:
    """FEW of every customer as of the moment each of their events was known: what stock Feast joins."""
    events = lake.read()
    at_ms = np.maximum(events.available_time_ms, events.event_time_ms + 1)
    moments = pd.DataFrame({"customer": events.customers[events.customer], "at_ms": at_ms}).drop_duplicates()
    parts = []
    for start in range(0, len(moments), MOMENTS):
        part = moments[start : start + MOMENTS]
        values = feature_table(lake, part["customer"].tolist(), part["at_ms"].to_numpy(), FEW)
        at = pa.array(part["at_ms"].to_numpy() * 1000).cast(UTC_TIMESTAMP)
        customers = pa.array(part["customer"], pa.string())
        parts.append(values.append_column("customer", customers).append_column("event_timestamp", at))
    pq.write_table(pa.concat_tables(parts), VALUES)


if __name__ == "__main__":
    command(parser(), measure)
