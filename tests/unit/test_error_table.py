import logging

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo

from segue import errors as domain
from segue.rpc import errors

RETRIED = {"STORE_UNAVAILABLE", "LOG_UNAVAILABLE", "OVERLOADED"}


def every(cls: type[domain.SegueError]) -> list[type[domain.SegueError]]:
    return [cls, *(deeper for child in cls.__subclasses__() for deeper in every(child))]


def unpack(status, kind):
    return [message for detail in status.details if detail.Unpack(message := kind())]


@pytest.mark.parametrize(
    ("error", "code", "http"),
    [
        (domain.InvalidInput.because("customer", "is empty"), "INVALID_ARGUMENT", 400),
        (domain.InvalidEvents.because("customer", "is empty"), "INVALID_ARGUMENT", 400),
        (domain.UnknownOutcome.because("outcomes[0]", "is not served"), "INVALID_ARGUMENT", 400),
        (domain.InvalidHistories.because("histories[0]", "secret"), "DATA_LOSS", 500),
        (domain.InvalidSettings.because("SEGUE_X", "secret"), "INTERNAL", 500),
        (domain.BundleError("secret"), "INTERNAL", 500),
        (domain.StoreUnavailable("secret"), "UNAVAILABLE", 503),
        (domain.LogUnavailable("secret"), "UNAVAILABLE", 503),
        (domain.LakeConflict("secret"), "INTERNAL", 500),
        (domain.Unauthenticated("secret"), "UNAUTHENTICATED", 401),
        (domain.NotFound("secret"), "NOT_FOUND", 404),
        (domain.NotServed("secret"), "UNIMPLEMENTED", 501),
        (domain.Overloaded("secret"), "RESOURCE_EXHAUSTED", 429),
        (domain.DeadlineExceeded("secret"), "DEADLINE_EXCEEDED", 504),
        (domain.SegueError("secret"), "INTERNAL", 500),
        (ValueError("secret"), "INTERNAL", 500),
    ],
)
def test_each_error_is_told_alike_over_grpc_and_http(error, code, http):
    status = errors.status(error)
    http_code, body = errors.http(error)
    assert status.code == grpc.StatusCode[code].value[0]
    assert http_code == body["error"]["code"] == http
    assert body["error"]["status"] == code
    assert body["error"]["message"] == status.message
    assert "secret" not in str(status)
    assert "secret" not in str(body)
    kinds = [detail["@type"] for detail in body["error"]["details"]]
    assert kinds == [detail.type_url for detail in status.details]
    [info] = unpack(status, ErrorInfo)
    assert (info.reason, info.domain) == (getattr(error, "reason", "INTERNAL"), "segue")
    assert bool(unpack(status, RetryInfo)) == (info.reason in RETRIED)
    assert bool(unpack(status, BadRequest)) == (code == "INVALID_ARGUMENT")


@pytest.mark.parametrize("cls", every(domain.SegueError))
def test_every_domain_error_can_be_told(cls):
    status = errors.status(cls())
    assert status.code != grpc.StatusCode.OK.value[0]
    assert status.message


def test_violations_keep_their_paths():
    error = domain.InvalidInput(
        domain.Violation("events[2].event_time", "is missing"), domain.Violation("limit", "must be from 1 to 100")
    )
    status = errors.status(error)
    assert status.message == "events[2].event_time: is missing; and 1 more"
    [request] = unpack(status, BadRequest)
    assert [(violation.field, violation.description) for violation in request.field_violations] == list(
        error.violations
    )
    assert errors.http(error)[1]["error"]["details"][1] == {
        "@type": "type.googleapis.com/google.rpc.BadRequest",
        "fieldViolations": [
            {"field": "events[2].event_time", "description": "is missing"},
            {"field": "limit", "description": "must be from 1 to 100"},
        ],
    }


def test_more_violations_than_fit_into_a_trailer_are_counted():
    violations = [domain.Violation(f"events[{position}].kind", "ü" * 500) for position in range(256)]
    status = errors.status(domain.InvalidInput(*violations))
    assert status.ByteSize() < 4_096
    [info] = unpack(status, ErrorInfo)
    assert info.metadata["violation_count"] == "256"
    [request] = unpack(status, BadRequest)
    assert 0 < len(request.field_violations) < 256


def test_a_single_violation_that_does_not_fit_is_still_an_answer():
    status = errors.status(domain.InvalidInput.because("x" * 5_000, "is empty"))
    assert (status.message, status.ByteSize() < 4_096) == ("invalid", True)


def test_the_log_says_where_but_not_whose(caplog):
    whose = "@".join(["jane", "example.com"])

    def look_up():
        try:
            raise KeyError(whose)
        except KeyError as cause:
            raise RuntimeError(whose) from cause

    with pytest.raises(RuntimeError) as caught:
        look_up()
    with caplog.at_level(logging.ERROR):
        [info] = unpack(errors.status(caught.value), ErrorInfo)
    assert info.metadata["incident"] in caplog.text
    assert "RuntimeError" in caplog.text
    assert "KeyError" in caplog.text
    assert "in look_up" in caplog.text
    assert whose not in caplog.text


def test_the_caller_s_own_faults_are_not_logged(caplog):
    with caplog.at_level(logging.DEBUG):
        errors.status(domain.InvalidInput.because("customer", "is empty"))
        errors.status(domain.Overloaded())
    assert not caplog.records
