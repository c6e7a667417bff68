"""The oracle answers what the simulator draws from, and shares say how much of the way to it is gone."""

import dataclasses

import numpy as np
import pytest

from models.sequence import dataset
from models.sequence.baselines import recommenders
from models.sequence.config import Config
from models.sequence.evaluate import MODEL, evaluate, ndcg
from models.sequence.oracle import (
    INFERRED,
    TRUTH,
    Oracle,
    asked_by_purchase,
    compare,
    inferred_mood,
    last_viewed,
    share,
    table,
    viewed,
)
from segue.events import NO_ITEM, Events, Kind
from segue.simulator import Shop, ShopConfig
from segue.simulator.population import mood, unit

SETTINGS = Config(max_cases=150, refit=False)


@pytest.fixture(scope="module")
def shop():
    return Shop(ShopConfig(customers=300, items=80, days=40, seed=4))


@pytest.fixture(scope="module")
def events(shop):
    return Events.concat(shop.stream())


@pytest.fixture(scope="module")
def data(events):
    return dataset.split(events, SETTINGS)


@pytest.fixture(scope="module")
def evaluation(shop, events, data):
    rivals = recommenders(data, SETTINGS)
    return compare(data, events, shop.truth(), SETTINGS, rivals.pop("markov"), rivals)


def test_the_oracle_ranks_by_the_true_probability_without_what_was_seen(shop, events, data):
    truth = shop.truth()
    oracle = Oracle.of(truth, events, data.test, include_seen=False)
    best = oracle.recommenders()[TRUTH](data.test.prefixes)
    place = {name: row for row, name in enumerate(truth.customers)}
    views = events.take(events.kind == Kind.PRODUCT_VIEWED)
    for row in range(0, len(data.test), 13):
        customer, now = int(data.test.turns.customer[row]), int(data.test.turns.time_ms[row])
        own = views.take((views.customer == customer) & (views.event_time_ms < now))
        last = own.item[own.event_time_ms.argmax()] if len(own) else NO_ITEM
        assert oracle.last_item[row] == last
        probability = truth.next_view_probability(np.array([place[events.customers[customer]]]), np.array([last]), now)[
            0
        ]
        seen = set(data.test.prefixes.item[slice(*data.test.prefixes.offsets[row : row + 2])].tolist())
        chance = {i: p for i, p in zip(truth.catalogue.item.tolist(), probability, strict=True) if i not in seen}
        expected = sorted(chance, key=lambda item: (-chance[item], item))[:20]
        given = [item for item in best[row].tolist() if item != NO_ITEM]
        assert [chance[item] for item in given] == pytest.approx([chance[item] for item in expected[: len(given)]])
        assert len(given) == min(20, len(chance))


def test_who_knows_more_ranks_better(evaluation):
    value = {name: ndcg(rank, 10).mean() for name, rank in evaluation.rank.items()}
    assert value[TRUTH] > value[INFERRED] > value[MODEL] > value["popularity"]


def test_shares_run_from_popularity_to_the_oracle(evaluation):
    assert share(evaluation, "popularity", TRUTH, "ndcg@10").high == 0
    assert share(evaluation, TRUTH, TRUTH, "recall@10").low == 1
    found = share(evaluation, MODEL, TRUTH, "ndcg@10")
    value = {name: ndcg(evaluation.rank[name], 10).mean() for name in (MODEL, TRUTH, "popularity")}
    way = (value[MODEL] - value["popularity"]) / (value[TRUTH] - value["popularity"])
    assert found.mean == pytest.approx(way)
    assert found.low < found.mean < found.high
    assert table(evaluation).row_count == len(evaluation.rank)


def test_a_taste_is_inferred_as_summing_over_all_tastes_would(shop, data):
    truth = shop.truth()
    rng = np.random.default_rng(1)
    tastes = unit(rng.standard_normal((200_000, truth.taste.shape[1])))
    for row in (0, 40):
        item, time_ms = viewed(data.test, row)
        item, time_ms = item[-6:], time_ms[-6:]
        before = np.concatenate([[NO_ITEM], item[:-1]]).astype(np.int64)
        by_mood, led = truth.view_terms(item, before, time_ms)
        moods = mood(tastes, truth.items)
        likelihood = (moods @ by_mood.T + led).prod(axis=1)
        expected = likelihood @ moods / likelihood.sum()
        found = np.mean([inferred_mood(truth, by_mood, led, np.random.default_rng(seed)) for seed in range(20)], axis=0)
        assert found == pytest.approx(expected, abs=0.02)


def test_the_last_view_counts_even_where_it_came_late(events):
    late = dataclasses.replace(events, available_time_ms=events.available_time_ms + 10**9)
    customer, time_ms = np.arange(50), np.full(50, int(events.event_time_ms.max()))
    assert (last_viewed(late, customer, time_ms) == last_viewed(events, customer, time_ms)).all()
    assert (last_viewed(events, customer, np.zeros(50, np.int64)) == NO_ITEM).all()


def test_purchases_are_counted(events, data):
    everything = dataset.split(events, dataclasses.replace(SETTINGS, include_seen=True, max_cases=100_000))
    assert asked_by_purchase(events, everything.test) > 0
    assert asked_by_purchase(events, data.test) <= asked_by_purchase(events, everything.test)


def test_what_was_seen_may_be_recommended_where_it_is_asked_for(shop, events):
    settings = dataclasses.replace(SETTINGS, include_seen=True)
    data = dataset.split(events, settings)
    oracle = Oracle.of(shop.truth(), events, data.test, include_seen=True)
    found = evaluate(data.test, data.final.vocabulary, oracle.recommenders()[TRUTH], {})
    assert (found.best[MODEL] != NO_ITEM).all()
