"""Snapshots once more, in plain Python: a customer's totals and an item's counts, as known at a cut."""

from segue.events import NO_ITEM, Kind
from tests.oracle import DAY, WINDOWS, Fact, record_order

LIFETIME = (
    "customer_event_count_lifetime",
    "customer_order_count_lifetime",
    "customer_order_value_minor_lifetime",
    "customer_age_days_lifetime",
)

STATS_WINDOWS = ("1h", "1d", "7d", "30d")
STATS_KINDS = {"view": Kind.PRODUCT_VIEWED, "add": Kind.PRODUCT_ADDED, "purchase": Kind.PRODUCT_PURCHASED}


def known(facts: list[Fact], cut: int) -> list[Fact]:
    """What was known at the cut, one fact for each event id: the first in record order."""
    past = [fact for fact in facts if fact.time < cut and fact.available <= cut]
    newest_first = sorted(past, key=lambda fact: record_order(fact.record), reverse=True)
    return list({(fact.customer, fact.event_id): fact for fact in newest_first}.values())


def lifetime(facts: list[Fact], cut: int) -> dict[str, int] | None:
    """One customer's totals; None where nothing was known of them."""
    past = known(facts, cut)
    if not past:
        return None
    orders = [fact for fact in past if fact.kind == Kind.ORDER_COMPLETED]
    age_days = (cut - min(fact.time for fact in past)) // DAY
    totals = (len(past), len(orders), sum(fact.value for fact in orders), age_days)
    return dict(zip(LIFETIME, totals, strict=True))


def item_stats(facts: list[Fact], cut: int) -> dict[int, dict[str, int]]:
    """The counts of every item something is known of."""
    past = [fact for fact in known(facts, cut) if fact.item != NO_ITEM]
    return {item: _counts([fact for fact in past if fact.item == item], cut) for item in {fact.item for fact in past}}


def newest_cut(cuts: list[int], t: int, ttl: int) -> int | None:
    """The cut that values as of t are taken from: the newest not after t, unless it is older than the ttl."""
    past = [cut for cut in cuts if cut <= t]
    return past[-1] if past and t - past[-1] <= ttl else None


def _counts(facts: list[Fact], cut: int) -> dict[str, int]:
    def count(kind, window):
        return sum(1 for fact in facts if kind in {None, fact.kind} and cut - fact.time <= WINDOWS[window])

    words = [*STATS_KINDS.items(), ("event", None)]
    return {f"item_{word}_count_{window}": count(kind, window) for word, kind in words for window in STATS_WINDOWS}
