"""How fast events get past the door, into the event log.

The collector runs as `python -m services.collector` starts it, on one core: every event is checked, scrubbed, given its
pseudonym, and on the store's disk before the answer comes. Batches of Segment's HTTP API and of gRPC, from one caller
who waits for each answer.

The reference is the plain XADD: entries made beforehand, as many at once, through redis-py to the same server, which
checks nothing. CPU is the collector's processes', of plain XADD this process's; the store's is in neither.
"""

import argparse
import itertools
import json
import os
import time
import urllib.request
from base64 import b64encode
from pathlib import Path

import grpc
from redis import Redis

from benchmarks.command import command
from benchmarks.home import HOME, free_port, open_store, private_home
from benchmarks.log_filling import entries
from benchmarks.processor import cpu_seconds
from benchmarks.table import Comparison
from benchmarks.timing import Contender, Turn, take_turns
from demo.processes import LOOPBACK, Processes, python
from segue.rpc.convert import to_timestamp
from segue.v1.collector_pb2 import CollectEventsRequest, CustomerId, SubmittedEvent
from segue.v1.collector_pb2_grpc import CollectorServiceStub

WRITE_KEY = "write-key-of-the-benchmark"


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.collector", description=__doc__)
    for name, default in {"batch": 100, "batches": 100, "customers": 10_000, "turns": 3}.items():
        options.add_argument(f"--{name}", type=int, default=default, help="default: %(default)s")
    return options


def measure(options: argparse.Namespace) -> list[Comparison]:
    """Batches over both transports, and plain XADD."""
    with private_home() as processes:
        port = open_store(processes)
        http_port, grpc_port = start(processes, port)
        pid = processes.running["collector"].pid
        with grpc.insecure_channel(f"{LOOPBACK}:{grpc_port}") as channel, Redis(port=port) as redis:
            timings = take_turns(
                {
                    "Segue, HTTP": posting(http_port, options),
                    "Segue, gRPC": calling(channel, options),
                    "plain XADD": adding(redis, options),
                },
                turns=options.turns,
                cpu_clocks={name: lambda: cpu_seconds(pid) for name in ("Segue, HTTP", "Segue, gRPC")},
            )
    return [Comparison("one event into the log", timings, f"batches of {options.batch}, one caller")]


def start(processes: Processes, store_port: int) -> tuple[int, int]:
    """Start the collector; returns its HTTP and its gRPC port."""
    HOME.mkdir(exist_ok=True)
    files = {"KEYS": f"benchmark:{os.urandom(32).hex()}", "WRITE_KEYS": f"benchmark:{WRITE_KEY}"}
    ports = {"HTTP_PORT": free_port(), "GRPC_PORT": free_port()}
    settings = {"REDIS_URL": f"redis://{LOOPBACK}:{store_port}", **{name: str(each) for name, each in ports.items()}}
    for name, text in files.items():
        path = Path(HOME, name.lower())
        path.touch(mode=0o600)
        path.write_text(text + "\n")
        settings[name] = str(path)
    environment = {f"SEGUE_COLLECTOR_{name}": value for name, value in settings.items()}
    processes.start("collector", python("services.collector"), environment)
    processes.await_ready("collector", f"http://{LOOPBACK}:{ports['HTTP_PORT']}/readyz")
    return ports["HTTP_PORT"], ports["GRPC_PORT"]


def posting(port: int, options: argparse.Namespace) -> Contender:
    """Post batches as a Segment SDK does."""
    serial = itertools.count()
    authorization = "Basic " + b64encode(f"{WRITE_KEY}:".encode()).decode()

    def message(number: int) -> dict[str, object]:
        return {
            "type": "track",
            "messageId": f"http-{number}",
            "userId": f"customer-{number % options.customers}",
            "event": "Product Viewed",
            "properties": {"product_id": f"item-{number % 20_000}", "price": 12.5, "list": "home", "position": 3},
            "timestamp": stamp(),
        }

    def turn() -> Turn:
        for _ in range(options.batches):
            batch = {"batch": [message(next(serial)) for _ in range(options.batch)], "sentAt": stamp()}
            request = urllib.request.Request(f"http://{LOOPBACK}:{port}/v1/batch", json.dumps(batch).encode())
            request.add_header("authorization", authorization)
            request.add_header("content-type", "application/json")
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert json.load(answer)["accepted_count"] == options.batch
        return Turn(options.batch * options.batches)

    return turn


def calling(channel: grpc.Channel, options: argparse.Namespace) -> Contender:
    """Call with batches as a backend does."""
    serial = itertools.count()
    collect = CollectorServiceStub(channel).CollectEvents  # type: ignore[no-untyped-call]
    credentials = (("authorization", f"Bearer {WRITE_KEY}"),)

    def event(number: int) -> SubmittedEvent:
        made = SubmittedEvent(
            event_id=f"grpc-{number}",
            customer=CustomerId(user_id=f"customer-{number % options.customers}"),
            kind="product_viewed",
            item=f"item-{number % 20_000}",
            event_time=to_timestamp(time.time_ns() // 1_000_000),
            value_minor=1250,
        )
        made.properties.update({"list": "home", "position": 3})
        return made

    def turn() -> Turn:
        for _ in range(options.batches):
            request = CollectEventsRequest(events=[event(next(serial)) for _ in range(options.batch)])
            assert collect(request, timeout=10, metadata=credentials).accepted_count == options.batch
        return Turn(options.batch * options.batches)

    return turn


def adding(redis: Redis, options: argparse.Namespace) -> Contender:
    """Add entries that are there already, as many at once."""
    made = list(entries(options.batch * options.batches, customers=options.customers, seed=0))

    def turn() -> Turn:
        for first in range(0, len(made), options.batch):
            pipe = redis.pipeline(transaction=False)
            for customer, body in made[first : first + options.batch]:
                pipe.xadd("plain", {"customer": customer, "entry": body})
            pipe.execute()
        return Turn(len(made))

    return turn


def stamp() -> str:
    """Now, as SDKs write it."""
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"


if __name__ == "__main__":
    command(parser(), measure)
