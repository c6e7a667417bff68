"""How fast the simulated shop makes events, on one core."""

import argparse
import resource
import time

from segue.simulator import Shop, ShopConfig


def main() -> None:
    """Stream one shop and print its rate."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulator", description=__doc__)
    parser.add_argument("--customers", type=int, default=20_000, help="default: %(default)s")
    parser.add_argument("--items", type=int, default=2_000, help="default: %(default)s")
    parser.add_argument("--days", type=int, default=60, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    arguments = parser.parse_args()
    shop = Shop(ShopConfig(**vars(arguments)))
    wall, cpu = time.perf_counter(), time.process_time()
    events = sum(map(len, shop.stream()))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{arguments.customers:,} customers, {arguments.items:,} items, {arguments.days} days: {events:,} events")
    print(f"{events / wall:,.0f} events/s ({wall:.2f} s, {cpu:.2f} s of CPU), peak memory {peak_mib:,.0f} MiB")


if __name__ == "__main__":
    main()
