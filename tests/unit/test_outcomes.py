"""Labels and populations, against plain Python that reads every event."""

import numpy as np
import pytest
from propensity_log import DAY_MS, log_of

from models.propensity.outcomes import Outcome, labels, population
from segue.errors import InvalidSettings
from segue.events import KIND_BY_LABEL, Events, Kind
from segue.history import Timelines

HORIZON_DAYS, ACTIVE_DAYS = 2, 3
ORDERS = Outcome(("order_completed",), HORIZON_DAYS, ACTIVE_DAYS)


def random_log(seed: int) -> Events:
    """Few customers and few distinct times, so that edges, ties and copies are common."""
    rng = np.random.default_rng(seed)
    count = 120
    times = rng.integers(0, 40, count) * (DAY_MS // 4)
    return log_of(
        {
            "customer": rng.integers(0, 6, count),
            "kind": rng.integers(0, 8, count).astype(np.uint8),
            "event_time_ms": times,
            "available_time_ms": times + rng.choice([0, 0, DAY_MS], count),
            "event_id": rng.integers(0, 80, count).astype(np.uint64),
        },
        customers=7,  # the last one never did anything
    )


def naive_label(outcome: Outcome, events: Events, customer: int, t_ms: int) -> bool:
    return any(
        events.customer[i] == customer
        and Kind(events.kind[i]).label in outcome.kinds
        and t_ms <= events.event_time_ms[i] < t_ms + outcome.horizon_days * DAY_MS
        for i in range(len(events))
    )


def naive_population(outcome: Outcome, events: Events, t_ms: int) -> list[int]:
    active = set()
    for i in range(len(events)):
        known = events.event_time_ms[i] < t_ms and events.available_time_ms[i] <= t_ms
        recent = t_ms - events.event_time_ms[i] <= outcome.active_within_days * DAY_MS
        counts = not outcome.active_kinds or Kind(events.kind[i]).label in outcome.active_kinds
        if known and recent and counts:
            active.add(int(events.customer[i]))
    return sorted(active)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    "outcome",
    [ORDERS, Outcome(("product_viewed", "products_searched"), 1, 1, ("product_added", "checkout_started"))],
)
def test_vectorised_equals_naive(seed: int, outcome: Outcome) -> None:
    events = random_log(seed)
    timelines = Timelines.of(events)
    customer, t_ms = (each.ravel() for each in np.meshgrid(np.arange(7), np.arange(0, 44) * (DAY_MS // 4)))
    asked = zip(customer.tolist(), t_ms.tolist(), strict=True)
    assert labels(outcome, timelines, customer, t_ms).tolist() == [
        naive_label(outcome, events, *each) for each in asked
    ]
    for t in np.unique(t_ms).tolist():
        assert population(outcome, timelines, t).tolist() == naive_population(outcome, events, t)


@pytest.mark.parametrize(
    ("offset_ms", "expected"), [(-1, False), (0, True), (2 * DAY_MS - 1, True), (2 * DAY_MS, False)]
)
def test_the_label_window_is_closed_before_and_open_after(offset_ms: int, expected: bool) -> None:
    t_ms = 10 * DAY_MS
    kind = np.array([Kind.ORDER_COMPLETED], np.uint8)
    events = log_of({"customer": np.zeros(1), "kind": kind, "event_time_ms": np.array([t_ms + offset_ms])}, 1)
    assert labels(ORDERS, Timelines.of(events), np.array([0]), np.array([t_ms])).tolist() == [expected]


def test_a_label_does_not_wait_for_delivery_but_the_population_does() -> None:
    t_ms = 10 * DAY_MS
    kind = np.array([Kind.ORDER_COMPLETED] * 2, np.uint8)
    times = np.array([t_ms - DAY_MS, t_ms + DAY_MS])
    columns = {"customer": np.zeros(2), "kind": kind, "event_time_ms": times, "available_time_ms": times + 30 * DAY_MS}
    timelines = Timelines.of(log_of(columns, 1))
    assert labels(ORDERS, timelines, np.array([0]), np.array([t_ms])).all()
    assert not len(population(ORDERS, timelines, t_ms))


def test_an_empty_log_has_no_labels_and_nobody_to_ask() -> None:
    timelines = Timelines.of(Events.empty())
    assert not len(labels(ORDERS, timelines, np.empty(0, np.int64), np.empty(0, np.int64)))
    assert not len(population(ORDERS, timelines, 0))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"kinds": ()}, "outcome.kinds"),
        ({"kinds": ("order_complete",)}, "outcome.kinds"),
        ({"active_kinds": ("nothing",)}, "outcome.active_kinds"),
        ({"horizon_days": 0}, "outcome.horizon_days"),
        ({"active_within_days": -1}, "outcome.active_within_days"),
    ],
)
def test_an_impossible_outcome_is_refused_by_field(changes: dict, field: str) -> None:
    given = {"kinds": ("order_completed",), "horizon_days": 7, "active_within_days": 30} | changes
    with pytest.raises(InvalidSettings) as error:
        Outcome(**given)
    assert error.value.violations[0].field == field


def test_every_kind_may_be_an_outcome() -> None:
    assert Outcome(tuple(KIND_BY_LABEL), 1, 1).kinds
