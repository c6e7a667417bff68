"""A data set: events, the catalogue of their items, and on what terms they may be used."""

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from segue.catalogue import Catalogue
from segue.errors import InvalidInput
from segue.events import NO_ITEM, Events, event_ids, item_id, pseudonym

ORDER_ONLY_START_MS = 1_577_836_800_000
"""2020-01-01T00:00Z: where the made-up times of sources that know only an order begin."""
MINUTE_MS = 60_000

ARCHIVE_ERRORS = (zipfile.BadZipFile, zlib.error, pa.ArrowException)


@dataclass(frozen=True, eq=False)
class Dataset:
    """An event log with its items.

    Customers without events and items without events do not occur. Where the source says nothing of availability,
    every event is available when it happens.
    """

    name: str
    events: Events
    catalogue: Catalogue
    licence: str
    order_only: bool = False
    """The source knows an order and no times: a customer's events are one minute apart, and time splits mean little."""
    test_from_ms: int | None = None
    """Where the source's own test part begins, if it has one."""


@dataclass(frozen=True)
class Source:
    """How a data set is recognised: by the name of its main file, and its columns if that is Parquet."""

    file: str  # a glob
    columns: frozenset[str] = frozenset()

    def find(self, path: Path) -> Path | None:
        """The main file at `path` or in the folder `path`; None if it is not there.

        Raises:
            InvalidInput: a file of that name cannot be read.
        """
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        return next((file for file in files if fnmatch(file.name, self.file) and self._has_columns(file)), None)

    def locate(self, path: Path) -> Path:
        """The main file, which must be there.

        Raises:
            InvalidInput: it is not.
        """
        if not path.exists() or (file := self.find(path)) is None:
            columns = f" with columns {', '.join(sorted(self.columns))}" if self.columns else ""
            raise InvalidInput.because(str(path), f"holds no {self.file}{columns}")
        return file

    def _has_columns(self, file: Path) -> bool:
        if not self.columns:
            return True
        with reading(file):
            return self.columns <= set(pq.read_schema(file).names)


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Turn whatever goes wrong while `file` is read and parsed into InvalidInput that names it."""
    try:
        yield
    except InvalidInput:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, OSError, EOFError, *ARCHIVE_ERRORS) as error:
        raise InvalidInput.because(str(file), f"cannot be read: {error}") from error


def assemble(
    log: pd.DataFrame,
    *,
    name: str,
    licence: str,
    key: bytes,
    category: Mapping[str, str] | None = None,
    title: Mapping[str, str] | None = None,
    order_only: bool = False,
    test_from_ms: int | None = None,
) -> Dataset:
    """The data set of a log with one event per row; event ids number the rows.

    Args:
        log: columns customer (any id), kind (`Kind`), item (any id, null for none), event_time_ms, and value_minor
            unless it is 0 everywhere.
        category: by external item id.
        title: likewise.

    Raises:
        InvalidInput: a row names no customer, kind or time.
    """
    for column in ("customer", "kind", "event_time_ms"):
        if (missing := log[column].isna().to_numpy()).any():
            raise InvalidInput.because(f"{name}[{missing.argmax()}].{column}", "is missing")
    customers, customer = coded(log["customer"])
    external_id, item = coded(log["item"])
    # The code of a missing item is -1: the last place.
    ids = np.array([item_id(external) for external in external_id] + [NO_ITEM], np.int64)
    time_ms = log["event_time_ms"].to_numpy(np.int64)
    count = len(log)
    events = Events(
        objects(pseudonym(user_id, key) for user_id in customers),
        customer=customer.astype(np.int32),
        event_id=event_ids(name, np.arange(count)),
        kind=log["kind"].to_numpy(np.uint8),
        item=ids[item],
        event_time_ms=time_ms,
        available_time_ms=time_ms.copy(),
        value_minor=log["value_minor"].to_numpy(np.int64) if "value_minor" in log else np.zeros(count, np.int64),
    )
    catalogue = catalogue_of(external_id, category or {}, title or {})
    return Dataset(name, events, catalogue, licence, order_only, test_from_ms)


def coded(values: pd.Series) -> tuple[list[str], NDArray[np.intp]]:
    """The distinct ids as text, in order of appearance, and where each row points; -1 for null."""
    codes, distinct = pd.factorize(values)
    return [str(value) for value in distinct], codes


def catalogue_of(external_id: list[str], category: Mapping[str, str], title: Mapping[str, str]) -> Catalogue:
    """The catalogue of items with these ids; categories and titles are unknown unless given, prices always."""
    return Catalogue(
        item=np.array([item_id(external) for external in external_id], np.int64),
        external_id=objects(external_id),
        category=objects(category.get(external, "") for external in external_id),
        price_minor=np.zeros(len(external_id), np.int64),
        title=objects(title.get(external, "") for external in external_id),
    )


def objects(values: Iterator[str] | list[str]) -> NDArray[np.object_]:
    """An object array of texts, shape (n,)."""
    texts = list(values)
    array = np.empty(len(texts), np.object_)
    array[:] = texts
    return array


def in_file_order(customer: pd.Series, time_seconds: pd.Series) -> pd.Series:
    """Times in ms of a log in whole seconds: a customer's events of one second are 1 ms apart, as the file has them."""
    rank = time_seconds.groupby([customer, time_seconds]).cumcount()
    return time_seconds * 1_000 + rank.clip(upper=999)


def minute_apart(customer: pd.Series) -> pd.Series:
    """Made-up times in ms of a log that knows only each customer's order: one minute apart from a fixed start."""
    return ORDER_ONLY_START_MS + customer.groupby(customer).cumcount() * MINUTE_MS
