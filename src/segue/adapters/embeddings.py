"""Embeddings as of many times, straight from the event lake, and the file they leave this system in.

The file never says whose they are: a row names its place in the caller's own list of customers and times, and nothing
else that was in that list.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from segue.adapters.history_features import MAX_EVENTS, histories_as_of
from segue.adapters.lake import Lake
from segue.adapters.lake_rows import UTC_TIMESTAMP
from segue.errors import EncoderMismatch, InvalidInput
from segue.history import Times
from segue.inference.answers import Status
from segue.inference.embedding import VIEW, Embeddings, Encoder, EncoderVersion

ROWS_MAX = 5_000_000
"""The most rows at once: they are held in memory, 256 bytes each at width 64."""

HISTORIES_AT_A_TIME = 8192

LABELS = ("customer", "event_timestamp")
"""What a list of customers and times must hold; the names are those of Feast's entity frames."""

VERSION_COLUMNS = {"tag": "encoder", "sha256": "encoder_sha256", "data_cut_ms": "encoder_data_cut_ms"}


def embeddings_as_of(
    lake: Lake, encoder: Encoder, customers: Sequence[str], t_ms: Times, *, max_events: int = MAX_EVENTS
) -> Embeddings:
    """The embedding of `customers[i]` as of `t_ms[i]`, one row each, in their order.

    Raises:
        InvalidInput: more than ROWS_MAX rows, or another number of times than customers.
    """
    count = len(customers)
    if count > ROWS_MAX:
        raise InvalidInput.because("customers", f"{count} rows; at most {ROWS_MAX} can be embedded at once")
    if np.shape(t_ms) != (count,):
        raise InvalidInput.because("t_ms", f"has shape {np.shape(t_ms)}, must be ({count},)")
    matrix = np.full((count, encoder.width), np.nan, np.float32)
    present = np.zeros(count, bool)
    for rows, histories in histories_as_of(lake, customers, t_ms, max_events=max_events):
        for start in range(0, len(rows), HISTORIES_AT_A_TIME):
            some = np.arange(start, min(start + HISTORIES_AT_A_TIME, len(rows)))
            made = encoder.embed(histories.take(some), t_ms[rows[some]])
            matrix[rows[some]] = made.matrix
            present[rows[some]] = made.present
    status = tuple(Status.PRESENT if each else Status.MISSING for each in present.tolist())
    return Embeddings(matrix, status, t_ms, t_ms + encoder.ttl_ms, encoder.version)


def read_labels(path: Path) -> tuple[list[str], NDArray[np.int64]]:
    """The customers and the times, ms, of the Parquet file at `path`; its other columns are not read.

    Raises:
        InvalidInput: it cannot be read, lacks a column, holds a null or no row, or its times are none.
    """
    try:
        names = pq.read_schema(path).names
        if missing := sorted(set(LABELS) - set(names)):
            raise InvalidInput.because("labels", f"lacks {', '.join(missing)}")
        table = pq.read_table(path, columns=list(LABELS))
    except (OSError, pa.ArrowException) as error:
        raise InvalidInput.because("labels", f"cannot be read as Parquet: {error}") from error
    if not len(table):
        raise InvalidInput.because("labels", "holds no row")
    for name in LABELS:
        if table[name].null_count:
            raise InvalidInput.because(f"labels.{name}", "holds a null")
    if not pa.types.is_timestamp(table["event_timestamp"].type):
        raise InvalidInput.because("labels.event_timestamp", f"is {table['event_timestamp'].type}, not a timestamp")
    if not pa.types.is_string(table["customer"].type) and not pa.types.is_large_string(table["customer"].type):
        raise InvalidInput.because("labels.customer", f"is {table['customer'].type}, not a string")
    times = table["event_timestamp"].to_numpy().astype("datetime64[ms]").astype(np.int64)
    return table["customer"].to_pylist(), times


def write(path: Path, embeddings: Embeddings) -> None:
    """Write `embeddings` as Parquet, replacing what was at `path` in one step.

    Columns: `row` int64, the place in the caller's list from 0; `as_of` and `expires`, UTC; `status`; the encoder's
    version as `encoder`, `encoder_sha256` and `encoder_data_cut_ms`; the embedding itself, a list of d float32.
    """
    count, width = embeddings.matrix.shape
    flat = pa.array(embeddings.matrix.ravel(), pa.float32())
    version = embeddings.version.to_json()
    columns = {
        "row": pa.array(np.arange(count)),
        "as_of": pa.array(embeddings.as_of_ms * 1000).cast(UTC_TIMESTAMP),
        "expires": pa.array(embeddings.expires_ms * 1000).cast(UTC_TIMESTAMP),
        "status": pa.array([each.value for each in embeddings.status], pa.string()),
        **{column: pa.array([version[name]] * count) for name, column in VERSION_COLUMNS.items()},
        VIEW: pa.FixedSizeListArray.from_arrays(flat, width),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.draft")
    pq.write_table(pa.table(columns), draft)
    draft.replace(path)


def read(path: Path) -> Embeddings:
    """The embeddings at `path`, in the order of `row`. What has expired since is for `Embeddings.at` to say.

    Raises:
        EncoderMismatch: it holds embeddings of several versions.
        InvalidInput: it cannot be read, holds no row, or is not what `write` writes.
    """
    try:
        table = pq.read_table(path)
        if not len(table):
            raise InvalidInput.because("embeddings", "holds no row")
        table = table.sort_by("row").combine_chunks()
        versions = table.select(list(VERSION_COLUMNS.values())).group_by(list(VERSION_COLUMNS.values())).aggregate([])
        if len(versions) > 1:
            raise EncoderMismatch(f"embeddings of {len(versions)} versions of the encoder in one file")
        (row,) = versions.to_pylist()
        version = EncoderVersion(**{name: row[column] for name, column in VERSION_COLUMNS.items()})
        vectors = table[VIEW].chunk(0)
        matrix = vectors.flatten().to_numpy().reshape(len(table), vectors.type.list_size)
        status = tuple(Status(each) for each in table["status"].to_pylist())
        as_of_ms, expires_ms = (table[name].to_numpy().astype("datetime64[ms]") for name in ("as_of", "expires"))
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput.because("embeddings", f"cannot be read: {error}") from error
    return Embeddings(matrix, status, as_of_ms.astype(np.int64), expires_ms.astype(np.int64), version)
