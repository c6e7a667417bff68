"""Amazon Beauty 5-core as S3-Rec publishes it (Zhou et al., CIKM 2020): one line per user, "user item item ...".

Every item of a line is one product_reviewed. The file knows only the order, so times are made up: one minute apart from
2020-01-01 for every user.
"""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd

from segue.adapters.datasets.dataset import Dataset, Source, assemble, minute_apart, reading
from segue.events import Kind
from segue.simulator import DEMO_KEY

SOURCE = Source("Beauty.txt.gz")
LICENCE = "research only"


def load(path: Path, *, key: bytes = DEMO_KEY) -> Dataset:
    """Read `Beauty.txt.gz` at `path` or in the folder `path`.

    Raises:
        InvalidInput: it is not there or not readable.
    """
    file = SOURCE.locate(path)
    with reading(file), gzip.open(file, "rt") as lines:
        users = [np.array(line.split(), np.int64) for line in lines]
        numbers = np.concatenate(users)
    lengths = np.array([len(user) for user in users])
    is_item = np.ones(len(numbers), bool)
    is_item[np.cumsum(lengths) - lengths] = False
    log = pd.DataFrame({"customer": np.repeat(numbers[~is_item], lengths - 1), "item": numbers[is_item]})
    log = log.assign(kind=Kind.PRODUCT_REVIEWED, event_time_ms=minute_apart(log["customer"]))
    return assemble(log, name="amazon_beauty", licence=LICENCE, key=key, order_only=True)
