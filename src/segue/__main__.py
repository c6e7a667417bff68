"""The `segue` command: events into the lake, features into the stores, plans for the services."""

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from segue.errors import SegueError

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
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except SegueError as error:
        print(f"segue: {error}", file=sys.stderr)
        return 2
    return 0


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
    command.add_argument("--port", type=int, default=6399, help="port on loopback")
    command.set_defaults(run=_store)


def _table_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("table", help="print the table of features as Markdown")
    command.set_defaults(run=_table)


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
    from segue.adapters import embedded

    directory = options.home / "valkey"
    directory.mkdir(parents=True, exist_ok=True)
    command = embedded.command(directory, options.port)
    os.execv(command[0], command)  # noqa: S606 - our own arguments, no shell


def _table(_options: argparse.Namespace) -> None:
    from segue.features.document import markdown

    print(markdown(), end="")


if __name__ == "__main__":
    sys.exit(main())
