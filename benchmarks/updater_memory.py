"""How much memory the updater holds while events go through: it must not grow with their number.

The updater of this process takes events from the embedded log, which a child process fills beside it, one event in ten
of one single customer. The table's one line is the whole run; its note says what was resident after a tenth of the
events and after all of them. The rate is that of the run as a whole, filling included. Not part of `make bench`.
"""

import argparse
import multiprocessing
import time

from redis import Redis
from rich.console import Console
from rich.progress import track

from benchmarks.command import command
from benchmarks.home import HOME, open_store, private_home
from benchmarks.log_filling import entries, fill
from benchmarks.memory import held_mib, peak_mib
from benchmarks.table import Comparison
from benchmarks.timing import Timing
from services.updater.__main__ import event_log
from services.updater.__main__ import updater as make_updater
from services.updater.settings import UpdaterSettings

PARTS = 50


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.updater_memory", description=__doc__)
    for name, default in {"events": 10_000_000, "customers": 200_000, "heavy": 1_000_000, "seed": 0}.items():
        options.add_argument(f"--{name}", type=int, default=default, help="default: %(default)s")
    return options


def measure(options: argparse.Namespace) -> list[Comparison]:
    """Fill and take, part by part."""
    with private_home() as processes:
        port = open_store(processes)
        url = f"redis://127.0.0.1:{port}/0"
        part = options.events // PARTS
        settings = UpdaterSettings(redis_url=url, lake=str(HOME / "lake"), metrics_port=0)
        updater = make_updater(settings, *event_log(settings))
        started, used = time.perf_counter(), time.process_time()
        held: list[float] = []
        with Redis.from_url(url) as redis:
            for number in track(range(PARTS), "events through the updater", console=Console(stderr=True)):
                filler = _filling(url, options, number, part)
                # A reader that does not read for ten seconds loses its partitions.
                while updater.step(100) or filler.is_alive():
                    pass
                assert not filler.exitcode, "the log was not filled"
                held.append(held_mib())
            updater.close()
            heavy = redis.zcard(f"segue:customer_history:{options.customers:032x}")
            store_mib = redis.info("memory")["used_memory"] / 2**20
        wall, cpu = time.perf_counter() - started, time.process_time() - used
    total = part * PARTS
    sizes = f"{total:,} events, {options.heavy:,} of one customer, whose history holds {heavy}"
    early, late = held[PARTS // 10 - 1], held[-1]
    resident = f"resident {early:,.0f} MiB after a tenth, {late:,.0f} MiB at the end, {peak_mib():,.0f} MiB at most"
    note = f"{sizes}; {resident}; the store {store_mib:,.0f} MiB"
    timing = Timing(total / wall, cpu / total, float("nan"), float("nan"))
    return [Comparison("one event of very many", {"Segue": timing}, note)]


def _filling(url: str, options: argparse.Namespace, number: int, part: int) -> multiprocessing.Process:
    arguments = (url, part, options.customers, options.seed + number, options.heavy // PARTS)
    process = multiprocessing.get_context("spawn").Process(target=_fill, args=arguments)
    process.start()
    return process


def _fill(url: str, part: int, customers: int, seed: int, heavy_count: int) -> None:
    fill(url, entries(part, customers=customers, seed=seed, heavy_count=heavy_count), capacity=2_000_000)


if __name__ == "__main__":
    command(parser(), measure)
