"""Where features come from: the lake and the snapshots under SEGUE_HOME, or else in `.segue` beside this repo."""

import os
from pathlib import Path

from feast import FileSource
from feast.data_format import DeltaFormat, ParquetFormat

from segue.adapters.feast.views import EVENT_LAKE_TAG, EVENT_TABLE

home = os.environ.get("SEGUE_HOME", str(Path(__file__).resolve().parent.parent / ".segue"))

event_lake = FileSource(
    name="event_lake",
    path=f"{home}/lake{EVENT_TABLE}",
    file_format=DeltaFormat(),
    timestamp_field="event_time",
    created_timestamp_column="available_time",
    tags=EVENT_LAKE_TAG,
    description="Every event ever accepted, one row each.",
)

customer_lifetime_snapshots = FileSource(
    name="customer_lifetime_snapshots",
    path=f"{home}/snapshots/customer_lifetime/*.parquet",
    file_format=ParquetFormat(),
    timestamp_field="event_timestamp",
    created_timestamp_column="created_timestamp",
    description="Totals of each customer's whole past, one file per cut.",
)

item_stats_snapshots = FileSource(
    name="item_stats_snapshots",
    path=f"{home}/snapshots/item_stats/*.parquet",
    file_format=ParquetFormat(),
    timestamp_field="event_timestamp",
    created_timestamp_column="created_timestamp",
    description="What happened to each item of late, one file per cut.",
)
