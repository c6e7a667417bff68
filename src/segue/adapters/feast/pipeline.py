"""From the lake to everything that serves: snapshots, registry, plans, online store."""

import contextlib
import io
import sys
import warnings
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
from feast import FeatureStore
from feast.repo_config import load_repo_config
from feast.repo_operations import apply_total
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from segue.adapters import embedded, plan_files
from segue.adapters.feast.online_store import SegueOnlineStore
from segue.adapters.feast.plans import compile_plan
from segue.adapters.feast.views import EPOCH, is_history, to_milliseconds
from segue.adapters.histories import HistoryStore
from segue.adapters.lake import Lake
from segue.adapters.replay import replay
from segue.adapters.snapshots import write_item_stats, write_snapshots

ITEMS_PER_WRITE = 10_000


def refresh(home: Path, repo: Path, *, every_days: int, until: datetime) -> None:
    """Bring registry, plans and online store up to what the lake knows at `until`.

    Snapshots are computed at `until` and every `every_days` before it, as far back as the log reaches.

    Raises:
        StoreUnavailable: no online store answers.
        InvalidInput: the lake holds no event.
    """
    embedded.require(load_repo_config(repo, repo / "feature_store.yaml").online_store.connection_string)
    lake = Lake(home / "lake")
    first_ms, last_ms = lake.time_range()
    end_ms = min(to_milliseconds(until), last_ms + 1)
    step_ms = every_days * 86_400_000
    cuts_ms = [*range(end_ms, first_ms, -step_ms)][::-1]
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(file=sys.stdout)) as progress, _quiet():
        bar = progress.add_task("snapshots", total=1.0)
        write_snapshots(lake, home / "snapshots", cuts_ms, progress=lambda share: progress.update(bar, completed=share))
        bar = progress.add_task("feature registry and serving plans", total=1.0)
        store = apply(repo)
        publish_plans(home, store)
        progress.update(bar, completed=1.0)
        _fill_histories(store, lake, progress)
        bar = progress.add_task("batch views into the online store", total=1.0)
        batch = [view.name for view in store.list_feature_views() if not is_history(view)]
        store.materialize(EPOCH + timedelta(milliseconds=first_ms), until, feature_views=batch)
        progress.update(bar, completed=1.0)


def apply(repo: Path) -> FeatureStore:
    """What `feast apply` does in `repo`; returns the store."""
    # Feast imports the repo's modules by their top-level names, from the working directory.
    with contextlib.chdir(repo):
        sys.path.insert(0, str(repo))
        try:
            apply_total(load_repo_config(repo, repo / "feature_store.yaml"), repo, skip_source_validation=True)
        finally:
            sys.path.remove(str(repo))
    return FeatureStore(str(repo))


def publish_plans(home: Path, store: FeatureStore) -> list[Path]:
    """Compile and publish the serving plan of every feature service of the registry; returns the files."""
    services = sorted(service.name for service in store.list_feature_services())
    return [plan_files.publish(home / "plans", compile_plan(store, service)) for service in services]


def refresh_item_statistics(home: Path, store: FeatureStore, *, until: datetime) -> int:
    """Bring the online store's item statistics up to what the lake knows at `until`; returns how many items.

    Straight into the online store: a materialization would be written down in the registry, every few minutes anew.
    """
    path = write_item_stats(Lake(home / "lake"), home / "snapshots", to_milliseconds(until))
    count = 0
    with pq.ParquetFile(path) as file, _quiet():
        for batch in file.iter_batches(ITEMS_PER_WRITE):
            store.write_to_online_store("item_stats", batch.to_pandas())
            count += len(batch)
    return count


def history_stores(store: FeatureStore) -> list[HistoryStore]:
    """Where the online store keeps the histories of each of the repo's history views."""
    return [SegueOnlineStore().histories(store.config, view) for view in filter(is_history, store.list_feature_views())]


def _fill_histories(store: FeatureStore, lake: Lake, progress: Progress) -> None:
    """Merge every customer's events into the online store, by ranges of customers."""
    for histories in history_stores(store):
        bar = progress.add_task("histories into the online store", total=1.0)
        replay(lake, histories, progress=lambda share, bar=bar: progress.update(bar, completed=share))  # type: ignore[misc]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what Feast prints, and the warnings that its dependencies raise at each other."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
