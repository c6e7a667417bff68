"""Loaders of real data sets: small files in each real format, and the real files where they lie beside the checkout."""

import gzip
import zipfile
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from segue.adapters import datasets
from segue.adapters.datasets import amazon_beauty, cdnow, deskdrop, diginetica, globo, ml_1m, trivago
from segue.adapters.datasets.dataset import Dataset
from segue.errors import InvalidInput
from segue.events import NO_ITEM, Kind, item_id, pseudonym
from segue.simulator import DEMO_KEY

SHARED = Path(__file__).parents[3] / "shared" / "data"
MINUTE_MS = 60_000

Row = tuple[str, str, str, int, int]


def write_gz(path: Path, text: str, encoding: str = "utf-8") -> None:
    with gzip.open(path, "wt", encoding=encoding, newline="") as file:
        file.write(text)


def ms(*moment: int) -> int:
    return int(datetime(*moment, tzinfo=UTC).timestamp() * 1000)


def readable(dataset: Dataset, users: list[str]) -> list[Row]:
    """(user, kind, item, time, value) of every event, ids undone."""
    user = {pseudonym(name, DEMO_KEY): name for name in users}
    item = dict(zip(dataset.catalogue.item.tolist(), dataset.catalogue.external_id, strict=True)) | {NO_ITEM: ""}
    events = dataset.events
    assert len(np.unique(events.event_id)) == len(events)
    assert (events.available_time_ms == events.event_time_ms).all()
    return [
        (user[name], Kind(kind).label, item[thing], time_ms, value)
        for name, kind, thing, time_ms, value in zip(
            events.customers[events.customer],
            events.kind.tolist(),
            events.item.tolist(),
            events.event_time_ms.tolist(),
            events.value_minor.tolist(),
            strict=True,
        )
    ]


def write_deskdrop(folder: Path) -> None:
    rows = """timestamp,eventType,contentId,personId,sessionId,userAgent,userRegion,userCountry
1465413032,VIEW,-349,-884,12,,,
1465413032,LIKE,-349,-884,12,"Mozilla/5.0 (X11, Linux)",SP,BR
1465413031,BOOKMARK,890,7,36,,,
1465413033,COMMENT CREATED,890,7,36,,,
1465413034,FOLLOW,890,7,36,,,
1465413035,TELEPORT,890,7,36,,,
"""
    with zipfile.ZipFile(folder / "users_interactions.csv.zip", "w") as archive:
        archive.writestr("users_interactions.csv", rows)


def write_trivago(folder: Path) -> None:
    clickout = {"impressions": "100|596|913", "prices": "71|107|119"}
    rows = [
        ("A", "s1", 1541599523, "search for destination", "Paris, France", {}),
        ("A", "s1", 1541599523, "interaction item image", "596", {}),
        ("A", "s1", 1541599530, "filter selection", "Hotel", {}),
        ("A", "s1", 1541599538, "interaction item rating", "596", {}),
        ("A", "s1", 1541599553, "clickout item", "596", clickout),
        ("B", "s2", 1541599554, "search for item", "913", {}),
        ("B", "s2", 1541599555, "clickout item", "77", clickout),
        ("B", "s2", 1541599556, "interaction item info", "unknown", {}),
        ("B", "s2", 1541599557, "something new", "9", {}),
    ]
    frame = pd.DataFrame(
        [
            {
                "user_id": user,
                "session_id": session,
                "timestamp": time,
                "action_type": action,
                "reference": reference,
                "impressions": more.get("impressions"),
                "prices": more.get("prices"),
            }
            for user, session, time, action, reference, more in rows
        ]
    )
    frame.to_parquet(folder / "trivago_val_100k.parquet")


def write_globo(folder: Path) -> None:
    columns = {
        "user_id": np.array([59, 79, 59], np.int32),
        "session_id": [1, 2, 1],
        "click_article_id": np.array([234853, 159359, 159359], np.int32),
        "click_timestamp": [1506826800026, 1506826801702, 1506826802000],
    }
    pd.DataFrame(columns).to_parquet(folder / "clicks.parquet")


def write_cdnow(folder: Path) -> None:
    rows = [
        " customer_id  date number_of_cds  dollar_value",
        " 00001 19970101  1   11.77",
        " 00002 19970112  1   12.00",
        " 00002 19970112  5   77.00",
        " 00002 19980630  2    0.07",
    ]
    write_gz(folder / "CDNOW_master.txt.gz", "\r\n".join(rows) + "\r\n")


def write_ml_1m(folder: Path) -> None:
    write_gz(folder / "ml-1m.txt.gz", "1 1\n1 3\n2 3\n1 2\n")
    movies = "10::Amélie (1995)::Comedy|Drama\n20::Jumanji (1995)::Adventure\n"
    write_gz(folder / "movies.dat.gz", movies, encoding="latin-1")
    write_gz(folder / "sas_to_original_items.txt.gz", "1 20\n2 10\n3 30\n")


def write_amazon_beauty(folder: Path) -> None:
    write_gz(folder / "Beauty.txt.gz", "1 1 2 3\n2 3 1\n")


def write_diginetica(folder: Path) -> None:
    write_gz(folder / "train_sessions.txt.gz", "1 2\n3 4 5\n")
    write_gz(folder / "test_prefix_target.txt.gz", "2 1 3\t2\n2 1\t3\n2\t1\n4\t2\n2 1\t3\n2\t1\n")


WRITERS: dict[str, Callable[[Path], None]] = {
    "deskdrop": write_deskdrop,
    "trivago": write_trivago,
    "globo": write_globo,
    "cdnow": write_cdnow,
    "ml_1m": write_ml_1m,
    "amazon_beauty": write_amazon_beauty,
    "diginetica": write_diginetica,
}
MODULES = {
    "deskdrop": deskdrop,
    "trivago": trivago,
    "globo": globo,
    "cdnow": cdnow,
    "ml_1m": ml_1m,
    "amazon_beauty": amazon_beauty,
    "diginetica": diginetica,
}


def test_deskdrop(tmp_path):
    write_deskdrop(tmp_path)
    dataset = datasets.load(tmp_path)
    time_ms = 1465413032_000
    assert readable(dataset, ["-884", "7"]) == [
        ("-884", "product_viewed", "-349", time_ms, 0),
        ("-884", "content_engaged", "-349", time_ms + 1, 0),
        ("7", "product_wishlisted", "890", time_ms - 1_000, 0),
        ("7", "product_reviewed", "890", time_ms + 1_000, 0),
        ("7", "content_engaged", "890", time_ms + 2_000, 0),
        ("7", "unknown", "890", time_ms + 3_000, 0),
    ]
    assert list(dataset.catalogue.external_id) == ["-349", "890"]
    assert dataset.catalogue.item.tolist() == [item_id("-349"), item_id("890")]
    assert not dataset.order_only


def test_trivago(tmp_path):
    write_trivago(tmp_path)
    dataset = datasets.load(tmp_path)
    assert readable(dataset, ["A", "B"]) == [
        ("A", "products_searched", "", 1541599523_000, 0),
        ("A", "product_viewed", "596", 1541599523_001, 0),
        ("A", "filter_applied", "", 1541599530_000, 0),
        ("A", "content_engaged", "596", 1541599538_000, 0),
        ("A", "product_purchased", "596", 1541599553_000, 10_700),
        ("B", "products_searched", "913", 1541599554_000, 0),
        ("B", "product_purchased", "77", 1541599555_000, 0),
        ("B", "content_engaged", "", 1541599556_000, 0),
        ("B", "unknown", "", 1541599557_000, 0),
        ("A", "order_completed", "", 1541599553_000, 10_700),
        ("B", "order_completed", "", 1541599555_000, 0),
    ]


def test_globo(tmp_path):
    write_globo(tmp_path)
    assert readable(datasets.load(tmp_path), ["59", "79"]) == [
        ("59", "product_viewed", "234853", 1506826800026, 0),
        ("79", "product_viewed", "159359", 1506826801702, 0),
        ("59", "product_viewed", "159359", 1506826802000, 0),
    ]


def test_cdnow(tmp_path):
    write_cdnow(tmp_path)
    dataset = datasets.load(tmp_path)
    assert readable(dataset, ["00001", "00002"]) == [
        ("00001", "order_completed", "", ms(1997, 1, 1, 12), 1_177),
        ("00002", "order_completed", "", ms(1997, 1, 12, 12), 1_200),
        ("00002", "order_completed", "", ms(1997, 1, 12, 12, 1), 7_700),
        ("00002", "order_completed", "", ms(1998, 6, 30, 12), 7),
    ]
    assert len(dataset.catalogue) == 0


def test_ml_1m(tmp_path):
    write_ml_1m(tmp_path)
    dataset = datasets.load(tmp_path)
    start_ms = ms(2020, 1, 1)
    assert readable(dataset, ["1", "2"]) == [
        ("1", "product_reviewed", "1", start_ms, 0),
        ("1", "product_reviewed", "3", start_ms + MINUTE_MS, 0),
        ("2", "product_reviewed", "3", start_ms, 0),
        ("1", "product_reviewed", "2", start_ms + 2 * MINUTE_MS, 0),
    ]
    category = dict(zip(dataset.catalogue.external_id, dataset.catalogue.category, strict=True))
    assert category == {"1": "Adventure", "3": "", "2": "Comedy"}
    title = dict(zip(dataset.catalogue.external_id, dataset.catalogue.title, strict=True))
    assert title == {"1": "Jumanji (1995)", "3": "", "2": "Amélie (1995)"}
    assert dataset.order_only


def test_ml_1m_without_the_files_beside_it(tmp_path):
    write_gz(tmp_path / "ml-1m.txt.gz", "1 1\n")
    catalogue = datasets.load(tmp_path).catalogue
    assert (list(catalogue.category), list(catalogue.title)) == ([""], [""])


def test_amazon_beauty(tmp_path):
    write_amazon_beauty(tmp_path)
    dataset = datasets.load(tmp_path)
    start_ms = ms(2020, 1, 1)
    assert [row[:1] + row[2:4] for row in readable(dataset, ["1", "2"])] == [
        ("1", "1", start_ms),
        ("1", "2", start_ms + MINUTE_MS),
        ("1", "3", start_ms + 2 * MINUTE_MS),
        ("2", "3", start_ms),
        ("2", "1", start_ms + MINUTE_MS),
    ]
    assert dataset.order_only


def test_diginetica(tmp_path):
    write_diginetica(tmp_path)
    dataset = datasets.load(tmp_path)
    start_ms = ms(2020, 1, 1)
    users = ["train-0", "train-1", "test-0", "test-1", "test-2"]
    minutes = [(user, item, (time_ms - start_ms) / MINUTE_MS) for user, _, item, time_ms, _ in readable(dataset, users)]
    assert minutes == [
        ("train-0", "1", 0),
        ("train-0", "2", 1),
        ("train-1", "3", 1),
        ("train-1", "4", 2),
        ("train-1", "5", 3),
        ("test-0", "2", 4),
        ("test-0", "1", 5),
        ("test-0", "3", 6),
        ("test-0", "2", 7),
        ("test-1", "4", 5),
        ("test-1", "2", 6),
        ("test-2", "2", 6),
        ("test-2", "1", 7),
        ("test-2", "3", 8),
    ]
    assert dataset.test_from_ms == start_ms + 4 * MINUTE_MS


@pytest.mark.parametrize("name", WRITERS)
def test_a_data_set_is_recognised_as_folder_and_as_file(tmp_path, name):
    WRITERS[name](tmp_path)
    module = MODULES[name]
    by_folder = datasets.load(tmp_path)
    by_file = datasets.load(module.SOURCE.locate(tmp_path))
    again = module.load(tmp_path)
    assert by_folder.name == by_file.name == again.name == name
    assert by_folder.licence
    assert by_folder.events.event_id.tolist() == again.events.event_id.tolist()


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "deskdrop"])
def test_a_broken_file_is_refused_by_its_path(tmp_path, name):
    WRITERS[name](tmp_path)
    file = MODULES[name].SOURCE.locate(tmp_path)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(InvalidInput, match=file.name):
        datasets.load(tmp_path)


def test_files_without_the_right_columns_are_refused_by_their_path(tmp_path):
    (tmp_path / "users_interactions.csv").write_text("timestamp,person\n1,2\n")
    with pytest.raises(InvalidInput, match=r"users_interactions\.csv"):
        datasets.load(tmp_path)
    write_gz(tmp_path / "Beauty.txt.gz", "1 one 2\n")
    with pytest.raises(InvalidInput, match=r"Beauty\.txt\.gz"):
        amazon_beauty.load(tmp_path)


def test_a_row_without_customer_is_refused(tmp_path):
    columns = {"user_id": [1, None], "click_article_id": [1, 2], "click_timestamp": [1506826800026, 1506826800027]}
    pd.DataFrame(columns).to_parquet(tmp_path / "clicks.parquet")
    with pytest.raises(InvalidInput, match=r"\[1\]\.customer"):
        datasets.load(tmp_path)


def test_what_is_no_data_set_is_refused_by_its_path(tmp_path):
    with pytest.raises(InvalidInput, match="nowhere"):
        datasets.load(tmp_path / "nowhere")
    with pytest.raises(InvalidInput, match=str(tmp_path)):
        datasets.load(tmp_path)
    with pytest.raises(InvalidInput, match=str(tmp_path)):
        globo.load(tmp_path)
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(InvalidInput, match=r"notes\.txt"):
        datasets.load(tmp_path / "notes.txt")


REAL = {
    "deskdrop": ("deskdrop", 72_312, 1_895, 2_987),
    "trivago-sample": ("trivago", 100_003 + 13_597, 6_593, None),
    "ml-1m": ("ml_1m", 999_611, 6_040, 3_416),
    "amazon-beauty": ("amazon_beauty", 198_502, 22_363, 12_101),
    "diginetica": ("diginetica", None, None, 43_097),
    "cdnow": ("cdnow", 69_659, 23_570, 0),
    "globo": ("globo", 2_988_181, 322_897, 46_033),
}


@pytest.mark.parametrize(
    "folder", [pytest.param(name, marks=pytest.mark.slow if name == "globo" else ()) for name in REAL]
)
def test_the_real_files(folder):
    if not (SHARED / folder).is_dir():
        pytest.skip(f"the data set {folder} is not at {SHARED}")
    dataset = datasets.load(SHARED / folder)
    name, events, customers, items = REAL[folder]
    assert dataset.name == name
    counts = (events, customers, items)
    found = (len(dataset.events), len(dataset.events.customers), len(dataset.catalogue))
    assert all(count in (None, actual) for count, actual in zip(counts, found, strict=True))
    assert len(np.unique(dataset.events.event_id)) == len(dataset.events)


def test_the_real_deskdrop_has_its_kinds():
    if not (SHARED / "deskdrop").is_dir():
        pytest.skip(f"the data set deskdrop is not at {SHARED}")
    kinds = Counter(datasets.load(SHARED / "deskdrop").events.kind.tolist())
    assert kinds == {
        Kind.PRODUCT_VIEWED: 61_086,
        Kind.CONTENT_ENGAGED: 5_745 + 1_407,
        Kind.PRODUCT_WISHLISTED: 2_463,
        Kind.PRODUCT_REVIEWED: 1_611,
    }


def test_the_real_diginetica_has_every_published_test_row():
    if not (SHARED / "diginetica").is_dir():
        pytest.skip(f"the data set diginetica is not at {SHARED}")
    dataset = datasets.load(SHARED / "diginetica")
    assert dataset.test_from_ms is not None
    is_test = dataset.events.event_time_ms >= dataset.test_from_ms
    lengths = np.bincount(dataset.events.customer[is_test])
    # Every view of a test session but its first is the target of one published row.
    assert (lengths[lengths > 0] - 1).sum() == 60_858
    assert len(np.unique(dataset.events.customer[~is_test])) == 186_670


def test_the_real_sequences_keep_their_order():
    if not (SHARED / "ml-1m").is_dir():
        pytest.skip(f"the data set ml-1m is not at {SHARED}")
    dataset = datasets.load(SHARED / "ml-1m")
    with gzip.open(SHARED / "ml-1m" / "ml-1m.txt.gz", "rt") as lines:
        expected = [item for user, item in map(str.split, lines) if user == "6040"]
    events = dataset.events
    own = events.take(events.customer == list(events.customers).index(pseudonym("6040", DEMO_KEY)))
    name = dict(zip(dataset.catalogue.item.tolist(), dataset.catalogue.external_id, strict=True))
    assert [name[item] for item in own.item[np.argsort(own.event_time_ms)].tolist()] == expected
