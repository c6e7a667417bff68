"""What updates online: counts as of the very turn that is asked for, so that an item counts once it is turned to.

Fitted models know the items of their training. On a news site half of what is read was written since. Both counts here
are what a service could keep in its store: popularity that fades, and the newest items that went with each item.

Letters in shapes: n cases, m turns, p pairs, v items of the whole log (index 0 is padding), w items of a prefix.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from segue.events import NO_ITEM, Events
from segue.features.sequence import SEQUENCE_KINDS
from segue.inference.windows import Vocabulary

REACH = 5
"""How many turns apart two items still go together."""

NEWEST = 1000
"""How many of the newest pairs under an item are read."""

HOUR_MS = 3_600_000

LARGEST_LOGARITHM = 500.0
"""Of the weights of a fading count, before they are scaled down: float64 ends above 700."""


@dataclass(frozen=True, eq=False)
class Stream:
    """The turns of everybody from one time on, in the order in which they became known."""

    vocabulary: Vocabulary
    index: NDArray[np.int64]  # (m,) vocabulary indices
    known_ms: NDArray[np.int64]  # (m,) ascending: a question at this time or later sees the turn
    first_ms: NDArray[np.int64]  # (v,) when an event of each item first became known, in the whole log
    pairs: "Pairs"

    @classmethod
    def of(cls, events: Events, since_ms: int) -> Self:
        """The turns of `events` that became known from `since_ms` on; each event was delivered once."""
        rows = np.flatnonzero((events.item != NO_ITEM) & np.isin(events.kind, SEQUENCE_KINDS))
        vocabulary = Vocabulary.of(events.item[rows])
        index = vocabulary.index(events.item[rows])
        # It has happened strictly before the question, and has arrived: as `Timelines.as_of` has it.
        known_ms = np.maximum(events.event_time_ms[rows] + 1, events.available_time_ms[rows])
        first_ms = np.full(len(vocabulary), np.iinfo(np.int64).max)
        np.minimum.at(first_ms, index, known_ms)
        recent = known_ms >= since_ms
        rows, index, known_ms = rows[recent], index[recent], known_ms[recent]
        order = np.lexsort((events.event_id[rows], events.event_time_ms[rows], events.customer[rows]))
        customer, index, known_ms = events.customer[rows][order], index[order], known_ms[order]
        begins = np.ones(len(order), bool)
        begins[1:] = (customer[1:] != customer[:-1]) | (index[1:] != index[:-1])
        customer, index, known_ms = customer[begins], index[begins], known_ms[begins]
        pairs = Pairs.of(customer, index, known_ms, len(vocabulary))
        order = np.argsort(known_ms, kind="stable")
        return cls(vocabulary, index[order], known_ms[order], first_ms, pairs)

    def fading(self, now_ms: NDArray[np.int64], half_life_hours: float) -> Iterator[NDArray[np.float64]]:
        """Popularity as of each of `now_ms` (n,), ascending: a turn counts half after every `half_life_hours`.

        Yields:
            Shape (v,), a new array that sums to 1, or is 0 while nothing is known.
        """
        count = np.zeros(len(self.vocabulary))
        rate = np.log(2) / (half_life_hours * HOUR_MS)
        zero_ms, done = int(now_ms[0]) if len(now_ms) else 0, 0
        for now in now_ms.tolist():
            if (now - zero_ms) * rate > LARGEST_LOGARITHM:
                count *= np.exp((zero_ms - now) * rate)
                zero_ms = now
            until = int(np.searchsorted(self.known_ms, now, side="right"))
            new = slice(done, until)
            np.add.at(count, self.index[new], np.exp((self.known_ms[new] - zero_ms) * rate))
            done = until
            yield count / max(count.sum(), np.finfo(float).tiny)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Turns of one customer at most REACH apart, under either item, in the order in which they became known."""

    offsets: NDArray[np.int64]  # (v + 1,)
    other: NDArray[np.int32]  # (p,) vocabulary indices
    distance: NDArray[np.int8]  # (p,) turns from the item to the other: below 0 where the other went before
    known_ms: NDArray[np.int64]  # (p,) ascending under each item

    @classmethod
    def of(
        cls, customer: NDArray[np.integer], index: NDArray[np.int64], known_ms: NDArray[np.int64], size: int
    ) -> Self:
        """Every pair of the turns `index` (m,), which go by customer and time, in a vocabulary of `size`."""
        nothing = (np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.int8), np.empty(0, np.int64))
        parts = [nothing]
        for distance in range(1, REACH + 1):
            at = np.flatnonzero(customer[distance:] == customer[:-distance])
            before, after = index[at].astype(np.int32), index[at + distance].astype(np.int32)
            known = np.maximum(known_ms[at], known_ms[at + distance])
            far = np.full(len(at), distance, np.int8)
            parts += [(before, after, far, known), (after, before, -far, known)]
        item, other, far, known = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        order = np.lexsort((known, item))
        offsets = np.searchsorted(item[order], np.arange(size + 1))
        return cls(offsets, other[order], far[order], known[order])

    def newest(self, item: int, now_ms: int) -> slice:
        """Where the pairs under `item` that are known at `now_ms` lie, the newest NEWEST."""
        start, stop = int(self.offsets[item]), int(self.offsets[item + 1])
        until = start + int(np.searchsorted(self.known_ms[start:stop], now_ms, side="right"))
        return slice(max(start, until - NEWEST), until)


@dataclass(frozen=True)
class Votes:
    """Markov as of now: what went with the items of a prefix, lately, votes for what comes next."""

    half_life_hours: float = 1.0
    """A pair counts half after this long."""
    age_decay: float = 0.55
    """What an item of the prefix counts of the next newer one."""
    step_decay: float = 0.6
    """What a pair counts per turn further apart."""
    backward: float = 0.0
    """What it counts where the other went before."""
    shrinkage: float = 5.0
    """Pairs added to every item's total, so that one seen once does not decide."""
    items: int = 10
    """How many newest items of a prefix vote."""

    def scores(self, pairs: Pairs, prefix: NDArray[np.int64], now_ms: int) -> NDArray[np.float64]:
        """What the known items `prefix` (w,), oldest first, say at `now_ms`, shape (v,)."""
        total = np.zeros(len(pairs.offsets) - 1)
        by_distance = self.step_decay ** np.abs(np.abs(np.arange(-REACH, REACH + 1)) - 1)
        by_distance[:REACH] *= self.backward
        for age, item in enumerate(prefix[::-1][: self.items].tolist()):
            found = pairs.newest(item, now_ms)
            weight = by_distance[pairs.distance[found].astype(np.intp) + REACH]
            weight *= 0.5 ** ((now_ms - pairs.known_ms[found]) / (self.half_life_hours * HOUR_MS))
            share = self.age_decay**age / (weight.sum() + self.shrinkage)
            np.add.at(total, pairs.other[found], weight * share)
        return total
