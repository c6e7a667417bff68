"""Events from an SDK's request to histories and lake, links, erasure: over either event log."""

import asyncio
import json
import time
from contextlib import contextmanager

import grpc
import httpx
import pytest
from redis import Redis
from redis import asyncio as aioredis

from segue.adapters.event_log import from_token
from segue.adapters.histories import HistoryStore
from segue.adapters.lake import Lake
from segue.adapters.progress import wait
from segue.adapters.replay import replay, verify
from segue.adapters.upkeep import HISTORY_PREFIX, Kafka, Upkeep
from segue.events import event_id, pseudonym
from segue.v1 import collector_pb2 as pb
from segue.v1.collector_pb2_grpc import CollectorServiceStub
from tests.contract.logs import mock_cluster
from tests.e2e.stream import KEY, PARTITIONS, WRITE_KEY, Stream, stream

RAW = {
    "user": "ada.lovelace-1815",
    "visitor": "cookie-4711-of-ada",
    "name": "Augusta Lovelace",
    "email": "ada@analytical-engine.example",
    "ip": "203.0.113.77",
    "phone": "+44 20 7946 0958",
}
"""What is sent, and must be nowhere afterwards."""

SECRET = bytes.fromhex(KEY.partition(":")[2])
TOPIC = "segue-events"
TIMEOUT = 30


@pytest.fixture(params=["redis", "kafka"])
def running(request, tmp_path):
    """A stream, and where its log is for the jobs beside it."""
    if request.param == "redis":
        with stream(tmp_path) as made:
            yield made, None
        return
    with mock_cluster() as brokers:
        names = ("LOG", "KAFKA_BOOTSTRAP_SERVERS", "KAFKA_TOPIC")
        values = dict(zip(names, ("kafka", brokers, TOPIC), strict=True))
        both = {f"SEGUE_{who}_{name}": value for who in ("COLLECTOR", "UPDATER") for name, value in values.items()}
        with stream(tmp_path, **both, SEGUE_COLLECTOR_LOG_TIMEOUT_MS="20000") as made:
            yield made, Kafka(brokers, TOPIC)


@contextmanager
def door(made: Stream):
    with grpc.insecure_channel(f"127.0.0.1:{made.grpc_port}") as channel:
        yield CollectorServiceStub(channel)


def ask(method, request):
    return method(request, metadata=[("authorization", f"Bearer {WRITE_KEY}")], timeout=TIMEOUT)


def message(number: int, **fields) -> dict:
    said = {"name": RAW["name"], "email": RAW["email"], "note": f"call {RAW['phone']}", "price": number + 1}
    context = {"ip": RAW["ip"], "traits": {"email": RAW["email"]}}
    common = {"type": "track", "messageId": f"m-{number}", "event": "Product Viewed", "context": context}
    return common | {"properties": {"product_id": f"item-{number}", **said}} | fields


def send(made: Stream, *messages: dict) -> None:
    answer = httpx.post(f"{made.url}/v1/batch", json={"batch": messages}, auth=(WRITE_KEY, ""), timeout=TIMEOUT)
    assert answer.status_code == 200, answer.text
    assert answer.json()["refused"] == []


def eventually(happened):
    deadline = time.monotonic() + 2 * TIMEOUT
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_a_person_does_is_one_history_and_can_be_forgotten(running):
    made, kafka = running
    user = pseudonym(RAW["user"], SECRET)
    with door(made) as stub, Redis.from_url(made.redis_url) as redis:
        histories, lake = HistoryStore(redis, HISTORY_PREFIX), Lake(made.lake)
        resolved = ask(
            stub.ResolveCustomer, pb.ResolveCustomerRequest(customer=pb.CustomerId(anonymous_id=RAW["visitor"]))
        )
        visitor = resolved.customer
        before = [message(number, anonymousId=RAW["visitor"]) for number in range(3)]
        known = [message(number, userId=RAW["user"]) for number in range(3, 6)]
        login = {"type": "identify", "userId": RAW["user"], "anonymousId": RAW["visitor"], "traits": RAW}
        other = message(6, userId="somebody-else")
        # In no order at all, and twice.
        send(made, known[0], before[1], login, other)
        send(made, before[0], *known[1:], before[2], login, known[0])
        everything = {event_id(f"m-{number}") for number in range(6)}
        eventually(lambda: set(histories.read([user]).event_id.tolist()) == everything)
        assert set(histories.read([visitor]).event_id.tolist()) == {event_id(f"m-{number}") for number in range(3)}
        eventually(lambda: lake.version() >= 0 and len(lake.read()) == 8)
        assert verify(lake, histories, sample=10, seed=0) == []
        properties = lake.dataset().to_table(columns=["properties"]).column("properties").to_pylist()
        assert {json.loads(each)["price"] for each in properties} == set(range(1, 8))
        assert_nowhere(made, redis)

        erasing = pb.EraseCustomerRequest(customer=pb.CustomerId(user_id=RAW["user"]))
        receipt_id = ask(stub.EraseCustomer, erasing).erasure_id
        upkeep = Upkeep.of(made.directory, f"127.0.0.1:{made.store_port},db=0", kafka=kafka)

        def receipt():
            return ask(stub.GetErasure, pb.GetErasureRequest(erasure_id=receipt_id)).receipt

        eventually(lambda: receipt().state == pb.ERASURE_STATE_ONLINE)
        assert histories.read([user, visitor]).lengths.tolist() == [0, 0]
        upkeep.erasures.run()
        done = receipt()
        assert done.state == pb.ERASURE_STATE_DONE
        assert set(done.customers) == {user, visitor}
        assert done.lake_event_count == 7
        assert done.HasField("log_expire_time") == (kafka is not None)
        assert lake.customers() == [pseudonym("somebody-else", SECRET)]
        # What comes again, or is built anew, stays forgotten; what comes later counts.
        late = message(3, userId=RAW["user"], timestamp="2026-01-01T00:00:00.000Z")
        send(made, late, message(7, userId=RAW["user"]))
        eventually(lambda: histories.read([user]).event_id.tolist() == [event_id("m-7")])
        eventually(lambda: len(lake.read()) == 2)
        replay(lake, histories, fresh=True)
        assert histories.read([user, visitor]).event_id.tolist() == [event_id("m-7")]
        assert_nowhere(made, redis)


def assert_nowhere(made: Stream, redis: Redis) -> None:
    """Grep every file of lake, store and processes, what the server holds, and what is told to whoever asks."""
    files = [path for path in made.directory.rglob("*") if path.is_file() and path.name not in {"keys", "write-keys"}]
    kept = [path.read_bytes() for path in files]
    kept += [redis.dump(key) for key in redis.scan_iter()]
    kept += [httpx.get(f"{made.url}/metrics").content]
    # What is compressed in the lake is read as well.
    kept += [str(Lake(made.lake).dataset().to_table(columns=["item_id", "kind", "properties"]).to_pylist()).encode()]
    together = b"\n".join(kept).lower()
    assert len(together) > 1_000
    for name, value in RAW.items():
        assert value.lower().encode() not in together, name


def test_a_call_can_wait_for_what_was_sent(running):
    made, _ = running

    async def answered(token: str) -> None:
        async with aioredis.Redis.from_url(made.redis_url) as redis:
            await wait(redis, from_token(token), timeout_seconds=TIMEOUT)

    with door(made) as stub, Redis.from_url(made.redis_url) as redis:
        histories = HistoryStore(redis, HISTORY_PREFIX)
        for number in range(20):
            who = pb.CustomerId(customer=f"{number % PARTITIONS:032x}")
            event = pb.SubmittedEvent(event_id=f"e-{number}", customer=who, kind="product_viewed", item="a")
            token = ask(stub.CollectEvents, pb.CollectEventsRequest(events=[event])).token
            asyncio.run(answered(token))
            assert event_id(f"e-{number}") in histories.read([who.customer]).event_id.tolist()
