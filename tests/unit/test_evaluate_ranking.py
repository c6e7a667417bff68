"""Rankings and their metrics, against the definitions in plain Python."""

import math
import random

import numpy as np
import pytest

from models.sequence.baselines import linear
from models.sequence.baselines.linear import silence
from models.sequence.dataset import Cases, Corpus, Turns, sequences_of
from models.sequence.evaluate import CUTOFFS, MODEL, bootstrap, evaluate, mrr, ndcg, ranks, recall
from models.sequence.ranking import place_of, places, recommender, top
from models.sequence.spread import GROUPS, divergence, diversity, popularity_group, spread
from segue.errors import InvalidInput
from segue.inference.windows import Vocabulary

SEQUENCES = [[1, 2, 3, 4], [2, 3, 4], [5, 1, 2, 3], [2, 2, 6], [4, 3, 2, 1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 6]]
IDS = np.array([-50, -7, 3, 11, 60, 90])


@pytest.fixture
def corpus():
    return Corpus.of(sequences_of([IDS[np.array(each) - 1] for each in SEQUENCES]))


def cases_of(prefixes, targets, customers):
    turns = Turns(np.array(customers), np.array(targets), np.zeros(len(targets), np.int64))
    return Cases(turns, sequences_of([np.array(each, np.int64) for each in prefixes]), 0, len(targets))


def naive_ndcg(ranking, target, k):
    gains = [1 / math.log2(place + 2) for place, item in enumerate(ranking[:k]) if item == target]
    return sum(gains)


def test_metrics_are_the_definitions():
    rng = random.Random(1)
    rankings = [rng.sample(range(1, 60), 20) for _ in range(200)]
    targets = [rng.randrange(1, 60) for _ in rankings]
    cases = cases_of([[]] * 200, targets, range(200))
    rank = ranks(lambda prefixes: np.array(rankings), cases)
    for k in CUTOFFS:
        expected = [naive_ndcg(ranking, target, k) for ranking, target in zip(rankings, targets, strict=True)]
        np.testing.assert_allclose(ndcg(rank, k), expected)
        hits = [target in ranking[:k] for ranking, target in zip(rankings, targets, strict=True)]
        np.testing.assert_array_equal(recall(rank, k), hits)
        reciprocal = [
            sum(1 / (place + 1) for place, item in enumerate(ranking[:k]) if item == target)
            for ranking, target in zip(rankings, targets, strict=True)
        ]
        np.testing.assert_allclose(mrr(rank, k), reciprocal)


def test_top_is_a_stable_sort_of_what_is_allowed():
    rng = np.random.default_rng(2)
    scores = rng.integers(0, 4, (50, 12)).astype(float)
    barred = rng.integers(0, 12, (50, 3))
    for row, found in zip(range(50), top(scores.copy(), barred, 8), strict=True):
        allowed = [item for item in range(1, 12) if item not in barred[row]]
        expected = sorted(allowed, key=lambda item: (-scores[row, item], item))[:8]
        assert found.tolist() == expected + [0] * (8 - len(expected))


def test_top_of_a_vocabulary_smaller_than_k_is_padded():
    assert top(np.array([[9.0, 1.0, 2.0]]), np.array([[0]]), 4).tolist() == [[2, 1, 0, 0]]


def test_the_place_of_an_item_is_where_top_puts_it():
    rng = np.random.default_rng(3)
    scores = rng.integers(0, 5, (80, 15)).astype(float)
    barred, target = rng.integers(0, 15, (80, 4)), rng.integers(0, 15, 80)
    lists = top(scores.copy(), barred, 14).tolist()
    found = place_of(scores.copy(), barred, target)
    for row, (ranking, item) in enumerate(zip(lists, target.tolist(), strict=True)):
        assert found[row] == (ranking.index(item) + 1 if item and item in ranking else 0)


@pytest.mark.parametrize("include_seen", [False, True])
def test_popularity_ranks_by_count_without_what_was_seen(corpus, include_seen):
    popular = linear(silence(corpus), corpus, 1.0)
    recommend = recommender(popular, corpus.vocabulary, include_seen=include_seen)
    prefixes = [[], [-7, 3], [999]]
    answers = recommend(sequences_of([np.array(each, np.int64) for each in prefixes]))
    for prefix, answer in zip(prefixes, answers.tolist(), strict=True):
        allowed = [index for index in range(1, 7) if include_seen or IDS[index - 1] not in prefix]
        best = sorted(allowed, key=lambda index: (-corpus.popularity[index], index))
        assert answer == [*IDS[np.array(best) - 1].tolist(), *[0] * (20 - len(best))]
    cases = cases_of(prefixes * 7, np.repeat([*IDS.tolist(), 999], 3), range(21))
    placed = places(popular, corpus.vocabulary, cases, include_seen=include_seen)
    np.testing.assert_array_equal(placed, ranks(recommend, cases))


def test_bootstrap_gives_the_mean_and_draws_whole_customers():
    rng = np.random.default_rng(3)
    of_customer = rng.random(40)
    customer = np.repeat(np.arange(40), 25)
    values = np.stack([of_customer[customer], rng.random(1000)], axis=1)
    alike, apart = bootstrap(values, customer)
    assert alike.mean == pytest.approx(values[:, 0].mean())
    # 1,000 cases that are really 40 answers: about 5 times the spread of 1,000 separate ones.
    assert alike.high - alike.low == pytest.approx(2 * 1.96 * of_customer.std() / math.sqrt(40), rel=0.15)
    assert apart.high - apart.low == pytest.approx(2 * 1.96 * values[:, 1].std() / math.sqrt(1000), rel=0.3)


def test_an_evaluation_counts_new_items_as_missed_and_pairs_the_margins():
    vocabulary = Vocabulary.of(np.arange(1, 31))
    cases = cases_of([[], [1], [1, 2, 3], [4]], [5, 6, 7, 999], [0, 0, 1, 2])
    rank = {5: 1, 6: 3}
    lists = np.zeros((4, 20), np.int64)
    for row, target in enumerate(cases.turns.item.tolist()):
        if target in rank:
            lists[row, rank[target] - 1] = target
    evaluation = evaluate(cases, vocabulary, lambda _: lists, {"rival": lambda _: np.roll(lists, 1, axis=1)})
    model, rival = evaluation.scores(MODEL), evaluation.scores("rival")
    assert model["recall@1"].mean == 0.25
    assert model["ndcg@10"].mean == pytest.approx((1 + 1 / 2) / 4)
    assert rival["recall@1"].mean == 0
    margin = evaluation.margins("rival")["ndcg@10"]
    assert margin.mean == pytest.approx(model["ndcg@10"].mean - rival["ndcg@10"].mean)
    assert evaluation.metrics()["known_ratio"] == 0.75
    assert list(evaluation.slices()) == ["known item (3)", "prefix none (1)", "prefix 1-2 (2)", "prefix 3-9 (1)"]


def test_an_evaluation_without_a_case_is_refused():
    with pytest.raises(InvalidInput, match="lake"):
        evaluate(cases_of([], [], []), Vocabulary.of(IDS), lambda _: np.zeros((0, 20), np.int64), {})


def test_a_margin_that_chance_explains_has_a_large_p_value_and_one_that_it_does_not_a_small_one():
    rng = np.random.default_rng(5)
    noise = rng.normal(size=(400, 1))
    chance, real, none = bootstrap(np.hstack([noise - noise.mean() + 0.02, noise * 0.1 + 1, noise * 0]), np.arange(400))
    assert chance.p_value > 0.3
    assert real.p_value == pytest.approx(2 / 1001)
    assert none.p_value == 1


def test_spread_is_the_definitions(corpus):
    best = np.zeros((4, 20), np.int64)
    best[0, :3], best[1, :2], best[2, 15] = IDS[[1, 2, 0]], IDS[[1, 5]], IDS[3]
    asked = np.array([IDS[1], IDS[4], 999, IDS[2]])
    found = spread(best, asked, corpus)
    share = corpus.popularity / corpus.popularity.sum()
    assert found["coverage@10"] == 4 / 6
    assert found["novelty@10"] == pytest.approx(-np.mean([math.log2(share[each]) for each in (2, 3, 1, 2, 6)]))
    group = popularity_group(corpus.popularity)
    counts = [
        [int((group[np.array(each)] == one).sum()) for one in range(GROUPS)] for each in ([2, 3, 1, 2, 6], [2, 5, 3])
    ]
    assert found["popularity_divergence@10"] == pytest.approx(divergence(*map(np.array, counts)))


def naive_diversity(lists, unlike):
    means = []
    for each in lists:
        pairs = [unlike(left, right) for place, left in enumerate(each) for right in each[:place]]
        pairs = [pair for pair in pairs if pair is not None]
        means += [sum(pairs) / len(pairs)] if pairs else []
    return sum(means) / len(means)


def test_diversity_is_the_mean_over_the_pairs_of_a_list(monkeypatch):
    monkeypatch.setattr("models.sequence.spread.LISTS_MAX", 7)
    rng = np.random.default_rng(8)
    vocabulary = Vocabulary.of(np.arange(10, 60))
    category = np.array([*("" if each % 7 == 0 else f"c{each % 4}" for each in range(51))], object)
    embedding = rng.normal(size=(51, 5)).astype(np.float32)
    lists = [rng.choice(50, size=rng.integers(0, 11), replace=False) + 10 for _ in range(40)]
    best = np.zeros((40, 20), np.int64)
    for row, each in zip(best, lists, strict=True):
        row[: len(each)] = each
    best[:, 10:] = rng.choice(50, (40, 10)) + 10  # beyond the ten best nothing counts

    def apart(left, right):
        one, other = category[left - 9], category[right - 9]
        return None if "" in (one, other) else one != other

    def angle(left, right):
        one, other = embedding[left - 9].astype(float), embedding[right - 9].astype(float)
        return 1 - one @ other / math.sqrt((one @ one) * (other @ other))

    found = diversity(best, vocabulary, category=category, embedding=embedding)
    assert found["category_diversity@10"] == pytest.approx(naive_diversity(lists, apart))
    assert found["cosine_diversity@10"] == pytest.approx(naive_diversity(lists, angle), rel=1e-5)


def test_diversity_of_lists_without_a_pair_or_of_items_without_a_category_is_not_a_number():
    vocabulary, nothing = Vocabulary.of(IDS), np.full(7, "", object)
    lists = np.tile(IDS, (3, 1))
    assert np.isnan(diversity(lists, vocabulary, category=nothing)["category_diversity@10"])
    alone = diversity(lists[:, :1], vocabulary, category=nothing, embedding=np.ones((7, 2), np.float32))
    assert np.isnan(list(alone.values())).all()
    same = diversity(lists, vocabulary, category=np.full(7, "c", object), embedding=np.ones((7, 2), np.float32))
    assert list(same.values()) == pytest.approx([0, 0], abs=1e-6)


def test_groups_of_popularity_hold_like_shares_of_the_turns():
    popularity = np.array([0, *(1000 // (1 + place) for place in range(500))])
    group = popularity_group(popularity)
    held = np.bincount(group, popularity)
    assert len(held) == GROUPS
    assert held / held.sum() == pytest.approx(1 / GROUPS, abs=0.1)
    assert (np.diff(group[1:]) >= 0).all()


def test_an_evaluation_can_be_cut_into_any_parts():
    cases = cases_of([[]] * 4, [5, 6, 7, 8], [0, 1, 2, 3])
    lists = np.zeros((4, 20), np.int64)
    lists[:, 0] = [5, 6, 0, 0]
    evaluation = evaluate(cases, Vocabulary.of(np.arange(1, 9)), lambda _: lists, {})
    parts = {"found": np.array([True, True, False, False]), "all": np.ones(4, bool), "none": np.zeros(4, bool)}
    found = evaluation.by_part(parts)
    assert {part: each[MODEL].mean for part, each in found.items()} == {"found (2)": 1, "all (4)": 0.5}


def test_divergence_is_0_for_like_1_for_disjoint_and_symmetric():
    assert divergence(np.array([1, 2, 3]), np.array([2, 4, 6])) == pytest.approx(0)
    assert divergence(np.array([1, 0]), np.array([0, 5])) == pytest.approx(1)
    assert divergence(np.array([1, 3]), np.array([4, 1])) == divergence(np.array([4, 1]), np.array([1, 3]))
    assert np.isnan(divergence(np.array([0, 0]), np.array([0, 5])))
