"""The content map: attributes to vectors, by tokens that mean the same on every machine."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.catalogue import Catalogue
from segue.errors import BundleError
from segue.events import item_id
from segue.inference.content import (
    CONTENT,
    ITEM_TOKENS_MAX,
    ContentMap,
    Newcomers,
    token_ids,
    tokens,
    words,
)

WIDTH = 3


def catalogue(*items):
    """Of (external id, category, price, title), the last ones left out where unknown."""
    rows = [(*item, *("", "", 0, "")[len(item) :]) for item in items]
    columns = [np.array([row[at] for row in rows], object) for at in range(4)]
    ids = np.array([item_id(row[0]) for row in rows], np.int64)
    return Catalogue(ids, columns[0], columns[1], columns[2].astype(np.int64), columns[3])


def content_map(of):
    """A map that knows every token of `of` and gives each another whole number."""
    token = np.unique(token_ids(of)[1])
    weight = np.random.default_rng(1).integers(-9, 9, (len(token), WIDTH)).astype(np.float32)
    return ContentMap(token, weight, np.array([100, 200, 300], np.float32))


SHOES = catalogue(("a-1", "shoes/boots", 4990, "Red Boots"), ("b-2", "shoes > boots", 5200, "boots, red"), ("c-3",))


def test_every_level_of_a_category_and_both_half_octaves_of_a_price_are_tokens():
    assert tokens("", "Shoes > Boots", 0, "") == ["category:/shoes", "category:/shoes/boots"]
    assert tokens("", "shoes/boots", 0, "") == tokens("", " SHOES>> boots/", 0, "")
    assert tokens("", "", 1024, "") == ["price:20", "price:21"]
    assert tokens("", "", 1500, "") == ["price:21", "price:22"]
    assert tokens("sku-red_7", "", 0, "Toy Story (1995)") == [
        *("title:toy", "title:story", "title:1995"),
        *("id:sku", "id:red_7"),
    ]
    assert tokens("", "", 0, "") == tokens("///", " > ", -5, "!?") == []


def test_words_are_the_same_however_they_are_written():
    assert words("CAFÉ") == words("cafe\u0301") == words("café")
    assert words("Straße") == words("STRASSE")
    assert words("\ud800 \x00") == []


@given(st.text(), st.text(), st.integers(-(2**63), 2**63 - 1), st.text())
def test_any_attributes_have_few_tokens(external_id, category, price_minor, title):
    found = tokens(external_id, category, price_minor, title)
    assert len(set(found)) == len(found) <= ITEM_TOKENS_MAX


def test_a_text_without_end_has_few_tokens():
    long = " ".join(map(str, range(100_000)))
    assert len(tokens("", "/".join(long.split()), 5, long)) == ITEM_TOKENS_MAX


def test_token_hashes_never_change():
    offsets, hashes = token_ids(catalogue(("", "shoes"), ("x",)))
    assert (offsets.tolist(), hashes.tolist()) == ([0, 1, 2], [7658421843108122816, 6404502915209675980])


def test_a_vector_is_the_base_and_what_each_known_token_adds():
    learned = content_map(SHOES)
    at = dict(zip(learned.token.tolist(), learned.weight, strict=True))
    offsets, hashes = token_ids(SHOES)
    found = learned.vectors(SHOES)
    assert found.dtype == np.float32
    for row, (start, stop) in enumerate(pairwise(offsets.tolist())):
        assert found[row].tolist() == (learned.base + sum(at[each] for each in hashes[start:stop].tolist())).tolist()


def test_unknown_tokens_say_nothing():
    learned = content_map(SHOES)
    strangers = catalogue(("", "hats", 1), ("zzz", "", 0, "nothing known"))
    assert (learned.vectors(strangers) == learned.base).all()
    empty = ContentMap(np.empty(0, np.int64), np.empty((0, WIDTH), np.float32), learned.base)
    assert (empty.vectors(SHOES) == learned.base).all()
    assert learned.vectors(SHOES.take(np.empty(0, np.intp))).shape == (0, WIDTH)


def test_a_map_is_read_back_as_it_was_written(tmp_path):
    learned = content_map(SHOES)
    learned.save(tmp_path / CONTENT)
    again = ContentMap.load(tmp_path / CONTENT, WIDTH)
    assert again.vectors(SHOES).tobytes() == learned.vectors(SHOES).tobytes()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"base": np.zeros(WIDTH, np.float64)}, "dtypes"),
        ({"base": np.zeros(WIDTH + 1, np.float32)}, "shapes"),
        ({"weight": np.zeros((1, WIDTH), np.float32)}, "shapes"),
        ({"token": np.zeros(2, np.int64), "weight": np.zeros((2, WIDTH), np.float32)}, "ascending"),
        ({"token": np.arange(5000), "weight": np.zeros((5000, WIDTH), np.float32)}, "at most"),
        ({"base": np.array([0, np.nan, 0], np.float32)}, "no number"),
        ({"base": np.array([{}, {}, {}], object)}, "no content map"),
    ],
)
def test_a_map_that_does_not_fit_is_refused(tmp_path, change, problem):
    learned = content_map(SHOES)
    held = {"token": learned.token, "weight": learned.weight, "base": learned.base} | change
    np.savez(tmp_path / CONTENT, **held)
    with pytest.raises(BundleError, match=problem):
        ContentMap.load(tmp_path / CONTENT, WIDTH)


@pytest.mark.parametrize("written", [b"", b"no map", b"PK\x03\x04cut short"])
def test_a_file_that_is_no_map_is_refused(tmp_path, written):
    (tmp_path / CONTENT).write_bytes(written)
    with pytest.raises(BundleError, match=CONTENT):
        ContentMap.load(tmp_path / CONTENT, WIDTH)
    with pytest.raises(BundleError, match="absent"):
        ContentMap.load(tmp_path / "absent.npz", WIDTH)


def names(newcomers):
    return newcomers.told()[1]


def test_newcomers_are_told_with_their_vectors_and_trained_items_are_not():
    learned = content_map(SHOES)
    newcomers = Newcomers(learned, np.array([0, item_id("b-2")]))
    item, external_id, vectors = newcomers.told()
    assert (item.tolist(), external_id, vectors.shape, vectors.dtype) == ([], [], (0, WIDTH), np.float32)
    newcomers.add(SHOES)
    item, external_id, vectors = newcomers.told()
    assert (external_id, item.tolist()) == (["a-1", "c-3"], [item_id("a-1"), item_id("c-3")])
    assert vectors.tobytes() == learned.vectors(SHOES)[[0, 2]].tobytes()
    newcomers.add(catalogue(("c-3", "shoes")))
    changed = newcomers.told()[2]
    assert (changed[0] == vectors[0]).all()
    assert (changed[1] != vectors[1]).any()


def test_the_oldest_newcomers_go_when_there_are_too_many():
    newcomers = Newcomers(content_map(SHOES), np.empty(0, np.int64), limit=3)
    for name in "abc":
        newcomers.add(catalogue((name,)))
    newcomers.add(catalogue(("a",)))
    assert names(newcomers) == ["b", "c", "a"]
    newcomers.add(catalogue(("d",), ("e",)))
    assert names(newcomers) == ["a", "d", "e"]
    newcomers.remove("d")
    newcomers.remove("never seen")
    assert names(newcomers) == ["e"]
