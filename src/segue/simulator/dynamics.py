"""The latent state of every customer from day to day: what decides that a session happens and how it ends.

A customer is in one intent, with a cart open or closed. A day goes:

1. The number of sessions is Poisson with rate `sessions_per_day` x season x `ACTIVITY[intent, cart]`, cut at
   `SESSION_LIMIT`, all of it as of midnight.
2. Each session, in order, ends in an outcome drawn from `OUTCOME_RATIO[intent, cart]`. An order resets the intent to
   exploring; an outcome opens or closes the cart.
3. At the day's end the customer leaves for good with probability `leaving_per_day` x `LEAVING[intent]`, or else moves
   to another intent by `moves()`.

Nothing else enters: items, tastes and times of day are drawn elsewhere and never act back. The process is Markov in
(intent, cart), so the probability of an order is a finite sum; `Truth.purchase_probability` computes it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

import numpy as np
from numpy.typing import NDArray

from segue.simulator.config import DAY_MS, ShopConfig
from segue.simulator.population import Customers, Floats, Stream, generator

SESSION_LIMIT = 4
"""The most sessions of one customer on one day."""


class Intent(IntEnum):
    """What a customer's sessions are for."""

    EXPLORING = 0
    EVALUATING = 1
    BUYING = 2
    STRUGGLING = 3


class Outcome(IntEnum):
    """How a session ends."""

    LEFT = 0  # the cart stays as it was
    FILLED = 1  # the cart is open
    EMPTIED = 2  # everything was taken out again
    ABANDONED = 3  # the cart is open, a checkout was begun
    ORDERED = 4


#                      left  filled emptied abandoned ordered
OUTCOME_RATIO: Floats = np.array(
    [
        [[0.890, 0.060, 0.030, 0.010, 0.010], [0.720, 0.080, 0.080, 0.050, 0.070]],
        [[0.610, 0.230, 0.070, 0.050, 0.040], [0.440, 0.160, 0.080, 0.120, 0.200]],
        [[0.190, 0.200, 0.030, 0.130, 0.450], [0.110, 0.100, 0.030, 0.150, 0.610]],
        [[0.590, 0.110, 0.150, 0.140, 0.010], [0.350, 0.100, 0.250, 0.280, 0.020]],
    ]
)
"""By intent, then by cart closed or open, then by outcome."""
OUTCOME_LADDER: Floats = np.cumsum(OUTCOME_RATIO, axis=2)[:, :, :-1]
OPENS = np.array([False, True, False, True, False])
CLOSES = np.array([False, False, True, False, True])

ACTIVITY: Floats = np.array([[1.0, 1.7], [2.0, 3.0], [3.5, 4.5], [1.5, 2.0]])
"""By intent and by cart closed or open: times the sessions of an exploring customer without a cart."""
SEASON: Floats = np.array([0.95, 0.90, 0.90, 0.95, 1.05, 1.15, 1.25])
"""Times the sessions, Monday to Sunday."""
LEAVING: Floats = np.array([1.2, 0.5, 0.1, 3.0])
"""By intent: times the hazard of leaving for good."""

MOVE: Floats = np.array(
    [
        [0.000, 0.050, 0.000, 0.000],
        [0.120, 0.000, 0.180, 0.030],
        [0.080, 0.100, 0.000, 0.050],
        [0.200, 0.150, 0.000, 0.000],
    ]
)
"""By intent: the probability of waking up in another one. Exploring turns into evaluating `need` times as readily."""


@dataclass(frozen=True, eq=False)
class LatentState:
    """Every customer at one midnight."""

    intent: NDArray[np.uint8]  # (n,) an Intent
    cart_open: NDArray[np.bool_]  # (n,)
    gone: NDArray[np.bool_]  # (n,) left for good


@dataclass(frozen=True, eq=False)
class Sessions:
    """One session each of s distinct customers on one day."""

    customer: NDArray[np.int64]  # (s,)
    number: int  # the how many-th of the customer's day, from 0
    count: NDArray[np.int64]  # (s,) of how many
    intent: NDArray[np.uint8]  # (s,)
    cart_open: NDArray[np.bool_]  # (s,) at its start
    outcome: NDArray[np.int64]  # (s,)

    def __len__(self) -> int:
        return len(self.customer)

    def take(self, index: slice) -> Self:
        """The sessions at `index`."""
        columns = (self.count[index], self.intent[index], self.cart_open[index], self.outcome[index])
        return type(self)(self.customer[index], self.number, *columns)


@dataclass(frozen=True, eq=False)
class Day:
    """The state at a day's first moment and the sessions of that day, in rounds of one per customer."""

    index: int
    state: LatentState
    rounds: list[Sessions]


def days(config: ShopConfig, customers: Customers) -> Iterator[Day]:
    """Every day of the shop, in order."""
    count = len(customers)
    state = LatentState(np.zeros(count, np.uint8), np.zeros(count, bool), np.zeros(count, bool))
    for index in range(config.days):
        random = generator(config, Stream.DYNAMICS, index)
        sessions = np.minimum(random.poisson(session_rate(config, customers, state, index)), SESSION_LIMIT)
        intent, cart_open = state.intent.copy(), state.cart_open.copy()
        rounds = []
        for number in range(int(sessions.max(initial=0))):
            who = np.flatnonzero(sessions > number)
            was, cart = intent[who], cart_open[who]
            outcome = (random.random(len(who))[:, None] >= OUTCOME_LADDER[was, cart.astype(int)]).sum(axis=1)
            rounds.append(Sessions(who, number, sessions[who], was, cart, outcome))
            cart_open[who] = (cart | OPENS[outcome]) & ~CLOSES[outcome]
            intent[who] = np.where(outcome == Outcome.ORDERED, Intent.EXPLORING, was)
        yield Day(index, state, rounds)
        present = is_present(customers, state, index)
        ladder = np.cumsum(moves(customers, intent), axis=1)[:, :-1]
        woken = (random.random(count)[:, None] >= ladder).sum(axis=1)
        left = random.random(count) < leaving(customers, intent)
        state = LatentState(np.where(present, woken, intent).astype(np.uint8), cart_open, state.gone | (present & left))


def is_present(customers: Customers, state: LatentState, day: int) -> NDArray[np.bool_]:
    """Who has arrived and not left, shape (n,)."""
    return (customers.arrival_day <= day) & ~state.gone


def season(config: ShopConfig, day: int) -> float:
    """How busy a day of the shop is by its weekday."""
    # Day 0 of the epoch was a Thursday.
    return float(SEASON[(config.start_ms // DAY_MS + day + 3) % 7])


def session_rate(config: ShopConfig, customers: Customers, state: LatentState, day: int) -> Floats:
    """Expected sessions of each customer on `day`, before the cut at `SESSION_LIMIT`, shape (n,)."""
    activity = ACTIVITY[state.intent, state.cart_open.astype(int)] * is_present(customers, state, day)
    return season(config, day) * customers.sessions_per_day * activity


def moves(customers: Customers, intent: NDArray[np.integer]) -> Floats:
    """The probability of waking in each intent after a day that ended in `intent`, shape (n, intents)."""
    move = MOVE[intent]
    wanting = move[:, Intent.EVALUATING] * np.where(intent == Intent.EXPLORING, customers.need, 1.0)
    move[:, Intent.EVALUATING] = np.minimum(wanting, 0.5)
    move[np.arange(len(intent)), intent] = 1.0 - move.sum(axis=1)
    return move


def leaving(customers: Customers, intent: NDArray[np.integer]) -> Floats:
    """The probability of leaving for good after a day that ended in `intent`, shape (n,)."""
    return np.minimum(customers.leaving_per_day * LEAVING[intent], 1.0)
