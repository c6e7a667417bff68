"""The jobs beside the stream, and the loop that runs each when it is due."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from segue.adapters import lake_jobs
from segue.adapters.erasure_job import ErasureJob
from segue.adapters.refills import Refills
from segue.adapters.replay import refill
from segue.errors import SegueError

SETTLE_MS = 10_000
"""How long erasures and refills wait for what the online store has to get to the lake."""

COMPACT_SECONDS = 3_600
SORT_SECONDS = 86_400
STATISTICS_SECONDS = 300


@dataclass
class Job:
    """Something to be done again and again."""

    name: str
    every_seconds: float
    run: Callable[[], str]
    """Does it; returns what was done in a line, empty for nothing."""
    due_seconds: float = field(default=0.0)
    """When, by the monotonic clock, it is due next."""


def jobs(erasures: ErasureJob, refills: Refills, item_statistics: Callable[[], int]) -> list[Job]:
    """Erasures and refills at once, item statistics every few minutes, the lake's files by the hour and by the day."""
    lake = erasures.lake

    def erase() -> str:
        done = erasures.run(erased_before_ms=time.time_ns() // 1_000_000 - SETTLE_MS)
        return f"{len(done)} completed" if done else ""

    def merge_again() -> str:
        noted = refills.pending(before_ms=time.time_ns() // 1_000_000 - SETTLE_MS)
        if not noted:
            return ""
        refill(lake, erasures.histories, noted)
        refills.done(noted)
        return f"{len(noted)} customers"

    def compact(z_order: bool) -> str:
        return "" if lake.version() < 0 else str(lake_jobs.compact(lake, z_order=z_order))

    return [
        Job("erasures", 0, erase),
        Job("refills", 0, merge_again),
        Job("item statistics", STATISTICS_SECONDS, lambda: "" if lake.version() < 0 else f"{item_statistics()} items"),
        Job("sorting", SORT_SECONDS, lambda: compact(z_order=True)),
        Job("compaction", COMPACT_SECONDS, lambda: compact(z_order=False)),
    ]


def run(
    jobs: Sequence[Job], *, every_seconds: float | None, stopping: threading.Event, tell: Callable[[str], None]
) -> int:
    """Run each job once or, with `every_seconds`, look that often which is due, until `stopping`.

    A job that fails is told of and does not keep the others.

    Returns:
        How many runs failed.
    """
    failed = 0
    while True:
        for job in jobs:
            now = time.monotonic()
            if stopping.is_set() or now < job.due_seconds:
                continue
            job.due_seconds = now + job.every_seconds
            try:
                line = job.run()
            except SegueError as error:
                failed += 1
                line = f"failed, {error.reason}: {error}"
            if line:
                tell(f"{job.name}: {line}")
        if every_seconds is None or stopping.wait(every_seconds):
            return failed
