"""The embed command: from a list of customers and times to a file that says nothing of whose the rows are."""

import logging

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.sequence.__main__ import main
from segue.adapters import embeddings as files
from segue.adapters.lake import Lake
from segue.adapters.model_store import ModelStore
from segue.errors import EncoderMismatch, InvalidInput
from segue.events import NO_ITEM
from segue.inference.answers import Status
from segue.inference.embedding import Encoder
from tests import encoders, oracle

NOW = 1_780_000_000_000
LOG = [
    fact._replace(customer=f"pseudonym-of-{fact.customer}") for fact in oracle.facts(4, customers=6, count=500, now=NOW)
]
CUSTOMERS = [*sorted({fact.customer for fact in LOG}), "pseudonym-of-nobody"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A lake, a store with two versions of an encoder, and a list of labels."""
    home = tmp_path_factory.mktemp("home")
    Lake(home / "lake").append(oracle.to_events(LOG))
    items = np.unique([fact.item for fact in LOG if fact.item != NO_ITEM])
    for name in ("first", "second"):
        (home / name).mkdir()
        encoders.write(home / name, encoders.CONFIGS["transformer"], items[::2] if name == "first" else items)
        ModelStore(home / "bentoml").save(home / name, "next_item")
    rng = np.random.default_rng(1)
    names = [CUSTOMERS[at] for at in rng.integers(len(CUSTOMERS), size=80)]
    times = NOW - rng.integers(100 * oracle.DAY, size=80)
    write_labels(home / "labels.parquet", names, times, label=pa.array(["pseudonym-in-a-label"] * 80))
    return home


def write_labels(path, names, times_ms, **others):
    stamps = pa.array(np.asarray(times_ms) * 1000).cast(pa.timestamp("us", tz="UTC"))
    pq.write_table(pa.table({"customer": names, "event_timestamp": stamps, **others}), path)


def run(home, out, *flags):
    where = ["--lake", str(home / "lake"), "--store", str(home / "bentoml")]
    return main(["embed", "--labels", str(home / "labels.parquet"), "--out", str(out), *where, *flags])


def test_the_file_holds_what_the_encoder_makes_in_the_order_of_the_list(home, tmp_path, capsys):
    assert run(home, tmp_path / "out.parquet", "--ttl-days", "3") == 0
    found = files.read(tmp_path / "out.parquet")
    encoder = Encoder.load(ModelStore(home / "bentoml").get("next_item"))
    names, times = files.read_labels(home / "labels.parquet")
    wanted = files.embeddings_as_of(Lake(home / "lake"), encoder, names, times)
    np.testing.assert_allclose(found.matrix, wanted.matrix, rtol=0, atol=1e-6)
    assert found.status == wanted.status
    assert found.version == encoder.version
    assert found.as_of_ms.tolist() == times.tolist()
    assert found.expires_ms.tolist() == (times + 3 * oracle.DAY).tolist()
    assert found.matrix.dtype == np.float32
    nobody = [row for row, name in enumerate(names) if name == "pseudonym-of-nobody"]
    assert {found.status[row] for row in nobody} == {Status.MISSING}
    assert "80 rows of width 12 by next_item:" in capsys.readouterr().out


def test_nothing_says_whose_the_rows_are(home, tmp_path, capsys, caplog):
    with caplog.at_level(logging.DEBUG):
        assert run(home, tmp_path / "out.parquet") == 0
    told = capsys.readouterr()
    assert "pseudonym" not in told.out + told.err + caplog.text
    assert b"pseudonym" not in (tmp_path / "out.parquet").read_bytes()
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == [
        "row",
        "as_of",
        "expires",
        "status",
        "encoder",
        "encoder_sha256",
        "encoder_data_cut_ms",
        "customer_embedding",
    ]
    assert table["row"].to_pylist() == list(range(80))
    assert "pseudonym" not in str(table.schema.metadata)


def test_files_of_two_versions_put_together_are_refused(home, tmp_path):
    tags = [tag for tag in ModelStore(home / "bentoml").tags() if tag.startswith("next_item:")]
    assert len(tags) == 2
    for number, tag in enumerate(tags):
        assert run(home, tmp_path / f"{number}.parquet", "--bundle", tag) == 0
    both = pa.concat_tables([pq.read_table(tmp_path / f"{number}.parquet") for number in range(2)])
    pq.write_table(both, tmp_path / "both.parquet")
    with pytest.raises(EncoderMismatch, match="2 versions"):
        files.read(tmp_path / "both.parquet")


STAMP = pa.array([NOW]).cast(pa.timestamp("ms", tz="UTC"))


@pytest.mark.parametrize(
    ("field", "columns"),
    [
        ("labels", {"customer": ["a"]}),
        ("labels", {"customer": pa.array([], pa.string()), "event_timestamp": STAMP[:0]}),
        ("labels.customer", {"customer": pa.array([None], pa.string()), "event_timestamp": STAMP}),
        ("labels.customer", {"customer": [1], "event_timestamp": STAMP}),
        ("labels.event_timestamp", {"customer": ["a"], "event_timestamp": [NOW]}),
    ],
)
def test_a_list_that_cannot_be_used_is_refused_by_name(tmp_path, field, columns):
    pq.write_table(pa.table(columns), tmp_path / "labels.parquet")
    with pytest.raises(InvalidInput) as error:
        files.read_labels(tmp_path / "labels.parquet")
    assert error.value.violations[0].field == field


def test_the_command_tells_bad_input_in_one_line(home, tmp_path, capsys):
    (tmp_path / "labels.parquet").write_text("no Parquet")
    missing = ["--labels", str(tmp_path / "labels.parquet"), "--out", str(tmp_path / "out.parquet")]
    where = ["--lake", str(home / "lake"), "--store", str(home / "bentoml")]
    assert main(["embed", *missing, *where]) == 1
    assert capsys.readouterr().err.startswith("embed: labels: cannot be read as Parquet")
    assert run(home, tmp_path / "out.parquet", "--ttl-days", "0") == 1
    assert "ttl_ms" in capsys.readouterr().err
    assert run(home, home / "labels.parquet") == 1
    assert capsys.readouterr().err.startswith("embed: out: ")
    assert not (tmp_path / "out.parquet").exists()


def test_a_file_of_something_else_is_refused(tmp_path):
    pq.write_table(pa.table({"row": [0]}), tmp_path / "other.parquet")
    with pytest.raises(InvalidInput, match="cannot be read"):
        files.read(tmp_path / "other.parquet")
