from pathlib import Path

import pytest
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from segue.errors import InvalidInput, Violation
from segue.events import KIND_BY_LABEL, NO_ITEM, Kind, event_id, item_id
from segue.rpc import convert
from segue.v1.events_pb2 import Event
from segue.v1.propensity_pb2 import BatchScorePropensityRequest, ScorePropensityRequest
from segue.v1.recommendation_pb2 import RecommendNextRequest

NOW_MS = 1_760_000_000_123


def event(**changes) -> Event:
    given = {
        "event_id": "e1",
        "customer": "c1",
        "kind": "product_viewed",
        "item": "shoe-7",
        "event_time": convert.to_timestamp(NOW_MS - 5_000),
        "value_minor": 1_999,
        "currency": "EUR",
    }
    return Event(**given | changes)


def refused(messages: list[Event]) -> list[Violation]:
    with pytest.raises(InvalidInput) as caught:
        convert.events(messages, customer="c1", as_of_ms=NOW_MS)
    return list(caught.value.violations)


def test_events_become_columns():
    events = convert.events(
        [event(), event(event_id="e2", kind="danced", item="", value_minor=-5)], customer="c1", as_of_ms=NOW_MS
    )
    assert list(events.customers) == ["c1"]
    assert events.customer.tolist() == [0, 0]
    assert events.event_id.tolist() == [event_id("e1"), event_id("e2")]
    assert events.kind.tolist() == [Kind.PRODUCT_VIEWED, Kind.UNKNOWN]
    assert events.item.tolist() == [item_id("shoe-7"), NO_ITEM]
    assert events.event_time_ms.tolist() == [NOW_MS - 5_000] * 2
    assert events.available_time_ms.tolist() == [NOW_MS] * 2
    assert events.value_minor.tolist() == [1_999, -5]


def test_no_events_are_no_events():
    assert len(convert.events([], customer="c1", as_of_ms=NOW_MS)) == 0


@pytest.mark.parametrize(
    ("changes", "field", "problem"),
    [
        ({"event_id": ""}, "event_id", "is empty"),
        ({"event_id": "x" * 129}, "event_id", "has 129 characters, at most 128 are allowed"),
        ({"customer": ""}, "customer", "is empty"),
        ({"customer": "c2"}, "customer", "is another customer than the request's"),
        ({"kind": ""}, "kind", "is empty"),
        ({"kind": "k" * 65}, "kind", "has 65 characters, at most 64 are allowed"),
        ({"item": "i" * 129}, "item", "has 129 characters, at most 128 are allowed"),
        ({"event_time": None}, "event_time", "is missing"),
        ({"event_time": Timestamp(seconds=-1)}, "event_time", "is before 1970"),
        ({"event_time": Timestamp(seconds=-(2**63))}, "event_time", "is before 1970"),
        ({"event_time": Timestamp(seconds=2**63 - 1)}, "event_time", "is not a valid timestamp"),
        ({"event_time": Timestamp(seconds=1, nanos=-1)}, "event_time", "is not a valid timestamp"),
        ({"event_time": Timestamp(seconds=1, nanos=10**9)}, "event_time", "is not a valid timestamp"),
        (
            {"event_time": convert.to_timestamp(NOW_MS + 60_001)},
            "event_time",
            "is more than 60 s later than the request's as_of",
        ),
        ({"value_minor": 2**53}, "value_minor", "must lie between -2^53 and 2^53"),
        ({"value_minor": -(2**53)}, "value_minor", "must lie between -2^53 and 2^53"),
        ({"value_minor": -(2**63)}, "value_minor", "must lie between -2^53 and 2^53"),
        ({"currency": "eur"}, "currency", "must be an ISO 4217 code, three capital letters"),
        ({"currency": "EU1"}, "currency", "must be an ISO 4217 code, three capital letters"),
        ({"currency": "EURO"}, "currency", "must be an ISO 4217 code, three capital letters"),
        ({"currency": "EUR\n"}, "currency", "must be an ISO 4217 code, three capital letters"),
    ],
)
def test_each_fault_is_named_by_its_path(changes, field, problem):
    assert refused([event(), event(**changes)]) == [Violation(f"events[1].{field}", problem)]


@pytest.mark.parametrize(
    "changes",
    [
        {"event_id": "x" * 128, "item": "ü" * 128, "kind": "k" * 64},
        {"item": "", "currency": "", "value_minor": 0},
        {"event_time": Timestamp()},
        {"event_time": convert.to_timestamp(NOW_MS + 60_000)},
        {"value_minor": 2**53 - 1},
        {"value_minor": 1 - 2**53},
    ],
)
def test_bounds_belong_to_what_is_allowed(changes):
    assert len(convert.events([event(**changes)], customer="c1", as_of_ms=NOW_MS)) == 1


def test_every_fault_of_every_event_is_reported():
    fields = [field for field, _ in refused([event(event_id="", kind=""), event(), event(currency="?")])]
    assert fields == ["events[0].event_id", "events[0].kind", "events[2].currency"]


def test_as_many_events_as_a_history_keeps():
    assert len(convert.events([event()] * 256, customer="c1", as_of_ms=NOW_MS)) == 256
    assert refused([event(kind="")] * 257) == [Violation("events", "holds 257 events, at most 256 are taken")]


@pytest.mark.parametrize("request_type", [ScorePropensityRequest, RecommendNextRequest])
def test_a_question_without_a_time_is_asked_now(request_type):
    question = convert.question(request_type(customer="c1", events=[event()]), clock_ms=NOW_MS)
    assert (question.customer, question.as_of_ms, len(question.events)) == ("c1", NOW_MS, 1)


@pytest.mark.parametrize(("ahead_ms", "as_of_ms"), [(-1, NOW_MS), (0, NOW_MS + 1), (60_000, NOW_MS + 60_001)])
def test_events_of_a_clock_that_runs_ahead_count_at_once(ahead_ms, as_of_ms):
    newest = event(event_time=convert.to_timestamp(NOW_MS + ahead_ms))
    question = convert.question(ScorePropensityRequest(customer="c1", events=[newest, event()]), clock_ms=NOW_MS)
    assert question.as_of_ms == as_of_ms
    assert (question.events.event_time_ms < question.as_of_ms).all()


def test_a_question_with_a_time_keeps_it():
    as_of = convert.to_timestamp(NOW_MS - 86_400_000)
    late = event(event_time=convert.to_timestamp(NOW_MS - 86_400_000 + 30_000))
    question = convert.question(ScorePropensityRequest(customer="c1", as_of=as_of, events=[late]), clock_ms=NOW_MS)
    assert question.as_of_ms == NOW_MS - 86_400_000


def test_a_question_reports_all_its_faults():
    request = ScorePropensityRequest(
        customer="", as_of=convert.to_timestamp(NOW_MS + 60_001), events=[event(event_time=None)]
    )
    with pytest.raises(InvalidInput) as caught:
        convert.question(request, clock_ms=NOW_MS, further=convert.within("max_reasons", 21, 0, 20))
    assert caught.value.violations == (
        Violation("max_reasons", "must be from 0 to 20"),
        Violation("customer", "is empty"),
        Violation("as_of", "is more than 60 s later than the server's clock"),
    )


def test_the_time_of_a_batch():
    request = BatchScorePropensityRequest(as_of=Timestamp(seconds=5, nanos=999_999))
    assert convert.as_of_ms(request, clock_ms=NOW_MS) == 5_000
    assert convert.as_of_ms(BatchScorePropensityRequest(), clock_ms=NOW_MS) == NOW_MS
    assert list(convert.as_of_violations(request, clock_ms=NOW_MS)) == []


@given(st.integers(0, 253_402_300_799_999))
def test_times_survive_both_ways(time_ms):
    assert convert.to_ms(convert.to_timestamp(time_ms)) == time_ms


@given(st.integers(-62_135_596_800, 253_402_300_799), st.integers(0, 999_999_999))
def test_what_is_finer_than_a_millisecond_is_cut_towards_the_past(seconds, nanos):
    assert convert.to_ms(Timestamp(seconds=seconds, nanos=nanos)) == (seconds * 10**9 + nanos) // 10**6


def test_the_proto_names_every_kind():
    proto = (Path(__file__).parents[2] / "protos/segue/v1/events.proto").read_text()
    assert [label for label in KIND_BY_LABEL if label not in proto] == []


INT64 = st.integers(-(2**63), 2**63 - 1)
TIMES = st.builds(
    Timestamp,
    seconds=st.one_of(INT64, st.integers(NOW_MS // 1_000 - 100, NOW_MS // 1_000 + 100)),
    nanos=st.one_of(st.integers(0, 999_999_999), st.integers(-(2**31), 2**31 - 1)),
)
ANY_EVENT = st.builds(
    Event,
    event_id=st.text(max_size=130),
    customer=st.one_of(st.just("c1"), st.text(max_size=3)),
    kind=st.one_of(st.sampled_from(sorted(KIND_BY_LABEL)), st.text(max_size=66)),
    item=st.text(max_size=130),
    event_time=st.one_of(TIMES, st.none()),
    receive_time=st.one_of(TIMES, st.none()),
    value_minor=INT64,
    currency=st.one_of(st.sampled_from(["", "EUR"]), st.text(max_size=4)),
)


@given(st.lists(ANY_EVENT, max_size=5), st.text(max_size=2), st.one_of(st.none(), TIMES))
def test_any_request_is_taken_or_refused_as_invalid(messages, customer, as_of):
    request = ScorePropensityRequest(customer=customer or "c1", events=messages, as_of=as_of)
    question, violations = tried(lambda: convert.question(request, clock_ms=NOW_MS))
    if question is None:
        assert violations
        assert all(field and problem for field, problem in violations)
        return
    assert question.events.event_id.tolist() == [event_id(message.event_id) for message in messages]
    assert question.events.event_time_ms.tolist() == [convert.to_ms(message.event_time) for message in messages]
    assert question.events.value_minor.tolist() == [message.value_minor for message in messages]
    assert 0 <= question.as_of_ms <= NOW_MS + 60_001


@given(st.binary(max_size=300))
def test_any_bytes_that_are_an_event_are_taken_or_refused_as_invalid(wire):
    message = Event()
    try:
        message.ParseFromString(wire)
    except DecodeError:
        return
    _, violations = tried(lambda: convert.events([message], customer=message.customer, as_of_ms=NOW_MS))
    assert all(field.startswith("events[0].") for field, _ in violations)


def tried(take):
    try:
        return take(), ()
    except InvalidInput as error:
        return None, error.violations
