"""Writes the snapshots that Feast's batch views read: Parquet files, one set per cut."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from segue.adapters.history_features import MAX_EVENTS
from segue.adapters.lake import UTC_TIMESTAMP, Lake
from segue.features import snapshots
from segue.features.family import Feature
from segue.history import Timelines

Stats = tuple[NDArray[np.int64], NDArray[np.int64]]


def write_snapshots(
    lake: Lake,
    directory: Path,
    cuts_ms: Sequence[int],
    *,
    max_events: int = MAX_EVENTS,
    progress: Callable[[float], None] = lambda _share: None,
) -> None:
    """Write customer_lifetime and item_stats as of each cut, by ranges of customers.

    The files of a cut are replaced, those of other cuts stay.

    Args:
        lake: where the events are.
        directory: receives `customer_lifetime/` and `item_stats/`.
        cuts_ms: the cuts; a snapshot is known to exist from its own cut on.
        max_events: events held in memory at a time.
        progress: called with the share that is done, in (0, 1].
    """
    ranges = list(lake.customer_ranges(max_events))
    # Files of ranges that were cut elsewhere would hold a customer twice.
    for cut in cuts_ms:
        for former in (directory / "customer_lifetime").glob(f"{cut}-*.parquet"):
            former.unlink()
    items: dict[int, Stats] = {}
    for position, (first, past) in enumerate(ranges):
        events = Timelines.of(lake.read(first_customer=first, past_customer=past)).events
        for done, cut in enumerate(cuts_ms, start=1):
            present, totals = snapshots.customer_lifetime(events, cut)
            customers = pa.array(events.customers[present], pa.string())
            path = directory / "customer_lifetime" / f"{cut}-{position}.parquet"
            _write(path, "customer", customers, totals, snapshots.CUSTOMER_LIFETIME, cut)
            stats = snapshots.item_stats(events, cut)
            items[cut] = snapshots.add_item_stats(items[cut], stats) if cut in items else stats
            progress((position + done / len(cuts_ms)) / len(ranges))
    for cut, (ids, values) in items.items():
        _write(directory / "item_stats" / f"{cut}.parquet", "item", pa.array(ids), values, snapshots.ITEM_STATS, cut)


def _write(
    path: Path, entity: str, ids: pa.Array, values: NDArray[np.int64], features: Sequence[Feature], cut_ms: int
) -> None:
    at = pa.array(np.full(len(ids), cut_ms * 1000)).cast(UTC_TIMESTAMP)
    columns = {feature.name: pa.array(values[:, column]) for column, feature in enumerate(features)}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({entity: ids, **columns, "event_timestamp": at, "created_timestamp": at}), path)
