"""The event lake: every event ever accepted, customers' links and barriers, and the catalogue, in Delta tables."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.acero as ac
import pyarrow.dataset as ds
from deltalake import DeltaTable, write_deltalake
from numpy.typing import NDArray

from segue.adapters import delta, lake_rows, lake_scan
from segue.adapters.delta import OffsetStep
from segue.adapters.lake_rows import (
    BARRIER_SCHEMA,
    CATALOGUE_SCHEMA,
    DETAILS_SCHEMA,
    EVENT_SCHEMA,
    LINK_SCHEMA,
    RECORD_SCHEMA,
    UTC_TIMESTAMP,
)
from segue.adapters.lake_scan import Customers
from segue.catalogue import Catalogue
from segue.customers import Barrier, Link
from segue.errors import InvalidInput
from segue.events import Events

__all__ = ["DETAILS_SCHEMA", "EVENT_SCHEMA", "UTC_TIMESTAMP", "Lake", "OffsetStep", "ranges_of"]

EVENT_PROPERTIES = {
    # The log of the table keeps the least and greatest value of a column in each file, long after a row is gone. No
    # pseudonym gets there; the files themselves still tell their readers which customers they hold.
    "delta.dataSkippingStatsColumns": "event_time,available_time",
    # A commit every few seconds; nobody reads yesterday's state of the table.
    "delta.logRetentionDuration": "interval 1 days",
}
FACT_PROPERTIES = {**EVENT_PROPERTIES, "delta.dataSkippingStatsColumns": ""}


class Lake:
    """The tables under one directory (or object-store URL); nothing is touched before the first call."""

    def __init__(self, root: str | Path) -> None:
        self.root = str(root)
        self.events_uri = f"{self.root}/events"
        self.links_uri = f"{self.root}/links"
        self.barriers_uri = f"{self.root}/barriers"
        self.catalogue_uri = f"{self.root}/catalogue"
        self._events: DeltaTable | None = None

    def append(
        self, events: Events, *, details: pa.Table | None = None, offsets: Mapping[str, OffsetStep] | None = None
    ) -> None:
        """Add `events` in one atomic commit, and move the offsets of the log they came from with it.

        Args:
            events: what to add.
            details: a row of DETAILS_SCHEMA for each event; its kind, where it has one, is kept instead of the code's.
            offsets: by application id, the step of each partition that the events complete.

        Raises:
            InvalidInput: an event has a code that is no kind, or `details` does not fit.
            LakeConflict: an offset is not where its step begins: another took the entries; nothing was written.
        """
        rows = lake_rows.from_events(events, details)
        if self._events is None:
            self._events = delta.open_or_create(self.events_uri, EVENT_SCHEMA, EVENT_PROPERTIES)
        delta.append(self._events, rows, offsets=offsets or {})

    def offset(self, app_id: str) -> int | None:
        """The offset up to which the events of `app_id` are in; None where none is."""
        return DeltaTable(self.events_uri).transaction_version(app_id) if delta.exists(self.events_uri) else None

    def read(
        self,
        *,
        first_customer: str | None = None,
        past_customer: str | None = None,
        customers: Collection[str] | None = None,
    ) -> Events:
        """The events, in no particular order: all, or of customers in [first_customer, past_customer) or `customers`.

        They are customers' own, as accepted: `CountedEvents` says which count, and for whom else.

        Raises:
            InvalidInput: the lake holds no event table.
        """
        names = None if customers is None else sorted(customers)
        return lake_rows.to_events(self.rows(RECORD_SCHEMA.names, Customers(first_customer, past_customer, names)))

    def rows(self, columns: Sequence[str], customers: Customers) -> pa.Table:
        """Columns of the event table, of some customers.

        Raises:
            InvalidInput: the lake holds no event table.
        """
        return lake_scan.again(self.dataset, lambda dataset: lake_scan.table(dataset, columns, customers))

    def time_range(self) -> tuple[int, int]:
        """Event times in ms of the oldest and the newest event.

        Raises:
            InvalidInput: the lake holds no event.
        """
        return self._range_of("event_time")

    def available_range(self) -> tuple[int, int]:
        """As `time_range`, of the times at which events became available."""
        return self._range_of("available_time")

    def customers(self, *, available_since_ms: int | None = None) -> list[str]:
        """Every customer with an event of their own, in order; or with one that became available since then."""
        since = None
        if available_since_ms is not None:
            since = ds.field("available_time") >= lake_rows.timestamps([available_since_ms])[0]
        columns = ["customer", "available_time"]
        return self._aggregate(columns, ["customer"], [], since).sort_by("customer")["customer"].to_pylist()

    def recent_customers(self, limit: int) -> list[str]:
        """At most `limit` customers with the newest events, the newest first."""
        newest = self._aggregate(["customer", "event_time"], ["customer"], [("event_time", "hash_max", None, "newest")])
        ranked = newest.sort_by([("newest", "descending"), ("customer", "ascending")])
        return ranked["customer"].slice(0, limit).to_pylist()

    def event_counts(self) -> tuple[list[str], NDArray[np.int64]]:
        """Every customer with an event of their own, in order, and how many they have."""
        counts = self._aggregate(["customer"], ["customer"], [("customer", "hash_count", None, "count")])
        counts = counts.sort_by("customer")
        return counts["customer"].to_pylist(), counts["count"].to_numpy()

    def customer_ranges(self, max_events: int) -> Iterator[tuple[str | None, str | None]]:
        """As `ranges_of`, of customers' own events."""
        return ranges_of(*self.event_counts(), max_events)

    def version(self) -> int:
        """The version of the event table; -1 where there is none yet."""
        return DeltaTable(self.events_uri).version() if delta.exists(self.events_uri) else -1

    def append_links(self, links: Sequence[Link]) -> None:
        """Add `links`; they are a set, so a copy changes nothing."""
        if links:
            table = delta.open_or_create(self.links_uri, LINK_SCHEMA, FACT_PROPERTIES)
            delta.append(table, lake_rows.from_links(links), offsets={})

    def links(self) -> list[Link]:
        """Every link once, as of when it first became available."""
        earliest: dict[tuple[str, str], Link] = {}
        for link in lake_rows.to_links(delta.rows(self.links_uri, LINK_SCHEMA)):
            known = earliest.setdefault((link.source, link.target), link)
            if link.available_time_ms < known.available_time_ms:
                earliest[link.source, link.target] = link
        return list(earliest.values())

    def append_barriers(self, barriers: Sequence[Barrier]) -> None:
        """Raise the registers of `barriers`; they never sink."""
        if barriers:
            table = delta.open_or_create(self.barriers_uri, BARRIER_SCHEMA, FACT_PROPERTIES)
            delta.append(table, lake_rows.from_barriers(barriers), offsets={})

    def barrier_registers(self) -> dict[str, Barrier]:
        """The barrier of each customer that ever had one."""
        merged: dict[str, Barrier] = {}
        for barrier in lake_rows.to_barriers(delta.rows(self.barriers_uri, BARRIER_SCHEMA)):
            known = merged.get(barrier.customer)
            merged[barrier.customer] = barrier if known is None else known.merge(barrier)
        return merged

    def barriers(self) -> dict[str, int]:
        """The barrier in force, ms, of each customer that has one."""
        found = {customer: barrier.effective_ms for customer, barrier in self.barrier_registers().items()}
        return {customer: at_ms for customer, at_ms in found.items() if at_ms is not None}

    def write_catalogue(self, catalogue: Catalogue) -> None:
        """Replace the catalogue."""
        columns = [pa.array(getattr(catalogue, field.name), field.type) for field in CATALOGUE_SCHEMA]
        table = pa.table(columns, CATALOGUE_SCHEMA)
        write_deltalake(self.catalogue_uri, table, mode="overwrite", schema_mode="overwrite")

    def catalogue(self) -> Catalogue:
        """The catalogue; empty where none was written."""
        table = delta.rows(self.catalogue_uri, CATALOGUE_SCHEMA)
        table = table.set_column(table.schema.get_field_index("title"), "title", table["title"].fill_null(""))
        columns = {name: table[name].to_numpy(zero_copy_only=False) for name in CATALOGUE_SCHEMA.names}
        return Catalogue(**columns)

    def dataset(self) -> ds.Dataset:
        """The event table as it is now.

        Raises:
            InvalidInput: the lake holds no event table.
        """
        if not delta.exists(self.events_uri):
            raise InvalidInput.because("lake", f"no event table at {self.events_uri}; `segue events` writes one")
        return DeltaTable(self.events_uri).to_pyarrow_dataset()

    def _range_of(self, column: str) -> tuple[int, int]:
        edges = self._aggregate([column], [], [(column, edge, None, edge) for edge in ("min", "max")])
        oldest, newest = (edges[edge][0].cast(pa.int64()).as_py() for edge in ("min", "max"))
        if oldest is None:
            raise InvalidInput.because("lake", f"no event in {self.events_uri}")
        return oldest // 1000, newest // 1000

    def _aggregate(
        self, columns: list[str], keys: list[str], aggregates: list[tuple], chosen: ds.Expression | None = None
    ) -> pa.Table:
        """Columns of the event table, aggregated by `keys`, without holding all of it at a time."""

        def read(dataset: ds.Dataset) -> pa.Table:
            steps = [ac.Declaration("scan", ac.ScanNodeOptions(dataset, columns=columns, filter=chosen))]
            if chosen is not None:
                # The scan only leaves out what it can by the statistics of the files.
                steps.append(ac.Declaration("filter", ac.FilterNodeOptions(chosen)))
            steps.append(ac.Declaration("aggregate", ac.AggregateNodeOptions(aggregates, keys=keys)))
            return ac.Declaration.from_sequence(steps).to_table()

        return lake_scan.again(self.dataset, read)


def ranges_of(
    names: Sequence[str], counts: NDArray[np.int64], max_events: int
) -> Iterator[tuple[str | None, str | None]]:
    """Consecutive ranges that together hold every customer, each with about `max_events` events at most.

    A single customer is never divided, so one with more events than that makes a range of their own.

    Args:
        names: the customers, in order.
        counts: how many events each has, shape (len(names),).
        max_events: at least 1.
    """
    if max_events < 1:
        raise InvalidInput.because("max_events", f"is {max_events}, must be at least 1")
    part = (np.cumsum(counts) - 1) // max_events
    starts = [names[position] for position in (np.flatnonzero(np.diff(part)) + 1).tolist()]
    return zip([None, *starts], [*starts, None], strict=True)
