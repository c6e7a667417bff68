"""How soon an event has its effect: from the collector's acknowledgement to a propensity that was made with it.

Collector, updater and the propensity service run as processes over the embedded store, every write on its disk before
it is answered. One backend sends an event over gRPC, and once that is acknowledged asks about the customer with the
token, so that the answer includes the event; the clock runs from the acknowledgement to the answer. Beside it the same
call without waiting, and the call that brings the event along.
"""

import argparse
import itertools
import time
from collections.abc import Callable, Sequence

import grpc

from benchmarks.collector import WRITE_KEY, start
from benchmarks.home import HOME
from benchmarks.table import Comparison
from benchmarks.timing import Contender, Turn, take_turns
from demo.processes import LOOPBACK, Processes, python
from segue.rpc.convert import to_timestamp
from segue.v1.collector_pb2 import CollectEventsRequest, CustomerId, SubmittedEvent
from segue.v1.collector_pb2_grpc import CollectorServiceStub
from segue.v1.events_pb2 import Event
from segue.v1.propensity_pb2 import ScorePropensityRequest
from segue.v1.propensity_pb2_grpc import PropensityServiceStub

TIMEOUT_SECONDS = 10.0


def measure(
    processes: Processes, store_port: int, propensity_port: int, customers: Sequence[str], options: argparse.Namespace
) -> Comparison:
    """Start the stream beside the service that runs on `propensity_port`, and take turns."""
    _, collector_port = start(processes, store_port)
    settings = {"REDIS_URL": f"redis://{LOOPBACK}:{store_port}", "LAKE": str(HOME / "lake"), "METRICS_PORT": "0"}
    processes.start(
        "updater", python("services.updater"), {f"SEGUE_UPDATER_{name}": each for name, each in settings.items()}
    )
    with (
        grpc.insecure_channel(f"{LOOPBACK}:{collector_port}") as door,
        grpc.insecure_channel(f"{LOOPBACK}:{propensity_port}") as service,
    ):
        collect = CollectorServiceStub(door).CollectEvents  # type: ignore[no-untyped-call]
        score = PropensityServiceStub(service).ScorePropensity  # type: ignore[no-untyped-call]
        shared = itertools.cycle(customers)

        def send(customer: str) -> str:
            event = SubmittedEvent(
                event_id=f"fresh-{time.time_ns()}",
                customer=CustomerId(customer=customer),
                kind="product_viewed",
                item="item-1",
                event_time=to_timestamp(time.time_ns() // 1_000_000),
            )
            credentials = (("authorization", f"Bearer {WRITE_KEY}"),)
            answer = collect(CollectEventsRequest(events=[event]), timeout=TIMEOUT_SECONDS, metadata=credentials)
            assert answer.accepted_count == 1
            return str(answer.token)

        def after_sending(customer: str) -> Callable[[], object]:
            token = send(customer)
            return lambda: ask(score, customer, read_after=token)

        def bringing(customer: str) -> Callable[[], object]:
            event = Event(event_id=f"{time.time_ns()}", customer=customer, kind="product_viewed", item="item-1")
            event.event_time.CopyFrom(to_timestamp(time.time_ns() // 1_000_000))
            return lambda: ask(score, customer, events=[event])

        # The updater joins the log's readers at its first entry.
        ask(score, customers[0], read_after=send(customers[0]))
        timings = take_turns(
            {
                "Segue, sent and acknowledged": timed(after_sending, shared, options.calls),
                "Segue, brought along": timed(bringing, shared, options.calls),
                "the call alone": timed(lambda customer: lambda: ask(score, customer), shared, options.calls),
            },
            turns=options.turns,
        )
    return Comparison(
        "from acknowledgement to effect", timings, "one caller; the time of sending is not in p50 and p99"
    )


def ask(score: Callable[..., object], customer: str, **fields: object) -> None:
    """One answer about `customer`."""
    score(ScorePropensityRequest(customer=customer, **fields), timeout=TIMEOUT_SECONDS)


def timed(prepare: Callable[[str], Callable[[], object]], customers: itertools.cycle, calls: int) -> Contender:
    """Prepare and call for the next `calls` customers; only the call is timed."""

    def turn() -> Turn:
        latencies = []
        for customer in itertools.islice(customers, calls):
            call = prepare(customer)
            started = time.perf_counter()
            call()
            latencies.append(time.perf_counter() - started)
        return Turn(calls, latencies)

    return turn
