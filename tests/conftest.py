"""What several suites share: a real server, and a feature repo brought up from a messy log."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hypothesis
import prometheus_client  # noqa: F401 - before Feast, which makes whoever imports it later count across processes
import pytest
from redis import Redis

from tests import oracle

# The same examples each time, however slow the machine is.
hypothesis.settings.register_profile("segue", deadline=None, derandomize=True)
hypothesis.settings.load_profile("segue")

ROOT = Path(__file__).resolve().parent.parent

NOW = 1_700_000_000_000
"""The time the log's events are made before."""

SETTLED = NOW + 5 * oracle.DAY
"""By then every event of the log has arrived."""

EVERY_DAYS = 7

SCRATCH_DB = 1
"""The server's database that is emptied before each test that asks for it; 0 holds the filled repo."""


@dataclass(frozen=True)
class FilledRepo:
    """A copy of the feature repo after `segue features`, and the log its lake was made from."""

    repo: Path
    store: Any
    """The repo's feast.FeatureStore."""
    address: str
    log: list[oracle.Fact]
    cuts_ms: list[int]
    """When snapshots were taken, oldest first."""

    @property
    def home(self) -> Path:
        return self.repo.parent / ".segue"

    @property
    def customers(self) -> list[str]:
        return sorted({fact.customer for fact in self.log})

    def facts_of(self) -> dict[str, list[oracle.Fact]]:
        return {name: [fact for fact in self.log if fact.customer == name] for name in self.customers}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def environment(values: Mapping[str, str], *, without: str = "") -> Iterator[None]:
    """This process's environment with `values`, and without the variable `without`."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        if without:
            patch.delenv(without, raising=False)
        yield


def at(time_ms: int) -> datetime:
    return datetime.fromtimestamp(time_ms // 1000, UTC).replace(microsecond=time_ms % 1000 * 1000)


def copy_repo(directory: Path) -> Path:
    """A copy of feature_repo/ whose state goes to `directory`/.segue."""
    skip = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(ROOT / "feature_repo", directory / "feature_repo", ignore=skip))


def forget(repo: Path) -> None:
    """Let Feast import the modules of `repo`, which another copy's go by the same names as."""
    for module in repo.glob("*.py"):
        sys.modules.pop(module.stem, None)


def open_store(repo: Path) -> Any:
    """The repo's feature store, over the online store that the environment names now."""
    from feast import FeatureStore

    store = FeatureStore(str(repo))
    assert store.config.online_store.connection_string == os.environ["SEGUE_REDIS"]
    return store


@pytest.fixture(scope="session")
def valkey(tmp_path_factory) -> Iterator[str]:
    """host:port of a private server."""
    from segue.adapters import embedded

    port = free_port()
    # The last option counts: a test does not wait for the disk. Crashes are tested on a server that does.
    command = [*embedded.command(tmp_path_factory.mktemp("valkey"), port), "--appendfsync", "no"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 20
            while not embedded.listens("127.0.0.1", port):
                assert process.poll() is None, "the server ended at once"
                assert time.monotonic() < deadline, "the server does not listen"
                time.sleep(0.02)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()


@pytest.fixture
def scratch(valkey) -> Iterator[str]:
    """An empty database of the server, as Feast's connection string."""
    address = f"{valkey},db={SCRATCH_DB}"
    with connect(address) as redis:
        redis.flushdb()
    return address


@pytest.fixture
def redis(scratch) -> Iterator[Redis]:
    """A client of the empty database."""
    with connect(scratch) as client:
        yield client


def connect(address: str) -> Redis:
    return Redis.from_url(redis_url(address))


def redis_url(address: str) -> str:
    """The URL of Feast's connection string, host:port or host:port,db=n."""
    where, _, db = address.partition(",db=")
    return f"redis://{where}/{db or 0}"


@pytest.fixture
def feast_repo(tmp_path, scratch) -> Iterator[Path]:
    """A copy of the feature repo, not applied, over the empty database."""
    with environment({"SEGUE_REDIS": scratch}, without="SEGUE_HOME"):
        yield copy_repo(tmp_path)


@pytest.fixture(scope="session")
def filled_repo(tmp_path_factory, valkey) -> FilledRepo:
    """A repo after `segue features`: lake, snapshots, registry, plans, online store."""
    from segue.adapters.feast import pipeline
    from segue.adapters.lake import Lake

    repo = copy_repo(tmp_path_factory.mktemp("filled"))
    # The second log gives two customers more than a history holds, and other records under ids of the first.
    log = oracle.facts(1, customers=30, count=4000, now=NOW) + oracle.facts(2, customers=2, count=1200, now=NOW)
    lake = Lake(repo.parent / ".segue" / "lake")
    half = len(log) // 2
    for part in (log[:half], log[half:]):
        lake.append(oracle.to_events(part))
    with environment({"SEGUE_REDIS": valkey}, without="SEGUE_HOME"):
        forget(repo)
        pipeline.refresh(repo.parent / ".segue", repo, every_days=EVERY_DAYS, until=at(SETTLED))
        store = open_store(repo)
    first, last = min(fact.time for fact in log), max(fact.time for fact in log)
    cuts_ms = sorted(range(last + 1, first, -EVERY_DAYS * oracle.DAY))
    return FilledRepo(repo, store, valkey, log, cuts_ms)


def command_environment(address: str) -> dict[str, str]:
    """The environment of a command that works on a copied repo."""
    inherited = {name: value for name, value in os.environ.items() if name != "SEGUE_HOME"}
    return inherited | {"SEGUE_REDIS": address}
