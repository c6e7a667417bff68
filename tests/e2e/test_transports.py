"""gRPC and HTTP: equal answers to equal questions, equal errors to wrong ones."""

import urllib.request

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo  # noqa: F401 - known to MessageToDict then
from grpc_status import rpc_status

from segue.rpc.convert import to_timestamp
from segue.v1 import propensity_pb2 as p
from segue.v1 import recommendation_pb2 as r
from segue.v1.events_pb2 import Event
from segue.v1.propensity_pb2_grpc import PropensityServiceStub
from segue.v1.recommendation_pb2_grpc import RecommendationServiceStub
from tests.conftest import NOW, SETTLED, connect
from tests.e2e.conftest import AS_OF, TIMEOUT, as_json, events, without_id

QUESTIONS = [
    ("ScorePropensity", p.ScorePropensityRequest(customer="c00", as_of=AS_OF)),
    (
        "ScorePropensity",
        p.ScorePropensityRequest(customer="nobody", as_of=AS_OF, outcomes=["engage_7d"], max_reasons=20),
    ),
    (
        "ScorePropensity",
        p.ScorePropensityRequest(
            customer="c02", as_of=AS_OF, events=events("c02", "order_completed", ["", "sku-3"], SETTLED, value_minor=-5)
        ),
    ),
    (
        "BatchScorePropensity",
        p.BatchScorePropensityRequest(customers=["c01", "ü 🙂", "c00"], as_of=AS_OF, max_reasons=5),
    ),
    ("RecommendNext", r.RecommendNextRequest(customer="nobody", as_of=AS_OF, limit=100, exclude_items=["sku-1", "no"])),
    (
        "RecommendNext",
        r.RecommendNextRequest(
            customer="b01", as_of=AS_OF, events=events("b01", "product_viewed", ["sku-9"], SETTLED), include_seen=True
        ),
    ),
    (
        "RecommendRelated",
        r.RecommendRelatedRequest(items=["sku-1", "no", "sku-2"], relation="RELATION_SIMILAR", exclude_items=["sku-3"]),
    ),
]

WRONG = [
    ("ScorePropensity", p.ScorePropensityRequest(), ["customer"]),
    ("ScorePropensity", p.ScorePropensityRequest(customer="c" * 129, max_reasons=21), ["max_reasons", "customer"]),
    ("ScorePropensity", p.ScorePropensityRequest(customer="c00", outcomes=["wealth_7d"]), ["outcomes"]),
    ("ScorePropensity", p.ScorePropensityRequest(customer="c00", outcomes=["purchase_7d"] * 2), ["outcomes"]),
    ("ScorePropensity", p.ScorePropensityRequest(customer="c00", as_of=to_timestamp(2**42)), ["as_of"]),
    (
        "ScorePropensity",
        p.ScorePropensityRequest(customer="c00", events=events("c01", "product_viewed", ["a"] * 257, NOW)),
        ["events"],
    ),
    (
        "ScorePropensity",
        p.ScorePropensityRequest(
            customer="c00", as_of=AS_OF, events=[*events("c00", "product_viewed", ["a"], NOW), Event(customer="c01")]
        ),
        ["events[1].event_id", "events[1].customer", "events[1].kind", "events[1].event_time"],
    ),
    ("BatchScorePropensity", p.BatchScorePropensityRequest(), ["customers.length"]),
    ("BatchScorePropensity", p.BatchScorePropensityRequest(customers=["c"] * 1001), ["customers.length"]),
    (
        "BatchScorePropensity",
        p.BatchScorePropensityRequest(customers=["c00", ""], max_reasons=6),
        ["customers[1]", "max_reasons"],
    ),
    ("RecommendNext", r.RecommendNextRequest(limit=101, customer="c00"), ["limit"]),
    ("RecommendNext", r.RecommendNextRequest(limit=-1), ["limit", "customer"]),
    ("RecommendNext", r.RecommendNextRequest(customer="c00", exclude_items=["a", ""]), ["exclude_items[1]"]),
    ("RecommendNext", r.RecommendNextRequest(customer="c00", exclude_items=["a"] * 1001), ["exclude_items"]),
    ("RecommendRelated", r.RecommendRelatedRequest(limit=101), ["items", "relation", "limit"]),
    ("RecommendRelated", r.RecommendRelatedRequest(items=["a"], relation=7), ["relation"]),
    ("RecommendRelated", r.RecommendRelatedRequest(items=["a"] * 101, relation="RELATION_SIMILAR"), ["items"]),
    (
        "RecommendRelated",
        r.RecommendRelatedRequest(items=["a", ""], relation="RELATION_SIMILAR", exclude_items=["b" * 129]),
        ["items[1]", "exclude_items[0]"],
    ),
]

ROUTES = {
    "ScorePropensity": ("propensity", "/v1/score_propensity"),
    "BatchScorePropensity": ("propensity", "/v1/batch_score_propensity"),
    "RecommendNext": ("recommendation", "/v1/recommend_next"),
    "RecommendRelated": ("recommendation", "/v1/recommend_related"),
}


def call(channels, method, request):
    name, _ = ROUTES[method]
    stub = {"propensity": PropensityServiceStub, "recommendation": RecommendationServiceStub}[name](channels[name])
    return getattr(stub, method)(request, timeout=TIMEOUT)


def over_http(services, method, body):
    name, route = ROUTES[method]
    return services[name].post(route, body)


@pytest.mark.parametrize(("method", "request_"), QUESTIONS)
def test_equal_questions_get_equal_answers_over_both_transports(services, channels, method, request_):
    answer = as_json(call(channels, method, request_))
    status, body = over_http(services, method, MessageToDict(request_, preserving_proto_field_name=True))
    assert status == 200
    for one, other in zip(answer.pop("answers", []), body.pop("answers", []), strict=True):
        assert without_id(one) == without_id(other)
    assert without_id(body) == without_id(answer)


@pytest.mark.parametrize(("method", "request_", "fields"), WRONG)
def test_invalid_questions_name_the_fields_over_both_transports(services, channels, method, request_, fields):
    with pytest.raises(grpc.RpcError) as caught:
        call(channels, method, request_)
    told = rpc_status.from_call(caught.value)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    status, body = over_http(services, method, MessageToDict(request_, preserving_proto_field_name=True))
    details = [MessageToDict(detail) for detail in told.details]
    assert status == 400
    assert body["error"] == {"code": 400, "message": told.message, "status": "INVALID_ARGUMENT", "details": details}
    info, request = details
    assert info["domain"] == "segue"
    assert info["reason"] == (
        "UNKNOWN_OUTCOME" if list(getattr(request_, "outcomes", [])) == ["wealth_7d"] else "INVALID_INPUT"
    )
    assert [violation["field"] for violation in request["fieldViolations"]] == fields


def test_a_relation_that_the_bundle_does_not_hold_is_told_as_unimplemented(services, channels):
    asked = r.RecommendRelatedRequest(items=["sku-1"], relation="RELATION_COMPLEMENT")
    with pytest.raises(grpc.RpcError) as caught:
        call(channels, "RecommendRelated", asked)
    status, body = over_http(services, "RecommendRelated", MessageToDict(asked, preserving_proto_field_name=True))
    told = rpc_status.from_call(caught.value)
    details = [MessageToDict(detail) for detail in told.details]
    assert (caught.value.code(), status) == (grpc.StatusCode.UNIMPLEMENTED, 501)
    assert body["error"] == {"code": 501, "message": told.message, "status": "UNIMPLEMENTED", "details": details}
    assert details[0]["reason"] == "NOT_SERVED"


@pytest.mark.parametrize(
    "body", [{"customers": 5}, {"customer": 5}, {"custom": "c00"}, {"as_of": "today"}, {"events": {}}]
)
def test_json_that_is_no_request_is_refused(propensity, body):
    status, answer = propensity.post("/v1/score_propensity", body)
    assert status == 400
    assert answer["error"]["status"] == "INVALID_ARGUMENT"
    assert answer["error"]["details"][1]["fieldViolations"][0]["field"] == "request"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"5"])
def test_what_is_no_json_object_is_refused(propensity, body):
    status, _ = propensity.post("/v1/score_propensity", body)
    assert 400 <= status < 500


def test_a_store_that_does_not_answer_is_told_as_unavailable(services, channels, filled_repo):
    asked = p.ScorePropensityRequest(customer="c00", as_of=AS_OF)
    with connect(filled_repo.address) as redis:
        redis.client_pause(4_000)
        with pytest.raises(grpc.RpcError) as caught:
            call(channels, "ScorePropensity", asked)
        status, body = over_http(services, "ScorePropensity", MessageToDict(asked, preserving_proto_field_name=True))
        redis.ping()
    told = rpc_status.from_call(caught.value)
    details = [MessageToDict(detail) for detail in told.details]
    assert (caught.value.code(), status) == (grpc.StatusCode.UNAVAILABLE, 503)
    assert body["error"] == {"code": 503, "message": told.message, "status": "UNAVAILABLE", "details": details}
    assert details[0]["reason"] == "STORE_UNAVAILABLE"
    assert details[1]["retryDelay"] == "0.200s"
    assert call(channels, "ScorePropensity", asked).customer == "c00"


def test_calls_are_counted_where_prometheus_looks(propensity, score):
    score(customer="c00", as_of=AS_OF)
    with urllib.request.urlopen(f"{propensity.http}/metrics", timeout=TIMEOUT) as answer:
        lines = answer.read().decode().splitlines()
    counted = [line for line in lines if line.startswith("segue_rpc_requests_total") and "/ScorePropensity" in line]
    assert any('code="OK"' in line and float(line.split()[-1]) > 0 for line in counted)
