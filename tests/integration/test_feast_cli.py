"""The stock Feast command works on the repo, with correct values behind it."""

import asyncio
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from segue.adapters import plan_files
from segue.adapters.histories import HistoryStore
from segue.adapters.lake import Lake
from segue.adapters.plan_reader import PlanReader
from segue.adapters.snapshots import write_snapshots
from segue.features.snapshots import CUSTOMER_LIFETIME
from tests import oracle, snapshot_oracle
from tests.conftest import at, command_environment, forget, free_port, redis_url

VIEWS = ("customer_history", "customer_lifetime", "item_stats")
SERVICES = ("propensity_v1", "recommendation_v1")

FEAST = str(Path(sys.executable).with_name("feast"))

START_SECONDS = 120


@pytest.fixture
def now_ms():
    """The clock: how far back Feast materializes depends on it."""
    return int(datetime.now(UTC).timestamp()) * 1000


@pytest.fixture
def log(feast_repo, now_ms):
    """A log up to now, in the repo's lake, with snapshots of it."""
    facts = oracle.facts(31, customers=10, count=600, now=now_ms)
    home = feast_repo.parent / ".segue"
    lake = Lake(home / "lake")
    lake.append(oracle.to_events(facts))
    write_snapshots(lake, home / "snapshots", [now_ms - 7 * oracle.DAY, now_ms])
    return facts


def check_online(log, scratch, redis, plan, now_ms):
    """The online store holds what the oracle says was known now."""
    customers = sorted({fact.customer for fact in log})
    facts_of = {name: [fact for fact in log if fact.customer == name] for name in customers}
    stored = HistoryStore(redis, "segue:customer_history:").read(customers)
    for index, name in enumerate(customers):
        assert oracle.to_history(stored, index) == oracle.as_of(facts_of[name], now_ms)

    async def read():
        from redis.asyncio import Redis

        async with Redis.from_url(redis_url(scratch)) as client:
            return await PlanReader(plan, client).read("customer", customers, np.full(len(customers), now_ms))

    found = asyncio.run(read())
    for name, row in zip(customers, found.matrix, strict=True):
        values = dict(zip(found.names, row.tolist(), strict=True))
        expected = oracle.features(oracle.as_of(facts_of[name], now_ms), now_ms)
        expected |= snapshot_oracle.lifetime(facts_of[name], now_ms)
        assert {each.name for each in CUSTOMER_LIFETIME} <= set(expected)
        assert [name for name, value in expected.items() if not oracle.same(values[name], value)] == []


def check_lists(services, views):
    for name in SERVICES:
        assert name in services
    for name in VIEWS:
        assert name in views
    assert "customer" in views
    assert "item" in views


@pytest.fixture
def feast(feast_repo, monkeypatch):
    """Run a command of Feast's in this process, which has paid for its import already."""
    from click.testing import CliRunner
    from feast.cli.cli import cli

    forget(feast_repo)
    monkeypatch.chdir(feast_repo)
    monkeypatch.syspath_prepend(feast_repo)

    def run(*arguments):
        done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    return run


def test_apply_materialize_and_list(feast, feast_repo, log, scratch, redis, now_ms):
    from feast import FeatureStore

    from segue.adapters.feast.plans import compile_plan

    feast("apply")
    feast("materialize-incremental", at(now_ms).isoformat())
    check_lists(feast("feature-services", "list"), feast("feature-views", "list"))
    store = FeatureStore(str(feast_repo))
    plan = compile_plan(store, "propensity_v1")
    check_online(log, scratch, redis, plan, now_ms)
    # Again: nothing is lost, nothing is doubled.
    feast("apply")
    feast("materialize-incremental", at(now_ms).isoformat())
    check_online(log, scratch, redis, plan, now_ms)


def test_materialize_takes_events_that_came_late(feast, feast_repo, log, redis, now_ms):
    feast("apply")
    feast("materialize-incremental", at(now_ms).isoformat())
    late = [
        fact._replace(event_id=fact.event_id + 10**6, time=fact.time - oracle.DAY, available=now_ms) for fact in log
    ]
    Lake(feast_repo.parent / ".segue" / "lake").append(oracle.to_events(late))
    feast("materialize-incremental", at(now_ms + 1000).isoformat())
    stored = HistoryStore(redis, "segue:customer_history:").read(["c03"])
    known = [fact for fact in log + late if fact.customer == "c03"]
    assert oracle.to_history(stored, 0) == oracle.as_of(known, now_ms + 1000)


def test_tearing_down_empties_the_online_store(feast, log, redis, now_ms):
    feast("apply")
    feast("materialize-incremental", at(now_ms).isoformat())
    assert redis.dbsize() > 0
    feast("teardown")
    assert redis.dbsize() == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_installed_command_and_its_console(feast_repo, log, scratch, redis, now_ms):
    environment = command_environment(scratch)

    def run(*arguments):
        done = subprocess.run(
            [FEAST, *arguments], cwd=feast_repo, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("apply")
    run("materialize-incremental", at(now_ms).isoformat())
    check_lists(run("feature-services", "list"), run("feature-views", "list"))
    home = feast_repo.parent / ".segue"
    command = [sys.executable, "-m", "segue", "--home", str(home), "plan"]
    subprocess.run(command, cwd=feast_repo, env=environment, check=True, capture_output=True)
    check_online(log, scratch, redis, plan_files.published(home / "plans", "propensity_v1"), now_ms)
    port = free_port()
    console = [FEAST, "ui", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(console, cwd=feast_repo, env=environment, stdout=subprocess.DEVNULL)
    try:
        assert b"<!doctype html>" in fetch(process, f"http://127.0.0.1:{port}/").lower()
    finally:
        process.terminate()
        process.wait(30)


def fetch(process, url):
    deadline = time.monotonic() + START_SECONDS
    while True:
        assert process.poll() is None, "the process ended"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                assert answer.status == 200
                return answer.read()
        except (urllib.error.URLError, OSError):
            assert time.monotonic() < deadline, "nothing answers"
            time.sleep(0.5)
