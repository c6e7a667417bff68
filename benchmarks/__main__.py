"""All benchmarks at their default sizes, as one table. Each runs in a fresh process; `python -m benchmarks.<name>` has
its options, and its docstring says what is compared with what.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from benchmarks.command import NAMES, by_default
from benchmarks.table import show


def main() -> None:
    """Run what was asked for, then print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, help="instead of all")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    options = parser.parse_args()
    # One worker at a time, forked for one benchmark from a process that has done the slow import of all.
    context = get_context("forkserver")
    context.set_forkserver_preload(["feast"])
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
        comparisons = [comparison for measured in pool.map(by_default, options.only) for comparison in measured]
    show(comparisons, markdown=options.markdown)


if __name__ == "__main__":
    main()
