"""Evaluation of related items on orders: given what is in a cart, which items were put into it later?

Asked of the held-out future: a case is a moment at which a cart that holds something was added to. Items that nobody
had turned to before it began are left out.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.sequence import related
from models.sequence.blend import strongest
from models.sequence.dataset import known_sequences
from models.sequence.evaluate import Estimate, bootstrap
from models.sequence.related import TAKING, Acts
from segue.errors import InvalidInput
from segue.events import Events, Kind
from segue.history import Timelines
from segue.inference.item_table import ItemTable
from segue.inference.windows import Vocabulary

TOP = 10

Suggest = Callable[[NDArray[np.int64]], NDArray[np.int64]]
"""From the indices in a cart to the TOP best others, best first."""


@dataclass(frozen=True, eq=False)
class Baskets:
    """n orders as they grew: order i is the slice `offsets[i]:offsets[i + 1]`, in the order the lines were taken."""

    offsets: NDArray[np.int64]  # (n + 1,)
    item: NDArray[np.int64]  # (m,) vocabulary indices, none twice in an order
    time_ms: NDArray[np.int64]  # (m,) when each was put into the cart, or bought where it never was
    customer: NDArray[np.int64]  # (n,)

    def __len__(self) -> int:
        return len(self.customer)


def baskets(acts: Acts, size: int) -> Baskets:
    """The orders among `acts`: what was bought at one time by one customer."""
    of_cart = acts.take(np.isin(acts.kind, [*TAKING, Kind.PRODUCT_REMOVED]))
    order = np.lexsort((of_cart.item, of_cart.customer))
    here, after = order[:-1], order[1:]
    same = (of_cart.customer[here] == of_cart.customer[after]) & (of_cart.item[here] == of_cart.item[after])
    added = same & (of_cart.kind[here] == Kind.PRODUCT_ADDED)
    taken_ms = of_cart.time_ms.copy()
    taken_ms[after[added]] = of_cart.time_ms[here[added]]
    lines = np.flatnonzero(of_cart.kind == Kind.PRODUCT_PURCHASED)
    customer, bought_ms = of_cart.customer[lines], of_cart.time_ms[lines]
    opens = np.ones(len(lines), bool)
    opens[1:] = (np.diff(customer) > 0) | (np.diff(bought_ms) > 0)
    basket = np.cumsum(opens) - 1
    _, once = np.unique(basket * size + of_cart.item[lines], return_index=True)
    once = once[np.lexsort((taken_ms[lines[once]], basket[once]))]
    offsets = np.searchsorted(basket[once], np.arange(opens.sum() + 1))
    return Baskets(offsets, of_cart.item[lines[once]], taken_ms[lines[once]], customer[opens])


@dataclass(frozen=True, eq=False)
class Case:
    """A cart at one time, and what was put into it later."""

    customer: int
    cart: NDArray[np.int64]  # (k,) vocabulary indices
    later: NDArray[np.int64]  # (l,) likewise


def cases(orders: Baskets, from_ms: int) -> Iterator[Case]:
    """A case for each time from `from_ms` on at which a cart was added to, except by its first items.

    Items of one time are asked for together: which came first is not known.
    """
    for row, (start, stop) in enumerate(zip(orders.offsets[:-1], orders.offsets[1:], strict=True)):
        item, time_ms = orders.item[start:stop], orders.time_ms[start:stop]
        for moment in np.unique(time_ms[time_ms > time_ms[0]]).tolist():
            if moment >= from_ms:
                yield Case(int(orders.customer[row]), item[time_ms < moment], item[time_ms >= moment])


def by_table(table: ItemTable) -> Suggest:
    """Suggest what `table` says for the items of the cart together."""

    def suggest(cart: NDArray[np.int64]) -> NDArray[np.int64]:
        votes = table.votes(cart[None], np.ones((1, len(cart))))
        allowed = ~np.isin(votes.index, cart)
        best = np.argsort(-votes.value[allowed], kind="stable")[:TOP]
        return votes.index[allowed][best]

    return suggest


def by_popularity(count: NDArray[np.integer]) -> Suggest:
    """Suggest the items of the highest `count`, shape (v,), to everybody."""
    order = np.argsort(-count[1:], kind="stable") + 1

    def suggest(cart: NDArray[np.int64]) -> NDArray[np.int64]:
        best = order[: TOP + len(cart)]
        return best[~np.isin(best, cart)][:TOP]

    return suggest


def together(orders: Baskets, size: int) -> ItemTable:
    """The rival without a direction: the cosine of two items over the orders that hold them, shrunk."""
    basket = np.repeat(np.arange(len(orders)), np.diff(orders.offsets))
    shape, nothing = (size, size), np.empty(0, np.int64)
    counts = related.counted(nothing, nothing, nothing, shape)
    for first, second in related.pairs(basket, related.TAKE_REACH):
        counts = counts + related.counted(orders.item[first], orders.item[second], np.ones(len(first)), shape)
    source, other, count = related.cells(counts + counts.T)
    held = np.bincount(orders.item, minlength=size)
    cosine = count / (np.sqrt(held[source] * held[other]) + related.SHRINKAGE)
    return strongest(related.counted(source, other, cosine, shape), related.KEPT)


def recall(suggest: Suggest, asked: list[Case]) -> NDArray[np.float64]:
    """The share of what came later that is among the TOP suggested, shape (n,)."""
    return np.array([np.isin(case.later, suggest(case.cart)).sum() / min(TOP, len(case.later)) for case in asked])


@dataclass(frozen=True, eq=False)
class Judged:
    """What each way to suggest recalls of the same cases."""

    customer: NDArray[np.int64]  # (n,)
    recall: Mapping[str, NDArray[np.float64]]  # (n,) by name

    def scores(self) -> dict[str, Estimate]:
        """The mean recall of each, with its interval by customer."""
        return {name: bootstrap(each[:, None], self.customer)[0] for name, each in self.recall.items()}

    def margins(self, of: str) -> dict[str, Estimate]:
        """By how much `of` is ahead of each other one, on the same cases."""
        ahead = {name: self.recall[of] - each for name, each in self.recall.items() if name != of}
        return {name: bootstrap(each[:, None], self.customer)[0] for name, each in ahead.items()}


def judge(events: Events, cut_ms: int) -> Judged:
    """Learn from what was known at `cut_ms`, and ask of the carts that were added to from then on.

    Raises:
        InvalidInput: there is no such cart.
    """
    timelines = Timelines.of(events)
    vocabulary = Vocabulary.of(known_sequences(timelines, cut_ms).item)
    size = len(vocabulary)
    whole = related.acts_of(timelines, vocabulary, int(np.iinfo(np.int64).max))
    asked = list(cases(baskets(whole, size), cut_ms))
    if not asked:
        raise InvalidInput.because("lake", f"holds no cart that was added to after {cut_ms} ms")
    known = related.acts_of(timelines, vocabulary, cut_ms)
    ways = {str(name): by_table(table) for name, table in related.learn(timelines, vocabulary, cut_ms).items()}
    ways["together"] = by_table(together(baskets(known, size), size))
    ways["popularity"] = by_popularity(np.bincount(related.taken(known).item, minlength=size))
    customer = np.array([case.customer for case in asked])
    return Judged(customer, {name: recall(way, asked) for name, way in ways.items()})
