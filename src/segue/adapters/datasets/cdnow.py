"""CDNOW: every purchase of the 23,570 customers new in 1997-Q1, over 18 months (Fader and Hardie, 2001).

Every row is one order_completed; what was bought is not known, so no event has an item and the catalogue is empty.
The value is the dollars in cents. Only the day is known: an order is put at 12:00 UTC, the customer's further orders of
that day a minute apart in the file's order.
"""

from pathlib import Path

import pandas as pd

from segue.adapters.datasets.dataset import MINUTE_MS, Dataset, Source, assemble, reading
from segue.events import Kind
from segue.simulator import DEMO_KEY

SOURCE = Source("CDNOW_master.txt*")
LICENCE = "free for research"

NOON_MS = 12 * 60 * MINUTE_MS


def load(path: Path, *, key: bytes = DEMO_KEY) -> Dataset:
    """Read `CDNOW_master.txt` (or `.gz`) at `path` or in the folder `path`.

    Raises:
        InvalidInput: it is not there or not readable.
    """
    file = SOURCE.locate(path)
    columns = {"customer_id": "str", "date": "str", "dollar_value": "float64"}
    with reading(file):
        rows = pd.read_csv(file, sep=r"\s+", usecols=list(columns), dtype=columns)
        day = pd.to_datetime(rows["date"], format="%Y%m%d").dt.as_unit("ms").astype("int64")
        log = pd.DataFrame(
            {
                "customer": rows["customer_id"],
                "kind": Kind.ORDER_COMPLETED,
                "item": None,
                "event_time_ms": day + NOON_MS + rows.groupby(["customer_id", "date"]).cumcount() * MINUTE_MS,
                "value_minor": (rows["dollar_value"] * 100).round().astype("int64"),
            }
        )
    return assemble(log, name="cdnow", licence=LICENCE, key=key)
