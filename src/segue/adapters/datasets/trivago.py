"""trivago RecSys Challenge 2019: hotel search sessions.

| source | kind |
|---|---|
| interaction item image | product_viewed |
| interaction item info, rating, deals | content_engaged |
| clickout item | order_completed and product_purchased |
| search for item (with the item), destination, poi | products_searched |
| filter selection, change of sort order | filter_applied |
| anything else | unknown |

A clickout, the forwarding to a booking site, is what trivago is paid for: it stands for an order of one line. Its value
is the price at which the item stood in the list shown, in hundredths of a currency that is not stated, or 0 if it was
not in the list. Impressions are search results rather than recommendations and are left out. Times are whole seconds;
a user's events within one second keep the file's order.
"""

from pathlib import Path

import pandas as pd

from segue.adapters.datasets.dataset import Dataset, Source, assemble, in_file_order, reading
from segue.events import Kind
from segue.simulator import DEMO_KEY

COLUMNS = ["user_id", "timestamp", "action_type", "reference", "impressions", "prices"]
SOURCE = Source("*.parquet", frozenset(COLUMNS))
LICENCE = "RecSys Challenge 2019 terms: research only"

CLICKOUT = "clickout item"
KINDS = {
    "interaction item image": Kind.PRODUCT_VIEWED,
    "interaction item info": Kind.CONTENT_ENGAGED,
    "interaction item rating": Kind.CONTENT_ENGAGED,
    "interaction item deals": Kind.CONTENT_ENGAGED,
    CLICKOUT: Kind.PRODUCT_PURCHASED,
    "search for item": Kind.PRODUCTS_SEARCHED,
    "search for destination": Kind.PRODUCTS_SEARCHED,
    "search for poi": Kind.PRODUCTS_SEARCHED,
    "filter selection": Kind.FILTER_APPLIED,
    "change of sort order": Kind.FILTER_APPLIED,
}


def load(path: Path, *, key: bytes = DEMO_KEY) -> Dataset:
    """Read the Parquet file at `path` or in the folder `path`.

    Raises:
        InvalidInput: it is not there or not readable.
    """
    file = SOURCE.locate(path)
    with reading(file):
        rows = pd.read_parquet(file, columns=COLUMNS)
        about_item = rows["action_type"].str.contains(r"\bitem\b") & rows["reference"].str.fullmatch(r"\d+")
        clickout = rows["action_type"] == CLICKOUT
        log = pd.DataFrame(
            {
                "customer": rows["user_id"],
                "kind": rows["action_type"].map(KINDS).fillna(Kind.UNKNOWN),
                "item": rows["reference"].where(about_item),
                "event_time_ms": in_file_order(rows["user_id"], rows["timestamp"]),
                "value_minor": 0,
            }
        )
        shown = rows.loc[clickout, ["reference", "impressions", "prices"]].fillna("")
        log.loc[clickout, "value_minor"] = [price_minor(*row) for row in shown.itertuples(index=False)]
    orders = log[clickout].assign(kind=Kind.ORDER_COMPLETED, item=None)
    return assemble(pd.concat([log, orders]), name="trivago", licence=LICENCE, key=key)


def price_minor(item: str, impressions: str, prices: str) -> int:
    """The price at which `item` stood in a list, in minor units; 0 if it did not."""
    listed = dict(zip(impressions.split("|"), prices.split("|"), strict=False))
    return int(listed.get(item) or 0) * 100
