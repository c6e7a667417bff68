"""The shop as the outside sees it: a catalogue and a stream of events."""

from collections.abc import Iterator

import numpy as np
from numpy.random import Generator

from segue.catalogue import Catalogue
from segue.errors import InvalidInput
from segue.events import COLUMNS, Events, event_ids, pseudonym
from segue.simulator.config import DAY_MS, DEMO_KEY, ShopConfig
from segue.simulator.dynamics import days
from segue.simulator.population import Customers, Items, Stream, generator
from segue.simulator.truth import Truth
from segue.simulator.visits import Facts, Visits

PROMPT_MS = 2_000
"""An event that is not late is available within this time."""
LATE_MS = (60_000, 3 * DAY_MS)
"""The least and the most a late event is late; in between the logarithm of the delay is uniform."""
REPEAT_MS = (1_000, 6 * 3_600_000)
"""The least and the most a second delivery comes after the first, spread the same way."""


class Shop:
    """A simulated shop: `stream()` is its event log, `truth()` what is really behind it.

    Customers are called `customer-0`, `customer-1`, ... before they become pseudonyms.

    Args:
        config: what shop.
        key: the pseudonym key, at least 16 bytes.
    """

    def __init__(self, config: ShopConfig, *, key: bytes = DEMO_KEY) -> None:
        self.config = config
        random = generator(config, Stream.POPULATION)
        self._latent = Customers.draw(config, random)
        self._items = Items.draw(config, random)
        self._names = np.empty(config.customers, np.object_)
        self._names[:] = [pseudonym(f"customer-{i}", key) for i in range(config.customers)]

    @property
    def catalogue(self) -> Catalogue:
        """Every item the shop sells at some time."""
        return self._items.catalogue

    def truth(self) -> Truth:
        """The latent facts, whatever has been read of the stream."""
        return Truth(self.config, self._names, self._latent, self._items)

    def stream(self, *, block_events: int = 65_536) -> Iterator[Events]:
        """The events in order of their available time, in blocks of `block_events`, the last one shorter.

        Every call starts the same stream again; the block size cuts it differently and changes nothing else. A second
        delivery repeats the event with a later available time. Memory holds the customers, one day of events and
        those still on their way.

        Raises:
            InvalidInput: `block_events` is not in 1..10,000,000.
        """
        if not 1 <= block_events <= 10_000_000:
            raise InvalidInput.because("block_events", f"is {block_events}, must be in 1..10,000,000")
        return blocks(self._arrivals(), block_events)

    def _arrivals(self) -> Iterator[Events]:
        """The stream, cut at midnights."""
        visits = Visits(self.config, self._latent, self._items)
        on_its_way: list[Events] = []
        serial = 0
        for day in days(self.config, self._latent):
            facts = visits.play(day, generator(self.config, Stream.VISITS, day.index))
            delivered = self._deliver(facts, serial, generator(self.config, Stream.DELIVERY, day.index))
            serial += len(facts.customer)
            midnight_ms = self.config.start_ms + (day.index + 1) * DAY_MS
            known = join([*on_its_way, delivered])
            # Nothing of a later day is available before that day begins.
            arrived = known.available_time_ms < midnight_ms
            on_its_way = [known.take(~arrived)]
            yield in_order(known.take(arrived))
        yield from map(in_order, on_its_way)

    def _deliver(self, facts: Facts, serial: int, random: Generator) -> Events:
        """Name the facts, numbered from `serial`, and decide when each becomes available, some of them twice."""
        count = len(facts.customer)
        delay_ms = random.integers(0, PROMPT_MS + 1, count)
        late = np.flatnonzero(random.random(count) < self.config.late_ratio)
        delay_ms[late] = spread(LATE_MS, len(late), random)
        events = Events(
            self._names,
            customer=facts.customer.astype(np.int32),
            event_id=event_ids(f"shop-{self.config.seed}", serial + np.arange(count)),
            kind=facts.kind,
            item=self._items.item_or_none[facts.item],
            event_time_ms=facts.event_time_ms,
            available_time_ms=facts.event_time_ms + delay_ms,
            value_minor=facts.value_minor,
        )
        again = np.flatnonzero(random.random(count) < self.config.duplicate_ratio)
        repeats = events.take(again)
        repeats.available_time_ms[:] += spread(REPEAT_MS, len(again), random)
        return join([events, repeats])


def spread(limits: tuple[int, int], count: int, random: Generator) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Delays in ms between `limits`, uniform in their logarithm, shape (count,)."""
    low, high = np.log(limits)
    return np.exp(random.uniform(low, high, count)).astype(np.int64)


def in_order(events: Events) -> Events:
    """The events by available time, then id."""
    return events.take(np.lexsort((events.event_id, events.available_time_ms)))


def join(parts: list[Events]) -> Events:
    """All events of `parts`, which point into one array of customers."""
    return Events(
        parts[0].customers,
        **{column: np.concatenate([getattr(part, column) for part in parts]) for column in COLUMNS},
    )


def blocks(arrivals: Iterator[Events], size: int) -> Iterator[Events]:
    """Cut `arrivals` into blocks of `size` events, each with only its own customers."""
    held: list[Events] = []
    for events in arrivals:
        held.append(events)
        if (count := sum(map(len, held))) >= size:
            joined = join(held)
            for start in range(0, count - size + 1, size):
                yield compact(joined.take(slice(start, start + size)))
            held = [joined.take(slice(count - count % size, None))]
    if rest := join(held):
        yield compact(rest)


def compact(events: Events) -> Events:
    """The same events with only the customers that occur in them."""
    present = np.zeros(len(events.customers), bool)
    present[events.customer] = True
    place = np.cumsum(present) - 1
    columns = {column: getattr(events, column) for column in COLUMNS}
    columns["customer"] = place[events.customer].astype(np.int32)
    return Events(events.customers[present], **columns)
