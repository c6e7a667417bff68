"""Run the updater: from the event log into the online store and the event lake, until SIGTERM."""

import argparse
import gc
import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from segue.errors import LogUnavailable, SegueError
from segue.rpc.settings import describe, read
from services.updater.settings import UpdaterSettings

if TYPE_CHECKING:
    from redis import Redis

    from segue.adapters.event_log import LogKeeper, LogReader
    from services.updater.updater import Updater

READ_MS = 200
"""How long one read of the log waits: also how long a SIGTERM may wait."""

RETRY_FIRST_SECONDS = 0.1
RETRY_LAST_SECONDS = 5.0

log = logging.getLogger("services.updater")


def main(arguments: Sequence[str] | None = None) -> int:
    """Work until SIGTERM; returns the exit status, 1 where the settings do not allow a start."""
    parser = argparse.ArgumentParser(
        prog="python -m services.updater",
        description="From the event log into the online store and the event lake. Settings are environment variables:",
        epilog=describe(UpdaterSettings),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    stop = threading.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: stop.set())
    try:
        settings = read(UpdaterSettings, os.environ)
        reader, keeper = event_log(settings)
        if await_log(reader, stop):
            run(updater(settings, reader, keeper), stop)
    except (SegueError, OSError) as error:
        print(f"services.updater: {error}", file=sys.stderr)
        return 1
    return 0


def updater(settings: UpdaterSettings, reader: "LogReader", keeper: "LogKeeper") -> "Updater":
    """The updater that `settings` describe; its metrics are served from now on."""
    from prometheus_client import REGISTRY, start_http_server

    from segue.adapters.dead_letters import DeadLetters
    from segue.adapters.erasures import Receipts
    from segue.adapters.histories import HistoryStore
    from segue.adapters.lake import Lake
    from segue.adapters.progress import Progress
    from segue.adapters.refills import Refills
    from services.updater.metrics import Metrics
    from services.updater.updater import Pace, Stores, Updater

    redis = connect(settings)
    stores = Stores(
        HistoryStore(redis, settings.key_prefix, customers_per_call=settings.customers_per_call),
        Lake(settings.lake),
        DeadLetters(redis),
        Progress(redis, reader.log_id),
        Receipts(redis),
        Refills(redis),
    )
    pace = Pace(
        max_count=settings.max_count,
        flush_seconds=settings.flush_seconds,
        flush_events=settings.flush_events,
        future_skew_ms=settings.future_skew_seconds * 1_000,
    )
    metrics = Metrics(REGISTRY)
    metrics.backlog.set_function(lambda: backlog(keeper))
    if settings.metrics_port:
        start_http_server(settings.metrics_port, settings.metrics_host)
    return Updater(reader, stores, pace=pace, metrics=metrics)


def connect(settings: UpdaterSettings) -> "Redis":
    """A client of the online store's Redis."""
    from redis import Redis

    seconds = settings.store_timeout_ms / 1_000
    return Redis.from_url(settings.redis_url, socket_timeout=seconds, socket_connect_timeout=seconds)


def event_log(settings: UpdaterSettings) -> tuple["LogReader", "LogKeeper"]:
    """This process's part in reading the log, and the log's keeper."""
    consumer = settings.consumer or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    if settings.log == "kafka":
        from segue.adapters.event_log.kafka import KafkaLogKeeper, KafkaLogReader
        from segue.adapters.event_log.kafka_records import read_options

        where = (settings.kafka_bootstrap_servers, settings.kafka_topic)
        options = read_options(settings.kafka_options, field=f"{settings.PREFIX}KAFKA_OPTIONS")
        return KafkaLogReader(*where, consumer=consumer, options=options), KafkaLogKeeper(*where, options=options)
    from segue.adapters.event_log.redis_streams import RedisLogKeeper, RedisLogReader

    # Each closes its own client.
    reader = RedisLogReader(connect(settings), consumer=consumer, partitions=settings.log_partitions)
    return reader, RedisLogKeeper(connect(settings))


def backlog(keeper: "LogKeeper") -> float:
    """Entries not acked yet; NaN while the log does not answer."""
    try:
        return sum(keeper.backlog().values())
    except SegueError:
        return float("nan")


def await_log(reader: "LogReader", stop: threading.Event) -> bool:
    """Wait until the log answers, and its topic is there; False if `stop` came first."""
    wait_seconds = 0.0
    while not stop.wait(wait_seconds):
        try:
            log.info("reading log %s", reader.log_id)
        except LogUnavailable as error:
            wait_seconds = longer(wait_seconds, error)
        else:
            return True
    return False


def run(updater: "Updater", stop: threading.Event) -> None:
    """Step until `stop`, then flush and leave; what is unavailable is waited for, longer and longer."""
    from services.updater.updater import UNAVAILABLE

    # A micro-batch makes many objects and none that hold each other: looking for cycles as often as Python does by
    # default was measured to take a quarter of the time.
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    wait_seconds = 0.0
    while not stop.wait(wait_seconds):
        try:
            updater.step(READ_MS)
        except UNAVAILABLE as error:
            wait_seconds = longer(wait_seconds, error)
        else:
            wait_seconds = RETRY_FIRST_SECONDS if updater.full else 0.0
    updater.close()


def longer(wait_seconds: float, error: Exception) -> float:
    """How long to wait after having waited `wait_seconds`; says why."""
    wait_seconds = min(max(2 * wait_seconds, RETRY_FIRST_SECONDS), RETRY_LAST_SECONDS)
    log.warning("trying again in %.1f s: %s", wait_seconds, error)
    return wait_seconds


if __name__ == "__main__":
    sys.exit(main())
