"""A stranger's own event log: a Parquet or CSV file with one event per row.

| column | what | null |
|---|---|---|
| event_id | your id of the event; the same id again is the same event delivered again | refused |
| customer | your id of the customer; it becomes a pseudonym | refused |
| kind | a label of `Kind`, e.g. `product_viewed`; any other is kept as unknown | refused |
| item | your id of the item | no item |
| event_time | a timestamp (UTC unless it says otherwise), ISO 8601 text, or integer ms since 1970 | refused |
| value_minor | integer minor units of money | 0 |
| available_time (optional) | when the event could be known, as event_time | event_time |
| category (optional) | the item's category; of several the last | unknown |
| title (optional) | what the item is called; of several the last | unknown |

More columns are ignored. One bad row and the file is refused: nothing of it is lost silently.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from segue.adapters.datasets.dataset import Dataset, catalogue_of, coded, objects, reading
from segue.errors import InvalidInput, Violation
from segue.events import KIND_BY_LABEL, NO_ITEM, Events, Kind, event_id, item_id, pseudonym
from segue.simulator import DEMO_KEY

SUFFIXES = (".parquet", ".csv", ".csv.gz")
REQUIRED = ("event_id", "customer", "kind", "item", "event_time", "value_minor")
OPTIONAL = ("available_time", "category", "title")

ROW_LIMIT = 50_000_000
BYTES_LIMIT = 4 * 2**30
VIOLATION_LIMIT = 20
LAST_TIME_MS = 2**42
"""In 2109; a later time is taken for one in other units."""

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


class Problems:
    """What is wrong with which rows of a file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._found: list[tuple[int, str, str]] = []
        self._count = 0

    def add(self, bad: Mask, column: str, problem: str) -> None:
        """Note that the rows where `bad`, shape (n,), have this problem in `column`."""
        rows = np.flatnonzero(bad)
        self._count += len(rows)
        self._found += [(row, column, problem) for row in rows[:VIOLATION_LIMIT].tolist()]

    def check(self) -> None:
        """Raise InvalidInput with the first violations in order of rows, if there are any."""
        if self._count:
            raise InvalidInput(*self._violations())

    def _violations(self) -> Iterator[Violation]:
        listed = sorted(self._found)[:VIOLATION_LIMIT]
        for row, column, problem in listed:
            yield Violation(f"{self._file}[{row}].{column}", problem)
        if more := self._count - len(listed):
            yield Violation(str(self._file), f"has {more} more violations")


def load(path: Path, *, key: bytes = DEMO_KEY) -> Dataset:
    """Read the event log in the file `path`; rows count from 0.

    Raises:
        InvalidInput: the file is too large, cannot be read, or lacks a column; or rows of it are bad: the first
            `VIOLATION_LIMIT` violations are named.
    """
    with reading(path):
        table = read(path)
        problems = Problems(path)
        texts = {column: text(table[column]) for column in ("event_id", "customer", "kind", "item")}
        for column in ("event_id", "customer", "kind"):
            problems.add(texts[column].isna().to_numpy(), column, "is missing")
        event_time_ms = times(table["event_time"], "event_time", problems)
        available_time_ms = event_time_ms
        if "available_time" in table.column_names:
            given = table["available_time"].is_valid().to_numpy()
            available_time_ms = np.where(
                given, times(table["available_time"], "available_time", problems, given), event_time_ms
            )
            problems.add(available_time_ms < event_time_ms, "available_time", "is before event_time")
        value_minor = money(table["value_minor"], problems)
        problems.check()
    customers, customer = coded(texts["customer"])
    labels, kind = coded(texts["kind"])
    external_id, item = coded(texts["item"])
    events = Events(
        objects(pseudonym(user_id, key) for user_id in customers),
        customer=customer.astype(np.int32),
        event_id=np.array([event_id(external) for external in texts["event_id"]], np.uint64),
        kind=np.array([KIND_BY_LABEL.get(label, Kind.UNKNOWN) for label in labels], np.uint8)[kind],
        item=np.array([item_id(external) for external in external_id] + [NO_ITEM], np.int64)[item],
        event_time_ms=event_time_ms,
        available_time_ms=available_time_ms,
        value_minor=value_minor,
    )
    catalogue = catalogue_of(external_id, *(said(table, texts["item"], column) for column in ("category", "title")))
    return Dataset(path.name.split(".")[0], events, catalogue, "the owner's")


def read(path: Path) -> pa.Table:
    """The file's columns that count, as they are.

    Raises:
        InvalidInput: it is too large, or lacks a column.
    """
    if path.stat().st_size > BYTES_LIMIT:
        raise InvalidInput.because(str(path), f"is larger than {BYTES_LIMIT} bytes")
    if path.name.endswith(".parquet"):
        names = pq.read_schema(path).names
        table = pq.read_table(path, columns=[column for column in (*REQUIRED, *OPTIONAL) if column in names])
    else:
        # As text: whatever looks odd must be named by its row rather than decide a column's type.
        types = dict.fromkeys((*REQUIRED, *OPTIONAL), pa.string())
        options = pa.csv.ConvertOptions(column_types=types, strings_can_be_null=True, null_values=[""])
        table = pa.csv.read_csv(path, convert_options=options)
    if missing := [column for column in REQUIRED if column not in table.column_names]:
        raise InvalidInput(*(Violation(f"{path}.{column}", "this column is missing") for column in missing))
    if table.num_rows > ROW_LIMIT:
        raise InvalidInput.because(str(path), f"has {table.num_rows} rows, more than {ROW_LIMIT}")
    return table


def said(table: pa.Table, item: pd.Series, column: str) -> dict[str, str]:
    """What the rows say of items in `column`, the last row of each item; nothing if there is no such column."""
    if column not in table.column_names:
        return {}
    named = pd.DataFrame({"item": item, "said": text(table[column])}).dropna()
    return dict(zip(named["item"], named["said"], strict=True))


def text(column: pa.ChunkedArray) -> pd.Series:
    """The values as text, null where null or empty."""
    values = column.cast(pa.string()).to_pandas()
    return values.mask(values == "", None)


def times(column: pa.ChunkedArray, name: str, problems: Problems, given: Mask | None = None) -> Ints:
    """The column as ms since 1970, 0 where it is bad; only `given` rows, shape (n,), have to be good."""
    if pa.types.is_timestamp(column.type):
        # Finer units are cut off, never rounded up into the future.
        good = column.is_valid().to_numpy()
        time_ms = column.cast(pa.timestamp("ms", column.type.tz), safe=False).cast(pa.int64()).fill_null(0).to_numpy()
    elif pa.types.is_integer(column.type):
        good = column.is_valid().to_numpy()
        time_ms = column.cast(pa.int64()).fill_null(0).to_numpy()
    else:
        values = text(column)
        number = pd.to_numeric(values, errors="coerce").astype("float64")
        moment = pd.to_datetime(values.where(number.isna()), errors="coerce", utc=True, format="ISO8601")
        parsed = number.where(moment.isna(), moment.dt.as_unit("ms").astype("int64").astype("float64"))
        good = parsed.notna().to_numpy() & (parsed % 1 == 0).to_numpy()
        time_ms = parsed.where(good, 0).to_numpy(np.int64)
    needed = np.ones(len(good), bool) if given is None else given
    problems.add(needed & ~good, name, "is no time: a timestamp, ISO 8601 text or integer ms")
    beyond = good & ((time_ms < 0) | (time_ms >= LAST_TIME_MS))
    problems.add(needed & beyond, name, "is outside 1970..2109; integers are milliseconds")
    return np.where(good & ~beyond, time_ms, 0)


def money(column: pa.ChunkedArray, problems: Problems) -> Ints:
    """The column as integers, 0 where it is null or bad."""
    if pa.types.is_integer(column.type):
        return column.cast(pa.int64()).fill_null(0).to_numpy()
    given = text(column)
    values = pd.to_numeric(given, errors="coerce").where(given.notna(), 0)
    good = (values.abs() <= 2**53) & (values % 1 == 0)
    problems.add(~good.to_numpy(), "value_minor", "is no integer of minor units")
    return values.where(good, 0).to_numpy(np.int64)
