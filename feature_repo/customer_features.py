"""Views about customers."""

from datetime import timedelta

from data_sources import customer_lifetime_snapshots, event_lake
from entities import customer
from feast import FeatureView, Field
from feast.types import Int64

from segue.adapters.feast.views import HISTORY_FIELDS
from segue.features.snapshots import CUSTOMER_LIFETIME

customer_history = FeatureView(
    name="customer_history",
    entities=[customer],
    schema=HISTORY_FIELDS,
    source=event_lake,
    ttl=timedelta(0),
    description="The customer's newest 256 events, one list per column, oldest first.",
)

customer_lifetime = FeatureView(
    name="customer_lifetime",
    entities=[customer],
    schema=[Field(name=each.name, dtype=Int64, description=each.meaning) for each in CUSTOMER_LIFETIME],
    source=customer_lifetime_snapshots,
    ttl=timedelta(days=60),
    description="What a history of 256 events cannot hold: totals up to the newest cut.",
)
