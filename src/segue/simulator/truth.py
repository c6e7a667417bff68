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
        shelf = Shelf.on(self._day(t_ms), self.items)
        by_taste = mood(self.latent.taste[customer], self.items) @ shelf.probability
        order = np.argsort(self.catalogue.item)
        place = order[np.searchsorted(self.catalogue.item, last_item, sorter=order).clip(0, len(order) - 1)]
        known = self.catalogue.item[place] == last_item
        if unknown := set(last_item[~known].tolist()) - {NO_ITEM}:
            raise InvalidInput.because("last_item", f"has {unknown.pop()}, which is no item of this shop")
        followers = self.items.followers[place]
        weight = self.config.follow_ratio * FOLLOWER_WEIGHT * (shelf.launched[followers] & known[:, None])
        probability = by_taste * (1.0 - weight.sum(axis=1, keepdims=True))
        np.add.at(probability, (np.arange(len(customer))[:, None], followers), weight)
        return probability

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
