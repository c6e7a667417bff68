"""What was counted to follow raises what it should, and its files are refused where they are damaged."""

import json
import math

import numpy as np
import pytest

from segue.errors import BundleError
from segue.inference.followers import LENGTHS, MIXTURE, REACH, TABLE, Followers, Mixture, part
from segue.inference.item_table import ItemTable

SIZE = 12
MIXED = Mixture(0.5, 0.1, (0.5, 1.0, 2.0, 0.0, 4.0), (0.0, 0.1, 0.2, 0.3, 0.4))


@pytest.fixture
def followers():
    rng = np.random.default_rng(5)
    rows = [np.sort(rng.choice(np.arange(1, SIZE), size=size, replace=False)) for size in rng.integers(0, 5, SIZE)]
    rows[0] = rows[0][:0]
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    index = np.concatenate(rows).astype(np.int32)
    return Followers(ItemTable(offsets, index, rng.random(len(index), np.float32) + 0.1), MIXED)


def naive(followers, items):
    """By how much one history raises each item."""
    known = [item for item in items if item]
    weight = followers.mixture.weight[max(at for at, begin in enumerate(LENGTHS) if len(known) >= begin)]
    votes = dict.fromkeys(range(SIZE), 0.0)
    for age, item in enumerate(reversed(items[-REACH:])):
        if not 0 < item < SIZE:
            continue
        span = slice(followers.table.offsets[item], followers.table.offsets[item + 1])
        for other, value in zip(followers.table.index[span], followers.table.weight[span], strict=True):
            votes[int(other)] += 0.5**age * float(value)
    return {item: weight * math.log1p(value / 0.1) for item, value in votes.items() if value}


@pytest.mark.parametrize("width", [1, 4, 31, 33, 140])
def test_followers_of_the_newest_items_are_raised_as_a_naive_count_says(followers, width):
    rng = np.random.default_rng(width)
    # Beyond the table lie items that came after it.
    items = rng.integers(0, SIZE + 3, (6, width))
    items[0] = 0
    index, raised_by = followers.raised(items)
    assert index.shape == raised_by.shape
    for row, expected in enumerate(naive(followers, row.tolist()) for row in items):
        found = dict(zip(index[row].tolist(), raised_by[row].tolist(), strict=True))
        assert found.pop(0, 0.0) == 0.0
        assert found == pytest.approx(expected, rel=1e-5)


def test_the_parts_begin_where_they_say():
    lengths = [0, 1, 2, 3, 9, 10, 29, 30, 99, 100, 256]
    items = np.array([[0] * (256 - length) + [1] * length for length in lengths])
    assert part(items).tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_trust_goes_by_the_length_of_the_history(followers):
    items = np.array([[0, 0, 0], [1, 2, 3]])
    np.testing.assert_allclose(followers.trust(items), [0.0, 0.1])


def test_nothing_counted_raises_nobody():
    index, raised_by = Followers.none(SIZE).raised(np.array([[1, 2], [0, 0]]))
    assert not index.any()
    assert not raised_by.any()


def test_what_was_saved_is_read(followers, tmp_path):
    followers.save(tmp_path)
    again = Followers.load(tmp_path / TABLE, tmp_path / MIXTURE, SIZE)
    assert again.mixture == MIXED
    items = np.array([[1, 5, 3]])
    np.testing.assert_array_equal(again.raised(items)[1], followers.raised(items)[1])
    with pytest.raises(BundleError, match="rows"):
        Followers.load(tmp_path / TABLE, tmp_path / MIXTURE, SIZE + 1)


@pytest.mark.parametrize(
    "change",
    [
        {"age_decay": 0},
        {"age_decay": 1.5},
        {"smoothing": -1},
        {"weight": [1, 2]},
        {"weight": [-1, 0, 0, 0, 0]},
        {"trust": [0, 0, 0, 0, -0.1]},
        {"trust": None},
        {"trust": [math.nan, 0, 0, 0, 0]},
        {"smoothing": math.inf},
        {"smoothing": "much"},
    ],
)
def test_a_mixture_that_cannot_be_is_refused(followers, tmp_path, change):
    followers.save(tmp_path)
    given = json.loads((tmp_path / MIXTURE).read_text())
    (tmp_path / MIXTURE).write_text(json.dumps(given | change))
    with pytest.raises(BundleError, match="mixture"):
        Followers.load(tmp_path / TABLE, tmp_path / MIXTURE, SIZE)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff"])
def test_what_is_no_mixture_is_refused(followers, tmp_path, content):
    followers.save(tmp_path)
    (tmp_path / MIXTURE).write_bytes(content)
    with pytest.raises(BundleError, match="mixture"):
        Followers.load(tmp_path / TABLE, tmp_path / MIXTURE, SIZE)
