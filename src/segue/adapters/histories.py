"""The history store: one Redis sorted set of packed records per customer, merged by the server itself.

A script on the server joins what comes with what is there (`histories.lua`): the barrier is checked, `ZADD NX` is the
union, `ZREMRANGEBYRANK` the cut to the newest N. All of it is idempotent and commutes, so a micro-batch needs no read
before it writes and may be delivered any number of times, in any order.

Links make a history hold what others did, too. A writer adds to a customer and then, in the same call of the script,
reads whom it flows into; whoever links stores the link and then copies the history; whoever raises a barrier raises it
and then takes back what had passed. So of two at work at once one always sees the other, without a lock.

An own event that met a barrier is gone. If consent is given again, and that is delivered after later events, those must
be merged again from the event lake; likewise what a taken back record had pushed out of a full history it had flowed
into (`raise_barrier`).
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from segue.adapters.history_script import HistoryScript, errors
from segue.customers import BARRED_MS, Barrier
from segue.errors import InvalidHistories, InvalidInput, Violation
from segue.events import Events
from segue.history import HISTORY_LIMIT, RECORD, RECORD_COLUMNS, Histories, histories_of

KEYS_PER_TRIP = 1_000
"""Plain reads sent in one round trip."""

MAX_REACHED = 1_000
"""How many customers one customer may flow into, through any number of links."""

UNBARRED = -(2**63)


class HistoryStore:
    """Histories under `key_prefix` + customer in the Redis behind `redis`, a blocking client that returns bytes.

    Every call raises StoreUnavailable where the server does not answer or takes no writes, and StoreCorrupted where it
    holds something else under a key.
    """

    def __init__(
        self, redis: Any, key_prefix: str, *, limit: int = HISTORY_LIMIT, customers_per_call: int = 100
    ) -> None:
        """A store of histories of at most `limit` records; a cluster takes one customer per call of the script."""
        self._redis = redis
        self._prefix = key_prefix
        self._limit = limit
        self._script = HistoryScript(redis, limit=limit, keys_per_call=customers_per_call)

    def add(self, events: Events) -> dict[str, int]:
        """Merge `events` into the histories of their customers and of all those they flow into.

        Returns:
            The barrier in force of each customer of `events` that has one: no event at or before it was merged.

        Raises:
            InvalidInput: some customers flow into more than MAX_REACHED others; all else is merged.
        """
        histories = histories_of(events, self._limit)
        present = np.flatnonzero(histories.lengths)
        if len(present) < len(histories):
            histories = histories.take(present)
        return self.merge(events.customers[present].tolist(), histories)

    def merge(self, customers: Sequence[str], histories: Histories) -> dict[str, int]:
        """As `add`: union history i into that of `customers[i]`, and into those it flows into.

        Raises:
            InvalidHistories: there are not as many customers as histories.
            InvalidInput: as `add`.
        """
        if len(customers) != len(histories):
            raise InvalidHistories.because("customers", f"are {len(customers)} for {len(histories)} histories")
        records = _packed(histories)
        if not all(records):
            present = [position for position, each in enumerate(records) if each]
            customers, records = [customers[each] for each in present], [records[each] for each in present]
        return self._spread(customers, records)

    def read(self, customers: Sequence[str]) -> Histories:
        """The history of each of `customers`, empty where there is none."""
        return decode(self._each(customers, lambda pipe, name: pipe.zrange(self._prefix + name, 0, -1)))

    def link(self, source: str, target: str) -> list[Barrier]:
        """Let what `source` did and will do count for `target`, too.

        An erasure of `target` holds for all who flow into it, whenever they were linked.

        Returns:
            The barriers that this raised; none where `target` was never erased.

        Raises:
            InvalidInput: `source` would flow into more than MAX_REACHED customers; nothing was done.
        """
        if source == target:
            return []
        if len({*self.targets(source), *self.targets(target), source, target}) > MAX_REACHED + 1:
            raise _too_many(source)
        with errors():
            self._redis.sadd(self._beside(source, "links"), target)
            self._redis.sadd(self._beside(target, "sources"), source)
            erased_at = self._redis.hget(self._beside(target, "barrier"), "erased_at")
        erased = [] if erased_at is None else self.erase(source, int(erased_at))
        self._copy([source])
        return [Barrier(each, erased_at_ms=int(erased_at)) for each in erased]

    def raise_barrier(self, barrier: Barrier) -> int | None:
        """Remember `barrier`, remove what it forgets, also where it had flowed; returns the barrier in force.

        Those into whom the customer flows may then miss some of what counts: what had been pushed out of a history that
        was full, and one's own event that equals one taken back, as it does in a circle of links. They never hold too
        much; merging them again from the event lake fills them up (`replay.refill`).
        """
        registers = [barrier.erased_at_ms, barrier.denied_at_ms, barrier.granted_at_ms]
        (joined,) = self._script.join(
            [self._prefix + barrier.customer], [b""], ["" if at is None else at for at in registers]
        )
        if joined.targets and joined.removed:
            self._take_back(barrier.customer, joined.removed)
        # What others did may count again: consent was given, or a record taken back had come on another way, too.
        affected = [barrier.customer, *(self.targets(barrier.customer)[1:] if joined.removed else [])]
        self._copy({source for each in affected for source in self.sources(each)[1:]})
        return joined.barrier_ms

    def erase(self, customer: str, erased_at_ms: int) -> list[str]:
        """Forget what `customer`, and everyone who flows into it, did up to then; returns them, `customer` first."""
        erased: list[str] = []
        wave = [customer]
        while wave:
            for each in wave:
                self.raise_barrier(Barrier(each, erased_at_ms=erased_at_ms))
            erased += wave
            # Read after the barrier was raised: one who links later sees the barrier.
            wave = sorted(self._beside_all(wave, "sources") - set(erased))
        return erased

    def barriers(self, customers: Sequence[str]) -> dict[str, int]:
        """The barrier in force of each of `customers` that has one."""
        found = self._each(customers, lambda pipe, name: pipe.hgetall(self._beside(name, "barrier")))
        of = {}
        for customer, registers in zip(customers, found, strict=True):
            known = {f"{name.decode()}_ms": int(at) for name, at in registers.items()}
            if (at_ms := Barrier(customer, **known).effective_ms) is not None:
                of[customer] = at_ms
        return of

    def sources(self, customer: str) -> list[str]:
        """`customer`, and all who flow into it through any number of links."""
        return self._closure(customer, "sources")

    def targets(self, customer: str) -> list[str]:
        """`customer`, and all it flows into through any number of links."""
        return self._closure(customer, "links")

    def delete(self, customers: Iterable[str]) -> None:
        """Remove the histories of `customers`, but neither their barriers nor their links."""
        self._each(list(customers), lambda pipe, name: pipe.delete(self._prefix + name))

    def delete_all(self) -> None:
        """Remove every history under the prefix. Barriers and links stay: an erasure outlives what it erased."""
        with errors():
            for key in self._redis.scan_iter(match=_literal(self._prefix) + "*", count=1000):
                self._redis.delete(key)

    def _spread(self, customers: Sequence[str], records: Sequence[bytes]) -> dict[str, int]:
        """Add `records[i]`, in record order, to `customers[i]` and to whom it flows into; as `add`."""
        barriers: dict[str, int] = {}
        reached: dict[int, dict[str, int]] = {}
        passed: dict[tuple[int, str], int] = {}
        refused: set[int] = set()
        origins, wave, after = list(range(len(customers))), list(customers), [UNBARRED] * len(customers)
        parts = list(records)
        while wave:
            further: list[tuple[int, str, int]] = []
            for position, barrier_ms, targets, _ in self._script.join([self._prefix + each for each in wave], parts):
                origin, customer = origins[position], wave[position]
                if barrier_ms is not None and customer == customers[origin]:
                    barriers[customer] = barrier_ms
                behind = max(after[position], UNBARRED if barrier_ms is None else barrier_ms)
                # A customer is reached anew when a way to it is found that stops less.
                lowest = reached.setdefault(origin, {customers[origin]: UNBARRED})
                for target in targets:
                    if behind < lowest.get(target, BARRED_MS):
                        lowest[target] = behind
                        further.append((origin, target, behind))
                        passed[origin, customer] = behind
                if len(lowest) > MAX_REACHED + 1:
                    refused.add(origin)
            further = [each for each in further if each[0] not in refused]
            origins, wave, after = ([each[column] for each in further] for column in range(3))  # type: ignore[assignment]
            parts = [_later_than(at, records[origin]) for origin, at in zip(origins, after, strict=True)]
        self._check(passed, records)
        if refused:
            raise InvalidInput(*(v for origin in sorted(refused) for v in _too_many(customers[origin]).violations))
        return barriers

    def _check(self, passed: dict[tuple[int, str], int], records: Sequence[bytes]) -> None:
        """Take back what flowed through customers whose barrier has risen meanwhile."""
        if not passed:
            return
        now = self.barriers(sorted({customer for _, customer in passed}))
        for (origin, customer), behind in passed.items():
            if (barrier_ms := now.get(customer, UNBARRED)) > behind:
                late = len(_later_than(barrier_ms, records[origin]))
                if stopped := members(records[origin][: len(records[origin]) - late]):
                    self._take_back(customer, stopped)

    def _copy(self, sources: Iterable[str]) -> None:
        """Add the histories of `sources` to those they flow into."""
        if names := sorted(sources):
            histories = self.read(names)
            self.merge(names, histories)

    def _take_back(self, customer: str, records: Sequence[bytes]) -> None:
        """Remove `records` from those into whom `customer` flows."""
        others = self.targets(customer)[1:]
        self._each(others, lambda pipe, name: pipe.zrem(self._prefix + name, *records))

    def _closure(self, customer: str, which: str) -> list[str]:
        known = {customer: None}
        wave = [customer]
        while wave:
            wave = sorted(self._beside_all(wave, which) - known.keys())
            known |= dict.fromkeys(wave)
        return list(known)

    def _beside_all(self, customers: Sequence[str], which: str) -> set[str]:
        """All members of the sets `which` beside the histories of `customers`."""
        found = self._each(customers, lambda pipe, name: pipe.smembers(self._beside(name, which)))
        return {member.decode() for members in found for member in members}

    def _beside(self, customer: str, which: str) -> str:
        """The key of what is kept beside a history, in the slot of the history."""
        return f"{{{self._prefix}{customer}}}:{which}"

    def _each(self, customers: Sequence[str], ask: Callable[[Any, str], object]) -> list[Any]:
        """The reply for each of `customers` to what `ask` puts into a pipeline."""
        replies: list[Any] = []
        for first in range(0, len(customers), KEYS_PER_TRIP):
            pipe = self._redis.pipeline(transaction=False)
            for customer in customers[first : first + KEYS_PER_TRIP]:
                ask(pipe, customer)
            with errors():
                replies += pipe.execute()
        return replies


def decode(replies: Sequence[Sequence[bytes]]) -> Histories:
    """Histories from the replies to one ZRANGE each."""
    return Histories.from_records([b"".join(reply) for reply in replies])


def _packed(histories: Histories) -> list[bytes]:
    """Each history as records end to end."""
    table = np.empty(int(histories.offsets[-1]), RECORD)
    for name in RECORD_COLUMNS:
        table[name] = getattr(histories, name)
    packed = table.tobytes()
    ends = (histories.offsets * RECORD.itemsize).tolist()
    return [packed[start:stop] for start, stop in itertools.pairwise(ends)]


def members(packed: bytes) -> list[bytes]:
    """The sorted set members of records packed end to end."""
    return [packed[start : start + RECORD.itemsize] for start in range(0, len(packed), RECORD.itemsize)]


def _later_than(time_ms: int, packed: bytes) -> bytes:
    """The records, packed in record order, with an event time after `time_ms`."""
    if time_ms == UNBARRED:
        return packed
    times = np.frombuffer(packed, RECORD)["event_time_ms"]
    return packed[int(np.searchsorted(times, time_ms, side="right")) * RECORD.itemsize :]


def _too_many(customer: str) -> InvalidInput:
    violation = Violation("customer", f"{customer} would flow into more than {MAX_REACHED} customers")
    return InvalidInput(violation)


def _literal(prefix: str) -> str:
    """`prefix` with the characters that SCAN's patterns give a meaning escaped."""
    return "".join(f"\\{character}" if character in r"*?[]\^-" else character for character in prefix)
