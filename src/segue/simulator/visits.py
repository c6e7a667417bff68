"""Sessions played out: the events between a session's start and the outcome that the dynamics gave it."""

from typing import NamedTuple, Self

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from segue.events import Kind
from segue.simulator.config import DAY_MS, ShopConfig
from segue.simulator.dynamics import CLOSES, Day, Outcome, Sessions
from segue.simulator.population import FOLLOWER_WEIGHT, Customers, Floats, Items, Lottery, Shelf, mood

Ints = NDArray[np.int64]

CHUNK = 16_384
"""Sessions played at once: bounds memory and keeps the arrays in the processor's cache."""
VIEW_LIMIT = 20
ADD_LIMIT = 3
CART_LIMIT = 6
NOTHING = -1
"""The position of no item."""

VIEWS: Floats = np.array([3.0, 5.5, 4.5, 5.0])
"""By intent: the mean number of views after a session's first."""
DWELL_MS: Floats = np.array([25_000.0, 45_000.0, 40_000.0, 18_000.0])
"""By intent: the mean time spent with an item beyond the least."""
LEAST_DWELL_MS, MOST_DWELL_MS = 7_000, 147_000
MINUTE_MS = 60_000
SLOT_MS = 95 * MINUTE_MS
"""A session lasts under an hour, and the customer's next begins over half an hour later."""

HOUR_WEIGHT: Floats = np.array([4, 2, 1, 1, 1, 2, 4, 7, 9, 10, 11, 12, 13, 12, 11, 11, 12, 14, 17, 20, 21, 18, 13, 8.0])
"""How busy each hour of the day is."""


class Attention(NamedTuple):
    """An event that may come with a view."""

    kind: Kind
    ratio: Floats  # by intent: how likely it comes with a view
    dwell_ratio: float  # when: this share of the time spent with the item after the view ...
    offset_ms: int  # ... and this much later


SEARCH_LEAD_MS = 2_000
"""A search comes this long before the view it leads to."""

ATTENTION = (
    Attention(Kind.PRODUCTS_SEARCHED, np.array([0.10, 0.16, 0.12, 0.35]), 0.0, -SEARCH_LEAD_MS),
    Attention(Kind.RECOMMENDATION_SHOWN, np.array([0.05, 0.05, 0.03, 0.02]), 0.0, 1_000),
    Attention(Kind.CONTENT_ENGAGED, np.array([0.030, 0.060, 0.020, 0.010]), 0.3, 0),
    Attention(Kind.PRODUCT_WISHLISTED, np.array([0.020, 0.050, 0.010, 0.005]), 0.5, 0),
)


class Facts(NamedTuple):
    """n events before they are named and delivered; `item` is a position in the catalogue or `NOTHING`."""

    customer: Ints
    kind: NDArray[np.uint8]
    item: Ints
    event_time_ms: Ints
    value_minor: Ints

    @classmethod
    def of(cls, kind: Kind, customer: Ints, item: Ints | int, event_time_ms: Ints, value_minor: Ints | int) -> Self:
        """Facts of one kind, one for each customer; a plain `item` or `value_minor` counts for all."""
        shape = customer.shape
        return cls(
            customer,
            np.full(shape, kind, np.uint8),
            np.broadcast_to(np.asarray(item, np.int64), shape),
            event_time_ms,
            np.broadcast_to(np.asarray(value_minor, np.int64), shape),
        )

    @classmethod
    def none(cls) -> Self:
        """Nothing happened."""
        nothing = np.empty(0, np.int64)
        return cls(nothing, np.empty(0, np.uint8), nothing, nothing, nothing)

    @classmethod
    def join(cls, parts: "list[Facts]") -> Self:
        """All facts of `parts`, at least one, in order."""
        return cls(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


class Views(NamedTuple):
    """The views of s sessions, v in all, session after session."""

    offsets: Ints  # (s + 1,)
    session: Ints  # (v,)
    item: Ints  # (v,) positions
    time_ms: Ints  # (v,)
    dwell_ms: Ints  # (v,)

    @property
    def end_ms(self) -> Ints:
        """When each session's last view was done with, shape (s,)."""
        last = self.offsets[1:] - 1
        return self.time_ms[last] + self.dwell_ms[last]


class Visits:
    """Plays sessions day by day; remembers every customer's cart and last view from one to the next."""

    def __init__(self, config: ShopConfig, customers: Customers, items: Items) -> None:
        self._config = config
        self._customers = customers
        self._items = items
        count = len(customers)
        self._cart = np.full((count, CART_LIMIT), NOTHING, np.int32)
        self._cart_count = np.zeros(count, np.int8)
        self._last_item = np.full(count, NOTHING, np.int32)
        self._moment = np.zeros(count)  # of the customer's last session within the day, 0..1

    def play(self, day: Day, random: Generator) -> Facts:
        """Every event of `day`, none of which reaches into the next day."""
        shelf = Shelf.on(day.index, self._items)
        by_mood = Lottery.of(shelf.probability)
        midnight_ms = self._config.start_ms + day.index * DAY_MS
        self._moment[:] = 0.0
        parts = [Facts.none()]
        for sessions in day.rounds:
            for start in range(0, len(sessions), CHUNK):
                chunk = sessions.take(slice(start, start + CHUNK))
                start_ms = midnight_ms + self._time_of_day_ms(chunk, random)
                views = self._browse(chunk, start_ms, shelf, by_mood, random)
                parts += self._notice(chunk, views, shelf, random)
                parts += self._shop(chunk, views, random)
        return Facts.join(parts)

    def _time_of_day_ms(self, sessions: Sessions, random: Generator) -> Ints:
        """When each session starts: ordered points of the busy hours, a slot apart, the last ending before midnight."""
        remaining = sessions.count - sessions.number
        ahead = (1.0 - self._moment[sessions.customer]) * random.random(len(sessions)) ** (1.0 / remaining)
        moment = 1.0 - ahead
        self._moment[sessions.customer] = moment
        busy = np.concatenate([[0.0], np.cumsum(HOUR_WEIGHT) / HOUR_WEIGHT.sum()])
        share_of_day = np.interp(moment, busy, np.linspace(0.0, 1.0, len(busy)))
        return (share_of_day * (DAY_MS - sessions.count * SLOT_MS)).astype(np.int64) + sessions.number * SLOT_MS

    def _browse(self, sessions: Sessions, start_ms: Ints, shelf: Shelf, by_mood: Lottery, random: Generator) -> Views:
        """What is viewed and when: each view follows from the one before it or is a matter of taste."""
        counts = 1 + np.minimum(random.poisson(VIEWS[sessions.intent]), VIEW_LIMIT - 1)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        session = np.repeat(np.arange(len(sessions)), counts)
        moods = Lottery.of(mood(self._customers.taste[sessions.customer], self._items))
        item = by_mood.draw(moods.draw(session, random), random)
        follows = random.random(len(item)) < self._config.follow_ratio
        follower = np.searchsorted(np.cumsum(FOLLOWER_WEIGHT)[:-1], random.random(len(item)), side="right")
        last = self._last_item[sessions.customer].astype(np.int64)
        for step in range(int(counts.max(initial=0))):
            going = np.flatnonzero(counts > step)
            view = offsets[going] + step
            leads_to = self._items.followers[last[going], follower[view]]
            led = follows[view] & (last[going] != NOTHING) & shelf.launched[leads_to]
            item[view] = last[going] = np.where(led, leads_to, item[view])
        self._last_item[sessions.customer] = last
        dwell = np.minimum(LEAST_DWELL_MS + random.exponential(DWELL_MS[sessions.intent][session]), MOST_DWELL_MS)
        dwell = dwell.astype(np.int64)
        elapsed = np.cumsum(dwell) - dwell
        elapsed -= elapsed[offsets[:-1]][session]
        time = start_ms[session] + SEARCH_LEAD_MS + elapsed
        return Views(offsets, session, item, time, dwell)

    def _notice(self, sessions: Sessions, views: Views, shelf: Shelf, random: Generator) -> list[Facts]:
        """The views themselves, and the searches, recommendations, likes and wishes that come with them."""
        customer, intent = sessions.customer[views.session], sessions.intent[views.session]
        shown = self._items.followers[views.item, 0].astype(np.int64)
        parts = [Facts.of(Kind.PRODUCT_VIEWED, customer, views.item, views.time_ms, 0)]
        for attention in ATTENTION:
            chosen = random.random(len(customer)) < attention.ratio[intent]
            subject = views.item
            if attention.kind == Kind.PRODUCTS_SEARCHED:
                subject = np.full_like(subject, NOTHING)
            if attention.kind == Kind.RECOMMENDATION_SHOWN:
                subject, chosen = shown, chosen & shelf.launched[shown]
            at = np.flatnonzero(chosen)
            time = views.time_ms[at] + (views.dwell_ms[at] * attention.dwell_ratio).astype(np.int64)
            parts.append(Facts.of(attention.kind, customer[at], subject[at], time + attention.offset_ms, 0))
        return parts

    def _shop(self, sessions: Sessions, views: Views, random: Generator) -> list[Facts]:
        """What happens to the cart, as the outcomes say."""
        outcome = sessions.outcome
        parts = self._add(sessions, views, random)
        emptied = np.flatnonzero(outcome == Outcome.EMPTIED)
        parts += self._lines(Kind.PRODUCT_REMOVED, sessions.customer[emptied], views.end_ms[emptied], apart_ms=1_000)
        begun = np.flatnonzero((outcome == Outcome.ABANDONED) | (outcome == Outcome.ORDERED))
        buyer = sessions.customer[begun]
        total = self._items.price_or_none[self._cart[buyer]].sum(axis=1)
        checkout_ms = views.end_ms[begun] + 1_000
        parts.append(Facts.of(Kind.CHECKOUT_STARTED, buyer, NOTHING, checkout_ms, total))
        ordered = outcome[begun] == Outcome.ORDERED
        order_ms = (checkout_ms + random.integers(30_000, 180_000, len(begun)))[ordered]
        parts.append(Facts.of(Kind.ORDER_COMPLETED, buyer[ordered], NOTHING, order_ms, total[ordered]))
        parts += self._lines(Kind.PRODUCT_PURCHASED, buyer[ordered], order_ms, apart_ms=0)
        closed = sessions.customer[CLOSES[outcome]]
        self._cart[closed] = NOTHING
        self._cart_count[closed] = 0
        return parts

    def _add(self, sessions: Sessions, views: Views, random: Generator) -> list[Facts]:
        """Put items in the carts that the outcome needs filled: of what was viewed, evenly spread, the last always."""
        customer, outcome, counts = sessions.customer, sessions.outcome, np.diff(views.offsets)
        wanted = np.minimum(random.integers(1, ADD_LIMIT + 1, len(sessions)), counts)
        needed = ((outcome != Outcome.LEFT) & ~sessions.cart_open) | (outcome == Outcome.FILLED)
        added = np.where(needed, np.minimum(wanted, CART_LIMIT - self._cart_count[customer]), 0)
        parts = []
        for number in range(ADD_LIMIT):
            who = np.flatnonzero(added > number)
            view = views.offsets[who] + ((number + 1) * counts[who]) // added[who] - 1
            item = views.item[view]
            time = views.time_ms[view] + (views.dwell_ms[view] * 0.6).astype(np.int64)
            parts.append(Facts.of(Kind.PRODUCT_ADDED, customer[who], item, time, self._items.price_or_none[item]))
            self._cart[customer[who], self._cart_count[customer[who]]] = item
            self._cart_count[customer[who]] += 1
        return parts

    def _lines(self, kind: Kind, customer: Ints, time_ms: Ints, *, apart_ms: int) -> list[Facts]:
        """One fact for each line of these customers' carts."""
        parts = []
        for number in range(CART_LIMIT):
            held = self._cart_count[customer] > number
            item = self._cart[customer[held], number].astype(np.int64)
            price = self._items.price_or_none[item]
            parts.append(Facts.of(kind, customer[held], item, time_ms[held] + number * apart_ms, price))
        return parts
