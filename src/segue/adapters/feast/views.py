"""Which of a Feast repo's views are derived from histories."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from feast import FeatureView, Field, OnDemandFeatureView
from feast.data_source import DataSource
from feast.types import Array, FeastType, Float64, Int64

from segue.features import sequence, table
from segue.features.on_demand import AS_OF
from segue.history import RECORD_COLUMNS

EVENT_LAKE_TAG = {"segue": "event_lake"}
"""Tags of the data source that is the event lake: a view over it is a history view."""

EVENT_TABLE = "/events"
"""What the event lake's source adds to the lake's root."""

DTYPES: Mapping[str, FeastType] = {
    "int64": Int64,
    "float64": Float64,
    "int64[]": Array(Int64),
    "float64[]": Array(Float64),
}
"""Feast's type for each dtype in the table of features."""

HISTORY_FIELDS = [*(Field(name=name, dtype=Array(Int64)) for name in RECORD_COLUMNS), Field(name=AS_OF, dtype=Int64)]
"""The features of a history view: the record columns as lists, and the time they were read as of."""

# Feast compares an on-demand view's fields with those it infers, description and all, and infers none: docs/features.md
# has the meanings.
BEHAVIOUR_FIELDS = [Field(name=each.name, dtype=DTYPES[each.dtype]) for each in table.FEATURES]
SEQUENCE_FIELDS = [Field(name=each.name, dtype=DTYPES[each.dtype]) for each in sequence.FEATURES]

_DERIVED = {each.name for each in (*table.FEATURES, *sequence.FEATURES)}

EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


def is_event_lake(source: DataSource | None) -> bool:
    """Whether `source` is the event lake."""
    return source is not None and EVENT_LAKE_TAG.items() <= source.tags.items()


def is_history(view: Any) -> bool:
    """Whether `view` is a feature view over the event lake."""
    return isinstance(view, FeatureView) and is_event_lake(view.batch_source)


def is_derived(view: OnDemandFeatureView) -> bool:
    """Whether `view` holds nothing but features of Segue's own table, so that they need not go through Feast."""
    return bool(view.features) and all(feature.name in _DERIVED for feature in view.features)


def to_milliseconds(time: datetime) -> int:
    """Milliseconds since the epoch of an aware time, rounded down."""
    return (time - EPOCH) // timedelta(milliseconds=1)
