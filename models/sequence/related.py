"""Related items, by counting: what is taken along with an item, and what is looked at instead of it.

To take an item is to put it into the cart, or to buy it, and not to put it back. What is looked at in one visit is
mostly a choice between alternatives, what is taken along mostly is none: the "also viewed" and "also bought" from which
McAuley et al. (KDD 2015) tell substitutes and complements.

Letters in shapes: m acts, p pairs, v vocabulary (index 0 is padding).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse  # type: ignore[import-untyped]

from models.sequence.baselines.linear import Table
from models.sequence.blend import strongest
from segue.events import Kind
from segue.features.sequence import SEQUENCE_KINDS
from segue.features.sessions import SESSION_GAP_MS
from segue.history import Timelines, resolve
from segue.inference.item_table import ItemTable
from segue.inference.related import FILES, Relation
from segue.inference.windows import Vocabulary

TAKING = (Kind.PRODUCT_ADDED, Kind.PRODUCT_PURCHASED)
"""The kinds by which a customer takes an item."""

LOOK_REACH = 10
"""How many items further on in a visit still count as looked at beside each other."""

TAKE_REACH = 20
"""How many items further on still count as taken along."""

TAKE_HORIZON_MS = 30 * 86_400_000
"""And how much later."""

SHRINKAGE = 10.0
"""Customers, or visits, that speak against whatever was counted, so that a few do not decide."""

ALTERNATIVES = 5
"""The most alternatives an item borrows from."""

BLOCK = 1024
"""Rows of complements counted at a time: bounds memory."""

KEPT = 200
"""The most items a row keeps: the best ones."""

Positions: TypeAlias = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Acts:
    """m acts upon items of a vocabulary, by customer and time."""

    customer: NDArray[np.int64]  # (m,)
    visit: NDArray[np.int64]  # (m,) ascending; a visit is one customer's
    item: NDArray[np.int64]  # (m,) vocabulary indices, never 0
    kind: NDArray[np.uint8]  # (m,)
    time_ms: NDArray[np.int64]  # (m,)

    def __len__(self) -> int:
        return len(self.item)

    def take(self, index: Positions | NDArray[np.bool_]) -> "Acts":
        """The acts at `index`, positions or mask."""
        return Acts(*(column[index] for column in vars(self).values()))

    def first_of(self, group: NDArray[np.int64], size: int) -> "Acts":
        """The first act upon each item within each `group`, shape (m,), in their old order."""
        _, first = np.unique(group * size + self.item, return_index=True)
        return self.take(np.sort(first))


def learn(timelines: Timelines, vocabulary: Vocabulary, known_ms: int) -> dict[Relation, ItemTable]:
    """The table of each relation, from what was known at `known_ms`."""
    acts = acts_of(timelines, vocabulary, known_ms)
    takes, looks = taken(acts), looked_at(acts, len(vocabulary))
    alternatives = similar(looks, takes, len(vocabulary))
    tables = {Relation.SIMILAR: alternatives, Relation.COMPLEMENT: complements(looks, takes, alternatives)}
    return {relation: strongest(table, KEPT) for relation, table in tables.items()}


def save(directory: Path, tables: Mapping[Relation, ItemTable]) -> None:
    """Write the tables as files of the bundle in `directory`."""
    for relation, table in tables.items():
        table.save(directory / FILES[relation])


def acts_of(timelines: Timelines, vocabulary: Vocabulary, known_ms: int) -> Acts:
    """Everything that was done upon items of `vocabulary` and known at `known_ms`, and in which visit."""
    everyone = np.arange(len(timelines.events.customers))
    whole = max(1, len(timelines.events))
    log = resolve(timelines.as_of(everyone, np.full(len(everyone), known_ms, np.int64), limit=whole))
    customer = log.row
    opens = np.ones(len(customer), bool)
    opens[1:] = (customer[1:] != customer[:-1]) | (np.diff(log.event_time_ms) >= SESSION_GAP_MS)
    acts = Acts(customer, np.cumsum(opens), vocabulary.index(log.item), log.kind, log.event_time_ms)
    return acts.take(acts.item > 0)


def taken(acts: Acts) -> Acts:
    """The acts of taking that no removal undid."""
    of_cart = acts.take(np.isin(acts.kind, [*TAKING, Kind.PRODUCT_REMOVED]))
    kept = of_cart.kind != Kind.PRODUCT_REMOVED
    order = np.lexsort((of_cart.item, of_cart.customer))
    here, after = order[:-1], order[1:]
    same = (of_cart.customer[here] == of_cart.customer[after]) & (of_cart.item[here] == of_cart.item[after])
    kept[here[same & ~kept[after]]] = False
    return of_cart.take(kept)


def looked_at(acts: Acts, size: int) -> Acts:
    """The first act of each visit that turned to each item, by whatever kind."""
    turned = acts.take(np.isin(acts.kind, SEQUENCE_KINDS))
    return turned.first_of(turned.visit, size)


def complements(looks: Acts, takes: Acts, alternatives: Table) -> Table:
    """What is taken after an item, and not instead of it: `(f - e) / (n + s)` where `t + 1 >= (x + 1) / 2`.

    Of the n customers who took a, f took b within TAKE_REACH items and TAKE_HORIZON_MS after it, where e would have,
    had they gone on as customers do on average: how far the confidence of the rule a -> b is above chance. In t of the
    visits that looked at both, both were taken, where x would have been, had taking the one said nothing of the other:
    where it is less than half, customers choose between the two, and b is no complement. An item of few takers borrows
    f and n from its `alternatives`, because they go with the same things. s is SHRINKAGE.
    """
    size = alternatives.shape[0]
    once = takes.first_of(takes.customer, size)
    takers = np.bincount(once.item, minlength=size)
    speaks = voices(takers, alternatives)
    follow = followers(once, size)
    leaving, arriving = (speaks @ (table @ speaks.sum(axis=0)) for table in (follow, follow.T))
    substitute = substitutes(looks, takes, size)
    parts = []
    for start in range(0, size, BLOCK):
        rows = slice(start, start + BLOCK)
        source, other, count = cells(speaks[rows] @ follow @ speaks.T)
        chance = leaving[rows][source] * arriving[other] / leaving.sum()
        above = (count - chance) / ((speaks[rows] @ takers)[source] + SHRINKAGE)
        goes_with = (start + source != other) & ~at(substitute[rows], source, other)
        shape = len(leaving[rows]), size
        parts.append(as_sparse(strongest(counted(source, other, np.where(goes_with, above, 0.0), shape), KEPT), shape))
    return sparse.vstack(parts, format="csr")


def voices(takers: NDArray[np.int64], alternatives: Table) -> Table:
    """How much the takers of each item (column) speak for each (row); rows sum to 1.

    An item of n takers speaks for itself by `n / (n + s)`; its best ALTERNATIVES share the rest as they are alike it.
    s is SHRINKAGE. An item without alternatives speaks for itself alone.
    """
    alike = as_sparse(strongest(alternatives, ALTERNATIVES), alternatives.shape)
    total = alike.sum(axis=1)
    borrowed = np.where(total > 0, SHRINKAGE / (takers + SHRINKAGE), 0.0)
    shared = sparse.diags_array(borrowed / np.where(total > 0, total, 1.0)) @ alike
    return sparse.csr_array(sparse.diags_array(1 - borrowed) + shared)


def similar(looks: Acts, takes: Acts, size: int) -> Table:
    """What is looked at in the same breath, and not taken along: `c / (sqrt(n_a n_b) + s)`, symmetric.

    c visits looked at both within LOOK_REACH items and did not take both, n looked at each: the cosine of item-kNN
    (Sarwar et al., WWW 2001) over visits. s is SHRINKAGE.
    """
    is_taken = taken_in_visit(looks, takes, size)
    source, other, count = cells(beside(looks, lambda first, second: ~(is_taken[first] & is_taken[second]), size))
    visits = np.bincount(looks.item, minlength=size)
    return counted(source, other, count / (np.sqrt(visits[source] * visits[other]) + SHRINKAGE), (size, size))


def substitutes(looks: Acts, takes: Acts, size: int) -> Table:
    """Which pairs are looked at together, and both taken in less than half as many visits as chance would: (v, v) bool.

    Chance is the product of the shares of visits that take each item, times what makes it right over all pairs: whoever
    takes something takes only so much. One visit is added to either side, so that a few decide nothing.
    """
    is_taken = taken_in_visit(looks, takes, size)
    share = np.bincount(looks.item, is_taken, minlength=size) / np.maximum(1, np.bincount(looks.item, minlength=size))
    rate = share[looks.item]
    together = beside(looks, lambda first, second: is_taken[first] & is_taken[second], size)
    chance = beside(looks, lambda first, second: rate[first] * rate[second], size)
    scale = together.sum() / max(1.0, chance.sum())
    source, other, expected = cells(chance)
    chosen = 2 * (at(together, source, other) + 1) < scale * expected + 1
    return counted(source, other, chosen, (size, size)).astype(bool)


def taken_in_visit(looks: Acts, takes: Acts, size: int) -> NDArray[np.bool_]:
    """Whether each item looked at in a visit was taken in it, shape (m,)."""
    return np.isin(looks.visit * size + looks.item, takes.visit * size + takes.item)


def followers(once: Acts, size: int) -> Table:
    """How many customers took each item after each; two taken at one time follow each other by half."""
    total = sparse.csr_array((size, size))
    for first, second in pairs(once.customer, TAKE_REACH):
        apart_ms = once.time_ms[second] - once.time_ms[first]
        forward = np.where(apart_ms == 0, 0.5, apart_ms <= TAKE_HORIZON_MS)
        backward = np.where(apart_ms == 0, 0.5, 0.0)
        total = total + counted(once.item[first], once.item[second], forward, (size, size))
        total = total + counted(once.item[second], once.item[first], backward, (size, size))
    return total


def beside(looks: Acts, weight: Callable[[Positions, Positions], NDArray], size: int) -> Table:
    """What pairs of items looked at within LOOK_REACH items of one visit count in sum, symmetric.

    Args:
        looks: each item once per visit.
        weight: from the positions of p first and p second looks to what each pair counts.
    """
    total = sparse.csr_array((size, size))
    for first, second in pairs(looks.visit, LOOK_REACH):
        total = total + counted(looks.item[first], looks.item[second], weight(first, second), (size, size))
    return sparse.csr_array(total + total.T)


def pairs(group: NDArray[np.int64], reach: int) -> Iterator[tuple[Positions, Positions]]:
    """The positions of all pairs at most `reach` apart and of one group; groups, shape (m,), lie together."""
    for distance in range(1, reach + 1):
        first = np.flatnonzero(group[distance:] == group[:-distance])
        yield first, first + distance


def at(table: Table, row: NDArray[np.int64], column: NDArray[np.int64]) -> NDArray:
    """The values of the sparse `table` in these cells, shape (n,)."""
    found = table[row, column]
    # Of no cell scipy makes an empty table.
    return found.toarray() if sparse.issparse(found) else np.asarray(found)


def counted(source: NDArray[np.int64], other: NDArray[np.int64], weight: NDArray, shape: tuple[int, int]) -> Table:
    """The sums of `weight` (p,) by pair, those above or below 0."""
    counts = sparse.csr_array((weight.astype(np.float64), (source, other)), shape=shape)
    counts.eliminate_zeros()
    return counts


def as_sparse(table: ItemTable, shape: tuple[int, int]) -> Table:
    """The rows of `table` as scipy has them."""
    return sparse.csr_array((table.weight.astype(np.float64), table.index, table.offsets), shape=shape)


def cells(counts: Table) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """The pairs that were counted and what they counted, each (p,)."""
    table = sparse.coo_array(counts)
    source, other = table.coords
    return source.astype(np.int64), other.astype(np.int64), table.data
