"""Callers: each asks about the next customer as soon as the last answer is there."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from benchmarks.timing import Contender, Turn


class Callers:
    """`count` callers who ask about `customers` in turn, over and over."""

    def __init__(self, runner: asyncio.Runner, customers: Sequence[str], count: int) -> None:
        self._runner = runner
        self._customers = customers
        self._count = count
        self._pool = ThreadPoolExecutor(count)

    def tasks(self, ask: Callable[[str], Awaitable[object]], calls: int) -> Contender:
        """Callers that are tasks of one event loop and make `calls` calls together."""

        async def caller(customers: Iterator[str], latencies: list[float]) -> None:
            for customer in customers:
                started = time.perf_counter()
                await ask(customer)
                latencies.append(time.perf_counter() - started)

        async def turn() -> Turn:
            shared, latencies = self._next(calls), list[float]()
            await asyncio.gather(*(caller(shared, latencies) for _ in range(self._count)))
            return Turn(calls, latencies)

        return lambda: self._runner.run(turn())

    def threads(self, ask: Callable[[str], object], calls: int) -> Contender:
        """Callers that are threads and make `calls` calls together."""

        def caller(customer: str) -> float:
            started = time.perf_counter()
            ask(customer)
            return time.perf_counter() - started

        return lambda: Turn(calls, list(self._pool.map(caller, self._next(calls))))

    def _next(self, calls: int) -> Iterator[str]:
        return itertools.islice(itertools.cycle(self._customers), calls)
