"""Delta tables: created by whoever comes first, appended to once for each entry of an event log, changed beside others.

Found by experiment with deltalake 1.6: of two appends from one snapshot that name the same application id the second
fails, as it must; an append also fails beside a concurrent delete, and a delete beside any append, which both may be
tried again; a write to a path, without a snapshot, checks none of it.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError

from segue.errors import LakeConflict

ATTEMPTS = 20
"""How often an append is tried beside others' commits."""

CHANGE_ATTEMPTS = 8
UNGATED_ATTEMPTS = 2
GATE = "segue/gate"
GATE_MAX_SECONDS = 600
GATE_POLL_SECONDS = 0.2

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class OffsetStep:
    """What a commit does to the offset of one partition of an event log."""

    after: int | None
    """The offset the table must hold; None: none yet."""
    upto: int
    """The offset it will hold."""


def exists(uri: str) -> bool:
    """Whether there is a table at `uri`."""
    return DeltaTable.is_deltatable(uri)


def open_or_create(uri: str, schema: pa.Schema, properties: Mapping[str, str]) -> DeltaTable:
    """The table at `uri`; an empty one with `schema` and `properties` where there was none.

    Raises:
        LakeConflict: others are creating it, and none succeeds.
    """
    for _ in range(ATTEMPTS):
        if exists(uri):
            return DeltaTable(uri)
        try:
            DeltaTable.create(uri, schema, mode="ignore", configuration=dict(properties))
        except CommitFailedError:
            continue  # another came first
    raise LakeConflict(f"{uri} cannot be created")


def append(table: DeltaTable, rows: pa.Table, *, offsets: Mapping[str, OffsetStep]) -> None:
    """Add `rows` to `table`, and take the steps of `offsets`, by application id, in the same commit.

    Columns the table lacks are added to it. Waits while a change has the appends wait.

    Raises:
        LakeConflict: the table does not hold the offsets the steps are to be taken from; nothing was written.
    """
    transactions = [Transaction(app_id, step.upto) for app_id, step in offsets.items()]
    for _ in range(ATTEMPTS):
        table.update_incremental()
        _wait_at_gate(table)
        for app_id, step in offsets.items():
            if (held := table.transaction_version(app_id)) != step.after:
                raise LakeConflict(f"{app_id}: the lake is at offset {held}, not at {step.after}")
        try:
            # From the snapshot that was looked at, so that a commit since then with the same application id is noticed.
            write_deltalake(
                table,
                rows,
                mode="append",
                schema_mode="merge",
                commit_properties=CommitProperties(app_transactions=transactions),
            )
        except CommitFailedError:
            continue
        return
    raise LakeConflict(f"{table.table_uri}: {ATTEMPTS} commits in a row failed beside other writers")


def change(uri: str, commit: Callable[[DeltaTable, CommitProperties], T]) -> T:
    """Run `commit`, which changes or removes rows of the table at `uri`, until no append comes in between.

    Where they come faster than a change takes, they are asked to wait: the table's log holds until when, as the version
    of an application transaction. Nothing depends on it but how soon a change succeeds.

    Raises:
        LakeConflict: an append always did; the table is as it was.
    """
    longest_seconds = 0.0
    for attempt in range(CHANGE_ATTEMPTS):
        table = DeltaTable(uri)
        begun = time.monotonic()
        try:
            if attempt < UNGATED_ATTEMPTS:
                return commit(table, CommitProperties())
            patience_seconds = min(3 * longest_seconds + 5, GATE_MAX_SECONDS)
            _gate(table, _now_ms() + round(patience_seconds * 1000))
            # The change itself lets them go on.
            return commit(table, CommitProperties(app_transactions=[Transaction(GATE, 0)]))
        except CommitFailedError:
            longest_seconds = max(longest_seconds, time.monotonic() - begun)
    raise LakeConflict(f"{uri}: {CHANGE_ATTEMPTS} commits in a row failed beside other writers")


def _gate(table: DeltaTable, until_ms: int) -> None:
    nothing = pa.schema(table.schema().to_arrow()).empty_table()
    properties = CommitProperties(app_transactions=[Transaction(GATE, until_ms)])
    write_deltalake(table, nothing, mode="append", commit_properties=properties)


def _wait_at_gate(table: DeltaTable) -> None:
    latest_ms = _now_ms() + GATE_MAX_SECONDS * 1000
    while _now_ms() < min(table.transaction_version(GATE) or 0, latest_ms):
        time.sleep(GATE_POLL_SECONDS)
        table.update_incremental()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def rows(uri: str, schema: pa.Schema) -> pa.Table:
    """All of a small table, in the columns of `schema`: null where it lacks one, no rows where there is no table."""
    if not exists(uri):
        return schema.empty_table()
    table: Any = DeltaTable(uri).to_pyarrow_table()
    for field in schema:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table.select(schema.names).cast(schema)
