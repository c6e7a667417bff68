"""Feast as it comes, without Segue's plug-ins: one view of plain values about customers."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.home import HOME

if TYPE_CHECKING:
    from feast import FeatureStore

VIEW = "customer_values"
SERVICE = "propensity_v1"
VALUES = "values.parquet"
"""The view's file: `customer`, `event_timestamp` and a column per feature."""


def stock_store(dtypes: Mapping[str, str], *, redis: str = "127.0.0.1") -> "FeatureStore":
    """A store with Feast's own DuckDB offline and Redis online store, and one view, which is all of its one service.

    Args:
        dtypes: int64 or float64 by column.
        redis: Feast's connection string; nothing connects before the first read or write.
    """
    from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType

    from segue.adapters.feast.views import DTYPES

    config = RepoConfig(
        project="stock",
        provider="local",
        registry=str(HOME.resolve() / "stock.db"),
        offline_store={"type": "duckdb"},
        online_store={"type": "redis", "connection_string": redis},
        entity_key_serialization_version=3,
    )
    store = FeatureStore(config=config)
    customer = Entity(name="customer", join_keys=["customer"], value_type=ValueType.STRING)
    view = FeatureView(
        name=VIEW,
        entities=[customer],
        schema=[Field(name=name, dtype=DTYPES[dtype]) for name, dtype in dtypes.items()],
        source=FileSource(name="values", path=str(Path(VALUES).resolve()), timestamp_field="event_timestamp"),
    )
    store.apply([customer, view, FeatureService(name=SERVICE, features=[view])])
    return store
