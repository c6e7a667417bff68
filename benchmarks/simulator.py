"""How fast the simulated shop makes events, on one core."""

import argparse

from benchmarks.command import command
from benchmarks.memory import held_mib, peak_mib
from benchmarks.table import Comparison
from benchmarks.timing import Turn, take_turns
from segue.simulator import Shop, ShopConfig


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.simulator", description=__doc__)
    for name, default in {"customers": 20_000, "items": 2_000, "days": 30, "seed": 0}.items():
        options.add_argument(f"--{name}", type=int, default=default, help="default: %(default)s")
    return options


def measure(options: argparse.Namespace) -> list[Comparison]:
    """Stream one shop to its end."""
    config = ShopConfig(customers=options.customers, items=options.items, days=options.days, seed=options.seed)
    before_mib = held_mib()
    timings = take_turns({"Segue": lambda: Turn(sum(map(len, Shop(config).stream())))}, turns=1)
    size = f"{config.customers:,} customers, {config.items:,} items, {config.days} days"
    return [Comparison("one simulated event", timings, f"{size}; {peak_mib() - before_mib:,.0f} MiB of memory")]


if __name__ == "__main__":
    command(parser(), measure)
