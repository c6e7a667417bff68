"""The offline store plug-in: history features straight from the event lake, as of each row's own time.

Name it in `feature_store.yaml` as `type: segue.adapters.feast.offline_store.SegueOfflineStore`. Everything derived from
histories is computed here by the functions that serve; other views go to Feast's DuckDB store, with what was created
after a row's time left out.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
from feast import FeatureView, OnDemandFeatureView, RepoConfig
from feast.data_source import DataSource
from feast.infra.offline_stores import duckdb
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df
from feast.infra.registry.base_registry import BaseRegistry
from feast.saved_dataset import SavedDatasetStorage

from segue.adapters.counted_events import CountedEvents
from segue.adapters.feast.views import EVENT_TABLE, is_derived, is_event_lake, is_history, to_milliseconds
from segue.adapters.history_features import feature_table
from segue.adapters.lake import Lake
from segue.adapters.lake_rows import UTC_TIMESTAMP
from segue.errors import InvalidInput

ROW = "__segue_row"


class SegueOfflineStoreConfig(duckdb.DuckDBOfflineStoreConfig):
    """Feast's DuckDB settings."""

    type: Literal["segue.adapters.feast.offline_store.SegueOfflineStore"] = (
        "segue.adapters.feast.offline_store.SegueOfflineStore"
    )


class TableJob(RetrievalJob):
    """A retrieval that is one function; Feast applies the on-demand views that are left."""

    def __init__(
        self,
        run: Callable[[], pa.Table],
        config: RepoConfig,
        *,
        on_demand_feature_views: Sequence[OnDemandFeatureView] = (),
        full_feature_names: bool = False,
        metadata: RetrievalMetadata | None = None,
    ) -> None:
        self._run = run
        self._config = config
        self._on_demand_feature_views = list(on_demand_feature_views)
        self._full_feature_names = full_feature_names
        self._metadata = metadata

    @property
    def full_feature_names(self) -> bool:
        """Whether columns are named `view__feature`."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """The views Feast still has to apply."""
        return self._on_demand_feature_views

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """What was asked for."""
        return self._metadata

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002 - Feast's signature
        return self._run()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:  # noqa: ARG002
        return self._run().to_pandas()

    def persist(
        self,
        storage: SavedDatasetStorage,
        allow_overwrite: bool = False,
        timeout: int | None = None,  # noqa: ARG002
    ) -> None:
        """Write the result where `storage` says."""
        table = ibis.memtable(self.to_arrow())
        source = storage.to_data_source()
        duckdb._write_data_source(table, source, str(self._config.repo_path), "overwrite", allow_overwrite)  # noqa: SLF001


class SegueOfflineStore(duckdb.DuckDBOfflineStore):
    """Feast's DuckDB store that answers for histories itself."""

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = True,  # noqa: ARG004 - what was not yet known never leaks
    ) -> RetrievalJob:
        """One row out for each row in, in the same order, with its features as of its own time.

        The lists of a history view come back only where the feature service names that view before its on-demand views;
        an on-demand view of Segue's own features does not need them.

        Raises:
            InvalidInput: `entity_df` is not a DataFrame.
        """
        if not isinstance(entity_df, pd.DataFrame):
            raise InvalidInput.because("entity_df", "must be a pandas DataFrame with one row per entity and time")
        on_demand = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        derived = [view for view in on_demand if is_derived(view)]
        remaining = [view for view in on_demand if not is_derived(view)]
        refs = feature_refs if remaining else _without_inputs(feature_refs, feature_views, derived)

        def run() -> pa.Table:
            others = [view for view in feature_views if not is_history(view)]
            found = _from_duckdb(config, others, refs, entity_df, registry, project, full_feature_names)
            for view in filter(is_history, feature_views):
                found |= _from_lake(view, [view, *derived], refs, entity_df)
            table = pa.Table.from_pandas(entity_df, preserve_index=False)
            for ref in filter(found.__contains__, refs):
                table = table.append_column(_column(ref, full_feature_names), found[ref])
            return table

        metadata = RetrievalMetadata(features=feature_refs, keys=list(entity_df.columns))
        return TableJob(
            run,
            config,
            on_demand_feature_views=remaining,
            full_feature_names=full_feature_names,
            metadata=metadata,
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """The newest values to materialize; of the event lake, every customer's history as of `end_date`."""
        if is_event_lake(data_source):
            columns = (join_key_columns[0], feature_name_columns, timestamp_field, created_timestamp_column)
            return TableJob(lambda: _all_histories(data_source, *columns, end_date), config)
        return duckdb.DuckDBOfflineStore.pull_latest_from_table_or_query(
            config,
            data_source,
            join_key_columns,
            feature_name_columns,
            timestamp_field,
            created_timestamp_column,
            start_date,
            end_date,
        )

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """All values between two times; of the event lake, every customer's history as of `end_date`."""
        if is_event_lake(data_source):
            columns = (join_key_columns[0], feature_name_columns, timestamp_field, created_timestamp_column)
            return TableJob(lambda: _all_histories(data_source, *columns, end_date or datetime.now(UTC)), config)
        return duckdb.DuckDBOfflineStore.pull_all_from_table_or_query(
            config,
            data_source,
            join_key_columns,
            feature_name_columns,
            timestamp_field,
            created_timestamp_column,
            start_date,
            end_date,
        )

    @staticmethod
    def offline_write_batch(
        config: RepoConfig, feature_view: FeatureView, table: pa.Table, progress: Callable[[int], Any] | None
    ) -> None:
        """Write rows of a batch view; refused for the event lake, which events enter through the event log."""
        if is_history(feature_view):
            raise InvalidInput.because(
                "to", "events enter the lake through the event log; push to the online store only"
            )
        duckdb.DuckDBOfflineStore.offline_write_batch(config, feature_view, table, progress)


def _without_inputs(
    refs: Sequence[str], views: Sequence[FeatureView], derived: Sequence[OnDemandFeatureView]
) -> list[str]:
    """`refs` without what Feast appended as mere input of `derived` views, behind all that was asked for."""
    inputs = {view.projection.name_to_use() for view in views if is_history(view)}
    names = {view.projection.name_to_use() for view in derived}
    last = max((position for position, ref in enumerate(refs) if _view(ref) in names), default=len(refs))
    return [ref for position, ref in enumerate(refs) if position < last or _view(ref) not in inputs]


def _from_duckdb(
    config: RepoConfig,
    views: list[FeatureView],
    refs: Sequence[str],
    entity_df: pd.DataFrame,
    registry: BaseRegistry,
    project: str,
    full_feature_names: bool,
) -> dict[str, pa.ChunkedArray]:
    """The columns of batch views by ref, in the order of `entity_df`."""
    names = {view.projection.name_to_use() for view in views}
    wanted = [ref for ref in refs if _view(ref) in names]
    if not wanted:
        return {}
    # DuckDB returns rows in any order: a row number goes along and puts them back.
    numbered = entity_df.assign(**{ROW: np.arange(len(entity_df))})
    job = duckdb.DuckDBOfflineStore.get_historical_features(
        config, views, wanted, numbered, registry, project, full_feature_names, filter_by_created_timestamp=True
    )
    table = job.to_arrow().sort_by(ROW)
    return {ref: table[_column(ref, full_feature_names)] for ref in wanted}


def _from_lake(
    view: FeatureView,
    views: Sequence[FeatureView | OnDemandFeatureView],
    refs: Sequence[str],
    entity_df: pd.DataFrame,
) -> dict[str, pa.ChunkedArray]:
    """The columns of history view `view` and of all `views` derived from it by ref, in the order of `entity_df`."""
    names = {each.projection.name_to_use() for each in views}
    wanted = [ref for ref in refs if _view(ref) in names]
    if not wanted:
        return {}
    (entity,) = view.entity_columns
    key = view.projection.join_key_map.get(entity.name, entity.name)
    time = infer_event_timestamp_from_entity_df(dict(entity_df.dtypes))
    for column in (key, time):
        if column not in entity_df:
            raise InvalidInput.because(f"entity_df.{column}", "is missing")
        if entity_df[column].isna().any():
            raise InvalidInput.because(f"entity_df.{column}", "holds a null")
    times = pd.to_datetime(entity_df[time], utc=True).dt.tz_localize(None)
    t_ms = times.to_numpy("datetime64[ms]").astype(np.int64)
    features = list(dict.fromkeys(_feature(ref) for ref in wanted))
    table = feature_table(_lake(view.batch_source), entity_df[key].tolist(), t_ms, features)
    return {ref: table[_feature(ref)] for ref in wanted}


def _all_histories(
    source: DataSource, key: str, features: list[str], event_time: str, created: str | None, end: datetime
) -> pa.Table:
    """Every customer's history as of `end`, one row each.

    All of it, whatever was materialized before: merging a history twice changes nothing, and late events get in.
    """
    lake = _lake(source)
    customers = CountedEvents(lake).customers()
    t_ms = np.full(len(customers), to_milliseconds(end.astimezone(UTC)))
    table = feature_table(lake, customers, t_ms, features)
    for name in dict.fromkeys(filter(None, (created, event_time))):
        table = table.add_column(0, name, pa.array(t_ms * 1000).cast(UTC_TIMESTAMP))
    return table.add_column(0, key, pa.array(customers, pa.string()))


def _lake(source: Any) -> Lake:
    return Lake(source.path.removesuffix(EVENT_TABLE))


def _view(ref: str) -> str:
    return ref.split(":", maxsplit=1)[0]


def _feature(ref: str) -> str:
    return ref.split(":")[1]


def _column(ref: str, full_feature_names: bool) -> str:
    return ref.replace(":", "__") if full_feature_names else _feature(ref)
