"""The collector as a process, over a real server's log, asked by the SDKs that shops have."""

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpc_status import rpc_status
from segment.analytics.client import Client

from segue.adapters.event_log import from_token
from segue.events import event_id, pseudonym
from segue.rpc.convert import to_timestamp
from segue.v1 import collector_pb2 as pb
from tests.collector_process import BEARER, FORMER_KEY, PARTITIONS, WRITE_KEY, Collector, collector, user
from tests.conftest import connect, redis_url

COLLECTOR_DB = 4


@pytest.fixture(scope="module")
def database(valkey):
    return redis_url(f"{valkey},db={COLLECTOR_DB}")


@pytest.fixture(scope="module")
def running(database, valkey, tmp_path_factory):
    with connect(f"{valkey},db={COLLECTOR_DB}") as redis:
        redis.flushdb()
    with collector(tmp_path_factory.mktemp("collector"), database, former_key=True) as started:
        yield started


@pytest.fixture
def small(scratch, tmp_path):
    """A collector with little room, over an empty log."""
    settings = {"LOG_CAPACITY": "8", "CONCURRENT_REQUESTS": "4", "HTTP_BODY_SECONDS": "0.3"}
    with collector(tmp_path / "small", redis_url(scratch), **settings) as started:
        yield started


def track(customer, message_id, **fields):
    return {
        "type": "track",
        "userId": customer,
        "messageId": message_id,
        "event": "Product Viewed",
        "properties": {"product_id": "p1"},
    } | fields


def submitted(customer, event="e", **fields):
    return pb.SubmittedEvent(event_id=event, customer=pb.CustomerId(user_id=customer), kind="product_viewed", **fields)


def failed(call, *arguments, **options):
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **options)
    details = {
        kind: message
        for kind in (ErrorInfo, RetryInfo)
        for detail in rpc_status.from_call(caught.value).details
        if detail.Unpack(message := kind())
    }
    return caught.value.code().name, details


def test_segment_s_python_sdk_works_unchanged(running):
    problems = []
    sdk = Client(
        WRITE_KEY, host=running.url, gzip=True, on_error=lambda error, batch: problems.append(error), timeout=20
    )
    happened = datetime.now(UTC) - timedelta(days=2)
    sdk.identify("sdk-user", {"email": "sdk@example.com"}, anonymous_id="sdk-visitor")
    sdk.track("sdk-user", "Product Added", {"sku": "s-1", "price": 12.5}, timestamp=happened)
    sdk.page("sdk-user", "Shop", "Lamps", {"url": "https://shop.example/?a=b"})
    sdk.screen("sdk-user", "Home", "Lamps")
    sdk.group("sdk-user", "acme", {"name": "Acme"})
    sdk.alias("sdk-former", "sdk-user")
    sdk.flush()
    sdk.join()
    assert problems == []
    events = [entry.event for entry in running.events_of(user("sdk-user"))]
    assert {event.kind for event in events} == {"product_added", "page_viewed", "screen_viewed", "group_joined"}
    (added,) = [event for event in events if event.kind == "product_added"]
    assert (added.item, added.value_minor) == ("s-1", 1250)
    assert added.event_time_ms == added.original_time_ms == int(happened.timestamp() * 1_000)
    targets = {source for source, target in running.links() if target == user("sdk-user")}
    assert {user("sdk-former"), pseudonym("sdk-user", FORMER_KEY)} < targets
    assert len(targets) >= 4


NODE = """
const { Analytics } = require('@segment/analytics-node');
const sdk = new Analytics({ writeKey: process.argv[2], host: process.argv[1], maxRetries: 0 });
sdk.on('error', (error) => { console.error(error); process.exitCode = 1; });
sdk.identify({ userId: 'node-user', anonymousId: 'node-visitor', traits: { email: 'node@example.com' } });
sdk.track({ userId: 'node-user', event: 'Order Completed', messageId: 'node-order',
  properties: { total: 30, currency: 'USD', products: [{ product_id: 'n-1', price: 15, quantity: 2 }] } });
sdk.page({ anonymousId: 'node-visitor', name: 'Shop' });
sdk.closeAndFlush().then(() => console.log('sent'));
"""


@pytest.fixture(scope="session")
def node_sdk(tmp_path_factory) -> Path:
    """A directory with Segment's SDK for Node."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("Node and npm are not installed")
    directory = tmp_path_factory.mktemp("node")
    command = ["npm", "install", "--no-audit", "--no-fund", "@segment/analytics-node@3"]
    try:
        installed = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("npm did not install Segment's SDK in time")
    if installed.returncode:
        pytest.skip("npm cannot install Segment's SDK here")
    return directory


def test_segment_s_node_sdk_works_unchanged(running, node_sdk):
    command = ["node", "-e", NODE, running.url, WRITE_KEY]
    told = subprocess.run(command, cwd=node_sdk, capture_output=True, text=True, timeout=60, check=False)
    assert (told.returncode, told.stdout) == (0, "sent\n"), told.stderr
    events = {entry.event.event_id: entry.event for entry in running.events_of(user("node-user"))}
    assert events[event_id("node-order")].value_minor == 3000
    assert events[event_id("node-order/0")].item == "n-1"
    assert "page_viewed" in {entry.event.kind for entry in running.entries() if entry.HasField("event")}


def test_what_was_acknowledged_survives_a_kill(scratch, tmp_path):
    with collector(tmp_path / "killed", redis_url(scratch)) as running:
        answer = running.post("/v1/batch", {"batch": [track("kill", f"kill-{number}") for number in range(50)]})
        running.process.send_signal(signal.SIGKILL)
        running.process.wait()
        assert answer.json()["accepted_count"] == 50
        assert len(running.events_of(user("kill"))) == 50
        assert set(from_token(answer.json()["token"])) <= set(range(PARTITIONS))


def test_a_batch_sent_again_says_the_same(running):
    past = "2026-01-31T12:00:00.123Z"
    batch = [
        track("again", "again-1", timestamp=past),
        track("again", "again-2", timestamp=past, event="Order Completed", properties={"total": 5, "products": [{}]}),
        track("again", "", timestamp=past),
    ]
    for _ in range(2):
        # Sent from a clock that is an hour behind, as it would be each time.
        sent = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
        assert running.post("/v1/batch", {"batch": batch, "sentAt": sent}).json()["accepted_count"] == 3
    events = [entry.event for entry in running.events_of(user("again"))]
    assert len(events) == 8
    ids = {(event.event_id, event.kind, event.item, event.value_minor, event.properties_json) for event in events}
    assert len(ids) == 4
    assert len({event.event_time_ms // 2_000 for event in events}) <= 2


def test_a_resent_batch_is_byte_for_byte_the_same(running):
    now = datetime.now(UTC).isoformat()
    for _ in range(2):
        running.post("/v1/batch", {"batch": [track("bytes", "bytes-1", timestamp=now)], "sentAt": now})
    first, second = running.events_of(user("bytes"))
    assert first.event.SerializeToString() == second.event.SerializeToString()


def test_good_events_of_a_batch_are_taken_and_bad_ones_told(running):
    batch = [
        track("mixed", "mixed-0"),
        track("mixed", "mixed-1", timestamp="2999-01-01T00:00:00Z"),
        "text",
        track("mixed", "mixed-3", properties={"note": "x" * 40_000}),
        track("mixed", "mixed-4", context={"consent": {"categoryPreferences": {"Analytics": False}}}),
        track("mixed", "mixed-5"),
    ]
    answer = running.post("/v1/batch", {"batch": batch})
    assert answer.status_code == 200
    told = answer.json()
    assert (told["success"], told["accepted_count"]) == (True, 2)
    assert [(each["index"], each["event_id"], each["reason"], each["field"]) for each in told["refused"]] == [
        (1, "mixed-1", "INVALID_EVENT", "timestamp"),
        (2, "", "INVALID_EVENT", "message"),
        (3, "mixed-3", "EVENT_TOO_LARGE", "message"),
        (4, "mixed-4", "CONSENT_WITHHELD", "context.consent.categoryPreferences.Analytics"),
    ]
    assert len(running.events_of(user("mixed"))) == 2


@pytest.mark.parametrize("path", ["/v1/track", "/v1/t"])
def test_one_bad_message_is_an_error(running, path):
    answer = running.post(path, {"userId": "one", "event": ""})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["status"]) == (400, "INVALID_ARGUMENT")
    assert error["details"][1]["fieldViolations"][0]["field"] == "event"
    withheld = {"context": {"consent": {"categoryPreferences": {"Analytics": False}}}}
    answer = running.post(path, track("one", "one") | withheld)
    assert (answer.status_code, answer.json()["refused"][0]["reason"]) == (200, "CONSENT_WITHHELD")


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/v1/track", "x"), ("/v1/page", "page_viewed"), ("/v1/s", "screen_viewed"), ("/v1/group", "group_joined")],
)
def test_each_path_names_its_type(running, path, kind):
    assert running.post(path, {"type": "alias", "userId": f"path{kind}", "event": "x"}).status_code == 200
    assert [entry.event.kind for entry in running.events_of(user(f"path{kind}"))] == [kind]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b"{}", 400),
        (b'{"batch": {}}', 400),
        (b'{"batch": []}', 400),
        (json.dumps({"batch": [{}] * 1_001}).encode(), 400),
        (b'{"batch": [{}], "sentAt": "soon"}', 400),
        (b'{"batch": [{"a": NaN}]}', 400),
        (b'{"batch": [{"a": Infinity}]}', 400),
        (b'{"batch": [{"a": 1e999}]}', 400),
        (b'{"batch": [' + b"[" * 5_000 + b"]" * 5_000 + b"]}", 400),
        (b'{"batch": [{"a": "\\ud800", "b": NaN}]}', 400),
        (b'{"batch": [' + b"9" * 10_000 + b', "\\ud800"]}', 400),
        (b"\xff\xfe", 400),
        (b'{"batch": ["' + b"x" * (512 * 1_024) + b'"]}', 413),
    ],
)
def test_an_envelope_that_is_none_is_an_error(running, body, code):
    answer = running.post("/v1/batch", body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (code, code)


def test_half_a_surrogate_pair_loses_no_batch(running):
    body = b'{"batch": [{"type": "track", "userId": "half", "event": "x", "properties": {"a": "cut \\ud83d"}}]}'
    assert running.post("/v1/batch", body).json()["accepted_count"] == 1
    (entry,) = running.events_of(user("half"))
    assert entry.event.properties_json == '{"a":"cut ?"}'


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (gzip.compress(b'{"batch": []}' + b" " * (100 << 20)), 413),
        (gzip.compress(gzip.compress(b" " * (100 << 20))), 400),
        (gzip.compress(b"{}")[:-4], 400),
        (gzip.compress(b"{}") * 2, 400),
        (zlib.compress(b"{}"), 400),
        (b"plain", 400),
        (b"", 400),
    ],
    ids=["bomb", "bomb in a bomb", "cut", "two", "zlib", "plain", "empty"],
)
def test_packed_bodies_are_unpacked_within_the_limit(running, body, code):
    before = running.resident_bytes()
    for _ in range(5):
        assert running.post("/v1/batch", body, headers={"content-encoding": "gzip"}).status_code == code
    assert running.resident_bytes() - before < 32 << 20


def test_another_encoding_is_refused(running):
    assert running.post("/v1/batch", b"{}", headers={"content-encoding": "br"}).status_code == 400


@pytest.mark.parametrize(
    "auth",
    [
        {"auth": None},
        {"auth": ("another-key-of-somebody", "")},
        {"auth": None, "headers": {"authorization": "Basic !!"}},
        {"auth": None, "headers": {"authorization": "Basic /w=="}},
        {"auth": None, "headers": {"authorization": "Digest x"}},
    ],
)
def test_without_the_write_key_nothing_is_taken(running, auth):
    answer = running.post("/v1/track", track("nobody", "nobody"), **auth)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Basic")
    assert running.events_of(user("nobody")) == []


@pytest.mark.parametrize(
    "options",
    [
        {"auth": (WRITE_KEY, "")},
        {"auth": None, "headers": {"authorization": f"Bearer {WRITE_KEY}"}},
        {"auth": None, "headers": {"content-type": "text/plain"}, "content": json.dumps({"writeKey": WRITE_KEY})},
    ],
)
def test_the_write_key_is_shown_in_any_of_three_ways(running, options):
    content = json.loads(options.pop("content", "{}")) | track("somebody", "somebody")
    assert running.post("/v1/t", json.dumps(content).encode(), **options).status_code == 200


def test_pages_of_any_origin_may_send(running):
    origin = {"origin": "https://shop.example"}
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
    preflight = running.http.options("/v1/t", headers=origin | asked)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "*"
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    answer = running.post("/v1/t", track("page", "page"), headers=origin)
    assert answer.headers["access-control-allow-origin"] == "*"


def test_other_paths_and_methods_are_told(running):
    assert running.get("/v1/track").status_code == 405
    assert running.post("/v1/none", {}).status_code == 404
    assert running.get("/openapi.json").json()["openapi"] == "3.1.0"
    assert running.get("/livez").status_code == running.get("/readyz").status_code == 200


def test_a_full_log_asks_for_patience_and_takes_more_when_it_is_read(small):
    answers = [small.post("/v1/track", track("full", f"full-{number}")) for number in range(20)]
    codes = [answer.status_code for answer in answers]
    assert codes[0] == 200
    assert codes[-1] == 429
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert answers[-1].json()["error"]["details"][0]["reason"] == "OVERLOADED"
    with small.stub() as stub:
        request = pb.CollectEventsRequest(events=[submitted("full")])
        code, details = failed(stub.CollectEvents, request, metadata=BEARER)
    assert code == "RESOURCE_EXHAUSTED"
    assert details[RetryInfo].retry_delay.ToMilliseconds() > 0
    assert len(small.events_of(user("full"))) == codes.count(200)


def test_a_body_that_does_not_come_is_not_waited_for(small):
    def drip():
        yield b"{"
        time.sleep(1)
        yield b"}"

    assert small.http.post("/v1/t", content=drip(), auth=(WRITE_KEY, "")).status_code == 408


def test_requests_beyond_the_limit_are_refused_at_once(small):
    go = threading.Event()

    def held():
        yield b"{"
        go.wait(10)
        yield b"}"

    def hold():
        small.http.post("/v1/i", content=held(), auth=(WRITE_KEY, ""))

    # What says nothing that is kept needs no room in the log.
    asked = {"userId": "limit"}
    codes, deadline = set(), time.monotonic() + 20
    while 429 not in codes and time.monotonic() < deadline:
        threads = [threading.Thread(target=hold) for _ in range(8)]
        for thread in threads:
            thread.start()
        codes |= {small.post("/v1/identify", asked).status_code for _ in range(10)}
        for thread in threads:
            thread.join()
    go.set()
    assert codes <= {200, 429}
    assert 429 in codes
    assert small.post("/v1/identify", asked).status_code == 200


def test_a_log_that_is_gone_is_told_and_nothing_is_acknowledged(tmp_path):
    settings = {"LOG_TIMEOUT_MS": "200"}
    with collector(tmp_path / "alone", "redis://127.0.0.1:1/0", **settings) as alone:
        answer = alone.post("/v1/track", track("gone", "gone"))
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        with alone.stub() as stub:
            code, details = failed(
                stub.CollectEvents, pb.CollectEventsRequest(events=[submitted("g")]), metadata=BEARER
            )
            assert (code, details[ErrorInfo].reason) == ("UNAVAILABLE", "LOG_UNAVAILABLE")
            customer = pb.CustomerId(user_id="gone")
            code, _ = failed(stub.EraseCustomer, pb.EraseCustomerRequest(customer=customer), metadata=BEARER)
            assert code == "UNAVAILABLE"
        assert alone.metric("segue_collector_events_accepted_total") == 0


def test_grpc_takes_a_batch_event_by_event(running):
    happened = to_timestamp(1_700_000_000_123)
    properties = Struct()
    properties.update({"email": "a@b.example", "colour": "red", "count": 3, "deep": {"list": [1.5, True, None]}})
    good = submitted("grpc", "g1", item="i1", value_minor=7, currency="EUR", event_time=happened, properties=properties)
    told = running.collect(good, submitted("grpc", ""), submitted("", "g3"), submitted("grpc", "g4", currency="eur"))
    assert told.accepted_count == 1
    assert [(each.index, each.event_id, each.reason, each.field) for each in told.refused] == [
        (1, "", "INVALID_EVENT", "event_id"),
        (2, "g3", "INVALID_EVENT", "customer.user_id"),
        (3, "g4", "INVALID_EVENT", "currency"),
    ]
    (entry,) = running.events_of(user("grpc"))
    event = entry.event
    assert (event.event_id, event.item, event.value_minor, event.currency) == (event_id("g1"), "i1", 7, "EUR")
    assert event.event_time_ms == event.original_time_ms == 1_700_000_000_123
    assert json.loads(event.properties_json) == {"colour": "red", "count": 3, "deep": {"list": [1.5, True, None]}}
    assert from_token(told.token)


def test_a_pseudonym_stands_for_itself(running):
    known = pb.CustomerId(customer=user("by-pseudonym"))
    event = pb.SubmittedEvent(event_id="e", customer=known, kind="x")
    told = running.collect(event, pb.SubmittedEvent(event_id="e", customer=pb.CustomerId(customer="ABC"), kind="x"))
    assert (told.accepted_count, told.refused[0].field) == (1, "customer.customer")
    assert len(running.events_of(user("by-pseudonym"))) == 1
    with running.stub() as stub:
        request = pb.ResolveCustomerRequest(customer=known)
        assert stub.ResolveCustomer(request, metadata=BEARER).customer == known.customer
        request = pb.EraseCustomerRequest(customer=known)
        erasure_id = stub.EraseCustomer(request, metadata=BEARER).erasure_id
        receipt = stub.GetErasure(pb.GetErasureRequest(erasure_id=erasure_id), metadata=BEARER).receipt
    assert list(receipt.customers) == [known.customer]


def test_a_stream_is_answered_once_for_all_its_batches(running):
    batches = [
        pb.CollectEventsRequest(events=[submitted("stream", f"s{batch}-{number}") for number in range(10)] + bad)
        for batch, bad in enumerate([[], [submitted("", "bad")], []])
    ]
    with running.stub() as stub:
        requests = iter([pb.StreamEventsRequest(batch=batch) for batch in batches])
        told = stub.StreamEvents(requests, metadata=BEARER, timeout=20)
        assert (told.result.accepted_count, told.refused_count) == (30, 1)
        assert [(each.index, each.event_id) for each in told.result.refused] == [(20, "bad")]
        assert len(running.events_of(user("stream"))) == 30
        requests = iter([pb.StreamEventsRequest()])
        assert failed(stub.StreamEvents, requests, metadata=BEARER)[0] == "INVALID_ARGUMENT"
        assert failed(stub.StreamEvents, iter([]))[0] == "UNAUTHENTICATED"
        assert stub.StreamEvents(iter([]), metadata=BEARER).result.accepted_count == 0


def test_grpc_needs_the_write_key(running):
    customer = pb.CustomerId(user_id="auth")
    with running.stub() as stub:
        for call, request in (
            (stub.CollectEvents, pb.CollectEventsRequest(events=[submitted("auth")])),
            (stub.LinkCustomers, pb.LinkCustomersRequest(source=customer, target=pb.CustomerId(user_id="x"))),
            (stub.ChangeConsent, pb.ChangeConsentRequest(customer=customer)),
            (stub.EraseCustomer, pb.EraseCustomerRequest(customer=customer)),
            (stub.GetErasure, pb.GetErasureRequest(erasure_id="x")),
            (stub.ResolveCustomer, pb.ResolveCustomerRequest(customer=customer)),
        ):
            for metadata in (None, [("authorization", "Bearer nobody")], [("authorization", WRITE_KEY)]):
                code, details = failed(call, request, metadata=metadata)
                assert (code, details[ErrorInfo].reason) == ("UNAUTHENTICATED", "UNAUTHENTICATED")
    assert running.events_of(user("auth")) == []


def test_links_consent_and_pseudonyms_over_grpc(running):
    known, visitor = pb.CustomerId(user_id="g-user"), pb.CustomerId(anonymous_id="g-visitor")
    with running.stub() as stub:

        def resolve(customer):
            return stub.ResolveCustomer(pb.ResolveCustomerRequest(customer=customer), metadata=BEARER).customer

        assert resolve(known) == user("g-user")
        stub.LinkCustomers(pb.LinkCustomersRequest(source=visitor, target=known), metadata=BEARER)
        assert {(resolve(visitor), user("g-user")), (pseudonym("g-user", FORMER_KEY), user("g-user"))} < running.links()
        same = pb.LinkCustomersRequest(source=known, target=known)
        assert failed(stub.LinkCustomers, same, metadata=BEARER)[0] == "INVALID_ARGUMENT"
        told = stub.ChangeConsent(pb.ChangeConsentRequest(customer=known, granted=False), metadata=BEARER)
        assert from_token(told.token)
    changed = {entry.customer for entry in running.entries() if entry.HasField("consent") and not entry.consent.granted}
    assert {user("g-user"), pseudonym("g-user", FORMER_KEY)} <= changed


def test_an_erasure_is_ordered_under_every_pseudonym(running):
    customer = pb.CustomerId(user_id="erase")
    with running.stub() as stub:
        erasure_id = stub.EraseCustomer(pb.EraseCustomerRequest(customer=customer), metadata=BEARER).erasure_id
        receipt = stub.GetErasure(pb.GetErasureRequest(erasure_id=erasure_id), metadata=BEARER).receipt
        code, _ = failed(stub.GetErasure, pb.GetErasureRequest(erasure_id="never"), metadata=BEARER)
    assert code == "NOT_FOUND"
    wanted = {user("erase"), pseudonym("erase", FORMER_KEY)}
    assert (receipt.erasure_id, receipt.state, set(receipt.customers)) == (erasure_id, pb.ERASURE_STATE_ORDERED, wanted)
    ordered = {entry.customer: entry.erasure for entry in running.entries() if entry.HasField("erasure")}
    assert set(ordered) >= wanted
    assert ordered[user("erase")].erasure_id == erasure_id


def test_a_link_is_said_once(running):
    for number in range(3):
        running.post("/v1/t", track("said", f"said-{number}", anonymousId="said-visitor"))
    sources = [entry.customer for entry in running.entries() if entry.link.target == user("said")]
    assert len(sources) == len(set(sources)) == 2


def test_bytes_that_are_no_request_are_the_caller_s_fault(running):
    with grpc.insecure_channel(f"127.0.0.1:{running.grpc_port}") as channel:
        for call in (channel.unary_unary, channel.stream_unary):
            method = "CollectEvents" if call == channel.unary_unary else "StreamEvents"
            sent = b"\xff\xff" if call == channel.unary_unary else iter([b"\xff\xff"])
            code, _ = failed(call(f"/segue.v1.CollectorService/{method}"), sent, metadata=BEARER)
            assert code == "INVALID_ARGUMENT"


def test_calls_in_progress_are_answered_when_it_is_told_to_stop(scratch, tmp_path):
    with collector(tmp_path / "stopping", redis_url(scratch), GRPC_DRAIN_SECONDS="5") as stopping:

        def drip():
            body = json.dumps(track("stop", "stop")).encode()
            yield body[:5]
            stopping.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            yield body[5:]

        answer = stopping.http.post("/v1/t", content=drip(), auth=(WRITE_KEY, ""))
        assert answer.status_code == 200
        assert stopping.process.wait(30) == 0


RAW = {
    "user": "raw-user-7391",
    "visitor": "raw-visitor-5520",
    "email": "raw.person@example.com",
    "name": "Rawina Personova",
    "ip": "203.0.113.77",
    "phone": "+49 170 5550199",
    "street": "Rawstreet 12b",
    "agent": "RawBrowser/7.0",
    "card": "4111111111111111",
}


def raw_messages():
    properties = {
        "product_id": "p1",
        "email": RAW["email"],
        "customer": {"name": RAW["name"], "address": {"street": RAW["street"]}},
        "note": f"call {RAW['phone']} or {RAW['email']} for {RAW['user']} from {RAW['ip']}",
        "list": [RAW["email"], {"x": RAW["visitor"].upper()}, int(RAW["card"])],
        RAW["email"]: True,
        "ua": RAW["agent"],
        "url": f"https://shop.example/x?email={RAW['email']}",
    }
    context = {"ip": RAW["ip"], "userAgent": RAW["agent"], "traits": {"name": RAW["name"]}}
    common = {"userId": RAW["user"], "anonymousId": RAW["visitor"], "context": context}
    traits = {key: RAW[key] for key in ("email", "name", "phone", "street")}
    return [
        {"type": "identify", "messageId": "raw-1", "traits": traits} | common,
        {"type": "track", "messageId": "raw-2", "event": "Product Viewed", "properties": properties} | common,
        {"type": "page", "messageId": RAW["email"], "name": RAW["name"], "properties": properties} | common,
        {"type": "alias", "messageId": "raw-4", "previousId": RAW["email"]} | common,
        {"type": "group", "messageId": "raw-5", "groupId": RAW["email"], "traits": traits} | common,
        {"type": "track", "messageId": "raw-6", "event": f"Called {RAW['email']}"} | common,
        {"type": "track", "messageId": "raw-7", "event": "x", "timestamp": RAW["email"]} | common,
        {"type": "track", "messageId": "raw-8", "event": "x", "properties": {"product_id": RAW["user"]}} | common,
    ]


def test_no_raw_value_gets_past_the_door(running):
    told = running.post("/v1/batch", {"batch": raw_messages()}).json()
    assert (told["accepted_count"], [each["index"] for each in told["refused"]]) == (5, [5, 6, 7])
    for message in raw_messages():
        running.post(f"/v1/{message['type']}", message)
    for customer in (pb.CustomerId(user_id=RAW["user"]), pb.CustomerId(anonymous_id=RAW["visitor"])):
        # An id is known as one where it is the event's own.
        mention = {"note": f"{RAW['email']} is {customer.user_id or customer.anonymous_id}", "list": []}
        properties = Struct()
        properties.update(raw_messages()[1]["properties"] | mention)
        event = pb.SubmittedEvent(event_id=RAW["email"], customer=customer, kind="x", properties=properties)
        assert running.collect(event).accepted_count == 1
        with running.stub() as stub:
            stub.EraseCustomer(pb.EraseCustomerRequest(customer=customer), metadata=BEARER)
            stub.ChangeConsent(pb.ChangeConsentRequest(customer=customer), metadata=BEARER)
    running.post("/v1/track", f"{{{RAW['email']}".encode())
    running.post("/v1/track", {"writeKey": RAW["email"]}, auth=(RAW["email"], ""))
    kept = everything_kept(running)
    assert b"p1" in kept
    assert user(RAW["user"]).encode() in kept
    for name, value in RAW.items():
        assert value.casefold().encode() not in kept, name
    for secret in (WRITE_KEY, FORMER_KEY.hex()):
        assert secret.encode() not in kept


def everything_kept(running: Collector) -> bytes:
    """All keys and values of the server, the process's own words and its metrics, in lower case."""
    redis = running.redis
    parts = [running.log.read_bytes(), running.get("/metrics").content]
    for key in redis.scan_iter():
        parts.append(key)
        kind = redis.type(key)
        if kind == b"stream":
            parts += [part for _, fields in redis.xrange(key) for pair in fields.items() for part in pair]
        elif kind == b"hash":
            parts += [part for pair in redis.hgetall(key).items() for part in pair]
        elif kind == b"string":
            parts.append(redis.get(key))
        else:
            parts.append(redis.dump(key))
    return b"\n".join(parts).lower()


def test_events_are_counted_without_saying_whose(running):
    before = running.metric("segue_collector_events_accepted_total")
    refused = running.metric('segue_collector_events_refused_total{reason="INVALID_EVENT"}')
    running.post("/v1/batch", {"batch": [track("count", "count"), {}]})
    assert running.metric("segue_collector_events_accepted_total") == before + 1
    assert running.metric('segue_collector_events_refused_total{reason="INVALID_EVENT"}') == refused + 1
    assert running.metric('segue_collector_http_seconds_count{code="200",route="/v1/batch"}') > 0
    assert running.metric("process_resident_memory_bytes") > 0


def test_settings_that_do_not_allow_a_start_are_told_in_a_line(tmp_path):
    environment = {**os.environ, "SEGUE_COLLECTOR_KEYS": str(tmp_path / "none"), "SEGUE_COLLECTOR_HTTP_PRT": "1"}
    command = [sys.executable, "-m", "services.collector"]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert told.returncode == 1
    assert "SEGUE_COLLECTOR_HTTP_PRT" in told.stderr
    assert "Traceback" not in told.stderr
