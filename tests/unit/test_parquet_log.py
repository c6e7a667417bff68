"""A stranger's own event log: what is read, and how bad rows are refused."""

from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segue.adapters import datasets
from segue.adapters.datasets import parquet_log
from segue.errors import InvalidInput
from segue.events import NO_ITEM, Kind, event_id, item_id, pseudonym
from segue.simulator import DEMO_KEY


def ms(*moment: int) -> int:
    return int(datetime(*moment, tzinfo=UTC).timestamp() * 1000)


LOG = pd.DataFrame(
    {
        "event_id": ["e1", "e2", "e3", "e3"],
        "customer": ["ann", "bob", "ann", "ann"],
        "kind": ["product_viewed", "order_completed", "danced", "danced"],
        "item": ["shoe", None, "hat", "hat"],
        "event_time": pd.to_datetime(["2024-05-01T10:00:00.1239Z"] * 4, format="ISO8601"),
        "value_minor": [0, 1_999, 0, 0],
    }
)


def write_log(path: Path, frame: pd.DataFrame = LOG) -> Path:
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("name", ["own.parquet", "own.csv", "own.csv.gz"])
def test_an_own_log(tmp_path, name):
    frame = LOG.assign(
        available_time=[None, *pd.to_datetime(["2024-05-01T12:00:00Z"] * 3)],
        category=["a", None, "b", "c"],
        title=[None, None, "Hat", None],
        more=1,
    )
    dataset = datasets.load(write_log(tmp_path / name, frame))
    events = dataset.events
    time_ms, known_ms = ms(2024, 5, 1, 10) + 123, ms(2024, 5, 1, 12)
    assert events.event_id.tolist() == [event_id(name) for name in ("e1", "e2", "e3", "e3")]
    assert list(events.customers) == [pseudonym("ann", DEMO_KEY), pseudonym("bob", DEMO_KEY)]
    assert events.customer.tolist() == [0, 1, 0, 0]
    assert events.kind.tolist() == [Kind.PRODUCT_VIEWED, Kind.ORDER_COMPLETED, Kind.UNKNOWN, Kind.UNKNOWN]
    assert events.item.tolist() == [item_id("shoe"), NO_ITEM, item_id("hat"), item_id("hat")]
    assert events.event_time_ms.tolist() == [time_ms] * 4
    assert events.available_time_ms.tolist() == [time_ms, known_ms, known_ms, known_ms]
    assert events.value_minor.tolist() == [0, 1_999, 0, 0]
    assert list(dataset.catalogue.external_id) == ["shoe", "hat"]
    assert list(dataset.catalogue.category) == ["a", "c"]
    assert list(dataset.catalogue.title) == ["", "Hat"]
    assert dataset.name == "own"


def test_an_own_log_is_available_when_it_happens_unless_it_says_otherwise(tmp_path):
    events = parquet_log.load(write_log(tmp_path / "own.parquet")).events
    assert (events.available_time_ms == events.event_time_ms).all()


@pytest.mark.parametrize(
    "times",
    [
        pd.Series([1_714_557_600_000] * 4),
        pd.Series(["2024-05-01T10:00:00Z", "2024-05-01 10:00:00", "1714557600000", "2024-05-01T12:00:00+02:00"]),
        pd.to_datetime(pd.Series(["2024-05-01T12:00:00"] * 4)).dt.tz_localize("Europe/Berlin"),
        pd.to_datetime(pd.Series(["2024-05-01T10:00:00"] * 4)).dt.as_unit("s"),
    ],
    ids=["ms", "text", "zoned", "naive"],
)
@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_times_of_an_own_log(tmp_path, times, suffix):
    path = write_log(tmp_path / f"own.{suffix}", LOG.assign(event_time=times))
    assert parquet_log.load(path).events.event_time_ms.tolist() == [1_714_557_600_000] * 4


def test_number_ids_and_categorical_columns_are_text(tmp_path):
    frame = LOG.assign(event_id=[1, 2, 3, 4], customer=[7, 8, 7, 7], kind=LOG["kind"].astype("category"))
    events = parquet_log.load(write_log(tmp_path / "own.parquet", frame)).events
    assert events.event_id.tolist() == [event_id(str(k)) for k in (1, 2, 3, 4)]
    assert list(events.customers) == [pseudonym("7", DEMO_KEY), pseudonym("8", DEMO_KEY)]
    assert events.kind.tolist() == [1, 5, 0, 0]


BAD = [
    ("event_id", [None, "e2", "", "e4"], {(0, "event_id"), (2, "event_id")}),
    ("customer", ["ann", None, "ann", "ann"], {(1, "customer")}),
    ("kind", ["product_viewed", "", "x", None], {(1, "kind"), (3, "kind")}),
    ("event_time", ["2024-05-01", "yesterday", None, "-5"], {(1, "event_time"), (2, "event_time"), (3, "event_time")}),
    ("event_time", ["2024-05-01", "1714557600000000", "1.5", "1"], {(1, "event_time"), (2, "event_time")}),
    ("value_minor", ["1", "1.50", "ten", "nan"], {(1, "value_minor"), (2, "value_minor"), (3, "value_minor")}),
    ("available_time", ["2024-05-02", "2024-04-30", None, "soon"], {(1, "available_time"), (3, "available_time")}),
]


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize(("column", "values", "expected"), BAD)
def test_bad_rows_are_named_by_column_and_row(tmp_path, suffix, column, values, expected):
    path = write_log(tmp_path / f"own.{suffix}", LOG.assign(**{column: values}))
    with pytest.raises(InvalidInput) as caught:
        parquet_log.load(path)
    named = {(row, column) for row, column in expected}
    fields = {violation.field for violation in caught.value.violations}
    assert fields == {f"{path}[{row}].{column}" for row, column in named}


@pytest.mark.parametrize("value", [1.5, float("inf")])
def test_values_that_are_no_integers_are_refused(tmp_path, value):
    path = write_log(tmp_path / "own.parquet", LOG.assign(value_minor=[0.0, value, 2.0, None]))
    with pytest.raises(InvalidInput, match=r"\[1\]\.value_minor"):
        parquet_log.load(path)


def test_whole_values_may_be_floats_or_missing(tmp_path):
    path = write_log(tmp_path / "own.parquet", LOG.assign(value_minor=[0.0, 1.0, -2.0, None]))
    assert parquet_log.load(path).events.value_minor.tolist() == [0, 1, -2, 0]


def test_violations_are_bounded(tmp_path):
    frame = pd.concat([LOG] * 100).assign(customer=None, kind=None)
    with pytest.raises(InvalidInput) as caught:
        parquet_log.load(write_log(tmp_path / "own.parquet", frame))
    assert len(caught.value.violations) == parquet_log.VIOLATION_LIMIT + 1
    assert caught.value.violations[0].field.endswith("[0].customer")
    assert "780 more" in caught.value.violations[-1].problem


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_missing_columns_are_all_named(tmp_path, suffix):
    path = write_log(tmp_path / f"own.{suffix}", LOG.drop(columns=["kind", "event_time"]))
    with pytest.raises(InvalidInput) as caught:
        parquet_log.load(path)
    assert {violation.field for violation in caught.value.violations} == {f"{path}.kind", f"{path}.event_time"}


def test_an_unreadable_log_is_refused_by_its_path(tmp_path):
    (tmp_path / "own.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(InvalidInput, match=r"own\.parquet"):
        datasets.load(tmp_path / "own.parquet")


def test_an_empty_log_is_a_data_set(tmp_path):
    assert len(parquet_log.load(write_log(tmp_path / "own.parquet", LOG[:0])).events) == 0
    assert len(parquet_log.load(write_log(tmp_path / "own.csv", LOG[:0])).events) == 0


def test_a_number_too_large_is_refused_by_its_path(tmp_path):
    table = pa.Table.from_pandas(LOG.drop(columns="value_minor"))
    table = table.append_column("value_minor", pa.array([2**64 - 1] * 4, pa.uint64()))
    pq.write_table(table, tmp_path / "own.parquet")
    with pytest.raises(InvalidInput, match=r"own\.parquet"):
        parquet_log.load(tmp_path / "own.parquet")
