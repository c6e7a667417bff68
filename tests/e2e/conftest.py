"""Both services as real processes, over the filled repo and bundles of their own."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.json_format import MessageToDict

from segue.adapters import plan_files
from segue.adapters.histories import HistoryStore
from segue.adapters.model_store import ModelStore
from segue.events import item_id
from segue.rpc.convert import to_timestamp
from segue.v1 import propensity_pb2 as p
from segue.v1 import recommendation_pb2 as r
from segue.v1.events_pb2 import Event
from segue.v1.propensity_pb2_grpc import PropensityServiceStub
from segue.v1.recommendation_pb2_grpc import RecommendationServiceStub
from tests import bundles, oracle
from tests.conftest import NOW, ROOT, SETTLED, connect, free_port, redis_url

SERVICES_DB = 3

OUTCOMES = {"engage_7d": "customer_view_count_90d", "purchase_7d": "customer_add_count_30d"}
"""The outcomes that are served, and the column that drives each."""

BROWSERS = [f"b{number:02}" for number in range(50)]
"""Customers who viewed some of the sequence bundle's items."""

READY_SECONDS = 90


TIMEOUT = 20
AS_OF = to_timestamp(SETTLED)


def events(customer, kind, items, time_ms, **fields):
    """Events a minute apart, the newest just before `time_ms`."""
    return [
        Event(
            event_id=f"{customer}-{kind}-{number}",
            customer=customer,
            kind=kind,
            item=item,
            event_time=to_timestamp(time_ms - 1 - 60_000 * (len(items) - 1 - number)),
            **fields,
        )
        for number, item in enumerate(items)
    ]


def as_json(message):
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def without_id(answer):
    return {name: value for name, value in answer.items() if name != "answer_id"}


@dataclass(frozen=True)
class World:
    """What the services read."""

    address: str
    redis_url: str
    plans: Path
    model_store: Path
    bundles: Path
    torch: Any
    """The sequence bundle's model in PyTorch."""
    log: list[oracle.Fact]
    """What the online store holds of the browsers."""


@dataclass(frozen=True)
class Service:
    process: subprocess.Popen[bytes]
    grpc_port: int
    http: str
    log: Path

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    def stop(self) -> int:
        """Ask it to leave; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def await_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while True:
            assert self.process.poll() is None, self.log.read_text()[-2000:]
            assert time.monotonic() < deadline, self.log.read_text()[-2000:]
            try:
                with urllib.request.urlopen(f"{self.http}/readyz", timeout=2):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)

    def post(self, route: str, body: Any) -> tuple[int, Any]:
        """HTTP status and JSON of the answer; `body` is sent as it is where it is bytes."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.http}{route}", data, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())


def browsing() -> list[oracle.Fact]:
    """A log of 1 to 40 views of each browser."""
    rng = np.random.default_rng(12)
    items = [item_id(sku) for sku in bundles.SKUS]
    return [
        oracle.Fact(name, NOW - int(age_ms), number, items[rng.integers(len(items))], 1, 0, NOW)
        for name in BROWSERS
        for number, age_ms in enumerate(rng.integers(1, 20 * oracle.DAY, rng.integers(1, 41)))
    ]


@pytest.fixture(scope="session")
def world(filled_repo, tmp_path_factory) -> World:
    directory = tmp_path_factory.mktemp("world")
    plans = filled_repo.home / "plans"
    store = ModelStore(directory / "bentoml")
    for outcome, column in OUTCOMES.items():
        plan = plan_files.published(plans, "propensity_v1")
        store.save(bundles.propensity(directory / outcome, plan, outcome, driven_by=column), outcome)
    torch = bundles.next_item(directory / "next_item", plan_files.published(plans, "recommendation_v1"))
    store.save(directory / "next_item", "next_item")
    address = f"{filled_repo.address},db={SERVICES_DB}"
    log = browsing()
    with connect(filled_repo.address) as source, connect(address) as target:
        target.flushdb()
        for key in source.scan_iter():
            source.copy(key, key, destination_db=SERVICES_DB)
        HistoryStore(target, "segue:customer_history:").add(oracle.to_events(log))
    return World(address, redis_url(address), plans, directory / "bentoml", directory, torch, log)


@contextmanager
def running(name: str, world: World, directory: Path, **settings: str) -> Iterator[Service]:
    """The service `name` as a process; it may not be ready yet."""
    grpc_port, http_port = free_port(), free_port()
    defaults = {
        "REDIS_URL": world.redis_url,
        "PLANS": str(world.plans),
        "MODEL_STORE": str(world.model_store),
        "GRPC_PORT": str(grpc_port),
        "GRPC_DRAIN_SECONDS": "2",
    }
    if name == "propensity":
        defaults["BUNDLES"] = ",".join(OUTCOMES)
    environment = {f"SEGUE_{name.upper()}_{key}": value for key, value in (defaults | settings).items()}
    # Feast, imported here, has set a directory of counters for all processes that descend from this one.
    inherited = {key: value for key, value in os.environ.items() if key != "PROMETHEUS_MULTIPROC_DIR"}
    environment = {**inherited, **environment, "BENTOML_HOME": str(directory / "home")}
    command = [sys.executable, "-m", f"services.{name}", "--http-port", str(http_port)]
    log = directory / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
    try:
        yield Service(process, grpc_port, f"http://127.0.0.1:{http_port}", log)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.fixture(scope="session")
def services(world, tmp_path_factory) -> Iterator[dict[str, Service]]:
    """Both services, ready."""
    with ExitStack() as stack:
        started = {
            name: stack.enter_context(running(name, world, tmp_path_factory.mktemp(name)))
            for name in ("propensity", "recommendation")
        }
        for service in started.values():
            service.await_ready()
        yield started


@pytest.fixture(scope="session")
def propensity(services) -> Service:
    return services["propensity"]


@pytest.fixture(scope="session")
def recommendation(services) -> Service:
    return services["recommendation"]


@pytest.fixture(scope="session")
def channels(services) -> Iterator[dict[str, grpc.Channel]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(grpc.insecure_channel(service.target)) for name, service in services.items()}


@pytest.fixture
def score(channels):
    stub = PropensityServiceStub(channels["propensity"])
    return lambda **fields: stub.ScorePropensity(p.ScorePropensityRequest(**fields), timeout=TIMEOUT)


@pytest.fixture
def batch(channels):
    stub = PropensityServiceStub(channels["propensity"])
    return lambda **fields: stub.BatchScorePropensity(p.BatchScorePropensityRequest(**fields), timeout=TIMEOUT)


@pytest.fixture
def recommend(channels):
    stub = RecommendationServiceStub(channels["recommendation"])
    return lambda **fields: stub.RecommendNext(r.RecommendNextRequest(**fields), timeout=TIMEOUT)


@pytest.fixture
def related(channels):
    stub = RecommendationServiceStub(channels["recommendation"])
    return lambda **fields: stub.RecommendRelated(r.RecommendRelatedRequest(**fields), timeout=TIMEOUT)
