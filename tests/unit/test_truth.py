"""The simulated shop's truth: its probabilities are exact, calibrated, and worth predicting."""

import math
from collections import Counter
from datetime import UTC, datetime

import numpy as np
import pytest

from segue.errors import InvalidInput
from segue.events import NO_ITEM, Events, Kind
from segue.simulator import Intent, LatentState, Shop, ShopConfig, Truth, dynamics
from segue.simulator.population import mood

DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def shop() -> Shop:
    return Shop(ShopConfig(customers=6_000, items=200, days=50, seed=3, duplicate_ratio=0))


@pytest.fixture(scope="module")
def log(shop: Shop) -> Events:
    return Events.concat(shop.stream())


def rows(events: Events, truth: Truth) -> np.ndarray:
    """Each event's customer as a row of the truth."""
    place = {name: row for row, name in enumerate(truth.customers)}
    return np.array([place[name] for name in events.customers])[events.customer]


def ordered_within(log: Events, truth: Truth, t_ms: int, days: int) -> np.ndarray:
    """Who really ordered in [t, t + days), shape (n,)."""
    hit = (log.kind == Kind.ORDER_COMPLETED) & (log.event_time_ms >= t_ms) & (log.event_time_ms < t_ms + days * DAY_MS)
    label = np.zeros(len(truth.customers), bool)
    label[rows(log, truth)[hit]] = True
    return label


@pytest.mark.parametrize(("day", "horizon_days"), [(0, 1), (21, 7), (35, 7), (20, 30), (14, 14)])
def test_purchase_probability_is_calibrated(log, shop, day, horizon_days):
    truth = shop.truth()
    t_ms = shop.config.start_ms + day * DAY_MS
    probability = truth.purchase_probability(t_ms, horizon_days=horizon_days)
    label = ordered_within(log, truth, t_ms, horizon_days)
    edges = np.quantile(probability, [0.2, 0.4, 0.6, 0.8, 0.9, 0.97])
    for group in np.unique(bins := np.searchsorted(edges, probability)):
        expected = probability[bins == group]
        deviation = np.sqrt((expected * (1 - expected)).sum())
        assert abs(label[bins == group].sum() - expected.sum()) <= 4 * deviation
    overall = np.sqrt((probability * (1 - probability)).sum())
    assert abs(label.sum() - probability.sum()) <= 3.5 * overall


def test_purchases_are_predictable_but_not_certain(log, shop):
    truth = shop.truth()
    t_ms = shop.config.start_ms + 35 * DAY_MS
    probability = truth.purchase_probability(t_ms)
    label = ordered_within(log, truth, t_ms, 7)
    recent = np.zeros(len(label), bool)
    past = (log.event_time_ms < t_ms) & (log.event_time_ms >= t_ms - 30 * DAY_MS)
    recent[rows(log, truth)[past]] = True
    assert 0.10 < label[recent].mean() < 0.25
    positive, negative = probability[recent & label], probability[recent & ~label]
    auc = (np.searchsorted(np.sort(negative), positive) / len(negative)).mean()
    assert 0.78 < auc < 0.95


def test_what_is_seen_tells_of_what_is_not(log, shop):
    """The visible history is informative: an open cart and recent activity raise the realised rate of orders."""
    truth = shop.truth()
    t_ms = shop.config.start_ms + 35 * DAY_MS
    label = ordered_within(log, truth, t_ms, 7)
    row = rows(log, truth)
    change = np.zeros(256, int)
    change[[Kind.PRODUCT_ADDED, Kind.PRODUCT_REMOVED, Kind.PRODUCT_PURCHASED]] = 1, -1, -1
    past = log.event_time_ms < t_ms
    held = np.bincount(row[past], weights=change[log.kind[past]], minlength=len(label))
    state = truth.state_at(t_ms)
    assert ((held > 0) == state.cart_open).all()
    week = past & (log.event_time_ms >= t_ms - 7 * DAY_MS)
    active = np.bincount(row[week], minlength=len(label)) > 0
    assert label[active & state.cart_open].mean() > 1.5 * label[active & ~state.cart_open].mean()
    assert label[active].mean() > 1.5 * label[~active].mean()


def test_purchase_probability_follows_the_latent_state(shop):
    truth = shop.truth()
    t_ms = shop.config.start_ms + 28 * DAY_MS
    state, probability = truth.state_at(t_ms), truth.purchase_probability(t_ms)
    assert (probability[state.gone] == 0).all()
    assert ((probability >= 0) & (probability < 1)).all()
    buying, exploring = (
        probability[(state.intent == intent) & ~state.gone] for intent in (Intent.BUYING, Intent.EXPLORING)
    )
    assert buying.mean() > 2 * exploring.mean()
    assert (truth.purchase_probability(t_ms, horizon_days=8) >= probability).all()


def naive_order_probability(truth: Truth, state: LatentState, row: int, t_ms: int, horizon_days: int) -> float:
    """The process of `dynamics` in plain Python: every path's probability, summed over (intent, cart)."""
    today = {(int(state.intent[row]), bool(state.cart_open[row])): 1.0 - state.gone[row]}
    ordered = 0.0
    for day_ms in range(t_ms, t_ms + horizon_days * DAY_MS, DAY_MS):
        if (day_ms - truth.config.start_ms) // DAY_MS < truth.latent.arrival_day[row]:
            continue
        evening: Counter[tuple[int, bool]] = Counter()
        for (intent, cart), mass in today.items():
            for after, share in naive_day(truth, row, day_ms, intent, cart).items():
                evening[intent, after] += mass * share
        ordered += sum(today.values()) - sum(evening.values())
        today = Counter()
        for (intent, cart), mass in evening.items():
            for woken, share in enumerate(naive_night(truth, row, intent)):
                today[woken, cart] += mass * share
    return ordered


def naive_day(truth: Truth, row: int, day_ms: int, intent: int, cart: bool) -> dict[bool, float]:
    """How likely a day passes without an order and leaves the cart closed or open."""
    weekday = datetime.fromtimestamp(day_ms / 1000, UTC).weekday()
    activity = dynamics.SEASON[weekday] * dynamics.ACTIVITY[intent, int(cart)]
    rate = truth.latent.sessions_per_day[row] * activity
    some = [math.exp(-rate) * rate**count / math.factorial(count) for count in range(4)]
    evening: Counter[bool] = Counter()
    for count, share in enumerate([*some, 1 - sum(some)]):
        carts: Counter[bool] = Counter({cart: share})
        for _ in range(count):
            after: Counter[bool] = Counter()
            for held, mass in carts.items():
                left, filled, emptied, abandoned, _ordered = dynamics.OUTCOME_RATIO[intent, int(held)]
                after[held] += mass * left
                after[True] += mass * (filled + abandoned)
                after[False] += mass * emptied
            carts = after
        for held, mass in carts.items():
            evening[held] += mass
    return evening


def naive_night(truth: Truth, row: int, intent: int) -> list[float]:
    """How likely a customer is still there in the morning, by the intent they wake in."""
    moves = list(dynamics.MOVE[intent])
    if intent == Intent.EXPLORING:
        moves[Intent.EVALUATING] = min(0.5, moves[Intent.EVALUATING] * truth.latent.need[row])
    moves[intent] = 1 - sum(moves)
    staying = 1 - truth.latent.leaving_per_day[row] * dynamics.LEAVING[intent]
    return [staying * share for share in moves]


@pytest.mark.parametrize(("day", "horizon_days"), [(0, 1), (10, 7), (17, 30)])
def test_purchase_probability_equals_the_naive_sum(shop, day, horizon_days):
    truth = shop.truth()
    t_ms = shop.config.start_ms + day * DAY_MS
    probability = truth.purchase_probability(t_ms, horizon_days=horizon_days)
    state = truth.state_at(t_ms)
    later = np.flatnonzero(truth.latent.arrival_day > day)[:3]
    chosen = [
        np.flatnonzero((state.intent == intent) & (state.cart_open == cart))[:2] for intent in Intent for cart in (0, 1)
    ]
    for row in np.concatenate([*chosen, later, np.flatnonzero(state.gone)[:2]]).tolist():
        naive = naive_order_probability(truth, state, row, t_ms, horizon_days)
        assert probability[row] == pytest.approx(naive, abs=1e-12)


def test_an_order_ends_the_wish_to_buy(log, shop):
    """Whoever's last event of a day is an order wakes exploring or, at most, evaluating."""
    truth = shop.truth()
    t_ms = shop.config.start_ms + 30 * DAY_MS
    today = log.take((log.event_time_ms >= t_ms - DAY_MS) & (log.event_time_ms < t_ms))
    last_ms = np.zeros(len(truth.customers), int)
    np.maximum.at(last_ms, rows(today, truth), today.event_time_ms)
    orders = today.take(today.kind == Kind.ORDER_COMPLETED)
    buyers = rows(orders, truth)[orders.event_time_ms == last_ms[rows(orders, truth)]]
    assert len(buyers) > 50
    assert set(truth.state_at(t_ms).intent[buyers].tolist()) <= {Intent.EXPLORING, Intent.EVALUATING}


def test_what_is_new_draws_more_views_for_a_while(shop):
    truth, start_ms = shop.truth(), shop.config.start_ms
    launch_day = truth.items.launch_day
    everyone = np.arange(500)
    nothing = np.full(500, NO_ITEM)
    for item in np.flatnonzero((launch_day > 5) & (launch_day < 20))[:5]:
        before, new, old = (
            truth.next_view_probability(everyone, nothing, start_ms + int(launch_day[item] + days) * DAY_MS)[
                :, item
            ].mean()
            for days in (-1, 0, 28)
        )
        assert before == 0
        assert new > 2 * old > 0


def views_with_last(log: Events, truth: Truth, first_ms: int, last_ms: int) -> tuple[np.ndarray, ...]:
    """(customer, item viewed before, item viewed) of every view in [first, last)."""
    views = log.take(log.kind == Kind.PRODUCT_VIEWED)
    order = np.lexsort((views.event_time_ms, views.customer))
    views = views.take(order)
    last = np.full(len(views), NO_ITEM)
    same = views.customer[1:] == views.customer[:-1]
    last[1:][same] = views.item[:-1][same]
    chosen = (views.event_time_ms >= first_ms) & (views.event_time_ms < last_ms)
    return rows(views, truth)[chosen], last[chosen], views.item[chosen]


def test_next_views_are_drawn_as_the_truth_says(log, shop):
    truth = shop.truth()
    t_ms = shop.config.start_ms + 40 * DAY_MS
    customer, last, item = views_with_last(log, truth, t_ms, t_ms + DAY_MS)
    probability = truth.next_view_probability(customer, last, t_ms)
    assert probability.sum(axis=1) == pytest.approx(1)
    place = {item: position for position, item in enumerate(shop.catalogue.item.tolist())}
    viewed = np.array([place[i] for i in item.tolist()])
    expected = probability.sum(axis=0)
    counts = np.bincount(viewed, minlength=len(place))
    common = expected > 20
    chi_square = ((counts - expected)[common] ** 2 / expected[common]).sum()
    assert chi_square < common.sum() + 4 * np.sqrt(2 * common.sum())
    top = np.argsort(-probability, axis=1)[:, :10]
    promised = np.take_along_axis(probability, top, axis=1).sum(axis=1)
    hits = (top == viewed[:, None]).any(axis=1)
    assert abs(hits.mean() - promised.mean()) < 4 * np.sqrt((promised * (1 - promised)).sum()) / len(hits)
    popular = np.argsort(-counts)[:10]
    assert hits.mean() > 1.5 * np.isin(viewed, popular).mean()


def test_what_was_viewed_last_matters_beyond_taste(log, shop):
    truth = shop.truth()
    t_ms = shop.config.start_ms + 40 * DAY_MS
    customer, last, item = views_with_last(log, truth, t_ms, t_ms + DAY_MS)
    place = {item: position for position, item in enumerate(shop.catalogue.item.tolist())}
    viewed = np.array([place[i] for i in item.tolist()])
    each = np.arange(len(viewed))
    informed = np.log(truth.next_view_probability(customer, last, t_ms)[each, viewed]).mean()
    taste_only = np.log(truth.next_view_probability(customer, np.full_like(last, NO_ITEM), t_ms)[each, viewed]).mean()
    assert informed > taste_only + 0.3


def test_view_terms_are_the_parts_of_the_next_view_probability(shop):
    truth = shop.truth()
    rng = np.random.default_rng(5)
    customer = rng.integers(len(truth.customers), size=60)
    item, last = rng.choice(shop.catalogue.item, (2, 60))
    last[:5] = NO_ITEM
    t_ms = shop.config.start_ms + rng.choice([3, 17, 40], 60) * DAY_MS + rng.integers(DAY_MS, size=60)
    by_mood, led = truth.view_terms(item, last, t_ms)
    found = (by_mood * mood(truth.taste[customer], truth.items)).sum(axis=1) + led
    place = {each: position for position, each in enumerate(shop.catalogue.item.tolist())}
    for row, probability in enumerate(found):
        expected = truth.next_view_probability(customer[row : row + 1], last[row : row + 1], int(t_ms[row]))
        assert probability == pytest.approx(expected[0, place[item[row]]], abs=1e-15)


def test_a_mean_mood_gives_the_mean_probability(shop):
    truth = shop.truth()
    everyone, t_ms = np.arange(40), shop.config.start_ms + 30 * DAY_MS
    last = np.full(40, shop.catalogue.item[11])
    mean = mood(truth.taste[everyone], truth.items).mean(axis=0, keepdims=True)
    expected = truth.next_view_probability(everyone, last, t_ms).mean(axis=0)
    assert truth.next_view_in_mood(mean, last[:1], t_ms)[0] == pytest.approx(expected)


def test_the_truth_refuses_what_it_does_not_know(shop):
    truth, start_ms = shop.truth(), shop.config.start_ms
    with pytest.raises(InvalidInput, match="t_ms"):
        truth.purchase_probability(start_ms - DAY_MS)
    with pytest.raises(InvalidInput, match="midnight"):
        truth.purchase_probability(start_ms + 1)
    with pytest.raises(InvalidInput, match="horizon_days"):
        truth.purchase_probability(start_ms, horizon_days=0)
    with pytest.raises(InvalidInput, match="last_item"):
        truth.next_view_probability(np.array([0]), np.array([12345]), start_ms)
    with pytest.raises(InvalidInput, match=r"^item: has 12345"):
        truth.view_terms(np.array([12345]), np.array([NO_ITEM]), np.array([start_ms]))
