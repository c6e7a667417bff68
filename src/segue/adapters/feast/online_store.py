"""The online store plug-in: histories as sorted sets, every other view in Feast's own Redis layout.

Name it in `feature_store.yaml` as `type: segue.adapters.feast.online_store.SegueOnlineStore`. Views over the event lake
are read and written as histories; the rest is left to Feast's Redis store, so both read what the other writes.
"""

import os
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

import numpy as np
from feast import Entity, FeatureView, RepoConfig, utils
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig, RedisType
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Int64List, Value
from pydantic import Field, StrictStr

from segue.adapters import embedded
from segue.adapters.feast.views import EPOCH, is_history
from segue.adapters.histories import HistoryStore
from segue.errors import InvalidInput
from segue.events import COLUMNS
from segue.features.on_demand import AS_OF
from segue.history import RECORD_COLUMNS, Histories, collect

EMBEDDED = f"127.0.0.1:{embedded.PORT}"
"""Where the embedded server listens, which is used unless SEGUE_REDIS says otherwise."""

Row = tuple[datetime | None, dict[str, Value] | None]


class SegueOnlineStoreConfig(RedisOnlineStoreConfig):
    """Feast's Redis settings; the address defaults to the environment's SEGUE_REDIS, then to the embedded server."""

    type: Literal["segue.adapters.feast.online_store.SegueOnlineStore"] = (
        "segue.adapters.feast.online_store.SegueOnlineStore"
    )
    connection_string: StrictStr = Field(default_factory=lambda: os.environ.get("SEGUE_REDIS", EMBEDDED))


def key_prefix(project: str, view: str) -> str:
    """What comes before the customer in the key of a history."""
    return f"{project}:{view}:"


class SegueOnlineStore(RedisOnlineStore):
    """Feast's Redis store that keeps history views as sorted sets."""

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[tuple[EntityKey, dict[str, Value], datetime, datetime | None]],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write rows of any view; rows of a history view are merged into what is there."""
        if not is_history(table):
            super().online_write_batch(config, table, data, progress)
            return
        customers, histories = _from_rows(data)
        self.histories(config, table).merge(customers, histories)
        if progress:
            progress(len(data))

    async def online_write_batch_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[tuple[EntityKey, dict[str, Value], datetime, datetime | None]],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """As `online_write_batch`; a history view is written by the blocking client."""
        if is_history(table):
            self.online_write_batch(config, table, data, progress)
        else:
            await super().online_write_batch_async(config, table, data, progress)

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[Row]:
        """Read rows of any view; a history view is read as of this moment."""
        if not is_history(table):
            return super().online_read(config, table, entity_keys, requested_features)
        histories = self.histories(config, table).read([_customer(key) for key in entity_keys])
        return _to_rows(histories, time.time_ns() // 1_000_000)

    async def online_read_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[Row]:
        """As `online_read`; a history view is read by the blocking client."""
        if is_history(table):
            return self.online_read(config, table, entity_keys, requested_features)
        return await super().online_read_async(config, table, entity_keys, requested_features)

    def _read_features_per_fv(  # Feast's batched read; overriding online_read alone is never called
        self,
        config: RepoConfig,
        grouped_refs: Sequence[tuple[FeatureView, list[str]]],
        join_key_values: Any,
        entity_name_to_join_key_map: Any,
        online_features_response: Any,
        full_feature_names: bool,
        include_feature_view_version_metadata: bool,
    ) -> None:
        keys = (join_key_values, entity_name_to_join_key_map)
        answer = (online_features_response, full_feature_names)
        others = [each for each in grouped_refs if not is_history(each[0])]
        super()._read_features_per_fv(config, others, *keys, *answer, include_feature_view_version_metadata)
        self._read_histories(config, grouped_refs, keys, answer, include_feature_view_version_metadata)

    async def _read_features_per_fv_async(
        self,
        config: RepoConfig,
        grouped_refs: Sequence[tuple[FeatureView, list[str]]],
        join_key_values: Any,
        entity_name_to_join_key_map: Any,
        online_features_response: Any,
        full_feature_names: bool,
        include_feature_view_version_metadata: bool,
    ) -> None:
        keys = (join_key_values, entity_name_to_join_key_map)
        answer = (online_features_response, full_feature_names)
        others = [each for each in grouped_refs if not is_history(each[0])]
        await super()._read_features_per_fv_async(config, others, *keys, *answer, include_feature_view_version_metadata)
        self._read_histories(config, grouped_refs, keys, answer, include_feature_view_version_metadata)

    def _read_histories(
        self,
        config: RepoConfig,
        grouped_refs: Sequence[tuple[FeatureView, list[str]]],
        keys: tuple[Any, Any],
        answer: tuple[Any, bool],
        with_versions: bool,
    ) -> None:
        for table, features in grouped_refs:
            if is_history(table):
                entities, indexes, length = utils._get_unique_entities(table, *keys)  # noqa: SLF001 - Feast's own way
                rows = self.online_read(config, table, utils._get_entity_key_protos(entities))  # noqa: SLF001
                utils._populate_response_from_feature_data(  # noqa: SLF001
                    features, rows, indexes, *answer, table, length, with_versions
                )

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        """Remove what deleted views left behind."""
        for table in filter(is_history, tables_to_delete):
            self.histories(config, table).delete_all()
        others = [table for table in tables_to_delete if not is_history(table)]
        super().update(config, others, tables_to_keep, entities_to_delete, entities_to_keep, partial)

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        """Remove everything the project wrote."""
        for table in filter(is_history, tables):
            self.histories(config, table).delete_all()
        super().teardown(config, tables, entities)

    def histories(self, config: RepoConfig, table: FeatureView) -> HistoryStore:
        """Where the histories of view `table` are kept."""
        cluster = config.online_store.redis_type == RedisType.redis_cluster
        client = self._get_client(config.online_store)
        prefix = key_prefix(config.project, table.name)
        return HistoryStore(client, prefix, customers_per_call=1) if cluster else HistoryStore(client, prefix)


def _customer(key: EntityKey) -> str:
    if len(key.entity_values) != 1 or key.entity_values[0].WhichOneof("val") != "string_val":
        raise InvalidInput.because("entity", "a history view has one entity, of type string")
    return key.entity_values[0].string_val


def _from_rows(rows: Sequence[tuple[EntityKey, dict[str, Value], Any, Any]]) -> tuple[list[str], Histories]:
    """The customers and histories of a write; several rows of one customer are merged."""
    names = [_customer(key) for key, *_ in rows]
    customers = list(dict.fromkeys(names))
    position = {name: index for index, name in enumerate(customers)}
    lists = [{name: values[name].int64_list_val.val for name in RECORD_COLUMNS} for _, values, *_ in rows]
    for index, each in enumerate(lists):
        if len({len(values) for values in each.values()}) > 1:
            raise InvalidInput.because(f"rows[{index}]", "the lists of a history differ in length")
    rows_of = np.repeat([position[name] for name in names], [len(each["event_id"]) for each in lists])
    columns = {name: np.concatenate([np.asarray(each[name], np.int64) for each in lists]) for name in RECORD_COLUMNS}
    columns = {
        name: values.view(np.uint64) if name == "event_id" else values.astype(COLUMNS[name])
        for name, values in columns.items()
    }
    return customers, collect(rows_of.astype(np.int64), len(customers), columns)


def _to_rows(histories: Histories, now_ms: int) -> list[Row]:
    columns = {name: getattr(histories, name) for name in RECORD_COLUMNS} | {
        "event_id": histories.event_id.view(np.int64)
    }
    rows: list[Row] = []
    for start, stop in zip(histories.offsets[:-1], histories.offsets[1:], strict=True):
        values = {
            name: Value(int64_list_val=Int64List(val=column[start:stop].tolist())) for name, column in columns.items()
        }
        values[AS_OF] = Value(int64_val=now_ms)
        newest = EPOCH + timedelta(milliseconds=int(histories.event_time_ms[stop - 1])) if start < stop else None
        rows.append((newest, values))
    return rows
