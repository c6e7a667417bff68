"""The guard: what every call of our own passes on its way to the servicer and back.

Admission, deadline, error table, counting. It leaves other services alone: a liveness probe must be answered however
many calls there are.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_status import rpc_status
from prometheus_client import CollectorRegistry, Counter, Histogram

from segue.errors import DeadlineExceeded, InvalidInput, Overloaded
from segue.rpc import errors

BUCKETS_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class Guard(grpc.aio.ServerInterceptor):
    """Guards the methods it is told of: those with one answer, to one request or to a stream of them."""

    def __init__(
        self,
        methods: Iterable[str],
        *,
        concurrent_calls: int,
        deadline_default_ms: int,
        deadline_min_ms: int,
        registry: CollectorRegistry,
    ) -> None:
        """Guard `methods` (`/segue.v1.PropensityService/ScorePropensity`).

        Args:
            concurrent_calls: a call beyond them is refused as Overloaded.
            deadline_default_ms: deadline of a call that brings none, from its start to its answer.
            deadline_min_ms: a call with less time left than this is refused as DeadlineExceeded before it is read.
            registry: where the calls are counted.
        """
        self._methods = frozenset(methods)
        self._guarded: dict[str, grpc.RpcMethodHandler] = {}
        self._concurrent_calls = concurrent_calls
        self._deadline_default_seconds = deadline_default_ms / 1_000
        self._deadline_min_seconds = deadline_min_ms / 1_000
        self._calls = 0
        self._last_call_seconds = -float("inf")
        self._requests = Counter(
            "segue_rpc_requests", "Calls answered, by gRPC status code", ["method", "code"], registry=registry
        )
        self._seconds = Histogram(
            "segue_rpc_seconds", "Time to answer a call", ["method"], buckets=BUCKETS_SECONDS, registry=registry
        )
        for method in self._methods:
            # So that the first error is an increase from 0, which a rate can see.
            for code in ("OK", "INTERNAL", "UNAVAILABLE"):
                self._requests.labels(method, code)

    def quiet(self, seconds: float) -> bool:
        """Whether no call is in progress, and none came in the last `seconds`."""
        return self._calls == 0 and time.monotonic() - self._last_call_seconds >= seconds

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        """The handler, guarded if its method is one of ours."""
        method = handler_call_details.method
        if method in self._guarded:
            return self._guarded[method]
        handler = await continuation(handler_call_details)
        if handler is None or method not in self._methods:
            return handler
        return self._guarded.setdefault(method, self._guard(method, handler))

    def _guard(self, method: str, handler: Any) -> grpc.RpcMethodHandler:
        seconds = self._seconds.labels(method)

        async def guarded(request: Any, context: grpc.aio.ServicerContext) -> Any:
            started = self._last_call_seconds = time.monotonic()
            code = grpc.StatusCode.OK
            self._calls += 1
            try:
                return await self._answer(handler, request, context)
            except asyncio.CancelledError:
                code = grpc.StatusCode.DEADLINE_EXCEEDED if _expired(context) else grpc.StatusCode.CANCELLED
                raise
            except grpc.aio.AbortError:
                code = context.code()
                raise
            except Exception as error:  # noqa: BLE001 nothing may pass by the table
                told = rpc_status.to_status(errors.status(error))
                code = told.code
            finally:
                self._calls -= 1
                self._requests.labels(method, code.name).inc()
                seconds.observe(time.monotonic() - started)
            return await context.abort(told.code, told.details, told.trailing_metadata)

        # Requests arrive as bytes: what cannot be decoded must pass by the table too.
        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(guarded, None, handler.response_serializer)
        return grpc.unary_unary_rpc_method_handler(guarded, None, handler.response_serializer)

    async def _answer(self, handler: Any, request: Any, context: grpc.aio.ServicerContext) -> Any:
        if self._calls > self._concurrent_calls:
            raise Overloaded
        seconds = context.time_remaining()
        if seconds is None:
            seconds = self._deadline_default_seconds
        elif seconds < self._deadline_min_seconds:
            raise DeadlineExceeded
        if handler.request_streaming:
            asked = handler.stream_unary(_messages(handler, request), context)
        else:
            asked = handler.unary_unary(_message(handler, request), context)
        try:
            async with asyncio.timeout(seconds) as deadline:
                return await asked
        except TimeoutError:
            if deadline.expired():
                raise DeadlineExceeded from None
            raise


def _message(handler: Any, request: bytes) -> Any:
    try:
        return handler.request_deserializer(request)
    except DecodeError:
        raise InvalidInput.because("request", "is not a message of the method's request type") from None


async def _messages(handler: Any, requests: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _message(handler, request)


def _expired(context: grpc.aio.ServicerContext) -> bool:
    return context.time_remaining() == 0
