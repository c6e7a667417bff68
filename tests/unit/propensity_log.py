"""A small synthetic log and its features, straight from the domain: what the lake and Feast give in a real run."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from models.propensity.dataset import FeatureSource
from segue.events import NO_ITEM, Events, Kind
from segue.features.table import FEATURES, compute
from segue.history import Timelines
from segue.inference.plan import Column, Plan

DAY_MS = 86_400_000
START_MS = 1_700_000_000_000

PLAN = Plan("propensity_v1", "test", tuple(Column(each.name, each.dtype, "history") for each in FEATURES), (), ())


class MemoryLog:
    """Events in memory, read like the lake."""

    def __init__(self, events: Events, *, ranges: int = 1) -> None:
        self.events = events
        self._ranges = ranges

    def time_range(self) -> tuple[int, int]:
        return int(self.events.event_time_ms.min()), int(self.events.event_time_ms.max())

    def customer_ranges(self, max_events: int) -> Iterator[tuple[str | None, str | None]]:
        names = sorted(self.events.customers)
        starts = [names[len(names) * part // self._ranges] for part in range(1, self._ranges)]
        yield from zip([None, *starts], [*starts, None], strict=True)

    def read(self, *, first_customer: str | None, past_customer: str | None) -> Events:
        names = self.events.customers
        inside = np.array(
            [(first_customer or "") <= each and (not past_customer or each < past_customer) for each in names]
        )
        part = self.events.take(inside[self.events.customer])
        present, customer = np.unique(part.customer, return_inverse=True)
        columns = {
            name: getattr(part, name) for name in ("event_id", "kind", "item", "event_time_ms", "available_time_ms")
        }
        return Events(names[present], customer.astype(np.int32), **columns, value_minor=part.value_minor)


def as_of_source(events: Events) -> FeatureSource:
    """Features of any (customer, time), computed directly."""
    timelines = Timelines.of(events)
    place = {name: index for index, name in enumerate(timelines.events.customers)}

    def source(asked: pd.DataFrame) -> pd.DataFrame:
        customer = asked["customer"].map(place).to_numpy()
        t_ms = asked["event_timestamp"].astype("int64").to_numpy() // 1_000_000
        values = compute(timelines.as_of(customer, t_ms), t_ms)
        return asked.join(pd.DataFrame(values, columns=[each.name for each in FEATURES]))

    return source


def log_of(columns: dict[str, np.ndarray], customers: int) -> Events:
    """Events with ids of their own; `available_time_ms`, `item` and `value_minor` may be left out."""
    count = len(columns["customer"])
    names = np.array([f"c{index:04d}" for index in range(customers)], object)
    columns = {
        "event_id": np.arange(count, dtype=np.uint64),
        "item": np.full(count, NO_ITEM, np.int64),
        "value_minor": np.zeros(count, np.int64),
        "available_time_ms": columns["event_time_ms"],
    } | columns
    return Events(names, **columns | {"customer": columns["customer"].astype(np.int32)})


def shop_log(*, customers: int = 400, days: int = 90, seed: int = 3) -> Events:
    """Customers who browse at rates of their own, add what they like, and buy a day or so after adding."""
    rng = np.random.default_rng(seed)
    views_per_day = rng.lognormal(-1.5, 1.0, customers)
    eagerness = rng.beta(1.2, 6, customers)
    parts = []
    for customer in range(customers):
        viewed = np.sort(rng.uniform(0, days, rng.poisson(views_per_day[customer] * days)))
        added = viewed[rng.random(len(viewed)) < eagerness[customer]] + rng.exponential(0.05)
        ordered = added[rng.random(len(added)) < 0.6] + rng.exponential(1.0)
        for kind, times in (
            (Kind.PRODUCT_VIEWED, viewed),
            (Kind.PRODUCT_ADDED, added),
            (Kind.ORDER_COMPLETED, ordered),
        ):
            parts.append(np.column_stack([np.full(len(times), customer), np.full(len(times), kind), times]))
    table = np.concatenate(parts)
    times = START_MS + (table[:, 2] * DAY_MS).astype(np.int64)
    kind = table[:, 1].astype(np.uint8)
    item = np.where(kind == Kind.ORDER_COMPLETED, NO_ITEM, rng.integers(1, 50, len(table)))
    late = np.where(rng.random(len(table)) < 0.05, rng.integers(0, DAY_MS, len(table)), 0)
    columns = {"customer": table[:, 0], "kind": kind, "event_time_ms": times, "available_time_ms": times + late}
    return log_of(columns | {"item": item.astype(np.int64)}, customers)
