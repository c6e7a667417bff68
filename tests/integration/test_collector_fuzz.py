"""Hostile input: whatever is sent, nobody is told of a fault of ours, the process lives, and its memory stays flat."""

import base64
import gzip
import random
from collections import Counter

import grpc
import orjson
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error

from segue.v1 import collector_pb2 as pb
from tests.collector_process import BEARER, WRITE_KEY, collector
from tests.conftest import connect, redis_url

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

FUZZ_DB = 5
MEMORY_BYTES = 64 << 20
"""How much more the process may hold in the end: buffers, caches of names, links said."""

SCHEMA_REQUESTS = 50
"""For each operation, by the schema and against it."""
HOSTILE_REQUESTS = 6_000
GRPC_REQUESTS = 1_200
GRPC_BYTES = 3_000
REQUESTS_MIN_COUNT = 10_000

BASIC = "Basic " + base64.b64encode(f"{WRITE_KEY}:".encode()).decode()
TOLD = {200, 400, 401, 408, 413, 429}
TOLD_GRPC = {"OK", "INVALID_ARGUMENT", "UNAUTHENTICATED", "RESOURCE_EXHAUSTED", "NOT_FOUND"}

sent: Counter[str] = Counter()


@pytest.fixture(scope="module")
def target(valkey, tmp_path_factory):
    """The process under fire; when all is over it is as it was."""
    with connect(f"{valkey},db={FUZZ_DB}") as redis:
        redis.flushdb()
        url = redis_url(f"{valkey},db={FUZZ_DB}")
        with collector(tmp_path_factory.mktemp("fuzz"), url, former_key=True, LOG_TIMEOUT_MS="30000") as started:
            for number in range(300):
                started.post("/v1/t", {"userId": f"warm-{number}", "event": "x", "properties": {"a": "b" * 900}})
            before = started.resident_bytes()
            yield started
            assert started.process.poll() is None
            assert started.get("/readyz").status_code == 200
            assert "incident" not in started.log.read_text()
            assert started.resident_bytes() - before < MEMORY_BYTES
        redis.flushdb()


def quietly(count):
    return settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["valid", "invalid"])
def test_requests_made_from_the_document(target, mode):
    schema = schemathesis.openapi.from_dict(target.get("/openapi.json").json())
    schema.config.update(base_url=target.url)
    operations = [found.ok() for found in schema.get_all_operations()]
    taken = [operation for operation in operations if operation.method.upper() == "POST"]
    assert len(taken) == 8
    for operation in taken:

        @quietly(SCHEMA_REQUESTS)
        @given(case=operation.as_strategy(generation_mode=mode))
        def attack(case):
            answer = case.call(base_url=target.url, headers={"authorization": BASIC})
            case.validate_response(answer, checks=[not_a_server_error])
            sent[f"schema {answer.status_code}"] += 1

        attack()


WORDS = [
    *("", " ", "u", "Product Viewed", "Order Completed", "purchase", "track", "identify", "alias", "page", "group"),
    *("2026-01-31T12:00:00Z", "0001-01-01T00:00:00-14:00", "9999-12-31T23:59:59+14:00", "19.99", "-1e400", "EUR"),
    *(
        "\x00",
        "\u202e",
        "\ufdfa" * 40,
        "e\u0301" * 300,
        "x" * 33_000,
        "[removed]",
        "Segment Consent Preference Updated",
    ),
    *("@" * 1_024, "0" * 1_024, "a." * 512, "1-" * 512, "::" * 500, "?=" * 512, "../../etc/passwd", "' OR 1=1 --"),
    *("4111111111111111", "DE89370400440532013000", "{}", "null", "NaN", "%40%40", "\U0001f9d1\u200d\U0001f680"),
]
FIELDS = [
    *("type", "userId", "anonymousId", "previousId", "messageId", "event", "timestamp", "originalTimestamp", "sentAt"),
    *("properties", "context", "consent", "categoryPreferences", "Analytics", "traits", "batch", "writeKey", "groupId"),
    *("products", "items", "product_id", "sku", "price", "quantity", "total", "value", "currency", "email", "name"),
]
NUMBERS = [0, -1, 1, 2**31, 2**53, 2**63 - 1, -(2**63), 2**64 - 1, 1e308, -1e308, 5e-324, 0.1, 1.5, 253_402_300_800_000]


def hostile(random_: random.Random, depth: int = 0):
    """Any JSON, rather nasty than not."""
    choice = random_.random()
    if choice < 0.35 and depth < 12:
        names = random_.choices(FIELDS + WORDS, k=random_.randrange(7))
        return {name: hostile(random_, depth + 1) for name in names}
    if choice < 0.5 and depth < 12:
        return [hostile(random_, depth + 1) for _ in range(random_.randrange(5))]
    return random_.choice([None, True, False, random_.choice(NUMBERS), random_.choice(WORDS), random_.choice(WORDS)])


def message(random_: random.Random):
    """A message that begins well, with something hostile in some of its fields."""
    made = {"type": "track", "userId": "u", "anonymousId": "a", "event": "Order Completed", "messageId": "m"}
    made["properties"] = {"products": [{"product_id": "p", "price": 1}], "total": 5, "currency": "EUR"}
    for _ in range(random_.randrange(1, 4)):
        inside = random_.choice(
            [made, made, made["properties"]] if isinstance(made.get("properties"), dict) else [made]
        )
        inside[random_.choice(FIELDS)] = hostile(random_, 6)
    return made


def body(random_: random.Random) -> bytes:
    """A request body: well-formed or not quite."""
    envelope = {"batch": [message(random_) for _ in range(random_.randrange(1, 6))], "sentAt": "2026-01-31T12:00:00Z"}
    made = orjson.dumps(random_.choice([envelope, envelope, hostile(random_), message(random_)]))
    match random_.randrange(8):
        case 0:
            cut = random_.randrange(len(made) + 1)
            return made[:cut] + random_.randbytes(random_.randrange(9)) + made[cut + 1 :]
        case 1:
            return random_.randbytes(random_.randrange(600))
        case 2:
            return made.replace(b"1", random_.choice([b"NaN", b"1e999", b"9" * 5_000, b'"\\ud800"', b"[" * 2_000]), 1)
    return made


def test_hostile_bodies(target):
    paths = ["/v1/batch", "/v1/batch", "/v1/track", "/v1/identify", "/v1/alias", "/v1/page", "/v1/group", "/v1/import"]
    random_ = random.Random(1)
    codes: Counter[int] = Counter()
    for _ in range(HOSTILE_REQUESTS):
        content, headers = body(random_), {}
        if random_.random() < 0.2:
            content = gzip.compress(content, 1)
            headers["content-encoding"] = "gzip"
            if random_.random() < 0.3:
                content = content[: random_.randrange(len(content))] + random_.randbytes(5)
        codes[target.post(random_.choice(paths), content, headers=headers).status_code] += 1
    assert set(codes) <= TOLD
    assert codes[200] > HOSTILE_REQUESTS / 10
    sent["bodies"] = codes.total()


ids = st.text(max_size=300) | st.just("u")
customers = (
    st.builds(pb.CustomerId, user_id=ids)
    | st.builds(pb.CustomerId, anonymous_id=ids)
    | st.builds(pb.CustomerId, customer=ids)
    | st.just(pb.CustomerId())
)
seconds = st.integers(-(2**63), 2**63 - 1) | st.integers(1_600_000_000, 1_800_000_000)
timestamps = st.builds(
    pb.SubmittedEvent().event_time.__class__, seconds=seconds, nanos=st.integers(-(2**31), 2**31 - 1)
)
values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=50) | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=15,
)


def struct(fields):
    made = pb.SubmittedEvent().properties
    made.update(fields)
    return made


events = st.builds(
    pb.SubmittedEvent,
    event_id=ids,
    customer=customers,
    kind=st.sampled_from(["purchase", "x", *WORDS]),
    item=st.text(max_size=140),
    event_time=st.none() | timestamps,
    value_minor=st.integers(-(2**63), 2**63 - 1),
    currency=st.sampled_from(["", "EUR", "eur", "EURO"]),
    properties=st.dictionaries(st.text(max_size=20), values, max_size=5).map(struct),
)
batches = st.builds(pb.CollectEventsRequest, events=st.lists(events, max_size=6), sent_time=st.none() | timestamps)
requests = st.one_of(
    batches,
    batches,
    st.builds(pb.StreamEventsRequest, batch=batches),
    st.builds(pb.LinkCustomersRequest, source=customers, target=customers),
    st.builds(pb.ChangeConsentRequest, customer=customers, granted=st.booleans(), change_time=st.none() | timestamps),
    st.builds(pb.EraseCustomerRequest, customer=customers),
    st.builds(pb.GetErasureRequest, erasure_id=st.text(max_size=80)),
    st.builds(pb.ResolveCustomerRequest, customer=customers),
)


@pytest.fixture(scope="module")
def ask(target):
    """Send bytes to a method; the code of the answer."""
    with grpc.insecure_channel(f"127.0.0.1:{target.grpc_port}") as channel:

        def call(method: str, raw: bytes) -> str:
            path = f"/segue.v1.CollectorService/{method}"
            try:
                if method == "StreamEvents":
                    channel.stream_unary(path)(iter([raw, raw]), metadata=BEARER, timeout=20)
                else:
                    channel.unary_unary(path)(raw, metadata=BEARER, timeout=20)
            except grpc.RpcError as error:
                code = error.code().name
            else:
                code = "OK"
            sent[f"grpc {code}"] += 1
            return code

        yield call


METHODS = [method.name for method in pb.DESCRIPTOR.services_by_name["CollectorService"].methods]


def test_hostile_messages(ask):
    codes: Counter[str] = Counter()

    @quietly(GRPC_REQUESTS)
    @given(request=requests)
    def attack(request):
        codes[ask(type(request).__name__.removesuffix("Request"), request.SerializeToString())] += 1

    attack()
    assert set(codes) <= TOLD_GRPC
    assert codes["OK"] > GRPC_REQUESTS / 10


def test_bytes_that_are_hardly_messages(ask):
    random_ = random.Random(2)
    customer = pb.CustomerId(user_id="u")
    good = pb.CollectEventsRequest(events=[pb.SubmittedEvent(event_id="e", customer=customer, kind="x", item="i")] * 3)
    codes: Counter[str] = Counter()
    for _ in range(GRPC_BYTES):
        raw = bytearray(
            good.SerializeToString() if random_.random() < 0.5 else random_.randbytes(random_.randrange(200))
        )
        for _ in range(random_.randrange(4)):
            if raw:
                raw[random_.randrange(len(raw))] = random_.randrange(256)
        codes[ask(random_.choice(METHODS), bytes(raw))] += 1
    assert set(codes) <= TOLD_GRPC


def test_enough_was_sent(target):
    assert sent.total() >= REQUESTS_MIN_COUNT, sent
