"""Histories and their features as of many times, straight from the event lake, in bounded memory."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from segue.adapters.counted_events import CountedEvents
from segue.adapters.lake import Lake
from segue.features import sequence, table
from segue.features.on_demand import AS_OF
from segue.history import RECORD_COLUMNS, Histories, Timelines, Times

MAX_EVENTS = 2_000_000
"""Events of the lake held at a time, about 150 bytes each while they are sorted."""


def histories_as_of(
    lake: Lake, customers: Sequence[str], t_ms: Times, *, max_events: int = MAX_EVENTS
) -> Iterator[tuple[NDArray[np.intp], Histories]]:
    """The history of `customers[i]` as of `t_ms[i]`, by ranges of customers.

    Yields:
        Positions in `customers`, shape (k,), and their k histories. Every position comes exactly once; a customer the
        lake does not hold has an empty history.
    """
    counted = CountedEvents(lake)
    names = np.asarray(customers, object)
    order = np.argsort(names, kind="stable")
    ordered = names[order]
    for first, past in counted.customer_ranges(max_events):
        low = 0 if first is None else np.searchsorted(ordered, first)
        high = len(ordered) if past is None else np.searchsorted(ordered, past)
        if low == high:
            continue
        rows = order[low:high]
        timelines = Timelines.of(counted.read(first_customer=first, past_customer=past))
        code = {name: index for index, name in enumerate(timelines.events.customers)}
        customer = np.array([code.get(name, -1) for name in ordered[low:high]])
        yield rows, timelines.as_of(customer, t_ms[rows])


def feature_table(
    lake: Lake, customers: Sequence[str], t_ms: Times, names: Sequence[str], *, max_events: int = MAX_EVENTS
) -> pa.Table:
    """The columns `names` of `customers[i]` as of `t_ms[i]`, one row each, in their order.

    A name is a feature of the table of features, of the item sequence, or a column of the history itself.
    """
    parts = [pa.table({name: pa.array([], _arrow_type(name)) for name in names})]
    positions = [np.empty(0, np.intp)]
    for rows, histories in histories_as_of(lake, customers, t_ms, max_events=max_events):
        columns = _columns(histories, t_ms[rows], set(names))
        parts.append(pa.table({name: columns[name] for name in names}))
        positions.append(rows)
    return pa.concat_tables(parts).take(np.argsort(np.concatenate(positions)))


def _columns(histories: Histories, now_ms: Times, names: set[str]) -> dict[str, pa.Array]:
    columns: dict[str, pa.Array] = {}
    if names & {feature.name for feature in table.FEATURES}:
        matrix = table.compute(histories, now_ms)
        for position, feature in enumerate(table.FEATURES):
            if feature.name in names:
                columns[feature.name] = pa.array(matrix[:, position].astype(feature.dtype))
    if names & {feature.name for feature in sequence.FEATURES}:
        sequences = sequence.item_sequences(histories, now_ms)
        values = (sequences.item, sequences.kind.astype(np.int64), sequences.age_ms / 1000)
        for feature, column in zip(sequence.FEATURES, values, strict=True):
            columns[feature.name] = _lists(sequences.offsets, column)
    for name in names & set(RECORD_COLUMNS):
        values = getattr(histories, name)
        signed = values.view(np.int64) if name == "event_id" else values.astype(np.int64)
        columns[name] = _lists(histories.offsets, signed)
    if AS_OF in names:
        columns[AS_OF] = pa.array(now_ms)
    return columns


def _lists(offsets: NDArray[np.int64], values: NDArray) -> pa.LargeListArray:
    return pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values)).cast(
        pa.list_(pa.from_numpy_dtype(values.dtype))
    )


def _arrow_type(name: str) -> pa.DataType:
    dtypes = {feature.name: feature.dtype for feature in (*table.FEATURES, *sequence.FEATURES)}
    dtype = dtypes.get(name, "int64" if name == AS_OF else "int64[]")
    scalar = pa.type_for_alias(dtype.removesuffix("[]").replace("float64", "double"))
    return pa.list_(scalar) if dtype.endswith("[]") else scalar
