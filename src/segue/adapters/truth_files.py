"""The truth of a simulated shop as Parquet files, so that models can be judged by what they could not see."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from segue.adapters.lake_rows import UTC_TIMESTAMP
from segue.simulator import Truth

HORIZON_DAYS = 7


def write_truth(directory: Path, truth: Truth, midnights_ms: Sequence[int]) -> None:
    """Write what the simulator knows.

    - `customers.parquet`: customer, taste (a unit vector)
    - `items.parquet`: item, vector; its product with a taste says how they match
    - `purchase_probability.parquet`: customer, t, purchase_probability_7d: the true probability of an order within
      seven days after each of `midnights_ms`, which must be midnights UTC of the simulated days
    """
    directory.mkdir(parents=True, exist_ok=True)
    customers = pa.array(truth.customers, pa.string())
    tastes = pa.table({"customer": customers, "taste": pa.array(list(truth.taste))})
    pq.write_table(tastes, directory / "customers.parquet")
    vectors = pa.table({"item": pa.array(truth.catalogue.item), "vector": pa.array(list(truth.item_vector))})
    pq.write_table(vectors, directory / "items.parquet")
    parts = [
        pa.table(
            {
                "customer": customers,
                "t": pa.array(np.full(len(customers), midnight * 1000)).cast(UTC_TIMESTAMP),
                "purchase_probability_7d": pa.array(truth.purchase_probability(midnight, horizon_days=HORIZON_DAYS)),
            }
        )
        for midnight in midnights_ms
    ]
    pq.write_table(pa.concat_tables(parts), directory / "purchase_probability.parquet")
