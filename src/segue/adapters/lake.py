"""The event lake: every event ever accepted, in a Delta Lake table, and the catalogue beside it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import DeltaTable, write_deltalake

from segue.catalogue import Catalogue
from segue.errors import InvalidInput
from segue.events import KIND_BY_LABEL, Events, Kind

UTC_TIMESTAMP = pa.timestamp("us", tz="UTC")

EVENT_SCHEMA = pa.schema(
    [
        ("customer", pa.string()),
        ("event_id", pa.int64()),  # the uint64 id, bit for bit: Delta Lake has no unsigned types
        ("kind", pa.string()),
        ("item", pa.int64()),
        ("event_time", UTC_TIMESTAMP),
        ("available_time", UTC_TIMESTAMP),
        ("value_minor", pa.int64()),
    ]
)

CATALOGUE_SCHEMA = pa.schema(
    [("item", pa.int64()), ("external_id", pa.string()), ("category", pa.string()), ("price_minor", pa.int64())]
)

_LABELS = np.array([kind.label for kind in Kind], object)


class Lake:
    """The tables under one directory (or object-store URL); nothing is touched before the first call."""

    def __init__(self, root: str | Path) -> None:
        self.root = str(root)
        self.events_uri = f"{self.root}/events"
        self.catalogue_uri = f"{self.root}/catalogue"

    def append(self, events: Events) -> None:
        """Add `events` in one atomic commit.

        Raises:
            InvalidInput: an event has a code that is no kind.
        """
        write_deltalake(self.events_uri, _to_arrow(events), mode="append")

    def read(self, *, first_customer: str | None = None, past_customer: str | None = None) -> Events:
        """All events, or those of customers in [first_customer, past_customer), in no particular order.

        Raises:
            InvalidInput: the lake holds no event table.
        """
        table = self._dataset().to_table(filter=_between(first_customer, past_customer))
        return _from_arrow(table.cast(EVENT_SCHEMA))

    def time_range(self) -> tuple[int, int]:
        """Event times in ms of the oldest and the newest event.

        Raises:
            InvalidInput: the lake holds no event.
        """
        times = self._dataset().to_table(columns=["event_time"])["event_time"]
        if not len(times):
            raise InvalidInput.because("lake", f"no event in {self.events_uri}")
        oldest, newest = (edge(_milliseconds(times)) for edge in (np.min, np.max))
        return int(oldest), int(newest)

    def customers(self) -> list[str]:
        """Every customer, in order."""
        return self._event_counts()["customer"].to_pylist()

    def recent_customers(self, limit: int) -> list[str]:
        """At most `limit` customers with the newest events, the newest first."""
        events = self._dataset().to_table(columns=["customer", "event_time"])
        newest = events.group_by("customer").aggregate([("event_time", "max")])
        ranked = newest.sort_by([("event_time_max", "descending"), ("customer", "ascending")])
        return ranked["customer"].slice(0, limit).to_pylist()

    def customer_ranges(self, max_events: int) -> Iterator[tuple[str | None, str | None]]:
        """Consecutive ranges that together hold every customer, each with about `max_events` events at most.

        A single customer is never divided, so one with more events than that makes a range of their own.
        """
        if max_events < 1:
            raise InvalidInput.because("max_events", f"is {max_events}, must be at least 1")
        counts = self._event_counts()
        names = counts["customer"].to_pylist()
        cumulated = np.cumsum(counts["count_all"].to_numpy())
        part = (cumulated - 1) // max_events
        starts = [names[position] for position in np.flatnonzero(np.diff(part)) + 1]
        yield from zip([None, *starts], [*starts, None], strict=True)

    def version(self) -> int:
        """The version of the event table; -1 where there is none yet."""
        return DeltaTable(self.events_uri).version() if DeltaTable.is_deltatable(self.events_uri) else -1

    def write_catalogue(self, catalogue: Catalogue) -> None:
        """Replace the catalogue."""
        columns = [pa.array(getattr(catalogue, field.name), field.type) for field in CATALOGUE_SCHEMA]
        table = pa.table(columns, CATALOGUE_SCHEMA)
        write_deltalake(self.catalogue_uri, table, mode="overwrite")

    def catalogue(self) -> Catalogue:
        """The catalogue; empty where none was written."""
        if not DeltaTable.is_deltatable(self.catalogue_uri):
            table = CATALOGUE_SCHEMA.empty_table()
        else:
            table = DeltaTable(self.catalogue_uri).to_pyarrow_table()
        columns = {name: table[name].to_numpy(zero_copy_only=False) for name in CATALOGUE_SCHEMA.names}
        return Catalogue(**columns)

    def _event_counts(self) -> pa.Table:
        """Columns `customer` and `count_all`, sorted by customer."""
        customers = self._dataset().to_table(columns=["customer"])
        return customers.group_by("customer").aggregate([([], "count_all")]).sort_by("customer")

    def _dataset(self) -> ds.Dataset:
        if not DeltaTable.is_deltatable(self.events_uri):
            raise InvalidInput.because("lake", f"no event table at {self.events_uri}; `segue events` writes one")
        return DeltaTable(self.events_uri).to_pyarrow_dataset()


def _between(first: str | None, past: str | None) -> ds.Expression | None:
    customer = ds.field("customer")
    if first is not None and past is not None:
        return (customer >= first) & (customer < past)
    if first is not None:
        return customer >= first
    return customer < past if past is not None else None


def _to_arrow(events: Events) -> pa.Table:
    if events.kind.max(initial=0) >= len(_LABELS):
        raise InvalidInput.because("kind", f"{events.kind.max()} is no kind")
    customers = pa.DictionaryArray.from_arrays(pa.array(events.customer), pa.array(events.customers, pa.string()))
    kinds = pa.DictionaryArray.from_arrays(pa.array(events.kind.astype(np.int32)), pa.array(_LABELS, pa.string()))
    return pa.table(
        [
            customers.cast(pa.string()),
            pa.array(events.event_id.view(np.int64)),
            kinds.cast(pa.string()),
            pa.array(events.item),
            pa.array(events.event_time_ms * 1000).cast(UTC_TIMESTAMP),
            pa.array(events.available_time_ms * 1000).cast(UTC_TIMESTAMP),
            pa.array(events.value_minor),
        ],
        EVENT_SCHEMA,
    )


def _from_arrow(table: pa.Table) -> Events:
    customer = table["customer"].combine_chunks().dictionary_encode()
    kind = table["kind"].combine_chunks().dictionary_encode()
    codes = np.array([KIND_BY_LABEL.get(label, Kind.UNKNOWN) for label in kind.dictionary.to_pylist()], np.uint8)
    return Events(
        customers=customer.dictionary.to_numpy(zero_copy_only=False),
        customer=customer.indices.to_numpy().astype(np.int32),
        event_id=table["event_id"].to_numpy().view(np.uint64),
        kind=codes[kind.indices.to_numpy()] if len(codes) else np.empty(0, np.uint8),
        item=table["item"].to_numpy(),
        event_time_ms=_milliseconds(table["event_time"]),
        available_time_ms=_milliseconds(table["available_time"]),
        value_minor=table["value_minor"].to_numpy(),
    )


def _milliseconds(column: pa.ChunkedArray) -> np.ndarray:
    return pc.cast(column, pa.int64()).to_numpy() // 1000
