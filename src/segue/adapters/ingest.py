"""Fills the event lake: from a simulated shop, or from a data set on disk."""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from segue.adapters import datasets
from segue.adapters.lake import Lake
from segue.adapters.truth_files import write_truth
from segue.events import Events
from segue.features.batch import DAY_MS
from segue.simulator import Shop, ShopConfig

TRUTH_WEEKS = 8
COMMIT_EVENTS = 250_000
"""Events per commit of the lake: fewer commits, larger files."""


def simulate_shop(lake: Lake, truth: Path, *, customers: int, items: int, days: int, seed: int) -> int:
    """Write the events a shop would have seen by now, and its catalogue; returns how many.

    The last of the `days` is today; what has not happened yet, or has not arrived, is left out. What the simulator
    alone knows goes to the directory `truth`, with the purchase probabilities at TRUTH_WEEKS midnights, a week apart.
    """
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    start_ms = (now_ms // DAY_MS - days + 1) * DAY_MS
    shop = Shop(ShopConfig(customers=customers, items=items, days=days, seed=seed, start_ms=start_ms))
    lake.write_catalogue(shop.catalogue)
    last_ms = start_ms + (days - 1) * DAY_MS
    midnights_ms = [last_ms - week * 7 * DAY_MS for week in range(min(TRUTH_WEEKS, days // 7))]
    write_truth(truth, shop.truth(), midnights_ms)
    arrived = (block.take(block.available_time_ms <= now_ms) for block in shop.stream())
    return _append(lake, arrived, "simulating a shop")


def load_data_set(lake: Lake, path: Path) -> datasets.Dataset:
    """Write a data set's events and catalogue; returns what it is.

    Raises:
        InvalidInput: `path` is not a data set or log that can be read.
    """
    data_set = datasets.load(path)
    lake.write_catalogue(data_set.catalogue)
    starts = range(0, len(data_set.events), COMMIT_EVENTS)
    blocks = (data_set.events.take(slice(start, start + COMMIT_EVENTS)) for start in starts)
    _append(lake, blocks, f"reading {data_set.name}", total=len(data_set.events))
    return data_set


def _append(lake: Lake, blocks: Iterable[Events], task: str, *, total: int | None = None) -> int:
    written = 0
    pending: list[Events] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("events"))
    with Progress(*columns, TimeElapsedColumn()) as progress:
        bar = progress.add_task(task, total=total)
        for block in blocks:
            pending.append(block)
            progress.advance(bar, len(block))
            written += len(block)
            if sum(map(len, pending)) >= COMMIT_EVENTS:
                lake.append(Events.concat(pending))
                pending = []
        if pending:
            lake.append(Events.concat(pending))
        progress.update(bar, total=written, completed=written)
    return written
