"""The HTTP server's application: Segment's tracking API, and what operators ask of a server."""

import asyncio
import base64
import binascii
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from segue.errors import InvalidInput, Unauthenticated
from segue.rpc import errors
from services.collector import body, clock
from services.collector.clock import Arrival
from services.collector.door import BATCH_MAX_COUNT, BODY_MAX_BYTES, EVENT_MAX_BYTES, Door, Result
from services.collector.intake import Intake
from services.collector.keys import WriteKeys
from services.collector.metrics import Metrics
from services.collector.openapi import DOCUMENT
from services.collector.refusal import ConsentWithheld, EventTooLarge
from services.collector.segment import Segment

ROUTES: Mapping[str, str] = {
    "/v1/track": "track",
    "/v1/identify": "identify",
    "/v1/alias": "alias",
    "/v1/page": "page",
    "/v1/screen": "screen",
    "/v1/group": "group",
    "/v1/t": "track",
    "/v1/i": "identify",
    "/v1/a": "alias",
    "/v1/p": "page",
    "/v1/s": "screen",
    "/v1/g": "group",
    "/v1/batch": "",
    "/v1/import": "",
    "/v1/b": "",
}
"""The type of message each path takes; empty for batches, whose messages name their own."""

DAY_SECONDS = 86_400


class Timeout(InvalidInput):
    """A body that did not arrive in time."""

    reason = "BODY_TIMEOUT"


STATUS: Mapping[type[InvalidInput], int] = {body.BodyTooLarge: 413, EventTooLarge: 413, Timeout: 408}
"""Where HTTP knows better than 400."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Api:
    """Answers HTTP requests."""

    door: Door
    segment: Segment
    write_keys: WriteKeys
    intake: Intake
    metrics: Metrics
    body_seconds: float
    cors_origins: Sequence[str]
    ready: Callable[[], bool]

    def app(self) -> Starlette:
        """The application, for any ASGI server."""
        cors = Middleware(
            CORSMiddleware,
            allow_origins=list(self.cors_origins),
            allow_methods=["POST"],
            allow_headers=["*"],
            max_age=DAY_SECONDS,
        )
        asked = [
            Route("/livez", self._live),
            Route("/readyz", self._ready),
            Route("/metrics", self._metrics),
            Route("/openapi.json", self._openapi),
        ]
        taken = [Route(path, self._counted(path, kind), methods=["POST"]) for path, kind in ROUTES.items()]
        return Starlette(routes=[*asked, *taken], middleware=[cors], exception_handlers={HTTPException: _no_route})

    def _counted(self, path: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            started = time.monotonic()
            response = await self._answered(request, kind)
            self.metrics.answered(path, response.status_code, time.monotonic() - started)
            return response

        return endpoint

    async def _answered(self, request: Request, kind: str) -> Response:
        try:
            # A packed body may become as large as the limit, and one that does not tell its length too.
            length, encoding = request.headers.get("content-length", ""), request.headers.get("content-encoding")
            plain = length.isdecimal() and not encoding and len(length) < 10
            with self.intake.hold(min(int(length), BODY_MAX_BYTES) if plain else BODY_MAX_BYTES):
                return _json(200, _told(await self._collect(request, kind)))
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception as error:  # noqa: BLE001 - nothing may pass by the table
            return _failed(error)

    async def _collect(self, request: Request, kind: str) -> Result:
        shown = _basic(request.headers.get("authorization", ""))
        if shown and not self.write_keys.knows(shown):
            raise Unauthenticated
        raw = await self._body(request)
        envelope = body.parse(raw)
        if not shown and not self.write_keys.knows(str(envelope.get("writeKey") or "")):
            raise Unauthenticated
        if kind:
            messages, sent_ms = [{**envelope, "type": kind}], None
        else:
            messages, sent_ms = _batch(envelope), clock.parse(envelope.get("sentAt"), field="sentAt")
        arrival = Arrival(time.time_ns() // 1_000_000, sent_ms)
        read = self.segment.facts if len(raw) <= EVENT_MAX_BYTES else self._facts_within
        result = await self.door.accept(messages, read, arrival, id_of=_message_id)
        if kind and result.refused and not isinstance(result.refused[0].error, ConsentWithheld):
            raise result.refused[0].error
        return result

    async def _body(self, request: Request) -> bytes:
        headers = request.headers
        try:
            async with asyncio.timeout(self.body_seconds):
                return await body.read(
                    request.stream(), length=headers.get("content-length"), encoding=headers.get("content-encoding")
                )
        except TimeoutError:
            raise Timeout.because("body", f"did not arrive within {self.body_seconds:g} s") from None

    def _facts_within(self, message: Any, arrival: Arrival) -> list[Any]:
        """The facts of a message that is no larger than one may be."""
        try:
            size = len(orjson.dumps(message))
        except orjson.JSONEncodeError:
            raise EventTooLarge.because("message", "is nested too deeply") from None
        if size > EVENT_MAX_BYTES:
            raise EventTooLarge.because("message", f"has {size} bytes, at most {EVENT_MAX_BYTES} are allowed")
        return self.segment.facts(message, arrival)

    async def _live(self, request: Request) -> Response:  # noqa: ARG002 - the framework's signature
        return Response("live\n", media_type="text/plain")

    async def _ready(self, request: Request) -> Response:  # noqa: ARG002
        ready = self.ready()
        return Response("ready\n" if ready else "not ready\n", 200 if ready else 503, media_type="text/plain")

    async def _metrics(self, request: Request) -> Response:  # noqa: ARG002
        return Response(generate_latest(self.metrics.registry), headers={"content-type": CONTENT_TYPE_LATEST})

    async def _openapi(self, request: Request) -> Response:  # noqa: ARG002
        return _json(200, DOCUMENT)


def _batch(envelope: Mapping[str, Any]) -> list[Any]:
    messages = envelope.get("batch")
    if not isinstance(messages, list):
        raise InvalidInput.because("batch", "must be a list of messages")
    if not 1 <= len(messages) <= BATCH_MAX_COUNT:
        raise InvalidInput.because("batch", f"holds {len(messages)} messages, 1 to {BATCH_MAX_COUNT:,} are taken")
    return messages


def _message_id(message: Any) -> Any:
    return message.get("messageId") if isinstance(message, dict) else None


def _basic(header: str) -> str:
    """The user name of HTTP basic authentication, or the token of a bearer; empty without either."""
    scheme, _, rest = header.strip().partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(rest.strip(), validate=True).decode().partition(":")[0]
    except (binascii.Error, ValueError):
        raise Unauthenticated from None


def _told(result: Result) -> dict[str, Any]:
    names = ("index", "event_id", "reason", "field", "problem")
    return {
        "success": True,
        "accepted_count": result.accepted_count,
        "refused": [{name: getattr(refusal, name) for name in names} for refusal in result.refused],
        "token": result.token,
    }


def _failed(error: Exception) -> Response:
    code, told = errors.http(error)
    if code == 400:
        code = told["error"]["code"] = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), code)
    headers = {}
    if code == 401:
        headers["www-authenticate"] = 'Basic realm="segue"'
    if any("retryDelay" in detail for detail in told["error"]["details"]):
        # Whole seconds are all that the header can say.
        headers["retry-after"] = "1"
    return _json(code, told, headers)


async def _no_route(request: Request, error: Exception) -> Response:  # noqa: ARG001 - the framework's signature
    code, headers = (error.status_code, error.headers) if isinstance(error, HTTPException) else (500, None)
    status = {404: "NOT_FOUND", 405: "UNIMPLEMENTED"}.get(code, "INVALID_ARGUMENT")
    message = {404: "there is nothing of that name here", 405: "there is nothing to do so with here"}.get(code, "")
    told = {"error": {"code": code, "message": message, "status": status, "details": []}}
    return _json(code, told, dict(headers or {}))


def _json(code: int, told: Any, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps(told), code, headers=dict(headers or {}), media_type="application/json")
