"""The `segue` command: events into the lake, features into the stores, plans for the services."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from segue.adapters import embedded
from segue.errors import SegueError

if TYPE_CHECKING:
    from segue.adapters.upkeep import Upkeep

HOME = Path(".segue")

SHOP = {"customers": 6000, "items": 2000, "days": 90, "seed": 7}
"""The simulated shop unless asked for another: small enough to train on in a minute."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. Bad input is told in one line, without a traceback."""
    parser = argparse.ArgumentParser(prog="segue", description=__doc__)
    parser.add_argument(
        "--home", type=Path, default=HOME, help="where lake, registry, plans and models live, beside feature_repo"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _events_command(commands)
    _features_command(commands)
    _plan_command(commands)
    _store_command(commands)
    _table_command(commands)
    _lake_commands(commands)
    _dead_letters_command(commands)
    _maintain_command(commands)
    _item_command(commands)
    options = parser.parse_args(arguments)
    try:
        return options.run(options) or 0
    except SegueError as error:
        print(f"segue: {error}", file=sys.stderr)
        return 2


def _events_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("events", help="write an event log and its catalogue to the event lake")
    command.add_argument("--data", type=Path, help="read a data set or a Parquet/CSV log instead of simulating a shop")
    for name, default in SHOP.items():
        command.add_argument(f"--{name}", type=int, default=default, help=f"{name} of the simulated shop")
    command.set_defaults(run=_events)


def _features_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("features", help="compute snapshots, apply the Feast repo, fill the online store")
    command.add_argument("--every-days", type=int, default=7, help="days between two snapshots")
    command.set_defaults(run=_features)


def _plan_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("plan", help="compile every feature service of the registry into a serving plan")
    command.set_defaults(run=_plan)


def _store_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("store", help="run the embedded online store until interrupted")
    command.add_argument("--port", type=int, default=embedded.PORT, help="port on loopback")
    command.set_defaults(run=_store)


def _table_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("table", help="print the table of features as Markdown")
    command.set_defaults(run=_table)


def _lake_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("replay", help="merge the event lake into the online store's histories")
    command.add_argument("--since", type=_time, metavar="TIME", help="only customers with an event that came since")
    command.add_argument("--fresh", action="store_true", help="remove every history first")
    _store_options(command, _replay)
    command = commands.add_parser("verify", help="compare online histories with the event lake; 1 if any differs")
    command.add_argument("--sample", type=int, default=1000, help="how many customers")
    command.add_argument("--seed", type=int, default=0, help="chooses them")
    command.add_argument("--settle-seconds", type=float, default=10.0, help="look at those that differ once more after")
    _store_options(command, _verify)
    command = commands.add_parser("compact", help="remove copies from the event lake, put its files in order")
    command.add_argument("--no-sort", action="store_true", help="only put small files together")
    command.add_argument("--retention-hours", type=int, default=24, help="how long replaced files stay for readers")
    command.set_defaults(run=_compact)
    command = commands.add_parser("erase", help="forget a customer, and all who flow into them, everywhere and now")
    command.add_argument("customer", help="the pseudonym")
    _store_options(command, _erase)


def _dead_letters_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("dead-letters", help="what could not be processed: list it, or try again")
    command.add_argument("action", choices=("list", "replay"), nargs="?", default="list")
    command.add_argument("--limit", type=int, default=100, help="how many to list")
    command.add_argument("--reason", help="list only those with this reason")
    command.add_argument("--id", action="append", dest="ids", help="replay only this one; may be repeated")
    _store_options(command, _dead_letters)


def _maintain_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("maintain", help="erasures, refills, item statistics, compaction")
    command.add_argument("--every-seconds", type=float, help="go on, looking that often what is due; else each once")
    _store_options(command, _maintain)


def _item_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("item", help="items that came after training: recommendable at once by their content")
    command.add_argument("action", choices=("add", "remove", "list"))
    command.add_argument("--id", default="", help="your id of the item, as events name it")
    command.add_argument("--category", default="", help="its category, or a path: women/shoes/boots")
    command.add_argument("--title", default="", help="what it is called")
    command.add_argument("--price-minor", type=int, default=0, help="its price in minor units; 0: unknown")
    command.add_argument("--limit", type=int, default=100, help="how many of the newest to list")
    _store_options(command, _item)


def _store_options(command: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int | None]) -> None:
    here = f"127.0.0.1:{embedded.PORT}"
    command.add_argument("--redis", default=os.environ.get("SEGUE_REDIS", here), help="host:port of the store")
    command.add_argument("--kafka", metavar="HOST:PORT", help="the event log is there, and not in the store")
    command.add_argument("--kafka-topic", default="segue-events", help="its topic (default: %(default)s)")
    command.add_argument("--kafka-options", metavar="FILE", default="", help="lines name=value for librdkafka")
    command.set_defaults(run=run)


def _time(text: str) -> int:
    """A moment in ms: ISO 8601, UTC unless it says otherwise, or as long ago as `90m`, `36h` or `7d`."""
    units = {"m": 60_000, "h": 3_600_000, "d": 86_400_000}
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    if text[:-1].isdecimal() and text[-1] in units:
        return now_ms - int(text[:-1]) * units[text[-1]]
    moment = datetime.fromisoformat(text)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _upkeep(options: argparse.Namespace) -> "Upkeep":
    from segue.adapters.upkeep import Kafka, Upkeep

    kafka = Kafka(options.kafka, options.kafka_topic, options.kafka_options) if options.kafka else None
    return Upkeep.of(options.home.resolve(), options.redis, kafka=kafka)


# Each command imports what it needs when it runs: Feast alone takes seconds, which --help should not.


def _events(options: argparse.Namespace) -> None:
    from segue.adapters import ingest
    from segue.adapters.lake import Lake

    lake = Lake(options.home / "lake")
    if options.data is not None:
        ingest.load_data_set(lake, options.data)
    else:
        ingest.simulate_shop(lake, options.home / "truth", **{name: getattr(options, name) for name in SHOP})


def _features(options: argparse.Namespace) -> None:
    from segue.adapters.feast import pipeline

    home = options.home.resolve()
    pipeline.refresh(home, home.parent / "feature_repo", every_days=options.every_days, until=datetime.now(UTC))


def _plan(options: argparse.Namespace) -> None:
    from feast import FeatureStore

    from segue.adapters.feast import pipeline

    home = options.home.resolve()
    for path in pipeline.publish_plans(home, FeatureStore(str(home.parent / "feature_repo"))):
        print(path)


def _store(options: argparse.Namespace) -> None:
    directory = options.home / "valkey"
    directory.mkdir(parents=True, exist_ok=True)
    command = embedded.command(directory, options.port)
    os.execv(command[0], command)  # noqa: S606 - our own arguments, no shell


def _table(_options: argparse.Namespace) -> None:
    from segue.features.document import markdown

    print(markdown(), end="")


def _replay(options: argparse.Namespace) -> None:
    from rich.progress import Progress

    from segue.adapters import replay

    upkeep = _upkeep(options)
    with Progress() as progress:
        bar = progress.add_task("events into the online store", total=1.0)
        merged_count = replay.replay(
            upkeep.lake,
            upkeep.histories,
            since_ms=options.since,
            fresh=options.fresh,
            progress=lambda share: progress.update(bar, completed=share),
        )
    print(f"{merged_count} events merged")


def _verify(options: argparse.Namespace) -> int:
    from segue.adapters import replay

    upkeep = _upkeep(options)
    found = replay.verify(
        upkeep.lake,
        upkeep.histories,
        sample=options.sample,
        seed=options.seed,
        settle_seconds=options.settle_seconds,
    )
    for each in found:
        what = "in flight" if each.in_flight else "differs"
        print(f"{each.customer}: {what}, {each.online_only_count} only online, {each.lake_only_count} only in the lake")
    wrong = sum(not each.in_flight for each in found)
    print(f"{wrong} of at most {options.sample} histories differ, {len(found) - wrong} are in flight")
    return 1 if wrong else 0


def _compact(options: argparse.Namespace) -> None:
    from segue.adapters.lake import Lake
    from segue.adapters.lake_jobs import compact

    lake = Lake(options.home / "lake")
    print(compact(lake, z_order=not options.no_sort, retention_hours=options.retention_hours))


def _erase(options: argparse.Namespace) -> None:
    import uuid

    upkeep = _upkeep(options)
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    print(upkeep.erasures.order(uuid.uuid4().hex, options.customer, now_ms))


def _dead_letters(options: argparse.Namespace) -> None:
    upkeep = _upkeep(options)
    if options.action == "replay":
        print(f"{upkeep.letters.replay(upkeep.log, options.ids)} put back into the event log")
        return
    for letter in upkeep.letters.list(options.limit, reason=options.reason):
        print(letter.id, letter.reason, f"{letter.partition}:{letter.offset}", letter.customer, letter.problem)


def _maintain(options: argparse.Namespace) -> int:
    import signal
    import threading

    from segue.adapters import maintenance

    upkeep = _upkeep(options)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    jobs = maintenance.jobs(upkeep.erasures, upkeep.refills, upkeep.item_statistics)
    failed = maintenance.run(
        jobs, every_seconds=options.every_seconds, stopping=stopping, tell=lambda line: print(line, flush=True)
    )
    return 1 if failed and options.every_seconds is None else 0


def _item(options: argparse.Namespace) -> None:
    from segue.adapters.new_items import NewItems, item_of

    items = NewItems(_upkeep(options).redis)
    if options.action == "add":
        added = items.put(item_of(options.id, options.category, options.price_minor, options.title))
        print(f"{added} added or changed")
    elif options.action == "remove":
        print(f"{items.remove([options.id])} removed")
    else:
        newest = items.newest(max(1, options.limit))
        rows = zip(newest.external_id, newest.category, newest.price_minor, newest.title, strict=True)
        for external_id, category, price_minor, title in rows:
            print(external_id, category or "-", price_minor, title)


if __name__ == "__main__":
    sys.exit(main())
