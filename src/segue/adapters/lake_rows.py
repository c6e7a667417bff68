"""The rows of the lake's tables: their schemas, and what they are in the domain."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from segue.customers import Barrier, Link
from segue.errors import InvalidInput
from segue.events import KIND_BY_LABEL, Events, Kind

UTC_TIMESTAMP = pa.timestamp("us", tz="UTC")

RECORD_SCHEMA = pa.schema(
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
"""What an event is to everything that computes."""

DETAILS_SCHEMA = pa.schema(
    [
        ("kind", pa.string()),  # the label itself, also where it is no canonical kind
        ("item_id", pa.string()),  # the item by its id in the caller's catalogue
        ("receive_time", UTC_TIMESTAMP),
        ("original_time", UTC_TIMESTAMP),
        ("sent_time", UTC_TIMESTAMP),
        ("currency", pa.string()),
        ("properties", pa.string()),  # a JSON object
    ]
)
"""What else is known of an event, null where it is not."""

EVENT_SCHEMA = pa.schema([*RECORD_SCHEMA, *(field for field in DETAILS_SCHEMA if field.name != "kind")])

LINK_SCHEMA = pa.schema([("source", pa.string()), ("target", pa.string()), ("available_time", UTC_TIMESTAMP)])

REGISTERS = ("erased_at", "denied_at", "granted_at")

BARRIER_SCHEMA = pa.schema([("customer", pa.string()), *((name, UTC_TIMESTAMP) for name in REGISTERS)])

CATALOGUE_SCHEMA = pa.schema(
    [
        ("item", pa.int64()),
        ("external_id", pa.string()),
        ("category", pa.string()),
        ("price_minor", pa.int64()),
        ("title", pa.string()),  # a table written before there were titles lacks it
    ]
)

_LABELS = np.array([kind.label for kind in Kind], object)


def from_events(events: Events, details: pa.Table | None) -> pa.Table:
    """Rows of EVENT_SCHEMA, one for each event.

    Raises:
        InvalidInput: an event has a code that is no kind, or `details` is not one row of DETAILS_SCHEMA for each event.
    """
    if events.kind.max(initial=0) >= len(_LABELS):
        raise InvalidInput.because("kind", f"{events.kind.max()} is no kind")
    if details is not None and (len(details) != len(events) or details.schema != DETAILS_SCHEMA):
        raise InvalidInput.because("details", f"are not one row for each of {len(events)} events")
    customers = pa.DictionaryArray.from_arrays(pa.array(events.customer), pa.array(events.customers, pa.string()))
    kinds = pa.DictionaryArray.from_arrays(pa.array(events.kind.astype(np.int32)), pa.array(_LABELS, pa.string()))
    labels = kinds.cast(pa.string())
    if details is None:
        details = pa.table([pa.nulls(len(events), field.type) for field in DETAILS_SCHEMA], DETAILS_SCHEMA)
    else:
        labels = pc.coalesce(details["kind"], labels)
    return pa.table(
        [
            customers.cast(pa.string()),
            pa.array(events.event_id.view(np.int64)),
            labels,
            pa.array(events.item),
            timestamps(events.event_time_ms),
            timestamps(events.available_time_ms),
            pa.array(events.value_minor),
            *details.drop_columns("kind").columns,
        ],
        EVENT_SCHEMA,
    )


def to_events(table: pa.Table) -> Events:
    """The events of rows that have the columns of RECORD_SCHEMA."""
    table = table.select(RECORD_SCHEMA.names).cast(RECORD_SCHEMA)
    customer = table["customer"].combine_chunks().dictionary_encode()
    kind = table["kind"].combine_chunks().dictionary_encode()
    codes = np.array([KIND_BY_LABEL.get(label, Kind.UNKNOWN) for label in kind.dictionary.to_pylist()], np.uint8)
    return Events(
        customers=customer.dictionary.to_numpy(zero_copy_only=False),
        customer=customer.indices.to_numpy().astype(np.int32),
        event_id=table["event_id"].to_numpy().view(np.uint64),
        kind=codes[kind.indices.to_numpy()] if len(codes) else np.empty(0, np.uint8),
        item=table["item"].to_numpy(),
        event_time_ms=milliseconds(table["event_time"]),
        available_time_ms=milliseconds(table["available_time"]),
        value_minor=table["value_minor"].to_numpy(),
    )


def from_links(links: Sequence[Link]) -> pa.Table:
    """Rows of LINK_SCHEMA."""
    times = timestamps([link.available_time_ms for link in links])
    return pa.table([[link.source for link in links], [link.target for link in links], times], LINK_SCHEMA)


def to_links(table: pa.Table) -> Iterator[Link]:
    """The links of rows of LINK_SCHEMA."""
    times = milliseconds(table["available_time"]).tolist()
    for source, target, time_ms in zip(table["source"].to_pylist(), table["target"].to_pylist(), times, strict=True):
        yield Link(source, target, time_ms)


def from_barriers(barriers: Sequence[Barrier]) -> pa.Table:
    """Rows of BARRIER_SCHEMA."""
    registers = [timestamps([getattr(each, f"{name}_ms") for each in barriers]) for name in REGISTERS]
    return pa.table([[each.customer for each in barriers], *registers], BARRIER_SCHEMA)


def to_barriers(table: pa.Table) -> Iterator[Barrier]:
    """The barriers of rows of BARRIER_SCHEMA, unmerged."""
    micros = [table[name].cast(pa.int64()).to_pylist() for name in REGISTERS]
    for customer, *registers in zip(table["customer"].to_pylist(), *micros, strict=True):
        yield Barrier(customer, *(None if at is None else at // 1000 for at in registers))


def timestamps(times_ms: Iterable[int | None]) -> pa.Array:
    """Times in ms as UTC_TIMESTAMP."""
    if isinstance(times_ms, np.ndarray):
        return pa.array(times_ms * 1000).cast(UTC_TIMESTAMP)
    return pa.array([None if at is None else at * 1000 for at in times_ms], pa.int64()).cast(UTC_TIMESTAMP)


def milliseconds(column: pa.ChunkedArray) -> np.ndarray:
    """Timestamps as int64 ms."""
    return pc.cast(column, pa.int64()).to_numpy() // 1000
