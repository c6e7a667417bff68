"""Writes the snapshots that Feast's batch views read: Parquet files, one set per cut."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from segue.adapters.counted_events import CountedEvents
from segue.adapters.history_features import MAX_EVENTS
from segue.adapters.lake import Lake
from segue.adapters.lake_rows import UTC_TIMESTAMP
from segue.events import Events
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
    counted = CountedEvents(lake)
    ranges = list(counted.customer_ranges(max_events))
    # Files of ranges that were cut elsewhere would hold a customer twice.
    for cut in cuts_ms:
        for former in (directory / "customer_lifetime").glob(f"{cut}-*.parquet"):
            former.unlink()
    items: dict[int, Stats] = {}
    for position, (first, past) in enumerate(ranges):
        events = Timelines.of(counted.read(first_customer=first, past_customer=past)).events
        # What somebody did counts for others too, but happened to the item once.
        own = Timelines.of(counted.own(first_customer=first, past_customer=past)).events if counted.flows else events
        for done, cut in enumerate(cuts_ms, start=1):
            present, totals = snapshots.customer_lifetime(events, cut)
            customers = pa.array(events.customers[present], pa.string())
            path = directory / "customer_lifetime" / f"{cut}-{position}.parquet"
            _write(path, "customer", customers, totals, snapshots.CUSTOMER_LIFETIME, cut)
            stats = snapshots.item_stats(own, cut)
            items[cut] = snapshots.add_item_stats(items[cut], stats) if cut in items else stats
            progress((position + done / len(cuts_ms)) / len(ranges))
    for cut, (ids, values) in items.items():
        _write(directory / "item_stats" / f"{cut}.parquet", "item", pa.array(ids), values, snapshots.ITEM_STATS, cut)


def write_item_stats(lake: Lake, directory: Path, cut_ms: int, *, max_events: int = MAX_EVENTS) -> Path:
    """Write item_stats as of `cut_ms` in place of the last such call's; returns the file.

    One file, however often: cuts every few minutes would be in the way of training, which has its own.
    """
    counted = CountedEvents(lake)
    stats: Stats = snapshots.item_stats(Events.empty(), cut_ms)
    for first, past in counted.customer_ranges(max_events):
        own = Timelines.of(counted.own(first_customer=first, past_customer=past)).events
        stats = snapshots.add_item_stats(stats, snapshots.item_stats(own, cut_ms))
    ids, values = stats
    path = directory / "item_stats" / "latest.parquet"
    # A name that no reader's pattern matches until the file is whole.
    written = path.with_suffix(".new")
    _write(written, "item", pa.array(ids), values, snapshots.ITEM_STATS, cut_ms)
    return written.replace(path)


def _write(
    path: Path, entity: str, ids: pa.Array, values: NDArray[np.int64], features: Sequence[Feature], cut_ms: int
) -> None:
    at = pa.array(np.full(len(ids), cut_ms * 1000)).cast(UTC_TIMESTAMP)
    columns = {feature.name: pa.array(values[:, column]) for column, feature in enumerate(features)}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({entity: ids, **columns, "event_timestamp": at, "created_timestamp": at}), path)
