"""The collector as a server: HTTP and gRPC in one event loop, over one door."""

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import uvicorn
from prometheus_client import CollectorRegistry, ProcessCollector
from redis.asyncio import Redis

from segue.adapters.event_log import LogWriter
from segue.errors import InvalidSettings, LogUnavailable
from segue.rpc import server as rpc
from segue.v1.collector_pb2_grpc import add_CollectorServiceServicer_to_server
from services.collector import money
from services.collector.app import Api
from services.collector.door import Door
from services.collector.intake import Intake
from services.collector.keys import KeyRing, WriteKeys
from services.collector.metrics import Metrics
from services.collector.receipts import Receipts
from services.collector.scrub import Privacy, Scrubber
from services.collector.segment import Consent, Segment
from services.collector.servicer import CollectorServicer
from services.collector.settings import CollectorSettings
from services.collector.submitted import Submitted

SERVICE = "segue.v1.CollectorService"
BACKLOG = 2_048
IDLE_SECONDS = 65
"""How long an idle connection is kept: longer than the usual proxy keeps its side."""

log = logging.getLogger(__name__)


class Http(uvicorn.Server):
    """uvicorn, stopped by us rather than by signals of its own."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


async def serve(read: CollectorSettings) -> None:
    """Serve until SIGTERM or SIGINT, then let the callers leave and stop.

    Raises:
        InvalidSettings: a key file is missing or malformed, or the log has another number of partitions.
        OSError, RuntimeError: a port is taken.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    ring, write_keys, scrubber = _keys(read)
    redis, writer = _redis(read), _writer(read)
    metrics = Metrics(CollectorRegistry())
    ProcessCollector(registry=metrics.registry)
    intake = Intake(max_bytes=read.concurrent_bytes, max_count=read.concurrent_requests)
    door = Door(writer, metrics)
    servicer = CollectorServicer(
        door,
        Submitted(ring, scrubber),
        ring,
        write_keys=write_keys,
        intake=intake,
        receipts=Receipts(redis, parts_max_count=len(ring.users)),
    )
    consent = Consent(category=read.consent_category, required=read.consent_required)
    ready = asyncio.Event()
    api = Api(
        door=door,
        segment=Segment(ring, scrubber, consent, read.currency),
        write_keys=write_keys,
        intake=intake,
        metrics=metrics,
        body_seconds=read.http_body_seconds,
        cors_origins=read.cors_origins,
        ready=ready.is_set,
    )
    try:
        await _reach(writer)
        register = partial(add_CollectorServiceServicer_to_server, servicer)
        grpc = await rpc.start({SERVICE: register}, read, registry=metrics.registry)
        http, listener = _http(api, read), socket.create_server((read.http_host, read.http_port), backlog=BACKLOG)
        serving = asyncio.create_task(http.serve(sockets=[listener]))
        grpc.serving()
        ready.set()
        log.info("HTTP on port %d, gRPC on port %d", listener.getsockname()[1], grpc.port)
        await asyncio.wait([serving, asyncio.create_task(stop.wait())], return_when=asyncio.FIRST_COMPLETED)
        ready.clear()
        await asyncio.gather(grpc.stop(), _leave(http, intake, read.grpc_drain_seconds))
        await serving
    finally:
        await writer.close()
        await redis.aclose()


async def _leave(http: Http, intake: Intake, drain_seconds: float) -> None:
    """Answer until the callers have left, then stop; what is under way is answered."""
    drained = time.monotonic() + drain_seconds
    while not intake.quiet(rpc.QUIET_SECONDS) and time.monotonic() < drained:
        await asyncio.sleep(rpc.QUIET_SECONDS / 5)
    http.should_exit = True


async def _reach(writer: LogWriter) -> None:
    """Fail if the log is another than the settings say; that it does not answer yet is no reason not to start."""
    try:
        await writer.append([])
    except LogUnavailable:
        log.warning("the event log does not answer yet")


def _keys(read: CollectorSettings) -> tuple[KeyRing, WriteKeys, Scrubber]:
    if not money.CURRENCY.fullmatch(read.currency):
        raise InvalidSettings.because(f"{read.PREFIX}CURRENCY", "must be an ISO 4217 code, three capital letters")
    ring = KeyRing.read(read.keys, field=f"{read.PREFIX}KEYS")
    write_keys = WriteKeys.read(read.write_keys, field=f"{read.PREFIX}WRITE_KEYS")
    return ring, write_keys, Scrubber(Privacy.read(read.privacy, field=f"{read.PREFIX}PRIVACY"), ring)


def _redis(read: CollectorSettings) -> Redis:
    seconds = read.log_timeout_ms / 1_000
    return Redis.from_url(read.redis_url, socket_timeout=seconds, socket_connect_timeout=seconds)


def _writer(read: CollectorSettings) -> LogWriter:
    """The event log; of its two adapters only the one in use is imported."""
    if read.log == "kafka":
        from segue.adapters.event_log.kafka import KafkaLogWriter  # noqa: PLC0415
        from segue.adapters.event_log.kafka_records import read_options  # noqa: PLC0415

        return KafkaLogWriter(
            read.kafka_bootstrap_servers,
            read.kafka_topic,
            partitions=read.log_partitions,
            timeout_ms=read.log_timeout_ms,
            options=read_options(read.kafka_options, field=f"{read.PREFIX}KAFKA_OPTIONS"),
        )
    from segue.adapters.event_log.redis_streams import RedisLogWriter  # noqa: PLC0415

    return RedisLogWriter(_redis(read), partitions=read.log_partitions, capacity=read.log_capacity)


def _http(api: Api, read: CollectorSettings) -> Http:
    config = uvicorn.Config(
        api.app(),
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=max(1, round(read.grpc_grace_seconds)),
    )
    return Http(config)
