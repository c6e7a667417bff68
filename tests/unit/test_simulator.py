"""The simulated shop: its log is sound, reproducible and in order of arrival."""

from collections import Counter, defaultdict

import numpy as np
import pytest

from segue.errors import InvalidInput
from segue.events import COLUMNS, NO_ITEM, Events, Kind, pseudonym
from segue.simulator import DEMO_KEY, Shop, ShopConfig, Truth

DAY_MS = 86_400_000
SMALL = ShopConfig(customers=300, items=60, days=30, seed=7)


def log_of(config: ShopConfig, **options: int) -> Events:
    return Events.concat(Shop(config).stream(**options))


def bytes_of(events: Events) -> list[bytes]:
    """The events whatever the order of `customers`, which depends on how a stream was cut."""
    columns = [getattr(events, column).tobytes() for column in COLUMNS if column != "customer"]
    return ["".join(events.customers[events.customer]).encode(), *columns]


def facts(events: Events) -> Events:
    """Each event once, at its first delivery."""
    order = np.lexsort((events.available_time_ms, events.event_id))
    ids = events.event_id[order]
    return events.take(np.sort(order[np.append(True, ids[1:] != ids[:-1])]))


def rows(events: Events, truth: Truth) -> np.ndarray:
    place = {name: row for row, name in enumerate(truth.customers)}
    return np.array([place[name] for name in events.customers])[events.customer]


@pytest.fixture(scope="module")
def small() -> Events:
    return log_of(SMALL)


@pytest.fixture(scope="module")
def shop() -> Shop:
    return Shop(ShopConfig(customers=2_000, items=200, days=42, seed=3))


@pytest.fixture(scope="module")
def log(shop: Shop) -> Events:
    return facts(Events.concat(shop.stream()))


def test_the_same_config_gives_the_same_bytes(small):
    assert bytes_of(log_of(SMALL)) == bytes_of(small)


@pytest.mark.parametrize("block_events", [1_000, 4_097, 10_000_000])
def test_the_block_size_only_cuts_the_stream(small, block_events):
    parts = list(Shop(SMALL).stream(block_events=block_events))
    assert {len(part) for part in parts[:-1]} <= {block_events}
    assert 0 < len(parts[-1]) <= block_events
    assert bytes_of(Events.concat(parts)) == bytes_of(small)


def test_another_seed_is_another_shop(small):
    other = log_of(ShopConfig(customers=300, items=60, days=30, seed=8))
    assert not set(other.event_id.tolist()) & set(small.event_id.tolist())
    assert len(other) != len(small)


def test_a_block_names_only_its_own_customers():
    for part in Shop(SMALL).stream(block_events=500):
        assert set(np.unique(part.customer)) == set(range(len(part.customers)))


def test_customers_are_pseudonyms_under_the_key():
    config = ShopConfig(customers=3, items=4, days=2, categories=2)
    assert list(Shop(config).truth().customers) == [pseudonym(f"customer-{i}", DEMO_KEY) for i in range(3)]
    key = b"another key of enough bytes"
    assert Shop(config, key=key).truth().customers[0] == pseudonym("customer-0", key)


def test_the_stream_is_read_as_it_is_made():
    endless = Shop(ShopConfig(customers=500, items=50, days=3_650))
    assert len(next(endless.stream(block_events=1_000))) == 1_000


def test_events_come_in_order_of_availability(small):
    assert (np.diff(small.available_time_ms) >= 0).all()
    assert (small.available_time_ms >= small.event_time_ms).all()


def test_some_events_are_late_and_the_rest_prompt(small):
    once = facts(small)
    delay = once.available_time_ms - once.event_time_ms
    late = delay > 2_000
    assert late.mean() == pytest.approx(SMALL.late_ratio, abs=0.01)
    assert delay[late].min() >= 60_000
    assert DAY_MS < delay.max() <= 3 * DAY_MS


def test_some_events_are_delivered_twice_as_exact_copies(small):
    copies = defaultdict(set)
    deliveries: Counter[int] = Counter(small.event_id.tolist())
    for row in range(len(small)):
        values = tuple(int(getattr(small, column)[row]) for column in COLUMNS if column != "available_time_ms")
        copies[int(small.event_id[row])].add(values)
    assert all(len(payloads) == 1 for payloads in copies.values())
    assert set(deliveries.values()) == {1, 2}
    assert len(small) / len(deliveries) - 1 == pytest.approx(SMALL.duplicate_ratio, abs=0.005)


def test_neither_late_nor_twice_when_not_asked_for():
    events = log_of(ShopConfig(customers=300, items=60, days=10, late_ratio=0, duplicate_ratio=0))
    assert len(np.unique(events.event_id)) == len(events)
    assert (events.available_time_ms - events.event_time_ms).max() <= 2_000


def test_carts_and_orders_add_up(log, shop):
    """A plain replay, customer by customer: what is bought or removed was added, and orders total their lines."""
    price = dict(zip(shop.catalogue.item.tolist(), shop.catalogue.price_minor.tolist(), strict=True))
    carts: dict[int, Counter[int]] = defaultdict(Counter)
    lines: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    orders: dict[tuple[int, int], int] = {}
    columns = (log.customer, log.kind, log.item, log.event_time_ms, log.value_minor)
    order = np.lexsort((log.kind, log.event_time_ms))
    for customer, kind, item, time_ms, value in zip(*(column[order].tolist() for column in columns), strict=True):
        cart = carts[customer]
        if kind == Kind.PRODUCT_ADDED:
            cart[item] += 1
            assert value == price[item]
        elif kind == Kind.PRODUCT_REMOVED:
            cart[item] -= 1
            assert cart[item] >= 0
        elif kind == Kind.CHECKOUT_STARTED:
            assert value == sum(price[held] * number for held, number in cart.items())
            assert value > 0
        elif kind == Kind.ORDER_COMPLETED:
            assert item == NO_ITEM
            orders[customer, time_ms] = value
        elif kind == Kind.PRODUCT_PURCHASED:
            lines[customer, time_ms].append((item, value))
            cart[item] -= 1
            assert cart[item] >= 0
            assert value == price[item]
        if kind == Kind.PRODUCT_PURCHASED and len(lines[customer, time_ms]) == 1:
            assert (customer, time_ms) in orders
    assert orders
    assert orders == {key: sum(value for _, value in bought) for key, bought in lines.items()}


def test_an_order_leaves_an_empty_cart(log):
    """Everything added before an order is removed or bought by then."""
    change = {Kind.PRODUCT_ADDED: 1, Kind.PRODUCT_REMOVED: -1, Kind.PRODUCT_PURCHASED: -1}
    held: Counter[int] = Counter()
    order = np.lexsort((log.kind, log.event_time_ms))
    last_order: dict[int, int] = {}
    for customer, kind, time_ms in zip(
        *(column[order].tolist() for column in (log.customer, log.kind, log.event_time_ms)), strict=True
    ):
        if last_order.get(customer, time_ms) != time_ms:
            assert held[customer] == 0
            del last_order[customer]
        held[customer] += change.get(Kind(kind), 0)
        if kind == Kind.ORDER_COMPLETED:
            last_order[customer] = time_ms


def test_every_kind_of_the_shop_occurs(log):
    expected = {
        Kind.PRODUCT_VIEWED,
        Kind.PRODUCT_ADDED,
        Kind.PRODUCT_REMOVED,
        Kind.CHECKOUT_STARTED,
        Kind.ORDER_COMPLETED,
        Kind.PRODUCT_PURCHASED,
        Kind.PRODUCTS_SEARCHED,
        Kind.CONTENT_ENGAGED,
        Kind.RECOMMENDATION_SHOWN,
        Kind.PRODUCT_WISHLISTED,
    }
    assert set(log.kind.tolist()) == expected
    without_item = {Kind.CHECKOUT_STARTED, Kind.ORDER_COMPLETED, Kind.PRODUCTS_SEARCHED}
    assert set(log.kind[log.item == NO_ITEM].tolist()) == without_item


def test_nothing_happens_before_an_item_is_launched_or_a_customer_arrives(log, shop):
    truth, start_ms = shop.truth(), shop.config.start_ms
    launch_ms = dict(zip(shop.catalogue.item.tolist(), start_ms + truth.items.launch_day * DAY_MS, strict=True))
    about_item = log.take(log.item != NO_ITEM)
    assert (about_item.event_time_ms >= [launch_ms[item] for item in about_item.item.tolist()]).all()
    assert (log.event_time_ms >= start_ms + truth.latent.arrival_day[rows(log, truth)] * DAY_MS).all()
    assert (truth.items.launch_day > 0).any()
    assert (truth.latent.arrival_day > 0).any()


def test_nobody_comes_back_who_has_left(log, shop):
    truth = shop.truth()
    t_ms = shop.config.start_ms + 30 * DAY_MS
    gone = truth.state_at(t_ms).gone
    assert 0.02 < gone.mean() < 0.3
    assert not gone[rows(log, truth)[log.event_time_ms >= t_ms]].any()


def test_weeks_and_days_have_their_rhythm(log):
    views = log.event_time_ms[log.kind == Kind.PRODUCT_VIEWED]
    weekday = (views // DAY_MS + 3) % 7
    by_weekday = np.bincount(weekday[views // DAY_MS >= views.max() // DAY_MS - 27], minlength=7)
    assert by_weekday[5:].mean() > 1.1 * by_weekday[:5].mean()
    by_hour = np.bincount(views // 3_600_000 % 24, minlength=24)
    assert by_hour[17:21].min() > 3 * by_hour[1:5].max()


def test_sessions_of_a_customer_stay_apart(log):
    """Within a day, gaps between a customer's events are either inside a session or over half an hour."""
    order = np.lexsort((log.event_time_ms, log.customer))
    same = np.diff(log.customer[order]) == 0
    gaps = np.diff(log.event_time_ms[order])[same]
    between_ms, within_ms = 30 * 60_000, 200_000
    assert not ((gaps > within_ms) & (gaps <= between_ms)).any()


def test_all_problems_of_a_config_are_reported_at_once():
    with pytest.raises(InvalidInput) as caught:
        ShopConfig(customers=0, days=True, seed=-1, late_ratio=1.5, start_ms=1, sessions_per_day=float("nan"))
    assert {violation.field for violation in caught.value.violations} == {
        "customers",
        "days",
        "seed",
        "late_ratio",
        "start_ms",
        "sessions_per_day",
    }
    with pytest.raises(InvalidInput, match="categories"):
        ShopConfig(items=5, categories=6)


@pytest.mark.parametrize(
    "config",
    [
        ShopConfig(customers=1, items=2, days=1, categories=1, taste_dimension=1),
        ShopConfig(customers=40, items=9, days=5, categories=9, follow_ratio=1.0, launching_ratio=0.9),
        ShopConfig(customers=40, items=30, days=5, arriving_ratio=1.0, late_ratio=1.0, duplicate_ratio=1.0),
        ShopConfig(customers=40, items=30, days=5, sessions_per_day=4.0, leaving_ratio=0.9),
    ],
    ids=["least", "followers", "delivery", "busy"],
)
def test_extreme_shops_work(config):
    events = log_of(config)
    assert (events.available_time_ms >= events.event_time_ms).all()


def test_a_block_has_a_sensible_size():
    with pytest.raises(InvalidInput, match="block_events"):
        Shop(SMALL).stream(block_events=0)
