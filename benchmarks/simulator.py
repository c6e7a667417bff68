"""How fast the simulated shop makes events, on one core."""

import argparse
import resource

from benchmarks.command import command
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
    timings = take_turns({"Segue": lambda: Turn(sum(map(len, Shop(config).stream())))}, turns=1)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    size = f"{config.customers:,} customers, {config.items:,} items, {config.days} days"
    return [Comparison("one simulated event", timings, f"{size}; peak memory {peak_mib:,.0f} MiB")]


if __name__ == "__main__":
    command(parser(), measure)
