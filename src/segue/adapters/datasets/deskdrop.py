"""CI&T Deskdrop: articles read on a company's internal platform, 2016-03 to 2017-02.

| source | kind |
|---|---|
| VIEW | product_viewed |
| LIKE, FOLLOW | content_engaged |
| BOOKMARK | product_wishlisted |
| COMMENT CREATED | product_reviewed |
| anything else | unknown |

The customer is the personId, the item the contentId. Times are whole seconds; a person's events within one second keep
the file's order. Rows that repeat each other are kept as separate events.
"""

from pathlib import Path

import pandas as pd

from segue.adapters.datasets.dataset import Dataset, Source, assemble, in_file_order, reading
from segue.events import Kind
from segue.simulator import DEMO_KEY

SOURCE = Source("users_interactions.csv*")
LICENCE = "Open Database License (ODbL) 1.0"

KINDS = {
    "VIEW": Kind.PRODUCT_VIEWED,
    "LIKE": Kind.CONTENT_ENGAGED,
    "FOLLOW": Kind.CONTENT_ENGAGED,
    "BOOKMARK": Kind.PRODUCT_WISHLISTED,
    "COMMENT CREATED": Kind.PRODUCT_REVIEWED,
}


def load(path: Path, *, key: bytes = DEMO_KEY) -> Dataset:
    """Read `users_interactions.csv` (or `.zip`) at `path` or in the folder `path`.

    Raises:
        InvalidInput: it is not there or not readable.
    """
    file = SOURCE.locate(path)
    columns = {"timestamp": "int64", "eventType": "str", "contentId": "int64", "personId": "int64"}
    with reading(file):
        rows = pd.read_csv(file, usecols=list(columns), dtype=columns)
    log = pd.DataFrame(
        {
            "customer": rows["personId"],
            "kind": rows["eventType"].map(KINDS).fillna(Kind.UNKNOWN),
            "item": rows["contentId"],
            "event_time_ms": in_file_order(rows["personId"], rows["timestamp"]),
        }
    )
    return assemble(log, name="deskdrop", licence=LICENCE, key=key)
