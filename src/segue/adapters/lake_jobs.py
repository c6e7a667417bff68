"""Upkeep of the event lake: copies out, files few and in order, what is forgotten gone from the disk.

Appends go on meanwhile. A job that changes rows starts over when one comes in between (`delta.change`); sorting does
not even notice. Rows to remove are joined with the table instead of being named in a predicate: the table's log would
keep a predicate, pseudonyms and all.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, WriterProperties

from segue.adapters import delta, lake_rows
from segue.adapters.lake import EVENT_PROPERTIES, Lake
from segue.adapters.lake_rows import EVENT_SCHEMA
from segue.adapters.lake_scan import Customers
from segue.customers import BARRED_MS, Barrier
from segue.errors import InvalidInput
from segue.history import differs, record_columns, record_order
from segue.identity import ALWAYS_MS

RECORD_KEY = ("customer", "event_id", "kind", "item", "event_time", "value_minor")
"""The columns in which copies of an event are equal."""

FILES = WriterProperties(compression="ZSTD", max_row_group_size=100_000)
"""How files are written: a reader skips as many rows as make a group, and of a sorted file nearly all groups."""

COPIES_PER_COMMIT = 200_000

ABANDONED_HOURS = 1
"""A file of this age that no commit names was left by a writer that died: no commit takes as long."""

CUSTOMER_MAX_CHARS = 128

SPILL_BYTES = 512 * 2**20
"""Memory a sort may take before it goes on on disk."""


@dataclass(frozen=True, slots=True)
class Compaction:
    """What a compaction did."""

    forgotten_count: int
    """Rows at or before a barrier that were removed."""
    copy_count: int
    """Rows equal to another one that were removed."""
    files_before: int
    files_after: int
    deleted_file_count: int


def compact(lake: Lake, *, z_order: bool = True, retention_hours: int = 24, max_events: int = 1_000_000) -> Compaction:
    """Remove what is forgotten and exact copies, rewrite the files, delete those no longer needed.

    Args:
        lake: what to work on.
        z_order: sort all of the table by customer; else only small files are put together.
        retention_hours: how long replaced files stay for readers that have begun.
        max_events: events looked at for copies at a time.

    Raises:
        InvalidInput: the lake holds no event table.
        LakeConflict: appends came too close on each other.
    """
    files_before = len(lake.dataset().files)
    _keep_out_of_log(lake)
    forgotten = _remove(lake, _removable(lake.barrier_registers()))
    copies = sum(_drop_copies(lake, found) for found in _copies(lake, max_events))
    table = DeltaTable(lake.events_uri)
    if z_order:
        table.optimize.z_order(["customer"], writer_properties=FILES, max_spill_size=SPILL_BYTES)
    else:
        table.optimize.compact(writer_properties=FILES, max_spill_size=SPILL_BYTES)
    deleted = sum(_tidy(uri, retention_hours) for uri in (lake.events_uri, lake.links_uri, lake.barriers_uri))
    return Compaction(forgotten, copies, files_before, len(lake.dataset().files), deleted)


def erase(lake: Lake, customers: Iterable[str], upto_ms: int) -> int:
    """Remove the events of `customers` up to `upto_ms`, also from the disk; returns how many there were.

    A reader that has begun may miss a file and must begin again. Files of a writer that died are deleted once they are
    ABANDONED_HOURS old.

    Raises:
        InvalidInput: a customer's pseudonym has no or more than 128 characters.
        LakeConflict: appends came too close on each other; nothing was removed.
    """
    names = sorted(set(customers))
    for name in names:
        if not 0 < len(name) <= CUSTOMER_MAX_CHARS:
            raise InvalidInput.because("customer", f"has {len(name)} characters, must have 1 to {CUSTOMER_MAX_CHARS}")
    if not delta.exists(lake.events_uri):
        return 0
    _keep_out_of_log(lake)
    removed = _remove(lake, dict.fromkeys(names, upto_ms))
    _tidy(lake.events_uri, retention_hours=0)
    return removed


def _removable(barriers: Mapping[str, Barrier]) -> dict[str, int]:
    """Up to when the events of each customer are forgotten for good."""
    upto = {}
    for customer, barrier in barriers.items():
        at_ms = barrier.effective_ms
        # While consent is withdrawn no event counts; what came after may, once it turns out to have been given again.
        at_ms = barrier.denied_at_ms if at_ms == BARRED_MS else at_ms
        if at_ms is not None:
            upto[customer] = at_ms
    return upto


def _remove(lake: Lake, upto_ms: Mapping[str, int]) -> int:
    """Remove the events of each customer up to a time; returns how many."""
    names = sorted(upto_ms)
    held = lake.rows(["customer", "event_time"], Customers(names=names))
    barred = np.array([upto_ms[name] for name in held["customer"].to_pylist()], np.int64)
    if not (lake_rows.milliseconds(held["event_time"]) <= barred).any():
        return 0
    upto = lake_rows.timestamps([upto_ms[name] for name in names])
    source = pa.table({"customer": pa.array(names, pa.string()), "upto": upto})

    def delete(table: DeltaTable, properties: CommitProperties) -> dict[str, Any]:
        matches = "event.customer = gone.customer AND event.event_time <= gone.upto"
        merger = table.merge(
            source,
            matches,
            source_alias="gone",
            target_alias="event",
            writer_properties=FILES,
            commit_properties=properties,
            max_spill_size=SPILL_BYTES,
        )
        return merger.when_matched_delete().execute()

    counts = delta.change(lake.events_uri, delete)
    return int(counts["num_target_rows_deleted"])


def _copies(lake: Lake, max_events: int) -> Iterator[pa.Table]:
    """For every record that is there more than once, the row of EVENT_SCHEMA that was available first."""
    for first, past in lake.customer_ranges(max_events):
        events = lake.read(first_customer=first, past_customer=past)
        order = record_order(events.customer, record_columns(events))
        events = events.take(order)
        again = (events.customer[1:] == events.customer[:-1]) & ~differs(record_columns(events))
        doubled = events.customers[np.unique(events.customer[1:][again])]
        suspects = pa.array(np.unique(events.event_id[1:][again]).view(np.int64))
        for start in range(0, len(doubled), COPIES_PER_COMMIT):
            some = Customers(names=sorted(doubled[start : start + COPIES_PER_COMMIT]))
            held = [name for name in EVENT_SCHEMA.names if name in lake.dataset().schema.names]
            rows = lake.rows(held, some)
            # Of customers with a copy only the rows that can be one: sorting all of them would take the memory of all.
            rows = _whole(rows.filter(pc.is_in(rows["event_id"], suspects))).sort_by(
                [(name, "ascending") for name in (*RECORD_KEY, "available_time")]
            )
            grouped = rows.append_column("row", pa.array(np.arange(len(rows)))).group_by(RECORD_KEY)
            groups = grouped.aggregate([("row", "min"), ("row", "count")])
            several = groups.filter(pc.field("row_count") > 1)
            if len(several):
                yield rows.take(several["row_min"])


def _drop_copies(lake: Lake, kept: pa.Table) -> int:
    """Replace all rows equal to one of `kept` by it, in one commit; returns how many fewer there are."""

    def replace(table: DeltaTable, properties: CommitProperties) -> dict[str, Any]:
        # Who was erased since the copies were found must not come in again.
        gone = _removable(lake.barrier_registers())
        barred = np.array([gone.get(name, ALWAYS_MS) for name in kept["customer"].to_pylist()], np.int64)
        rows = kept.filter(pa.array(lake_rows.milliseconds(kept["event_time"]) > barred))
        # One commit cannot tell equal rows apart: all of them go, and one comes in again, under a key nothing matches.
        keys = {f"key_{name}": kept[name] for name in RECORD_KEY}
        nothing = {f"key_{name}": pa.nulls(len(rows), kept[name].type) for name in RECORD_KEY}
        columns = [{name: each[name] for name in EVENT_SCHEMA.names} for each in (kept, rows)]
        source = pa.concat_tables([pa.table({**keys, **columns[0]}), pa.table({**nothing, **columns[1]})])
        merger = table.merge(
            source,
            " AND ".join(f"event.{name} = copy.key_{name}" for name in RECORD_KEY),
            source_alias="copy",
            target_alias="event",
            writer_properties=FILES,
            commit_properties=properties,
            max_spill_size=SPILL_BYTES,
        ).when_matched_delete()
        inserted = {name: f"copy.{name}" for name in EVENT_SCHEMA.names}
        return merger.when_not_matched_insert(inserted, "copy.key_customer IS NULL").execute()

    counts = delta.change(lake.events_uri, replace)
    return int(counts["num_target_rows_deleted"]) - int(counts["num_target_rows_inserted"])


def _whole(rows: pa.Table) -> pa.Table:
    """`rows` with every column of EVENT_SCHEMA, in its order."""
    columns = [
        rows[field.name].cast(field.type) if field.name in rows.column_names else pa.nulls(len(rows), field.type)
        for field in EVENT_SCHEMA
    ]
    return pa.table(columns, EVENT_SCHEMA)


def _tidy(uri: str, retention_hours: int) -> int:
    """Delete files that nobody needs any more, and the old part of the table's log; returns how many files."""
    if not delta.exists(uri):
        return 0
    deleted = DeltaTable(uri).vacuum(retention_hours, dry_run=False, enforce_retention_duration=False)
    # Files that no commit names may be about to be named by one; only the old ones are abandoned.
    hours = max(retention_hours, ABANDONED_HOURS)
    deleted += DeltaTable(uri).vacuum(hours, dry_run=False, enforce_retention_duration=False, full=True)
    table = DeltaTable(uri)
    table.create_checkpoint()
    table.cleanup_metadata()
    return len(set(deleted))


def _keep_out_of_log(lake: Lake) -> None:
    """Give a table that an earlier version made the properties of a new one."""
    table = DeltaTable(lake.events_uri)
    if not EVENT_PROPERTIES.items() <= table.metadata().configuration.items():
        table.alter.set_table_properties(EVENT_PROPERTIES)
