"""Public event logs, and a stranger's own, as one `Dataset`.

`load(path)` looks at what is there and reads it with the module that knows it:

| module | what | kinds | times |
|---|---|---|---|
| `deskdrop` | articles read on a company platform | several | real |
| `trivago` | hotel search sessions | several | real |
| `globo` | clicks on a news site | views | real |
| `cdnow` | a cohort's orders | orders | real days |
| `ml_1m` | MovieLens-1M in the order of the sequence papers | reviews | order only |
| `amazon_beauty` | Amazon Beauty 5-core | reviews | order only |
| `diginetica` | shop sessions, SR-GNN's split | views | order only |
| `parquet_log` | any event log as Parquet or CSV | any | real |

Customers become pseudonyms of the ids in the source. *UCI online shoppers* and *Open Bandit* are no event logs, so
nothing here reads them: the one is a table of finished sessions without a customer, the other of impressions with
logged propensities.
"""

from pathlib import Path

from segue.adapters.datasets import (
    amazon_beauty,
    cdnow,
    deskdrop,
    diginetica,
    globo,
    ml_1m,
    parquet_log,
    trivago,
)
from segue.adapters.datasets.dataset import Dataset
from segue.errors import InvalidInput
from segue.simulator import DEMO_KEY

__all__ = ["Dataset", "load"]

PUBLIC = (deskdrop, trivago, globo, ml_1m, amazon_beauty, diginetica, cdnow)


def load(path: Path, *, key: bytes = DEMO_KEY) -> Dataset:
    """Read the data set at `path`, a file or a folder, whichever it is.

    Args:
        path: a public data set's folder or its main file, or an event log as `parquet_log` describes.
        key: the pseudonym key of the customers; the default is public, so use it for public data only.

    Raises:
        InvalidInput: nothing known is at `path`, or it cannot be read as what it looks like.
    """
    if not path.exists():
        raise InvalidInput.because(str(path), "does not exist")
    for module in PUBLIC:
        if module.SOURCE.find(path) is not None:
            return module.load(path, key=key)
    if path.is_file() and path.name.endswith(parquet_log.SUFFIXES):
        return parquet_log.load(path, key=key)
    known = ", ".join(module.__name__.rsplit(".", 1)[1] for module in PUBLIC)
    logs = ", ".join(parquet_log.SUFFIXES)
    raise InvalidInput.because(str(path), f"is none of the known data sets ({known}) and no event log file ({logs})")
