"""Histories and features once more, in plain Python: slow, obvious, and written without a look at the fast ones.

A log is a list of `Fact`s. Everything here takes one customer's facts.
"""

import math
import random
from typing import NamedTuple

import numpy as np

from segue.events import NO_ITEM, Events, Kind

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
WINDOWS = {"1h": HOUR, "1d": DAY, "7d": 7 * DAY, "30d": 30 * DAY, "90d": 90 * DAY}
SIGNALS = {
    "view": Kind.PRODUCT_VIEWED,
    "add": Kind.PRODUCT_ADDED,
    "remove": Kind.PRODUCT_REMOVED,
    "checkout": Kind.CHECKOUT_STARTED,
    "order": Kind.ORDER_COMPLETED,
    "search": Kind.PRODUCTS_SEARCHED,
    "engage": Kind.CONTENT_ENGAGED,
    "wishlist": Kind.PRODUCT_WISHLISTED,
    "review": Kind.PRODUCT_REVIEWED,
}


class Fact(NamedTuple):
    customer: str
    time: int
    event_id: int
    item: int
    kind: int
    value: int
    available: int = 0

    @property
    def record(self) -> tuple[int, ...]:
        """What the history keeps: everything but who and when it became known."""
        return (self.time, self.event_id, self.item, self.kind, self.value)


def record_order(record: tuple[int, ...]) -> tuple[int, ...]:
    time, event_id, item, kind, value = record
    return (time, event_id, item % 2**64, kind, value % 2**64)


def union(*histories, limit=256, erased_at=None):
    """Merged histories, each an iterable of records."""
    records = {record for history in histories for record in history}
    kept = sorted(records, key=record_order)[-limit:]
    return [record for record in kept if erased_at is None or record[0] > erased_at]


def as_of(facts, t, limit=256):
    """The history known at t."""
    return union([fact.record for fact in facts if fact.time < t and fact.available <= t], limit=limit)


def reach(customer, links, known=()):
    """Every path from `customer` along links, without a customer twice, as tuples that begin with it."""
    path = (*known, customer)
    return [path] + [
        longer
        for source, target in set(links)
        if source == customer and target not in path
        for longer in reach(target, links, path)
    ]


def erased(links, erasures):
    """Up to when each customer is erased: as late as anyone they flow into."""
    barriers = {}
    for customer in {name for pair in links for name in pair} | {name for name, _ in erasures}:
        reached = {path[-1] for path in reach(customer, links)}
        if moments := [moment for name, moment in erasures if name in reached]:
            barriers[customer] = max(moments)
    return barriers


def linked(customer, facts, links, barriers, limit=256):
    """The history of `customer` with what others did that counts for it."""
    counted = []
    for source in {fact.customer for fact in facts}:
        for path in reach(source, links):
            if path[-1] == customer:
                barrier = max(barriers.get(name, -math.inf) for name in path)
                counted += [fact.record for fact in facts if fact.customer == source and fact.time > barrier]
    return union(counted, limit=limit)


def resolved(history):
    seen, result = set(), []
    for record in history:
        if record[1] not in seen:
            seen.add(record[1])
            result.append(record)
    return result


def features(history, now, limit=256):
    """Every scalar feature by name; None for null."""
    events = resolved([record for record in history if record[0] < now])
    out = {}
    of = {word: [e for e in events if e[3] == kind] for word, kind in SIGNALS.items()}
    within = {name: [e for e in events if now - e[0] <= width] for name, width in WINDOWS.items()}
    for name, width in WINDOWS.items():
        for word in SIGNALS:
            out[f"customer_{word}_count_{name}"] = sum(1 for e in of[word] if now - e[0] <= width)
        for word in ("add", "order"):
            out[f"customer_{word}_value_minor_{name}"] = sum(e[4] for e in of[word] if now - e[0] <= width)
        for word in ("view", "add"):
            out[f"customer_{word}_item_distinct_count_{name}"] = len(
                {e[2] for e in of[word] if now - e[0] <= width and e[2] != NO_ITEM}
            )
        out[f"customer_item_distinct_count_{name}"] = len({e[2] for e in within[name] if e[2] != NO_ITEM})
    for name, part, whole in (("add_per_view", "add", "view"), ("order_per_add", "order", "add")):
        out[f"customer_{name}_ratio_30d"] = _ratio(*(out[f"customer_{w}_count_30d"] for w in (part, whole)))
    out["customer_search_per_view_ratio_30d"] = _ratio(out["customer_search_count_30d"], out["customer_view_count_30d"])
    for word in SIGNALS:
        out[f"customer_seconds_since_{word}"] = (now - of[word][-1][0]) / 1000 if of[word] else None
    out["customer_seconds_since_event"] = (now - events[-1][0]) / 1000 if events else None
    out["customer_seconds_since_first"] = (now - events[0][0]) / 1000 if events else None
    orders = of["order"]
    out["customer_order_count_history"] = len(orders)
    out["customer_order_value_minor_history"] = sum(e[4] for e in orders)
    out["customer_order_value_minor_mean"] = _ratio(sum(e[4] for e in orders), len(orders))
    out["customer_active_day_count_30d"] = len({e[0] // DAY for e in within["30d"]})
    out |= _sessions(events, now) | _cart(events, now) | _calendar(events, now)
    out["customer_history_event_count"] = len(events)
    out["customer_history_is_truncated"] = int(len(history) >= limit)
    return out


def _sessions(events, now):
    sessions = []
    for event in events:
        if not sessions or event[0] - sessions[-1][-1][0] >= 30 * MINUTE:
            sessions.append([])
        sessions[-1].append(event)
    newest = sessions[-1] if sessions else []
    length = (newest[-1][0] - newest[0][0]) / 1000 if newest else 0.0
    total = sum((s[-1][0] - s[0][0]) for s in sessions) / 1000
    out = {
        "customer_session_is_open": int(bool(newest) and now - newest[-1][0] < 30 * MINUTE),
        "customer_session_event_count": len(newest),
        "customer_session_length_seconds": length,
        "customer_session_dwell_seconds_mean": length / (len(newest) - 1) if len(newest) > 1 else None,
        "customer_session_item_distinct_count": len({e[2] for e in newest if e[2] != NO_ITEM}),
        "customer_session_pause_seconds": (newest[0][0] - sessions[-2][-1][0]) / 1000 if len(sessions) > 1 else None,
        "customer_session_length_seconds_mean": _ratio(total, len(sessions)),
        "customer_session_event_count_mean": _ratio(len(events), len(sessions)),
    }
    for word in ("view", "add", "search", "engage"):
        out[f"customer_session_{word}_count"] = sum(1 for e in newest if e[3] == SIGNALS[word])
    for name in ("1d", "7d", "30d", "90d"):
        out[f"customer_session_count_{name}"] = sum(1 for s in sessions if now - s[0][0] <= WINDOWS[name])
    return out


def _cart(events, now):
    cart, changed = {}, None
    for time, _, item, kind, value in events:
        if kind == Kind.ORDER_COMPLETED:
            cart, changed = {}, None
        elif kind == Kind.PRODUCT_ADDED:
            changed = time
            if item != NO_ITEM:
                cart[item] = value
        elif kind == Kind.PRODUCT_REMOVED:
            changed = time
            cart.pop(item, None)
    return {
        "customer_cart_item_count": len(cart),
        "customer_cart_value_minor": sum(cart.values()),
        "customer_seconds_since_cart_change": (now - changed) / 1000 if changed is not None else None,
    }


def _calendar(events, now):
    def weekday(time):
        return (time // DAY + 3) % 7

    def daypart(time):
        return time % DAY // (6 * HOUR)

    return {
        "customer_hour_of_day": now % DAY // HOUR,
        "customer_day_of_week": weekday(now),
        "customer_daypart_ratio": _ratio(sum(daypart(e[0]) == daypart(now) for e in events), len(events)),
        "customer_weekday_ratio": _ratio(sum(weekday(e[0]) == weekday(now) for e in events), len(events)),
    }


def item_sequence(history, now, length=50):
    """[(item, kind, age in ms)], oldest first."""
    turns = []
    kinds = {
        Kind.PRODUCT_VIEWED,
        Kind.PRODUCT_ADDED,
        Kind.PRODUCT_PURCHASED,
        Kind.CONTENT_ENGAGED,
        Kind.RECOMMENDATION_CLICKED,
        Kind.PRODUCT_WISHLISTED,
        Kind.PRODUCT_REVIEWED,
        Kind.PRODUCT_SHARED,
    }
    for time, _, item, kind, _ in resolved([record for record in history if record[0] < now]):
        if item != NO_ITEM and kind in kinds:
            if turns and turns[-1][0] == item:
                turns.pop()
            turns.append((item, kind, now - time))
    return turns[-length:]


def _ratio(part, whole):
    return part / whole if whole else None


def same(found, expected):
    """Equal value for value, NaN standing for None."""
    if expected is None:
        return math.isnan(found)
    return found == expected


def facts(seed, *, customers=8, count=600, now=1_780_000_000_000, span=100 * DAY):
    """A messy log: bursts, ties, copies, late arrivals, one id under several records, events at the very edges."""
    rng = random.Random(seed)
    log = []
    for number in range(count):
        customer = f"c{rng.randrange(customers):02}"
        time = now - rng.choice([rng.randrange(span), rng.randrange(2 * HOUR), rng.choice(list(WINDOWS.values()))])
        time -= rng.choice([0, 0, 1, -1])
        if log and rng.random() < 0.2:  # as long after another event as ends a session, or a moment less
            customer, time = log[-1].customer, log[-1].time + 30 * MINUTE - rng.choice([0, 0, 1])
        kind = rng.choice([*SIGNALS.values(), Kind.PRODUCT_PURCHASED, Kind.UNKNOWN, Kind.RECOMMENDATION_SHOWN])
        item = rng.choice([NO_ITEM, rng.randrange(1, 12), rng.randrange(-(2**62), 2**62), -3])
        late = rng.choice([0, 0, 0, rng.randrange(3 * DAY)])
        fact = Fact(customer, time, number, item, int(kind), rng.randrange(-500, 5000), time + late)
        log.append(fact)
        if rng.random() < 0.1:
            log.append(fact._replace(available=fact.available + rng.randrange(DAY)))
        if rng.random() < 0.05:
            log.append(fact._replace(time=fact.time + rng.choice([-1, 1, HOUR]), value=fact.value + 1))
    rng.shuffle(log)
    return log


def to_events(log):
    """The log as `Events`."""
    names = sorted({fact.customer for fact in log})
    index = {name: position for position, name in enumerate(names)}
    customers = np.empty(len(names), object)
    customers[:] = names
    return Events(
        customers=customers,
        customer=np.array([index[fact.customer] for fact in log], np.int32),
        event_id=np.array([fact.event_id for fact in log], np.uint64),
        kind=np.array([fact.kind for fact in log], np.uint8),
        item=np.array([fact.item for fact in log], np.int64),
        event_time_ms=np.array([fact.time for fact in log], np.int64),
        available_time_ms=np.array([fact.available for fact in log], np.int64),
        value_minor=np.array([fact.value for fact in log], np.int64),
    )


def to_history(histories, index):
    """History `index` of `Histories` as the oracle's list of records."""
    span = slice(histories.offsets[index], histories.offsets[index + 1])
    columns = (histories.event_time_ms, histories.event_id, histories.item, histories.kind, histories.value_minor)
    return [tuple(int(value) for value in record) for record in zip(*(column[span] for column in columns), strict=True)]
