"""Globo.com: clicks on articles of a Brazilian news site, 2017-10 (de Souza Pereira Moreira et al., CHAMELEON).

Every click is product_viewed; the customer is the user_id, the item the click_article_id. Times are in milliseconds.
"""

from pathlib import Path

import pandas as pd

from segue.adapters.datasets.dataset import Dataset, Source, assemble, reading
from segue.events import Kind
from segue.simulator import DEMO_KEY

COLUMNS = ["user_id", "click_article_id", "click_timestamp"]
SOURCE = Source("*.parquet", frozenset(COLUMNS))
LICENCE = "Globo.com terms: academic, non-commercial"


def load(path: Path, *, key: bytes = DEMO_KEY) -> Dataset:
    """Read the Parquet file at `path` or in the folder `path`.

    Raises:
        InvalidInput: it is not there or not readable.
    """
    file = SOURCE.locate(path)
    with reading(file):
        rows = pd.read_parquet(file, columns=COLUMNS)
    rows.columns = pd.Index(["customer", "item", "event_time_ms"])
    return assemble(rows.assign(kind=Kind.PRODUCT_VIEWED), name="globo", licence=LICENCE, key=key)
