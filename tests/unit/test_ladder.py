"""The rungs below the encoder against their definitions in plain Python, and what a measurement of them counts."""

import numpy as np
import pytest

from models.sequence.config import Config
from models.sequence.dataset import split
from models.sequence.ladder import WINDOWS_MS, Live, learn
from segue.catalogue import Catalogue
from segue.events import NO_ITEM, Events, Kind
from segue.features.snapshots import ITEM_STATS, item_stats
from segue.history import Histories, Timelines
from segue.inference import trending
from segue.inference.cohorts import Categories, Cohorts, stems
from segue.inference.item_table import ItemTable
from segue.inference.ladder import POPULARITY_SHARE, Popular, by_cohort, by_votes
from segue.inference.sequence import Rung
from services.recommendation.answering import FALLBACKS

SIZE = 40


@pytest.fixture(params=range(4))
def rng(request):
    return np.random.default_rng(request.param)


def popularity(rng):
    """Counts with many ties and some items nobody turned to."""
    return np.concatenate([[0], rng.integers(0, 6, SIZE - 1)])


def popular_order(count, barred):
    allowed = [index for index in range(1, SIZE) if index not in set(barred.tolist())]
    return sorted(allowed, key=lambda index: (-count[index], index))


@pytest.mark.parametrize("limit", [1, 7, SIZE])
def test_popular_is_by_count_without_what_is_barred(rng, limit):
    count = popularity(rng)
    barred = rng.integers(0, SIZE, 12)
    index, share = Popular.of(count).ranked(barred, limit)
    assert index.tolist() == popular_order(count, barred)[:limit]
    assert share == pytest.approx(count[index] / count.sum())


def test_nothing_counted_is_the_order_of_the_vocabulary():
    index, share = Popular.of(np.zeros(SIZE, np.int64)).ranked(np.array([2]), 3)
    assert index.tolist() == [1, 3, 4]
    assert share.tolist() == [0, 0, 0]


@pytest.mark.parametrize("limit", [1, 5, SIZE])
def test_a_cohort_answers_first_and_what_is_popular_follows(rng, limit):
    count = popularity(rng)
    spoken = [rng.permutation(np.arange(1, SIZE))[:size].astype(np.int32) for size in (9, 0, 4)]
    offsets = np.cumsum([0, *map(len, spoken)])
    shares = [np.sort(rng.random(len(each)))[::-1].astype(np.float32) for each in spoken]
    nothing = Categories((), np.empty(0, np.int64), np.empty(0, np.int16))
    rest = np.array([0.5, 1.0, 0.1], np.float32)
    cohorts = Cohorts(nothing, np.arange(3), offsets, np.concatenate(spoken), np.concatenate(shares), rest)
    barred = rng.integers(0, SIZE, 8)
    popular = Popular.of(count)
    for position, own in enumerate(spoken):
        index, score = by_cohort(cohorts, position, popular, barred, limit)
        first = [each for each in own.tolist() if each not in barred]
        then = [each for each in popular_order(count, barred) if each not in own]
        assert index.tolist() == [*first, *then][:limit]
        assert (np.diff(score) <= 0).all()
        assert len(score) == len(index)
        known = dict(zip(own.tolist(), shares[position].tolist(), strict=True))
        assert score[: len(first)] == pytest.approx([known[each] for each in first][:limit])


def table(rng):
    rows = [np.sort(rng.permutation(np.arange(1, SIZE))[: rng.integers(0, 6)]) for _ in range(SIZE)]
    rows[0] = rows[5] = rows[0][:0]
    offsets = np.cumsum([0, *map(len, rows)])
    index = np.concatenate(rows).astype(np.int32)
    return ItemTable(offsets, index, rng.integers(1, 4, len(index)).astype(np.float32))


@pytest.mark.parametrize("limit", [1, 5, SIZE])
def test_votes_answer_first_and_what_is_popular_decides_between_equals_and_follows(rng, limit):
    count = popularity(rng)
    made = table(rng)
    items = rng.integers(0, SIZE, (6, 3))
    items[0], items[1] = 0, 5
    barred = np.hstack([items, rng.integers(0, SIZE, (6, 4))])
    found = by_votes(made.votes(items, np.ones(items.shape)), Popular.of(count), barred, limit)
    assert found[0] is found[1] is None
    for row, ranked in enumerate(found):
        votes = {}
        for item in items[row].tolist():
            if item:
                for place in range(made.offsets[item], made.offsets[item + 1]):
                    votes[int(made.index[place])] = votes.get(int(made.index[place]), 0) + float(made.weight[place])
        assert (ranked is None) == (not votes)
        if ranked is None:
            continue
        index, score = ranked
        allowed = popular_order(count, barred[row])
        assert index.tolist() == sorted(allowed, key=lambda item: -votes.get(item, 0))[:limit]
        assert (np.diff(score) <= 0).all()
        assert score[0] == pytest.approx(votes.get(int(index[0]), 0), abs=2 * POPULARITY_SHARE)


def naive_rate(counts, strength):
    """The posterior mean of a gamma rate, window by window."""
    rate = counts["30d"] / 720
    for window, hours in (("7d", 168), ("1d", 24), ("1h", 1)):
        if window not in counts:
            continue
        if rate == 0:
            return 0.0
        rate = (strength + counts[window]) / (strength / rate + hours)
    return rate


@pytest.mark.parametrize("strength", [0.3, 1.0, 10.0])
@pytest.mark.parametrize("left_out", [None, "1h"])
def test_the_trending_rate_is_updated_from_window_to_window(rng, strength, left_out):
    hour = rng.poisson(rng.choice([0.0, 0.5, 20.0], 200))
    day = hour + rng.poisson(rng.choice([0.0, 3.0, 100.0], 200))
    week = day + rng.poisson(rng.choice([0.0, 3.0, 500.0], 200))
    month = week + rng.poisson(1.0, 200)
    counts = {"30d": month, "7d": week, "1d": day, "1h": hour}
    counts = {name: count for name, count in counts.items() if name != left_out}
    found = trending.rate(counts, strength)
    expected = [naive_rate({name: int(count[at]) for name, count in counts.items()}, strength) for at in range(200)]
    assert found == pytest.approx(expected, abs=2 * trending.LEAST)
    assert (found >= 0).all()


def test_an_item_of_which_nothing_is_known_is_not_trending():
    unknown = np.array([np.nan, 3.0])
    found = trending.rate({"30d": unknown, "7d": unknown, "1d": unknown, "1h": unknown})
    assert 0 <= found[0] <= trending.LEAST
    assert found[1] > 0


def test_steady_items_keep_their_order_and_news_overtakes_them():
    # Two steady items, of 200 and 100 events a day; a lucky one; news of the last hour.
    counts = {
        "30d": np.array([6000, 3000, 3, 60]),
        "7d": np.array([1400, 700, 3, 60]),
        "1d": np.array([200, 100, 3, 60]),
        "1h": np.array([8, 4, 1, 60]),
    }
    assert np.argsort(-trending.rate(counts)).tolist() == [3, 0, 1, 2]


@pytest.mark.parametrize("seed", range(3))
def test_a_measurement_counts_what_the_item_statistics_count(seed):
    rng = np.random.default_rng(seed)
    count, day_ms = 3000, WINDOWS_MS["1d"]
    time_ms = rng.integers(0, 40 * day_ms, count)
    columns = {
        "customer": rng.integers(0, 50, count).astype(np.int32),
        "kind": rng.integers(0, 8, count).astype(np.uint8),
        "item": rng.choice([NO_ITEM, 3, 4, 5, 99], count),
        "event_time_ms": time_ms,
        "available_time_ms": time_ms + (rng.random(count) < 0.3) * rng.integers(0, 5 * day_ms, count),
        "event_id": rng.permutation(count).astype(np.uint64),
        "value_minor": np.zeros(count, np.int64),
    }
    events = Timelines.of(Events(np.array([f"c{number}" for number in range(50)], object), **columns)).events
    live = Live.of(events)
    names = [feature.name for feature in ITEM_STATS]
    for cut_ms in (35 * day_ms, int(time_ms[7]), 41 * day_ms):
        item, stats = item_stats(events, cut_ms)
        found = live.counts(cut_ms)
        for window in ("1d", "7d", "30d"):
            expected = dict(zip(item.tolist(), stats[:, names.index(f"item_event_count_{window}")], strict=True))
            assert found[window].tolist() == [expected.get(each, 0) for each in live.item.tolist()]


def shop_log(customers, seed, *, told):
    """Customers who search or filter, which tells the shelf they then turn to if `told`, three times."""
    rng = np.random.default_rng(seed)
    shelf = rng.integers(2, size=customers)
    first = np.where(shelf if told else rng.integers(2, size=customers), Kind.PRODUCTS_SEARCHED, Kind.FILTER_APPLIED)
    item = np.stack([1000 * (shelf + 1) + rng.integers(0, 25, customers) for _ in range(4)], axis=1)
    item[:, 0] = NO_ITEM
    kind = np.full((customers, 4), Kind.PRODUCT_VIEWED, np.uint8)
    kind[:, 0] = first
    time_ms = ((np.arange(customers) * 1_000_000)[:, None] + np.arange(4) * 1000).ravel()
    columns = {"customer": np.repeat(np.arange(customers, dtype=np.int32), 4), "kind": kind.ravel()}
    columns |= {"item": item.ravel(), "event_time_ms": time_ms, "available_time_ms": time_ms}
    columns |= {"event_id": np.arange(len(time_ms), dtype=np.uint64), "value_minor": np.zeros(len(time_ms), np.int64)}
    return Events(np.array([f"c{number:04}" for number in range(customers)], object), **columns)


@pytest.mark.parametrize("refit", [False, True])
def test_cohorts_are_learned_where_the_first_event_tells_something(refit):
    events = shop_log(1500, 3, told=True)
    config = Config(refit=refit, validation_ratio=0.3)
    data = split(events, config)
    nobody = Catalogue(*(np.empty(0, dtype) for dtype in (np.int64, object, object, np.int64)))
    cohorts = learn(events, data, nobody, config)
    for kind, shelf in ((Kind.PRODUCTS_SEARCHED, 2), (Kind.FILTER_APPLIED, 1)):
        nothing = np.zeros(1, np.int64)
        asked = Histories(np.arange(2), nothing, np.array([kind], np.uint8), nothing, nothing, np.zeros(1, np.uint64))
        (position,) = cohorts.find(stems(asked, np.array([10]), cohorts.categories)).tolist()
        index, _ = cohorts.entries(position)
        assert (data.final.vocabulary.item[index[:10]] // 1000 == shelf).all()


def test_cohorts_that_tell_nothing_are_not_learned():
    events = shop_log(1500, 3, told=False)
    config = Config(validation_ratio=0.3)
    nobody = Catalogue(*(np.empty(0, dtype) for dtype in (np.int64, object, object, np.int64)))
    assert learn(events, split(events, config), nobody, config) is None


def test_every_rung_has_a_name_for_callers():
    assert set(FALLBACKS) == set(Rung)
    assert len(set(FALLBACKS.values())) == len(FALLBACKS)
