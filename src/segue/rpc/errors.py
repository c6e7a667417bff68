"""The one table from errors to what a caller is told, over gRPC and over HTTP alike.

Every error becomes a `google.rpc.Status` with one `ErrorInfo` (AIP-193). Errors that are the caller's to mend carry
their own words and a `BadRequest` with every field at fault; all others carry the table's words, so that nothing of
the inside (hosts, paths, a customer) ever leaves it.
"""

import logging
import secrets
import traceback
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from segue.errors import (
    DeadlineExceeded,
    InvalidHistories,
    InvalidInput,
    InvalidSettings,
    LogUnavailable,
    NotFound,
    NotServed,
    Overloaded,
    SegueError,
    StoreCorrupted,
    StoreUnavailable,
    Unauthenticated,
)

DOMAIN = "segue"

DETAILS_MAX_BYTES = 3_000
"""Violations beyond this are counted, not listed: clients refuse trailers of 8 KiB, and base64 adds a third."""

VIOLATION_MAX_CHARS = 200
"""Longest text of one violation's problem."""

log = logging.getLogger(__name__)


class Row(NamedTuple):
    """What callers are told of a class of errors."""

    code: grpc.StatusCode
    http: int
    words: str = ""
    """The message; empty: the error's own words, which must be fit for a stranger."""
    retry_ms: int = 0
    """How long to wait before another try; 0: another try does not help."""


INTERNAL = Row(grpc.StatusCode.INTERNAL, 500, "something went wrong inside; it has been logged")

TABLE: Mapping[type[Exception], Row] = {
    Exception: INTERNAL,
    InvalidInput: Row(grpc.StatusCode.INVALID_ARGUMENT, 400),
    # What a store or an environment holds is no fault of the caller's.
    InvalidHistories: Row(grpc.StatusCode.DATA_LOSS, 500, "a stored history cannot be read; it has been logged"),
    StoreCorrupted: Row(grpc.StatusCode.DATA_LOSS, 500, "a stored value cannot be read; it has been logged"),
    InvalidSettings: INTERNAL,
    StoreUnavailable: Row(grpc.StatusCode.UNAVAILABLE, 503, "the online store does not answer", retry_ms=200),
    LogUnavailable: Row(grpc.StatusCode.UNAVAILABLE, 503, "the event log does not answer", retry_ms=200),
    Unauthenticated: Row(grpc.StatusCode.UNAUTHENTICATED, 401, "the write key is missing or not known here"),
    NotFound: Row(grpc.StatusCode.NOT_FOUND, 404, "there is nothing of that name here"),
    NotServed: Row(grpc.StatusCode.UNIMPLEMENTED, 501, "the model that is served here cannot answer this"),
    Overloaded: Row(grpc.StatusCode.RESOURCE_EXHAUSTED, 429, "too many calls at once", retry_ms=100),
    DeadlineExceeded: Row(grpc.StatusCode.DEADLINE_EXCEEDED, 504, "the deadline passed before the answer was ready"),
}
"""An error is told by the row of its nearest class."""


def status(error: Exception) -> Status:
    """What a caller over gRPC is told of `error`. An error that is ours to mend is logged, under an incident id."""
    row = _row(error)
    reason = error.reason if isinstance(error, SegueError) else SegueError.reason
    info = ErrorInfo(reason=reason, domain=DOMAIN)
    answer = Status(code=row.code.value[0], message=row.words)
    details: list[Message] = [info]
    if row.http == INTERNAL.http:
        info.metadata["incident"] = _log(error)
    elif isinstance(error, InvalidInput):
        answer.message, request = _violations(error)
        if len(request.field_violations) < len(error.violations):
            info.metadata["violation_count"] = str(len(error.violations))
        details.append(request)
    if row.retry_ms:
        details.append(RetryInfo(retry_delay=Duration(nanos=row.retry_ms * 1_000_000)))
    for detail in details:
        answer.details.add().Pack(detail)
    return answer


def http(error: Exception) -> tuple[int, dict[str, Any]]:
    """HTTP status code and JSON body (AIP-193) that say the same as `status(error)`."""
    row, told = _row(error), status(error)
    details = [MessageToDict(detail) for detail in told.details]
    return row.http, {"error": {"code": row.http, "message": told.message, "status": row.code.name, "details": details}}


def _row(error: Exception) -> Row:
    return next(TABLE[ancestor] for ancestor in type(error).__mro__ if ancestor in TABLE)


def _violations(error: InvalidInput) -> tuple[str, BadRequest]:
    """A message about the first violation, and as many of all as fit."""
    request = BadRequest()
    for field, problem in error.violations:
        violation = BadRequest.FieldViolation(field=field, description=problem[:VIOLATION_MAX_CHARS])
        if request.ByteSize() + violation.ByteSize() > DETAILS_MAX_BYTES:
            break
        request.field_violations.append(violation)
    message = "invalid"
    if request.field_violations:
        first = request.field_violations[0]
        message = f"{first.field}: {first.description}"
    more = len(error.violations) - 1
    return (f"{message}; and {more} more" if more > 0 else message), request


def _log(error: Exception) -> str:
    """Log where `error` was raised, by frames and class names only: its text may hold personal data."""
    incident = secrets.token_hex(6)
    frames = "".join(line for cause in _chain(error) for line in _frames(cause))
    log.error("incident %s: %s\n%s", incident, type(error).__qualname__, frames)
    return incident


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _frames(error: BaseException) -> list[str]:
    return [f"{type(error).__qualname__} raised at:\n", *traceback.format_tb(error.__traceback__)]
