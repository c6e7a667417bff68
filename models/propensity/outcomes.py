"""Outcomes: what is to be foretold, of whom, and what came true.

An outcome is a predicate over a customer's future. Its labels look ahead of the prediction time and its population
looks back from it; both are computed for all customers at once.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segue.errors import InvalidSettings
from segue.events import KIND_BY_LABEL, Events
from segue.features.batch import DAY_MS
from segue.history import Timelines, Times


@dataclass(frozen=True)
class Outcome:
    """At least one event of `kinds` in [t, t + horizon), asked of customers active before t."""

    kinds: tuple[str, ...]
    """Labels of the kinds that make it true, e.g. `order_completed`."""
    horizon_days: int
    active_within_days: int
    """The population: customers with an event, known by t, in [t - this, t)."""
    active_kinds: tuple[str, ...] = ()
    """The kinds that count as activity; all of them where empty."""

    def __post_init__(self) -> None:
        if not self.kinds:
            raise InvalidSettings.because("outcome.kinds", "is empty")
        for field in ("kinds", "active_kinds"):
            if unknown := sorted(set(getattr(self, field)) - set(KIND_BY_LABEL)):
                raise InvalidSettings.because(f"outcome.{field}", f"{', '.join(unknown)}: no such kind")
        for field in ("horizon_days", "active_within_days"):
            if getattr(self, field) < 1:
                raise InvalidSettings.because(f"outcome.{field}", f"is {getattr(self, field)}, must be at least 1")

    @property
    def horizon_ms(self) -> int:
        """How far the predicate looks ahead."""
        return self.horizon_days * DAY_MS


def labels(outcome: Outcome, timelines: Timelines, customer: NDArray[np.integer], t_ms: Times) -> NDArray[np.bool_]:
    """Whether the outcome came true for each customer after each time.

    A label is what happened, so it does not ask when an event became available.

    Args:
        customer: shape (n,), index into `timelines.events.customers`.
        t_ms: shape (n,).

    Returns:
        Shape (n,).
    """
    happened = timelines.events.take(_of_kinds(timelines.events, outcome.kinds))
    # Customer and time as one number that cannot overflow: the time by its rank among the times that occur.
    moments = np.unique(happened.event_time_ms)
    width = len(moments) + 1
    key = happened.customer.astype(np.int64) * width + np.searchsorted(moments, happened.event_time_ms)
    base = np.asarray(customer, np.int64) * width
    first = np.searchsorted(key, base + np.searchsorted(moments, t_ms))
    past = np.searchsorted(key, base + np.searchsorted(moments, t_ms + outcome.horizon_ms))
    return past > first


def population(outcome: Outcome, timelines: Timelines, t_ms: int) -> NDArray[np.int64]:
    """The customers the outcome may be asked of at `t_ms`: ascending indexes into `timelines.events.customers`."""
    events = timelines.events
    active = (events.event_time_ms < t_ms) & (events.event_time_ms >= t_ms - outcome.active_within_days * DAY_MS)
    active &= events.available_time_ms <= t_ms
    if outcome.active_kinds:
        active &= _of_kinds(events, outcome.active_kinds)
    return np.unique(events.customer[active]).astype(np.int64)


def _of_kinds(events: Events, kinds: tuple[str, ...]) -> NDArray[np.bool_]:
    return np.isin(events.kind, np.array([KIND_BY_LABEL[label] for label in kinds], np.uint8))
