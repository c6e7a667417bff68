"""Baselines against their definitions in plain Python."""

import math

import numpy as np
import pytest

from models.sequence import baselines
from models.sequence.baselines import FAMILIES, Family, choose, linear, names
from models.sequence.baselines.ease import ease
from models.sequence.baselines.linear import POPULARITY_SHARE, silence
from models.sequence.baselines.markov import REACH, markov
from models.sequence.baselines.neighbours import neighbours
from models.sequence.dataset import Cases, Corpus, Split, Turns, sequences_of
from segue.inference.windows import Windows

SIZE = 9


@pytest.fixture(params=[1, 2])
def sequences(request):
    rng = np.random.default_rng(request.param)
    drawn = [rng.integers(1, SIZE, size=length).tolist() for length in (1, 2, 14, 5, 3, 30, 2, 7, 1, 12)]
    return [*drawn, [8], list(range(1, SIZE))]


@pytest.fixture
def corpus(sequences):
    return Corpus.of(sequences_of([np.array(each) for each in sequences]))


def dense(table):
    return table if isinstance(table, np.ndarray) else table.toarray()


def windows(rows):
    width = max(map(len, rows))
    items = np.array([[0] * (width - len(row)) + row for row in rows])
    return Windows(items, items * 0, items * 0)


@pytest.mark.parametrize("backward", [0.0, 0.4])
def test_markov_is_the_formula(corpus, sequences, backward):
    follows = {}
    for sequence in sequences:
        for place, item in enumerate(sequence):
            for step, follower in enumerate(sequence[place + 1 : place + 1 + REACH]):
                follows[item, follower] = follows.get((item, follower), 0) + 0.6**step
                follows[follower, item] = follows.get((follower, item), 0) + backward * 0.6**step
    total = {item: sum(count for (source, _), count in follows.items() if source == item) for item in range(SIZE)}
    found = dense(markov(corpus, step_decay=0.6, backward=backward, shrinkage=3.0))
    for item in range(SIZE):
        for follower in range(SIZE):
            assert found[item, follower] == pytest.approx(follows.get((item, follower), 0) / (total[item] + 3))


@pytest.mark.parametrize(("count", "shrinkage"), [(3, 0.0), (2, 1.5), (100, 0.5)])
def test_neighbours_are_the_nearest_by_the_cosine_of_their_customers(corpus, sequences, count, shrinkage):
    customers = [{row for row, sequence in enumerate(sequences) if item in sequence} for item in range(SIZE)]
    found = dense(neighbours(corpus, count=count, shrinkage=shrinkage))
    for item in range(1, SIZE):
        alike = {}
        for other in range(1, SIZE):
            together = len(customers[item] & customers[other])
            if other != item and together:
                size = math.sqrt(len(customers[item]) * len(customers[other]))
                alike[other] = together / (size + shrinkage)
        nearest = sorted(alike, key=lambda other: (-alike[other], other))[:count]
        expected = [alike[other] if other in nearest else 0.0 for other in range(SIZE)]
        assert found[item] == pytest.approx(expected)


def test_ease_is_the_ridge_regression_of_each_item_on_the_others(corpus, sequences):
    turned = np.array([[float(item in sequence) for item in range(SIZE)] for sequence in sequences])
    found = ease(corpus, penalty=2.5)
    for item in range(1, SIZE):
        others = [other for other in range(1, SIZE) if other != item]
        x = turned[:, others]
        expected = np.linalg.solve(x.T @ x + 2.5 * np.eye(len(others)), x.T @ turned[:, item])
        assert found[others, item] == pytest.approx(expected)
        assert found[item, item] == 0


def test_a_prefix_is_the_sum_of_its_items_each_older_one_counting_less(corpus):
    table = markov(corpus, step_decay=0.6, backward=0.0, shrinkage=3.0)
    rows = [[1], [2, 6, 4], [3, 3, 1, 3]]
    found = linear(table, corpus, 0.7).scores(windows(rows))
    share = corpus.popularity / corpus.popularity.sum()
    for row, prefix in zip(found, rows, strict=True):
        votes = sum(0.7**age * dense(table)[item] for age, item in enumerate(reversed(prefix)))
        assert row == pytest.approx(votes + POPULARITY_SHARE * share)


def test_a_table_that_says_nothing_leaves_popularity(corpus):
    found = linear(silence(corpus), corpus, 1.0).scores(windows([[1, 2], [3]]))
    assert (np.argsort(-found, kind="stable") == np.argsort(-corpus.popularity, kind="stable")).all()


def cases_of(prefixes, targets):
    turns = Turns(np.arange(len(targets)), np.array(targets), np.zeros(len(targets), np.int64))
    return Cases(turns, sequences_of([np.array(each) for each in prefixes]), 0, len(targets))


def test_the_parameters_are_those_that_rank_validation_best(corpus):
    """A table whose items point one further: only `right` answers what is asked, and only with the newest item."""

    def table(corpus, *, right):
        cells = np.zeros((SIZE, SIZE))
        for item in range(1, SIZE):
            cells[item, 1 + item % (SIZE - 1) if right else 1 + (item + 2) % (SIZE - 1)] = 1
        return cells

    asked = cases_of([[1, 5], [2, 7], [4, 2]], [6, 8, 3])
    found = choose(Family(table, {"right": (0, 1)}, (1.0, 0.5)), corpus, asked, include_seen=False)
    assert found.parameters == {"right": 1}
    assert found.scorer.age_decay == 0.5


def test_without_a_case_the_first_choices_win(corpus):
    nothing = cases_of([], [])
    found = choose(FAMILIES["markov"], corpus, nothing, include_seen=False)
    assert found.parameters == {name: choices[0] for name, choices in FAMILIES["markov"].parameters.items()}


def test_the_final_baseline_is_fitted_on_the_final_corpus(corpus, sequences):
    more = Corpus.of(sequences_of([np.array([*each, 1, 2]) for each in sequences]))
    asked = cases_of([[1, 5], [2, 7], [4, 2]], [6, 8, 3])
    split = Split(choosing=corpus, final=more, validation=asked, test=asked)
    found = baselines.fit("markov", split, include_seen=False)
    assert dense(found.scorer.table) == pytest.approx(dense(markov(more, **found.parameters)))
    assert dense(found.choosing.table) == pytest.approx(dense(markov(corpus, **found.parameters)))


def test_ease_is_left_out_where_its_table_would_be_too_large():
    assert {"ease", "ease-recency"} <= set(names(1000))
    assert names(baselines.EASE_ITEMS_MAX + 1) == [name for name in FAMILIES if not name.startswith("ease")]
