"""Views about items."""

from datetime import timedelta

from data_sources import item_stats_snapshots
from entities import item
from feast import FeatureView, Field
from feast.types import Int64

from segue.features.snapshots import ITEM_STATS

item_stats = FeatureView(
    name="item_stats",
    entities=[item],
    schema=[Field(name=each.name, dtype=Int64, description=each.meaning) for each in ITEM_STATS],
    source=item_stats_snapshots,
    ttl=timedelta(days=14),
    description="How customers have acted on the item lately.",
)
