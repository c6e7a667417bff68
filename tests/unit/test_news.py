"""What updates online knows what had happened by each turn and nothing later, and counts it as it says."""

import argparse

import numpy as np
import pytest

from models.sequence import dataset, hour, news
from models.sequence.config import Config
from models.sequence.evaluate import rank_in, recall
from models.sequence.live import HOUR_MS, NEWEST, REACH, Stream, Votes
from models.sequence.news import LiveMarkov, News, Trending, ages_of, best_of, fit_trees, recommender
from segue.events import NO_ITEM, Events, Kind

SETTINGS = Config(length=10, max_cases=250, include_seen=False)
BORN_HOURS = 6


def events_of(rows):
    """Events of (customer, item, event time, available time)."""
    customer, item, happened, available = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    names = np.array([f"c{number}" for number in range(customer.max() + 1)], object)
    return Events(
        names,
        customer=customer.astype(np.int32),
        event_id=np.arange(len(rows), dtype=np.uint64),
        kind=np.full(len(rows), Kind.PRODUCT_VIEWED, np.uint8),
        item=item,
        event_time_ms=happened,
        available_time_ms=available,
        value_minor=np.zeros(len(rows), np.int64),
    )


def log(*, hours=96, seed=3):
    """Each hour brings an item; who reads one of them mostly reads the next newer one after it."""
    rng = np.random.default_rng(seed)
    rows = []
    for customer in range(900):
        newest = rng.integers(BORN_HOURS, hours)
        item = newest - min(newest, rng.geometric(0.5) - 1)
        for step in range(rng.integers(2, 5)):
            time_ms = int((newest + 0.1 + 0.2 * step + 0.1 * rng.random()) * HOUR_MS)
            rows.append((customer, 1 + item, time_ms, time_ms + int(rng.integers(0, 60_000))))
            item = max(0, item - 1) if rng.random() < 0.8 else int(rng.integers(newest + 1))
    return events_of(rows)


@pytest.fixture(scope="module")
def events():
    return log()


@pytest.fixture(scope="module")
def data(events):
    return dataset.split(events, SETTINGS)


@pytest.fixture(scope="module")
def stream(events):
    return Stream.of(events, 0)


def turns_by_hand(events):
    """(customer, item, known from) of every turn, by customer and time."""
    order = np.lexsort((events.event_id, events.event_time_ms, events.customer))
    turns, before = [], None
    for row in order.tolist():
        customer, item = int(events.customer[row]), int(events.item[row])
        if (customer, item) != before:
            known = max(int(events.event_time_ms[row]) + 1, int(events.available_time_ms[row]))
            turns.append((customer, item, known))
        before = customer, item
    return turns


def test_popularity_fades_by_its_half_life(events, stream):
    now = np.sort(np.random.default_rng(1).integers(0, 96 * HOUR_MS, 12))
    turns = turns_by_hand(events)
    for half_life in (0.02, 3.0):
        for time_ms, found in zip(now.tolist(), stream.fading(now, half_life), strict=True):
            count = np.zeros(len(stream.vocabulary))
            for _, item, known in turns:
                if known <= time_ms:
                    count[stream.vocabulary.index(np.array([item]))] += 0.5 ** ((time_ms - known) / HOUR_MS / half_life)
            assert found == pytest.approx(count / max(count.sum(), 1e-300), abs=1e-9)


@pytest.mark.parametrize("votes", [Votes(), Votes(3.0, 0.8, 0.4, 0.5, 2.0, 2)])
def test_votes_are_the_sum_over_what_went_with_the_prefix(events, stream, votes):
    turns, now = turns_by_hand(events), 60 * HOUR_MS
    prefix = np.array([40, 7, 55, 56])
    expected = np.zeros(len(stream.vocabulary))
    for age, item in enumerate(prefix[::-1][: votes.items].tolist()):
        weights = np.zeros(len(stream.vocabulary))
        for at, (customer, source, known) in enumerate(turns):
            for place in range(max(0, at - REACH), min(len(turns), at + REACH + 1)):
                other_customer, other, other_known = turns[place]
                both = max(known, other_known)
                if place == at or other_customer != customer or source != stream.vocabulary.item[item] or both > now:
                    continue
                weight = votes.step_decay ** (abs(place - at) - 1) * (1.0 if place > at else votes.backward)
                weight *= 0.5 ** ((now - both) / HOUR_MS / votes.half_life_hours)
                weights[stream.vocabulary.index(np.array([other]))] += weight
        expected += votes.age_decay**age * weights / (weights.sum() + votes.shrinkage)
    assert expected.max() > 0
    assert votes.scores(stream.pairs, prefix, now) == pytest.approx(expected)


def test_only_the_newest_pairs_are_read():
    rows = [
        (customer, item, customer * 10 + item, customer * 10 + item)
        for customer in range(NEWEST + 50)
        for item in (1, 2)
    ]
    stream = Stream.of(events_of(rows), 0)
    found = stream.pairs.newest(1, 10**6)
    assert found.stop - found.start == NEWEST
    assert found.stop == stream.pairs.offsets[2]
    assert stream.pairs.newest(1, 0) == slice(0, 0)


@pytest.mark.parametrize("live", [Trending(1.0), LiveMarkov(Votes(), 0.1, Trending(1.0))])
def test_answers_know_nothing_that_came_later(events, data, live):
    cases = data.test.take(np.argsort(data.test.turns.time_ms)[:40])
    until = int(cases.turns.time_ms.max())
    past = events.take(np.maximum(events.event_time_ms + 1, events.available_time_ms) <= until)
    whole = recommender(live, Stream.of(events, 0), cases, include_seen=False)(cases.prefixes)
    known = recommender(live, Stream.of(past, 0), cases, include_seen=False)(cases.prefixes)
    assert (whole == known).all()
    for row, best in enumerate(whole):
        assert not set(best.tolist()) & set(cases.prefixes.item[slice(*cases.prefixes.offsets[row : row + 2])].tolist())


def test_best_of_is_a_stable_sort_of_what_counts():
    assert best_of(np.array([0.0, 1, 3, 0, 3, 2, 7]), np.array([6]), 3).tolist() == [2, 4, 5]
    assert best_of(np.array([0.0, 0, 3]), np.array([], int), 20).tolist() == [2]


def test_a_ranking_of_what_is_known_now_finds_items_that_training_does_not_hold(events, data, stream):
    trending, markov = news.choose(stream, data.validation, include_seen=False)
    ranker = News(stream, trending, markov, include_seen=False)
    before = ranker.retrieve(data.validation, None, data.choosing.vocabulary)
    found = ranker.retrieve(data.test, None, data.final.vocabulary)
    best = found.recommend(fit_trees(before, 1))
    hit = recall(rank_in(best, data.test), 10)
    parts = ages_of(stream, data.test, data.final.vocabulary)
    assert parts["new since training"].mean() > 0.3
    assert hit[parts["new since training"] & ~parts["never before"]].mean() > 0.7
    assert hit[parts["never before"]].sum() == 0
    popular = recommender(trending, stream, data.test, include_seen=False)(data.test.prefixes)
    assert hit.mean() > recall(rank_in(popular, data.test), 10).mean() - 0.05
    assert (best != NO_ITEM).any(axis=1).all()


def test_a_deep_model_is_one_more_source(data, stream):
    ranker = News(stream, Trending(1.0), LiveMarkov(Votes(), 0.1, Trending(1.0)), include_seen=False)

    class Deep:
        length = 10

        def scores(self, windows):
            size = len(data.final.vocabulary)
            return -np.abs(windows.items[:, -1:] - np.arange(size)).astype(float)

    without = ranker.retrieve(data.test, None, data.final.vocabulary)
    found = ranker.retrieve(data.test, Deep(), data.final.vocabulary)
    assert np.isnan(without.features[:, -1]).all()
    known = data.final.vocabulary.index(found.item) > 0
    assert (np.isfinite(found.features[:, -1]) == known).all()
    assert found.features.shape[1] == without.features.shape[1]
    assert len(found.item) >= len(without.item)


def test_the_command_writes_its_tables(tmp_path, monkeypatch, events):
    from segue.adapters.datasets import Dataset
    from segue.catalogue import Catalogue

    empty = np.empty(0, object)
    catalogue = Catalogue(np.empty(0, np.int64), empty, empty, np.empty(0, np.int64))
    monkeypatch.setattr(hour.datasets, "load", lambda path: Dataset("log", events, catalogue, ""))
    configuration = tmp_path / "small.toml"
    configuration.write_text("length = 8\nwidth = 8\nmax_epochs = 1\nmax_cases = 80\n")
    arguments = {"data": tmp_path, "config": configuration, "seed": None, "threads": 1, "checkpoint": None, "days": 2.0}
    hour.run(argparse.Namespace(**arguments, models=["markov", "gru"], report_dir=tmp_path))
    page = (tmp_path / "news-log.md").read_text()
    for name in ("trending", "live-markov", "news", "news+gru", "markov", "gru"):
        assert f"| {name} | 0." in page
    assert "| new since training | " in page
