"""How a benchmark is run: each module here with a `parser` of its sizes and a `measure` that takes them."""

import argparse
from collections.abc import Callable, Sequence
from importlib import import_module

from benchmarks.table import Comparison, show

NAMES = ("point_in_time", "online_read", "calls", "ranking", "collector", "updater", "simulator")


def command(parser: argparse.ArgumentParser, measure: Callable[[argparse.Namespace], Sequence[Comparison]]) -> None:
    """Run one benchmark with the sizes given on the command line, and print its table."""
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    options = parser.parse_args()
    show(measure(options), markdown=options.markdown)


def by_default(name: str) -> Sequence[Comparison]:
    """What one of NAMES measures at its default sizes."""
    module = import_module(f"benchmarks.{name}")
    measured: Sequence[Comparison] = module.measure(module.parser().parse_args([]))
    return measured
