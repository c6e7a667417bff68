"""Timing side by side: contenders take turns, so that whatever else the machine does slows all of them alike."""

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Turn:
    """What a contender did in one turn: so many operations, and how long each took where that is known."""

    operation_count: int
    latency_seconds: Sequence[float] = ()


@dataclass(frozen=True)
class Timing:
    """What a contender did in the median turn; percentiles are over the operations of all turns."""

    per_second: float
    """Operations per second of wall time."""
    cpu_seconds: float
    """Processor time per operation."""
    p50_seconds: float
    """Wall time of an operation, the median; NaN where operations were not timed one by one."""
    p99_seconds: float


Contender = Callable[[], Turn]


def take_turns(
    contenders: Mapping[str, Contender],
    *,
    turns: int,
    cpu_clock: Callable[[], float] = time.process_time,
    cpu_clocks: Mapping[str, Callable[[], float]] | None = None,
) -> dict[str, Timing]:
    """Let each contender do its work once, unmeasured, then `turns` times, in turn.

    Args:
        contenders: by name.
        turns: at least 1.
        cpu_clock: processor seconds used so far by whatever does the work; by default this process, all its threads.
        cpu_clocks: the clocks of contenders, by name, whose work is done elsewhere.
    """
    clocks = {name: (cpu_clocks or {}).get(name, cpu_clock) for name in contenders}
    for contender in contenders.values():
        contender()
    # What was imported and built before is not the contenders' garbage to look through.
    gc.collect()
    gc.freeze()
    taken: dict[str, list[tuple[Turn, float, float]]] = {name: [] for name in contenders}
    for _ in range(turns):
        for name, contender in contenders.items():
            wall, cpu = time.perf_counter(), clocks[name]()
            turn = contender()
            taken[name].append((turn, time.perf_counter() - wall, clocks[name]() - cpu))
    return {name: _timing(each) for name, each in taken.items()}


def _timing(taken: Sequence[tuple[Turn, float, float]]) -> Timing:
    latencies = [latency for turn, _, _ in taken for latency in turn.latency_seconds] or [np.nan]
    p50, p99 = np.percentile(latencies, [50, 99])
    return Timing(
        per_second=float(np.median([turn.operation_count / wall for turn, wall, _ in taken])),
        cpu_seconds=float(np.median([cpu / turn.operation_count for turn, _, cpu in taken])),
        p50_seconds=float(p50),
        p99_seconds=float(p99),
    )
