"""How fast a backend is answered: one call over gRPC, end to end, by one caller and by many.

Both services run as `python -m services.<name>` starts them, on bundles trained a moment ago on a small simulated shop;
the sequence model is trained for one epoch, which its speed does not depend on. A call reads the customer's features
from the online store, computes, scores and answers, with five reasons or ten items.

The reference is the floor: an empty call, gRPC's health check, to the same server from the same client. It passes the
same HTTP/2, event loop and Python, and asks nothing of store or model.

Before anything is timed, the answers are shown to be those of the bundles' scorers in this process. CPU is that of the
service's processes per call, not the client's nor the store's.
"""

import argparse
import asyncio
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from redis.asyncio import Redis

from benchmarks import freshness
from benchmarks.callers import Callers
from benchmarks.command import command
from benchmarks.home import HOME, REPOSITORY, fill, free_port, longest_histories, open_store, private_home
from benchmarks.processor import cpu_seconds
from benchmarks.table import Comparison
from benchmarks.timing import Timing, take_turns
from demo.processes import LOOPBACK, Processes, python
from segue.adapters import plan_files
from segue.adapters.model_store import ModelStore
from segue.adapters.plan_reader import PlanReader
from segue.inference.propensity import PropensityScorer
from segue.inference.related import Related
from segue.inference.sequence import SequenceScorer
from segue.rpc.channel import connect
from segue.rpc.convert import to_timestamp
from segue.v1.propensity_pb2 import ScorePropensityRequest
from segue.v1.propensity_pb2_grpc import PropensityServiceStub
from segue.v1.recommendation_pb2 import RecommendNextRequest
from segue.v1.recommendation_pb2_grpc import RecommendationServiceStub
from services.propensity.answering import Answering as PropensityAnswering
from services.propensity.answering import Model
from services.recommendation.answering import Answering as RecommendationAnswering

TIMEOUT_SECONDS = 10.0
CHECKED_COUNT = 50
CUSTOMERS = 200

METHODS = {"propensity": "ScorePropensity", "recommendation": "RecommendNext"}
OUTCOME, NEXT_ITEM = "purchase_7d", "next_item"
SEQUENCE_CONFIG = """\
max_epochs = 1
refit = false
loss = "sampled"
negatives = 512
batch_size = 64
max_cases = 500
"""
"""The demonstration's model but for its training: widths and lengths are the same."""


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = argparse.ArgumentParser(
        prog="python -m benchmarks.calls", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default, meaning in (
        ("customers", 600, "of the simulated shop; the 200 with the longest histories are asked about"),
        ("items", 2_000, "of the simulated shop"),
        ("days", 60, "of the simulated shop"),
        ("seed", 1, "of the simulated shop"),
        ("calls", 100, "per turn"),
        ("empty-calls", 300, "per turn"),
        ("turns", 5, "per contender"),
        ("callers", 16, "at once, in the second comparison of each service"),
    ):
        options.add_argument(f"--{name}", type=int, default=default, help=f"{meaning} (default: %(default)s)")
    return options


def measure(options: argparse.Namespace) -> list[Comparison]:
    """Train, serve, check the answers, time the calls."""
    with private_home() as processes:
        store_port = open_store(processes)
        fill(customers=options.customers, items=options.items, days=options.days, seed=options.seed)
        train()
        ports = serve(processes, store_port)
        customers, mean_length = longest_histories(CUSTOMERS)
        with asyncio.Runner() as runner:
            runner.run(check(ports, store_port, customers[:CHECKED_COUNT]))
            note = f"histories of {mean_length:.0f} events on average, {options.items:,} items"
            comparisons = [
                Comparison(f"{METHODS[name]}, {count} caller{'s' * (count > 1)}", timings, note)
                for name, port in ports.items()
                for count in (1, options.callers)
                for timings in [time_calls(runner, name, port, processes, Callers(runner, customers, count), options)]
            ]
        return [*comparisons, freshness.measure(processes, store_port, ports["propensity"], customers, options)]


def train() -> None:
    """Both bundles into the model store, by the commands that users run."""
    Path("sequence.toml").write_text(SEQUENCE_CONFIG)
    configs = {
        "models.propensity": REPOSITORY / "models" / "propensity" / "configs" / f"{OUTCOME}.toml",
        "models.sequence": Path("sequence.toml"),
    }

    def run(module: str) -> None:
        arguments = ("train", "--config", str(configs[module]), "--store", str(HOME / "bentoml"))
        # How good the models are is not the matter here.
        subprocess.run(python(module, *arguments), check=True, stdout=subprocess.DEVNULL)

    with ThreadPoolExecutor(len(configs)) as pool:
        list(pool.map(run, configs))


def serve(processes: Processes, store_port: int) -> dict[str, int]:
    """Start both services and wait until they are ready; returns their gRPC ports."""
    ports = {name: (free_port(), free_port()) for name in METHODS}
    for name, (port, http_port) in ports.items():
        settings = {"REDIS_URL": f"redis://{LOOPBACK}:{store_port}", "GRPC_PORT": str(port)}
        environment = {f"SEGUE_{name.upper()}_{key}": value for key, value in settings.items()}
        processes.start(name, python(f"services.{name}", "--http-port", str(http_port)), environment)
    for name, (_, http_port) in ports.items():
        processes.await_ready(name, f"http://{LOOPBACK}:{http_port}/readyz")
    return {name: port for name, (port, _) in ports.items()}


async def check(ports: Mapping[str, int], store_port: int, customers: Sequence[str]) -> None:
    """Make sure that the services answer what their bundles answer in this process, as of the same moment."""
    models, plans = ModelStore(HOME / "bentoml"), HOME / "plans"
    propensity, sequence = models.get(OUTCOME), models.get(NEXT_ITEM)
    as_of_ms = time.time_ns() // 1_000_000
    async with (
        Redis(port=store_port) as redis,
        connect(f"{LOOPBACK}:{ports['propensity']}") as propensities,
        connect(f"{LOOPBACK}:{ports['recommendation']}") as recommendations,
    ):
        scores = PropensityAnswering(
            PlanReader(plan_files.agreed(propensity, plans), redis),
            {OUTCOME: Model(PropensityScorer.load(propensity), propensity.version)},
        )
        items = RecommendationAnswering(
            PlanReader(plan_files.agreed(sequence, plans), redis), SequenceScorer.load(sequence), Related.load(sequence)
        )
        for customer in customers:
            score = await asker("propensity", propensities, as_of_ms)(customer)
            (wanted,) = await scores.answer([customer], [], as_of_ms=as_of_ms, max_reasons=5)
            assert [each.probability for each in score.propensities] == [
                each.probability for each in wanted.propensities
            ]
            ranked = await asker("recommendation", recommendations, as_of_ms)(customer)
            best = await items.answer(customer, as_of_ms=as_of_ms, limit=10)
            assert [each.item for each in ranked.items] == best.recommendation.external_id


def asker(name: str, channel: grpc.aio.Channel, as_of_ms: int | None = None) -> Callable[[str], Awaitable[Any]]:
    """The call of one service about a customer, as of now unless told otherwise."""
    as_of = None if as_of_ms is None else to_timestamp(as_of_ms)
    if name == "propensity":
        score = PropensityServiceStub(channel).ScorePropensity  # type: ignore[no-untyped-call]
        return lambda customer: score(ScorePropensityRequest(customer=customer, as_of=as_of), timeout=TIMEOUT_SECONDS)
    recommend = RecommendationServiceStub(channel).RecommendNext  # type: ignore[no-untyped-call]
    return lambda customer: recommend(RecommendNextRequest(customer=customer, as_of=as_of), timeout=TIMEOUT_SECONDS)


def time_calls(
    runner: asyncio.Runner, name: str, port: int, processes: Processes, callers: Callers, options: argparse.Namespace
) -> Mapping[str, Timing]:
    """One service's call beside the empty call, over one channel."""
    channel = runner.run(opened(port))
    health = HealthStub(channel).Check
    contenders = {
        "Segue": callers.tasks(asker(name, channel), options.calls),
        "empty call": callers.tasks(
            lambda _: health(HealthCheckRequest(), timeout=TIMEOUT_SECONDS), options.empty_calls
        ),
    }
    pid = processes.running[name].pid
    timings = take_turns(contenders, turns=options.turns, cpu_clock=lambda: cpu_seconds(pid))
    runner.run(channel.close())
    return timings


async def opened(port: int) -> grpc.aio.Channel:
    """A channel of the running loop."""
    return connect(f"{LOOPBACK}:{port}")


if __name__ == "__main__":
    command(parser(), measure)
