"""Answers about related items, from tables small enough to add up by hand."""

import json

import numpy as np
import pytest

from segue.errors import BundleError, InvalidInput, NotServed
from segue.inference.bundle import Bundle, write
from segue.inference.item_table import ItemTable
from segue.inference.related import COMPLEMENTS, ITEMS_MAX, SIMILAR, Related, Relation
from segue.inference.sequence import EXCLUDE_MAX, EXTERNAL_IDS, ITEMS, LIMIT_MAX
from tests.bundles import MANIFEST

ITEM = np.array([0, 10, 20, 30, 40, 50])
UNKNOWN = 99


def table(rows):
    offsets = np.cumsum([0, *(len(rows.get(index, {})) for index in range(len(ITEM)))])
    cells = [cell for index in sorted(rows) for cell in rows[index].items()]
    return ItemTable(offsets, np.array([a for a, _ in cells], np.int32), np.array([b for _, b in cells], np.float32))


@pytest.fixture
def directory(tmp_path):
    np.save(tmp_path / ITEMS, ITEM)
    (tmp_path / EXTERNAL_IDS).write_text(json.dumps(["", "ten", "twenty", "", "forty", "fifty"]))
    table({1: {2: 4.0, 3: 2.0, 5: 1.0}, 2: {1: 1.0, 4: 2.0, 3: 0.5}}).save(tmp_path / COMPLEMENTS)
    table({1: {4: 1.0}}).save(tmp_path / SIMILAR)
    return tmp_path


def load(directory):
    write(directory, MANIFEST)
    return Related.load(Bundle.read(directory, "next_item:test"))


@pytest.fixture
def related(directory):
    return load(directory)


def ask(related, items, relation=Relation.COMPLEMENT, limit=10, exclude=()):
    return related.answer(np.array(items, np.int64), relation, limit=limit, exclude=exclude)


def test_rows_add_up_best_first_equals_in_the_order_of_the_vocabulary(related):
    one = ask(related, [10])
    assert one.item.tolist() == [20, 30, 50]
    assert one.score.tolist() == [4, 2, 1]
    assert one.external_id == ["twenty", "", "fifty"]
    both = ask(related, [20, 10])
    assert both.item.tolist() == [30, 40, 50]
    assert both.score.tolist() == [2.5, 2, 1]
    assert ask(related, [10], Relation.SIMILAR).item.tolist() == [40]


def test_an_item_named_twice_counts_once_and_an_unknown_one_not_at_all(related):
    assert ask(related, [10, UNKNOWN, 10]).score.tolist() == ask(related, [10]).score.tolist()
    assert ask(related, [UNKNOWN]).item.tolist() == ask(related, [50]).external_id == []


def test_what_is_excluded_is_not_answered_and_the_limit_holds(related):
    assert ask(related, [10], exclude=[20, UNKNOWN]).item.tolist() == [30, 50]
    assert ask(related, [10], limit=1).item.tolist() == [20]


@pytest.mark.parametrize(
    ("field", "question"),
    [
        ("items", {"items": []}),
        ("items", {"items": [10] * (ITEMS_MAX + 1)}),
        ("limit", {"items": [10], "limit": 0}),
        ("limit", {"items": [10], "limit": LIMIT_MAX + 1}),
        ("exclude", {"items": [10], "exclude": [10] * (EXCLUDE_MAX + 1)}),
    ],
)
def test_a_question_out_of_bounds_is_refused_by_name(related, field, question):
    with pytest.raises(InvalidInput) as caught:
        ask(related, **question)
    assert [each.field for each in caught.value.violations] == [field]


def test_a_relation_that_the_bundle_lacks_is_not_served(directory):
    (directory / SIMILAR).unlink()
    related = load(directory)
    assert ask(related, [10]).item.tolist() == [20, 30, 50]
    with pytest.raises(NotServed, match=r"similar\.npz"):
        ask(related, [10], Relation.SIMILAR)


def test_it_says_which_bundle_it_is_and_until_when_it_counted(related):
    assert (related.version, related.data_cut_ms) == ("next_item:test", MANIFEST.data_cut_ms)


def test_a_table_of_another_vocabulary_is_refused(directory):
    np.save(directory / ITEMS, ITEM[:-1])
    (directory / EXTERNAL_IDS).write_text(json.dumps([""] * 5))
    with pytest.raises(BundleError, match=r"complements\.npz"):
        load(directory)


def test_as_many_external_ids_as_items_or_none_of_it(directory):
    (directory / EXTERNAL_IDS).write_text(json.dumps(["", "ten"]))
    with pytest.raises(BundleError, match="6 items, 2 external ids"):
        load(directory)
