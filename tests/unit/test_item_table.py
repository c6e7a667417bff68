"""Item tables against dictionaries, and files that are none."""

import numpy as np
import pytest

from segue.errors import BundleError
from segue.inference import item_table
from segue.inference.item_table import ItemTable

SIZE = 12


def table_of(rows):
    """The table of {item: {other: weight}}."""
    offsets = np.cumsum([0, *(len(rows.get(item, {})) for item in range(SIZE))])
    cells = [cell for item in sorted(rows) for cell in rows[item].items()]
    index = np.array([other for other, _ in cells], np.int32)
    return ItemTable(offsets, index, np.array([weight for _, weight in cells], np.float32))


@pytest.fixture(params=range(3))
def rng(request):
    return np.random.default_rng(request.param)


@pytest.fixture
def rows(rng):
    """Some items speak for nothing; weights are sums of powers of two, so that any order of adding is exact."""
    spoken = {item: rng.choice(np.arange(1, SIZE), size=rng.integers(0, 6), replace=False) for item in range(1, SIZE)}
    return {item: {int(other): rng.integers(1, 64) / 16 for other in others} for item, others in spoken.items()}


@pytest.mark.parametrize("dense_cells", [0, 1 << 40], ids=["sparse", "dense"])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_votes_are_the_weighted_sums_of_the_rows(rows, rng, monkeypatch, dense_cells, count):
    monkeypatch.setattr(item_table, "DENSE_CELLS_MAX", dense_cells)
    items = rng.integers(0, SIZE, size=(count, 5))
    weights = rng.integers(1, 16, size=items.shape) / 4
    votes = table_of(rows).votes(items, weights)
    assert len(votes.offsets) == count + 1
    for row in range(count):
        expected = {}
        for item, weight in zip(items[row].tolist(), weights[row].tolist(), strict=True):
            for other, each in rows.get(item, {}).items():
                expected[other] = expected.get(other, 0) + weight * each
        span = slice(votes.offsets[row], votes.offsets[row + 1])
        assert votes.index[span].tolist() == sorted(expected)
        assert dict(zip(votes.index[span].tolist(), votes.value[span].tolist(), strict=True)) == expected


def test_a_table_that_says_nothing_gives_no_votes():
    votes = table_of({}).votes(np.array([[1, 2], [0, 0]]), np.ones((2, 2)))
    assert votes.offsets.tolist() == [0, 0, 0]
    assert len(votes.index) == len(votes.value) == 0


def test_a_saved_table_is_read_back(rows, tmp_path):
    table = table_of(rows)
    table.save(tmp_path / "table.npz")
    again = ItemTable.load(tmp_path / "table.npz", SIZE)
    assert len(again) == len(table) == SIZE
    for name in ("offsets", "index", "weight"):
        np.testing.assert_array_equal(getattr(again, name), getattr(table, name))


def test_a_table_of_another_vocabulary_is_refused(rows, tmp_path):
    table_of(rows).save(tmp_path / "table.npz")
    with pytest.raises(BundleError, match="12 rows for 13 items"):
        ItemTable.load(tmp_path / "table.npz", SIZE + 1)


OFFSETS, INDEX, WEIGHT = np.array([0, 0, 2, 3]), np.array([2, 1, 1], np.int32), np.ones(3, np.float32)

DAMAGED = {
    "a column is missing": {"weight": None},
    "floats for ids": {"index": INDEX.astype(np.float32)},
    "another width": {"weight": WEIGHT.astype(np.float64)},
    "objects": {"index": np.array([None, 1, 2], object)},
    "no list of offsets": {"offsets": np.array(3)},
    "offsets fall": {"offsets": np.array([0, 2, 1, 3])},
    "offsets begin late": {"offsets": np.array([1, 1, 2, 3])},
    "offsets end early": {"offsets": np.array([0, 0, 1, 2])},
    "weights lack one": {"weight": WEIGHT[:2]},
    "a table of items": {"index": INDEX[:, None], "weight": WEIGHT[:, None]},
    "padding is spoken for": {"index": np.array([2, 0, 1], np.int32)},
    "an item beyond the vocabulary": {"index": np.array([2, 3, 1], np.int32)},
    "a weight of 0": {"weight": np.array([1, 0, 1], np.float32)},
    "a weight that is no number": {"weight": np.array([1, np.nan, 1], np.float32)},
    "a weight without end": {"weight": np.array([1, np.inf, 1], np.float32)},
}


@pytest.mark.parametrize("changed", DAMAGED.values(), ids=list(DAMAGED))
def test_columns_that_do_not_fit_are_refused(tmp_path, changed):
    columns = {"offsets": OFFSETS, "index": INDEX, "weight": WEIGHT}
    np.savez(tmp_path / "sound.npz", **columns)
    assert len(ItemTable.load(tmp_path / "sound.npz", 3)) == 3
    damaged = {name: each for name, each in (columns | changed).items() if each is not None}
    np.savez(tmp_path / "table.npz", **damaged)
    with pytest.raises(BundleError, match=r"^table\.npz: "):
        ItemTable.load(tmp_path / "table.npz", 3)


@pytest.mark.parametrize("part", [0, 10, 300, -30])
def test_a_file_cut_short_is_refused(rows, tmp_path, part):
    path = tmp_path / "table.npz"
    table_of(rows).save(path)
    path.write_bytes(path.read_bytes()[:part])
    with pytest.raises(BundleError, match=r"^table\.npz: "):
        ItemTable.load(path, SIZE)


def test_a_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "table.npz"
    for content in (b"hello, table", b"\x00" * 64):
        path.write_bytes(content)
        with pytest.raises(BundleError, match="no item table"):
            ItemTable.load(path, SIZE)
    with path.open("wb") as file:
        np.save(file, OFFSETS)
    with pytest.raises(BundleError, match="no item table"):
        ItemTable.load(path, SIZE)
    with pytest.raises(BundleError, match="no item table"):
        ItemTable.load(tmp_path / "absent.npz", SIZE)


def test_no_flipped_byte_is_answered_with_anything_but_a_table_or_a_refusal(rows, rng, tmp_path):
    path = tmp_path / "table.npz"
    table_of(rows).save(path)
    sound = path.read_bytes()
    for place in rng.integers(len(sound), size=100):
        damaged = bytearray(sound)
        damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            assert len(ItemTable.load(path, SIZE)) == SIZE
        except BundleError:
            continue
