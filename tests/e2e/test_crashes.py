"""Whatever is killed, whenever: what was acknowledged is in the lake once, and the store is what the lake says."""

import collections
import random
import threading
import time
import uuid

import httpx
import pytest
from redis import Redis
from redis.exceptions import RedisError

from segue.adapters.event_log.redis_streams import RedisLogKeeper
from segue.adapters.histories import HistoryStore
from segue.adapters.lake import Lake
from segue.adapters.lake_jobs import compact
from segue.adapters.replay import verify
from segue.events import event_id, pseudonym
from tests.e2e.stream import KEY, WRITE_KEY, Stream, stream

KILLS = 60
CUSTOMERS = 40
PREFIX = "segue:customer_history:"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class Load(threading.Thread):
    """Sends batches, each again and again until it is acknowledged, as an SDK does."""

    def __init__(self, url: str, seed: int) -> None:
        super().__init__(daemon=True)
        self._url = url
        self._random = random.Random(seed)
        self._over = threading.Event()
        self.acknowledged: list[dict] = []
        self.tries = 0

    def run(self) -> None:
        with httpx.Client(auth=(WRITE_KEY, ""), timeout=5) as client:
            while not self._over.is_set():
                batch = [self._message() for _ in range(self._random.randint(1, 30))]
                self._send(client, batch)
                self.acknowledged += batch

    def _send(self, client: httpx.Client, batch: list[dict]) -> None:
        while True:
            self.tries += 1
            try:
                now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                answer = client.post(f"{self._url}/v1/batch", json={"batch": batch, "sentAt": now})
                if answer.status_code == 200:
                    assert answer.json()["accepted_count"] == len(batch), answer.text
                    return
                assert answer.status_code in {429, 503}, answer.text
            except httpx.TransportError:
                pass
            time.sleep(0.02)

    def _message(self) -> dict:
        seconds = time.time() - self._random.choice([0, 0, 0, 60, 86_400])
        return {
            "type": "track",
            "messageId": str(uuid.UUID(int=self._random.getrandbits(128))),
            "userId": f"user-{self._random.randrange(CUSTOMERS)}",
            "event": self._random.choice(["Product Viewed", "Product Added", "Order Completed"]),
            "properties": {"product_id": f"item-{self._random.randrange(50)}"},
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
            + f".{self._random.randrange(1000):03d}Z",
        }

    def stop(self) -> None:
        self._over.set()
        self.join(60)
        assert not self.is_alive(), "the last batch was never acknowledged"


def test_nothing_acknowledged_is_lost_or_doubled(tmp_path):
    chance = random.Random(7)
    killed = collections.Counter()
    with stream(tmp_path, updaters=2) as running:
        loads = [Load(running.url, seed) for seed in range(2)]
        for load in loads:
            load.start()
        for _ in range(KILLS):
            await_progress(loads)
            time.sleep(chance.uniform(0, 1))
            name = chance.choice(running.names)
            running.kill(name)
            killed[name] += 1
            running.start(name)
        running.await_store()
        for load in loads:
            load.stop()
        await_backlog(running)
        for name in running.names[2:]:
            assert running.stop(name) == 0
        check(running, [message for load in loads for message in load.acknowledged])
    assert sum(killed.values()) == KILLS
    assert len(killed) == 4


def await_progress(loads: list[Load]) -> None:
    """Wait until more was acknowledged: what is killed next is at work."""
    before = sum(len(load.acknowledged) for load in loads)
    deadline = time.monotonic() + 60
    while sum(len(load.acknowledged) for load in loads) == before:
        assert time.monotonic() < deadline, "nothing is acknowledged any more"
        time.sleep(0.01)


def await_backlog(running: Stream) -> None:
    """Wait until everything in the log was taken."""
    deadline = time.monotonic() + 90
    while True:
        assert time.monotonic() < deadline, running.log("updater-0")[-3000:] + running.log("updater-1")[-3000:]
        try:
            with Redis.from_url(running.redis_url) as redis:
                if not sum(RedisLogKeeper(redis).backlog().values()):
                    return
        except RedisError:
            pass
        time.sleep(0.1)


def check(running: Stream, acknowledged: list[dict]) -> None:
    assert len(acknowledged) > 100
    lake = Lake(running.lake)
    with Redis.from_url(running.redis_url) as redis:
        entries = sum(redis.xlen(key) for key in redis.scan_iter(_type="stream") if b"dead" not in key)
        events = lake.read()
        # Every entry of the log once: a crash of ours doubles nothing. A batch sent again is in the log again.
        assert len(events) == entries
        compact(lake)
        events = lake.read()
        taken = collections.Counter(
            zip(events.customers[events.customer].tolist(), events.event_id.tolist(), strict=True)
        )
        assert set(taken.values()) == {1}
        key = bytes.fromhex(KEY.partition(":")[2])
        for message in acknowledged:
            assert taken[pseudonym(message["userId"], key), event_id(message["messageId"])] == 1
        assert redis.xlen("segue:dead_letters") == 0
        assert verify(lake, HistoryStore(redis, PREFIX), sample=10 * CUSTOMERS, seed=0) == []
