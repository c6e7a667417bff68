"""The table of a benchmark: Segue first, then what it is compared with, and the ratios."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.timing import Timing

HEADINGS = ("by", "per second", "p50", "p99", "CPU each", "speed", "CPU")
CAPTION = "p50, p99: wall time of one; speed, CPU: Segue's as a multiple of this line's"
UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))


@dataclass(frozen=True)
class Comparison:
    """One thing done in several ways; the first of `timings`, by who did it, is Segue's."""

    what: str
    timings: Mapping[str, Timing]
    note: str = ""


def show(comparisons: Sequence[Comparison], *, markdown: bool) -> None:
    """Print all comparisons as one table, for the screen or for a document."""
    console = Console()
    if markdown:
        console.print("\n".join(_markdown(comparisons)), markup=False, highlight=False, soft_wrap=True)
        return
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False, caption=CAPTION, caption_justify="left")
    table.add_column(no_wrap=True)
    for heading in HEADINGS[1:]:
        table.add_column(heading, justify="right")
    for comparison in comparisons:
        table.add_row(f"[bold]{comparison.what}[/bold]")
        for by, *cells in _lines(comparison):
            table.add_row(by, *cells)
        table.add_section()
    console.print(table)
    for comparison in filter(lambda each: each.note, comparisons):
        console.print(f"{comparison.what}: {comparison.note}", highlight=False)


def _markdown(comparisons: Sequence[Comparison]) -> Iterator[str]:
    for comparison in comparisons:
        yield f"**{comparison.what}**\n"
        yield f"| {' | '.join(HEADINGS)} |"
        yield f"|---|{'---:|' * (len(HEADINGS) - 1)}"
        for cells in _lines(comparison):
            yield f"| {' | '.join(cells)} |"
        yield f"\n{comparison.note}\n"


def _lines(comparison: Comparison) -> Iterator[tuple[str, ...]]:
    ours = next(iter(comparison.timings.values()))
    for by, timing in comparison.timings.items():
        ratios = (
            ("", "")
            if timing is ours
            else (_times(ours.per_second / timing.per_second), _times(ours.cpu_seconds / timing.cpu_seconds))
        )
        seconds = (timing.p50_seconds, timing.p99_seconds, timing.cpu_seconds)
        yield by, f"{_significant(timing.per_second)}", *map(_duration, seconds), *ratios


def _duration(seconds: float) -> str:
    if math.isnan(seconds):
        return "-"
    size, unit = next((each for each in UNITS if seconds >= each[0]), UNITS[-1])
    return f"{_significant(seconds / size)} {unit}"


def _times(ratio: float) -> str:
    return f"{_significant(ratio)}x"


def _significant(number: float) -> str:
    """About three digits: 12,300; 123; 12.3; 1.23; 0.12."""
    decimals = max(0, 2 - math.floor(math.log10(number))) if number >= 1 else 2
    return f"{round(number, -2) if number >= 10_000 else number:,.{decimals}f}"
