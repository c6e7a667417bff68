"""What goes with what: the counts against plain loops, and what they find where it was planted."""

import itertools
import json

import numpy as np
import pytest
from scipy import sparse

from models.sequence import baskets, related
from segue.events import Kind, item_id
from segue.history import Timelines
from segue.inference.bundle import Bundle, write
from segue.inference.related import FILES, Related, Relation
from segue.inference.sequence import EXTERNAL_IDS, ITEMS
from segue.inference.windows import Vocabulary
from tests import related_log
from tests.bundles import MANIFEST
from tests.related_log import BREAD, CASES, PHONES, SKUS, fits, of_rows

DAY_MS = 86_400_000
EVER_MS = 1 << 60
A, B, C, D = 1, 2, 3, 4
SIZE = 5
VOCABULARY = Vocabulary.of(np.array([A, B, C, D]))

VIEW, ADD, REMOVE, BUY = Kind.PRODUCT_VIEWED, Kind.PRODUCT_ADDED, Kind.PRODUCT_REMOVED, Kind.PRODUCT_PURCHASED


def acts(*rows, known_ms=EVER_MS):
    """The acts of (customer, kind, item, time in ms)."""
    return related.acts_of(Timelines.of(of_rows(list(rows))), VOCABULARY, known_ms)


def counts(table):
    source, other, count = related.cells(table)
    return {(a, b): c for a, b, c in zip(source.tolist(), other.tolist(), count.tolist(), strict=True)}


def follow(*rows):
    takes = related.taken(acts(*rows))
    return counts(related.followers(takes.first_of(takes.customer, SIZE), SIZE))


def test_what_is_taken_later_follows_and_not_the_other_way():
    assert follow((0, ADD, A, 10), (0, ADD, B, 20), (0, BUY, C, 2 * DAY_MS)) == {(A, B): 1, (A, C): 1, (B, C): 1}


def test_a_customer_counts_a_pair_once():
    bought = [(0, BUY, A, 40), (0, BUY, B, 40)]
    assert follow((0, ADD, A, 10), (0, ADD, B, 20), *bought, (0, ADD, A, 50), (0, ADD, B, 60)) == {(A, B): 1}
    assert follow((0, ADD, A, 10), (0, ADD, B, 20), (1, ADD, A, 10), (1, ADD, B, 20)) == {(A, B): 2}


def test_lines_of_one_order_that_were_in_no_cart_follow_each_other_by_half():
    assert follow((0, BUY, A, 10), (0, BUY, B, 10), (0, BUY, C, 20)) == {
        (A, B): 0.5,
        (B, A): 0.5,
        (A, C): 1,
        (B, C): 1,
    }


def test_what_comes_much_later_does_not_follow():
    horizon = related.TAKE_HORIZON_MS
    assert follow((0, ADD, A, 10), (0, ADD, B, 10 + horizon), (0, ADD, C, 11 + horizon)) == {(A, B): 1, (B, C): 1}


def test_what_was_put_back_was_not_taken():
    swapped = [(0, ADD, A, 10), (0, ADD, B, 20), (0, REMOVE, A, 30), (0, ADD, C, 40)]
    assert follow(*swapped) == {(B, C): 1}
    assert follow(*swapped, (0, ADD, A, 50)) == {(B, C): 1, (B, A): 1, (C, A): 1}
    assert follow((0, ADD, A, 10), (1, REMOVE, A, 20), (0, ADD, B, 30)) == {(A, B): 1}


def test_only_what_was_known_counts():
    rows = [(0, ADD, A, 10), (0, ADD, B, 20), (0, ADD, C, 30)]
    takes = related.taken(acts(*rows, known_ms=25))
    assert takes.item.tolist() == [A, B]


def test_items_outside_the_vocabulary_are_passed_over():
    assert follow((0, ADD, A, 10), (0, ADD, 99, 20), (0, BUY, 0, 25), (0, ADD, B, 30)) == {(A, B): 1}


def test_a_pause_ends_a_visit_and_what_is_beside_is_symmetric():
    gap = related.SESSION_GAP_MS
    rows = [(0, VIEW, A, 0), (0, VIEW, B, gap - 1), (0, VIEW, A, gap), (0, VIEW, C, 3 * gap), (1, VIEW, D, 3 * gap)]
    looks = related.looked_at(acts(*rows), SIZE)
    ones = related.beside(looks, lambda first, second: np.ones(len(first)), SIZE)
    assert counts(ones) == {(A, B): 1, (B, A): 1}


@pytest.mark.parametrize("seed", range(3))
def test_followers_are_those_of_a_plain_loop(seed, monkeypatch):
    monkeypatch.setattr(related, "TAKE_REACH", 3)
    rng = np.random.default_rng(seed)
    count = 300
    columns = rng.integers(12, size=count), rng.integers(1, SIZE, size=count), 10 * rng.permutation(count)
    rows = [(int(customer), ADD, int(item), int(time)) for customer, item, time in zip(*columns, strict=True)]
    expected = {}
    for customer in range(12):
        first = {}
        for _, _, item, time in sorted((row for row in rows if row[0] == customer), key=lambda row: row[3]):
            first.setdefault(item, time)
        for (a, _), (b, _) in itertools.combinations(sorted(first.items(), key=lambda each: each[1]), 2):
            expected[a, b] = expected.get((a, b), 0) + 1
    assert follow(*rows) == expected


def test_an_item_of_few_takers_borrows_from_its_best_alternatives():
    alike = np.zeros((SIZE, SIZE))
    alike[A, [B, C]] = 3, 1
    takers = np.array([0, 30, 5, 0, 7])
    found = related.voices(takers, sparse.csr_array(alike)).toarray()
    own = 30 / (30 + related.SHRINKAGE)
    assert found[A] == pytest.approx([0, own, 0.75 * (1 - own), 0.25 * (1 - own), 0])
    assert (found[B:] == np.eye(SIZE)[B:]).all()


def test_complements_and_similar_are_the_formulas():
    """Three customers looked at a and b and took one, two of whom came back for c; one looked at a and c alone."""
    minute = 60_000
    rows = []
    for customer, (taken, also) in enumerate([(A, C), (A, C), (B, None)]):
        rows += [(customer, VIEW, A, 0), (customer, VIEW, B, minute), (customer, ADD, taken, 2 * minute)]
        rows += [] if also is None else [(customer, ADD, also, DAY_MS)]
    rows += [(3, VIEW, A, 0), (3, VIEW, C, minute), (3, ADD, C, 2 * minute)]
    everything = acts(*rows)
    looks, takes = related.looked_at(everything, SIZE), related.taken(everything)
    s = related.SHRINKAGE
    found = counts(related.similar(looks, takes, SIZE))
    # Visits that look: a 4, b 3, c 3.
    assert found == pytest.approx({
        (A, B): 3 / (12**0.5 + s), (B, A): 3 / (12**0.5 + s), (A, C): 1 / (12**0.5 + s), (C, A): 1 / (12**0.5 + s)
    })  # fmt: skip
    # The only pair is a -> c: chance would have it as often, were there nobody else to go on.
    assert counts(related.complements(looks, takes, sparse.csr_array((SIZE, SIZE)))) == {}
    more = [(9, ADD, B, 0), (9, ADD, D, minute)]
    everything = acts(*rows, *more)
    looks, takes = related.looked_at(everything, SIZE), related.taken(everything)
    found = counts(related.complements(looks, takes, sparse.csr_array((SIZE, SIZE))))
    # f = 2 of n = 2 takers of a, e = 2 * 2 / 3; f = 1 of n = 2 takers of b, e = 1 / 3.
    assert found == pytest.approx({(A, C): (2 - 4 / 3) / (2 + s), (B, D): (1 - 1 / 3) / (2 + s)})


@pytest.fixture(scope="module")
def log():
    return related_log.events(customers=1500, seed=7)


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary.of(np.array([item_id(sku) for sku in SKUS]))


@pytest.fixture(scope="module")
def tables(log, vocabulary):
    return related.learn(Timelines.of(log), vocabulary, EVER_MS)


@pytest.fixture(scope="module")
def answer(tables, vocabulary, tmp_path_factory):
    """Asks a bundle that was written and read back."""
    directory = tmp_path_factory.mktemp("related")
    assert {len(each) for each in tables.values()} == {len(vocabulary)}
    related.save(directory, tables)
    assert {path.name for path in directory.iterdir()} == set(FILES.values())
    named = {item_id(sku): sku for sku in SKUS}
    np.save(directory / ITEMS, vocabulary.item)
    external_id = ["", *(named[item] for item in vocabulary.item[1:].tolist())]
    (directory / EXTERNAL_IDS).write_text(json.dumps(external_id))
    write(directory, MANIFEST)
    served = Related.load(Bundle.read(directory, "next_item:test"))

    def ask(skus, relation, limit=6):
        return served.answer(np.array([item_id(sku) for sku in skus]), relation, limit=limit).external_id

    return ask


def share(found, wanted):
    return np.mean([sku in wanted for sku in found])


def test_a_case_goes_with_the_phone_it_fits_and_another_phone_does_not(answer):
    assert np.mean([share(answer([phone], Relation.COMPLEMENT), fits(phone)) for phone in PHONES]) > 0.9
    assert not any(set(answer([phone], Relation.COMPLEMENT)) & set(PHONES) for phone in PHONES)


def test_a_phone_goes_less_with_a_case_than_a_case_with_a_phone(tables, vocabulary):
    table = related.as_sparse(tables[Relation.COMPLEMENT], (len(vocabulary), len(vocabulary))).toarray()
    phones, cases = (vocabulary.index(np.array([item_id(sku) for sku in skus])) for skus in (PHONES, CASES))
    # Who gets another phone after all took the case before it: that way is there, but it is narrow.
    assert table[np.ix_(phones, cases)].sum() > 3 * table[np.ix_(cases, phones)].sum() > 0


def test_instead_of_a_phone_another_one_of_its_model_is_looked_at(answer):
    for phone in PHONES:
        model = {other for other in PHONES if fits(other) == fits(phone)} - {phone}
        assert share(answer([phone], Relation.SIMILAR, limit=4), model) == 1


def test_what_everybody_takes_goes_with_nothing_in_particular(answer):
    assert np.mean([share(answer([phone], Relation.COMPLEMENT), BREAD) for phone in PHONES]) < 0.1


def test_two_phones_in_a_cart_are_asked_for_together(answer):
    one, other = PHONES[0], PHONES[1]
    found = answer([one, other], Relation.COMPLEMENT, limit=12)
    assert share(found, fits(one)) > 0.3
    assert share(found, fits(other)) > 0.3


def test_orders_grow_line_by_line():
    rows = [
        (0, ADD, A, 10), (0, ADD, C, 15), (0, ADD, B, 20), (0, REMOVE, C, 25), (0, BUY, B, 30), (0, BUY, A, 30),
        (0, BUY, D, 30), (0, ADD, A, 40), (0, BUY, A, 50), (1, ADD, B, 10),
    ]  # fmt: skip
    orders = baskets.baskets(acts(*rows), SIZE)
    assert orders.offsets.tolist() == [0, 3, 4]
    assert orders.item.tolist() == [A, B, D, A]
    assert orders.time_ms.tolist() == [10, 20, 30, 40]
    assert orders.customer.tolist() == [0, 0]
    found = [(case.cart.tolist(), case.later.tolist()) for case in baskets.cases(orders, 0)]
    assert found == [([A], [B, D]), ([A, B], [D])]
    assert [case.cart.tolist() for case in baskets.cases(orders, 21)] == [[A, B]]


def test_recall_counts_what_came_later(vocabulary):
    case = baskets.Case(0, np.array([1, 2]), np.array([3, 4, 5]))
    popular = baskets.by_popularity(np.array([0, 9, 8, 7, *range(6, 0, -1)] + [0] * 20))
    assert popular(case.cart).tolist() == list(range(3, 13))
    assert baskets.recall(lambda cart: np.array([4, 9, 3]), [case]).tolist() == [2 / 3]


def test_complements_are_judged_on_the_carts_of_the_future(log):
    judged = baskets.judge(log, int(np.quantile(log.event_time_ms, 0.8)))
    assert set(judged.recall) == {"complement", "similar", "together", "popularity"}
    assert judged.margins("complement")["popularity"].low > 0.1
    assert judged.scores()["complement"].mean == pytest.approx(judged.recall["complement"].mean())
