"""MovieLens-1M in the order that the sequence papers use (Kang and McAuley, SASRec, 2018).

Every line "user item" is one product_reviewed, a rating. The published file knows only the order, so times are made up:
one minute apart from 2020-01-01 for every user. Items keep the file's own numbers; the category is a movie's
first genre, and the title has its year, where `movies.dat.gz` and `sas_to_original_items.txt.gz` lie beside it.
"""

import gzip
from pathlib import Path

import pandas as pd

from segue.adapters.datasets.dataset import Dataset, Source, assemble, minute_apart, reading
from segue.events import Kind
from segue.simulator import DEMO_KEY

SOURCE = Source("ml-1m.txt*")
LICENCE = "GroupLens terms: research only, no redistribution"


def load(path: Path, *, key: bytes = DEMO_KEY) -> Dataset:
    """Read `ml-1m.txt` (or `.gz`) at `path` or in the folder `path`.

    Raises:
        InvalidInput: it is not there or not readable.
    """
    file = SOURCE.locate(path)
    with reading(file):
        log = pd.read_csv(file, sep=" ", names=["customer", "item"], dtype="int64")
    log = log.assign(kind=Kind.PRODUCT_REVIEWED, event_time_ms=minute_apart(log["customer"]))
    category, title = genres_and_titles(file.parent)
    return assemble(log, name="ml_1m", licence=LICENCE, key=key, category=category, title=title, order_only=True)


def genres_and_titles(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Each item's first genre and title, by the numbers of `ml-1m.txt`; nothing if the files are not in `folder`."""
    movies, numbers = folder / "movies.dat.gz", folder / "sas_to_original_items.txt.gz"
    if not (movies.exists() and numbers.exists()):
        return {}, {}
    with reading(movies):
        with gzip.open(movies, "rt", encoding="latin-1") as lines:
            fields = [line.strip().split("::") for line in lines]
        genre = {number: names.split("|")[0] for number, _, names in fields}
        called = {number: title for number, title, _ in fields}
    with reading(numbers):
        pairs = list(pd.read_csv(numbers, sep=" ", names=["item", "movie"], dtype="str").itertuples(index=False))
    category, title = ({item: known.get(movie, "") for item, movie in pairs} for known in (genre, called))
    return category, title
