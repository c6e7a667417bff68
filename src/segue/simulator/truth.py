"""What a model that knew everything would answer."""

from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from segue.catalogue import Catalogue
from segue.errors import InvalidInput
from segue.events import NO_ITEM
from segue.simulator import dynamics
from segue.simulator.config import DAY_MS, ShopConfig
from segue.simulator.dynamics import ACTIVITY, CLOSES, OPENS, OUTCOME_RATIO, SESSION_LIMIT, Intent, LatentState, Outcome
from segue.simulator.population import FOLLOWER_WEIGHT, Customers, Floats, Items, Shelf, mood

CHUNK = 16_384
"""Customers worked on at once: bounds the memory of the purchase recursion."""


@dataclass(frozen=True, eq=False)
class Truth:
    """The latent facts of a simulated shop, and the probabilities that follow from them.

    Rows of customers are those of `customers` (pseudonyms as in the events), columns of items those of `catalogue`.
    """

    config: ShopConfig
    customers: NDArray[np.object_]  # (n,) str
    latent: Customers
    items: Items

    @property
    def catalogue(self) -> Catalogue:
        """The shop's items."""
        return self.items.catalogue

    @property
    def taste(self) -> Floats:
        """What each customer likes: unit vectors, shape (n, d)."""
        return self.latent.taste

    @property
    def item_vector(self) -> Floats:
        """What each item is like, shape (m, d); its product with a taste says how they match."""
        return self.items.vector

    def state_at(self, t_ms: int) -> LatentState:
        """Every customer's latent state at the midnight `t_ms`, re-drawn from the seed.

        Raises:
            InvalidInput: `t_ms` is no midnight of the simulated days.
        """
        day = self._day(t_ms)
        if t_ms % DAY_MS:
            raise InvalidInput.because("t_ms", f"is {t_ms}: the latent state is defined at midnight UTC")
        return next(islice(dynamics.days(self.config, self.latent), day, None)).state

    def purchase_probability(self, t_ms: int, *, horizon_days: int = 7) -> Floats:
        """The probability that each customer completes an order in [t, t + horizon), shape (n,).

        It conditions on everything latent at the midnight `t_ms`: the customer's intent, whether the cart is open,
        whether they have left for good, and their constants (session rate, need, hazard of leaving, day of arrival).
        It does not know the future draws: how many sessions, their outcomes, moves between intents, the day of
        leaving. Somebody gone has 0; somebody who arrives later counts from that day on. It is exact: the forward
        recursion of the Markov process in `dynamics`, in which orders are absorbed.

        Raises:
            InvalidInput: `t_ms` is no midnight of the simulated days, or `horizon_days` is not in 1..365.
        """
        if not 1 <= horizon_days <= 365:
            raise InvalidInput.because("horizon_days", f"is {horizon_days}, must be in 1..365")
        state, first = self.state_at(t_ms), self._day(t_ms)
        probability = np.zeros(len(self.latent))
        for start in range(0, len(probability), CHUNK):
            rows = slice(start, start + CHUNK)
            latent = Customers(**{name: values[rows] for name, values in vars(self.latent).items()})
            now = LatentState(**{name: values[rows] for name, values in vars(state).items()})
            probability[rows] = order_probability(self.config, latent, now, range(first, first + horizon_days))
        return probability

    def next_view_probability(self, customer: NDArray[np.integer], last_item: NDArray[np.int64], t_ms: int) -> Floats:
        """The probability of each item being a customer's next view, given that it happens on the day of `t_ms`.

        Args:
            customer: shape (k,), rows of `customers`.
            last_item: shape (k,), the item id of the customer's last view, `NO_ITEM` before the first: then it is
                the customer's taste alone.
            t_ms: a moment of the simulated days; it decides what is on sale.

        Returns:
            Shape (k, m); each row sums to 1.

        Raises:
            InvalidInput: `t_ms` is outside the simulated days, or `last_item` names an item the shop does not have.
        """
        return self.next_view_in_mood(mood(self.latent.taste[customer], self.items), last_item, t_ms)

    def next_view_in_mood(self, moods: Floats, last_item: NDArray[np.int64], t_ms: int) -> Floats:
        """`next_view_probability` of somebody known only by `moods`: how likely each category is what they look for.

        Args:
            moods: shape (k, categories), each row sums to 1: `population.mood` of a taste, or a mean of such.
            last_item: shape (k,), likewise.
            t_ms: likewise.

        Returns:
            Shape (k, m); each row sums to 1.

        Raises:
            InvalidInput: as `next_view_probability`.
        """
        shelf = Shelf.on(self._day(t_ms), self.items)
        followers, weight = self._lead(last_item, shelf)
        probability = (moods @ shelf.probability) * (1.0 - weight.sum(axis=1, keepdims=True))
        np.add.at(probability, (np.arange(len(moods))[:, None], followers), weight)
        return probability

    def view_terms(
        self, item: NDArray[np.int64], last_item: NDArray[np.int64], t_ms: NDArray[np.int64]
    ) -> tuple[Floats, Floats]:
        """What the probability of views owes to the mood and what to the view before: `by_mood @ mood + led`.

        Args:
            item: shape (k,), item ids viewed.
            last_item: shape (k,), the ids viewed before each, `NO_ITEM` before the first.
            t_ms: shape (k,), when.

        Returns:
            by_mood: shape (k, categories); led: shape (k,). Both are 0 where the shop did not sell the item that day.

        Raises:
            InvalidInput: a moment is outside the simulated days, or an id is no item of this shop.
        """
        viewed = self._place("item", item)
        by_mood, led = np.zeros((len(item), len(self.items.centroid))), np.zeros(len(item))
        days = np.array([self._day(t) for t in t_ms.tolist()], np.int64)
        for day in np.unique(days).tolist():
            rows = np.flatnonzero(days == day)
            shelf = Shelf.on(day, self.items)
            followers, weight = self._lead(last_item[rows], shelf)
            led[rows] = np.where(followers == viewed[rows, None], weight, 0.0).sum(axis=1)
            by_mood[rows] = shelf.probability[:, viewed[rows]].T * (1.0 - weight.sum(axis=1, keepdims=True))
        return by_mood, led

    def _lead(self, last_item: NDArray[np.int64], shelf: Shelf) -> tuple[NDArray[np.int32], Floats]:
        """Where views of these items lead, positions, and how likely: (k, FOLLOWER_COUNT) each."""
        known = last_item != NO_ITEM
        place = np.zeros(len(last_item), np.int64)
        place[known] = self._place("last_item", last_item[known])
        followers = self.items.followers[place]
        return followers, self.config.follow_ratio * FOLLOWER_WEIGHT * (shelf.launched[followers] & known[:, None])

    def _place(self, field: str, item: NDArray[np.int64]) -> NDArray[np.int64]:
        """The positions of item ids in the catalogue, same shape."""
        order = np.argsort(self.catalogue.item)
        place = order[np.searchsorted(self.catalogue.item, item, sorter=order).clip(0, len(order) - 1)]
        if unknown := set(item[self.catalogue.item[place] != item].tolist()):
            raise InvalidInput.because(field, f"has {unknown.pop()}, which is no item of this shop")
        return place

    def _day(self, t_ms: int) -> int:
        day = (t_ms - self.config.start_ms) // DAY_MS
        if not 0 <= day < self.config.days:
            raise InvalidInput.because("t_ms", f"is {t_ms}, outside the {self.config.days} simulated days")
        return day


def order_probability(config: ShopConfig, customers: Customers, state: LatentState, horizon: range) -> Floats:
    """The probability of an order on the days of `horizon`, the first of which begins in `state`, shape (n,)."""
    everyone = np.arange(len(customers))
    mass = np.zeros((len(customers), len(Intent), 2))
    mass[everyone, state.intent, state.cart_open.astype(int)] = ~state.gone
    ends = [np.full(len(customers), intent) for intent in Intent]
    move = np.stack([dynamics.moves(customers, end) for end in ends], axis=1)
    stay = np.stack([1.0 - dynamics.leaving(customers, end) for end in ends], axis=1)
    ordered = np.zeros(len(customers))
    for day in horizon:
        present = customers.arrival_day <= day
        rate = dynamics.season(config, day) * (customers.sessions_per_day * present)[:, None, None] * ACTIVITY
        kept = np.einsum("nic,nick->nik", mass, without_order(rate))
        ordered += (mass - kept).sum(axis=(1, 2))
        woken = np.einsum("nic,ni,nij->njc", kept, stay, move)
        mass = np.where(present[:, None, None], woken, kept)
    return ordered


def without_order(rate: Floats) -> Floats:
    """The probability of a day without order that ends with the cart in a state, shape (n, intent, cart, cart after).

    Args:
        rate: expected sessions, shape (n, intent, cart).
    """
    step = np.zeros((len(Intent), 2, 2))
    for outcome in Outcome:
        if outcome != Outcome.ORDERED:
            for cart in (False, True):
                after = (cart or OPENS[outcome]) and not CLOSES[outcome]
                step[:, int(cart), int(after)] += OUTCOME_RATIO[:, int(cart), outcome]
    after_sessions = np.broadcast_to(np.eye(2), step.shape)
    term = np.exp(-rate)  # the Poisson probability of `number` sessions
    left = 1.0 - term
    total = term[..., None] * after_sessions
    for number in range(1, SESSION_LIMIT + 1):
        after_sessions = after_sessions @ step
        term = term * rate / number
        share = term if number < SESSION_LIMIT else left
        left = left - term
        total = total + share[..., None] * after_sessions
    return total
