"""grpc.health.v1 for a server whose services are all loaded, or stopped, together.

The servicer of grpcio-health-checking never ends a watch, so a stopping server would wait for its watchers until its
grace is over.
"""

import asyncio
from collections.abc import Iterable

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthServicer


class Health(HealthServicer):  # type: ignore[misc] # grpc_health is untyped
    """NOT_SERVING until told, and for good once it is told to leave."""

    def __init__(self, services: Iterable[str]) -> None:
        """Health of `services` (full names), and of the server as a whole, whose name is empty."""
        self._services = frozenset({"", *services})
        self._status = HealthCheckResponse.NOT_SERVING
        self._left = False
        self._closed = False
        self._changed = asyncio.Event()

    def serve(self) -> None:
        """Turn SERVING, unless it has been told to leave."""
        if not self._left:
            self._turn(HealthCheckResponse.SERVING)

    def leave(self) -> None:
        """Turn NOT_SERVING for good: watchers, and whoever else asks, should go elsewhere."""
        self._left = True
        self._turn(HealthCheckResponse.NOT_SERVING)

    def close(self) -> None:
        """Leave, and end every watch once it has been told so."""
        self._closed = True
        self.leave()

    async def Check(  # noqa: N802 the name is gRPC's
        self, request: HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> HealthCheckResponse:
        """The status of one service, at once; NOT_FOUND for a service that is not here."""
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service here")
        return HealthCheckResponse(status=self._status)

    async def Watch(  # noqa: N802 the name is gRPC's
        self, request: HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> None:
        """The status of one service now and after each change; SERVICE_UNKNOWN for a service that is not here."""
        told = None
        while True:
            changed = self._changed
            known = request.service in self._services
            status = self._status if known else HealthCheckResponse.SERVICE_UNKNOWN
            if status != told:
                await context.write(HealthCheckResponse(status=status))
                told = status
            if self._closed and changed is self._changed:
                return
            await changed.wait()

    def _turn(self, status: HealthCheckResponse.ServingStatus) -> None:
        self._status = status
        self._changed.set()
        self._changed = asyncio.Event()
