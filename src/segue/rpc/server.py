"""The gRPC server of a service: guarded calls, health, reflection, and a stop that loses none of them.

It runs in the event loop it is started in, on grpc.aio; that loop may be uvloop's and may serve HTTP as well.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import grpc
from google.protobuf import descriptor_pool
from grpc_health.v1.health import SERVICE_NAME as HEALTH
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry

from segue.rpc.guard import Guard
from segue.rpc.health import Health
from segue.rpc.settings import setting

QUIET_SECONDS = 0.1
"""A stopping server without a call for this long has been left by its callers."""

STREAMS_COUNT = 1_024
"""Health and reflection streams that may be open beside the calls."""

Register = Callable[[grpc.aio.Server], object]
"""Adds a servicer to a server: the generated `add_<Service>Servicer_to_server` with the servicer bound."""


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """How a gRPC server listens and what it takes upon itself. A service's settings extend it, with their `PREFIX`."""

    PREFIX: ClassVar[str] = "SEGUE_"

    grpc_host: str = setting(
        "127.0.0.1", meaning="address the gRPC server listens on, in plaintext: elsewhere only behind a mesh"
    )
    grpc_port: int = setting(50051, meaning="port of the gRPC server, 0 for any free one", low=0, high=65_535)
    grpc_concurrent_calls: int = setting(256, meaning="calls answered at once; more are refused", low=1, high=100_000)
    grpc_receive_max_bytes: int = setting(1 << 20, meaning="largest request", low=1_024, high=1 << 26)
    grpc_send_max_bytes: int = setting(
        4 << 20, meaning="largest answer; stock clients take 4 MiB", low=1_024, high=1 << 26
    )
    grpc_deadline_default_ms: int = setting(2_000, meaning="deadline of a call that brings none", low=1, high=600_000)
    grpc_deadline_min_ms: int = setting(2, meaning="a call with less time left is refused unread", low=0, high=600_000)
    grpc_connection_age_seconds: int = setting(
        300, meaning="connections are renewed at this age, so that callers find new servers", low=1, high=86_400
    )
    grpc_keepalive_seconds: int = setting(60, meaning="an idle connection is probed this often", low=10, high=7_200)
    grpc_drain_seconds: float = setting(
        5.0, meaning="how long a stopping server waits for its callers to leave", low=0, high=600
    )
    grpc_grace_seconds: float = setting(
        10.0, meaning="how long a stopping server waits for calls in progress", low=0, high=600
    )


@dataclass(frozen=True, eq=False)
class Server:
    """A started server."""

    port: int
    """The port it listens on."""
    settings: ServerSettings
    _server: grpc.aio.Server
    _guard: Guard
    _health: Health

    def serving(self) -> None:
        """Tell the health service that all is loaded and warm: callers may come."""
        self._health.serve()

    async def stop(self) -> None:
        """Turn NOT_SERVING, answer until the callers have left, stop; a second stop does nothing.

        gRPC cancels calls that have reached the process but not yet their handler when the server stops. Callers that
        watch the health, or come through something that does, are gone by then (`segue.rpc.channel`).
        """
        self._health.leave()
        drained = time.monotonic() + self.settings.grpc_drain_seconds
        while not self._guard.quiet(QUIET_SECONDS) and time.monotonic() < drained:
            await asyncio.sleep(QUIET_SECONDS / 5)
        self._health.close()
        await self._server.stop(self.settings.grpc_grace_seconds)


async def start(services: Mapping[str, Register], settings: ServerSettings, *, registry: CollectorRegistry) -> Server:
    """Start a server in the running loop; its health is NOT_SERVING.

    Args:
        services: what to serve, under full names (`segue.v1.PropensityService`).
        registry: where the calls are counted, once for each registry.

    Raises:
        KeyError: no such service is in the protos.
        RuntimeError: the port is taken.
    """
    guard = Guard(
        [method for service in services for method in _methods(service)],
        concurrent_calls=settings.grpc_concurrent_calls,
        deadline_default_ms=settings.grpc_deadline_default_ms,
        deadline_min_ms=settings.grpc_deadline_min_ms,
        registry=registry,
    )
    server = grpc.aio.server(
        interceptors=[guard],
        options=_options(settings),
        maximum_concurrent_rpcs=settings.grpc_concurrent_calls + STREAMS_COUNT,
    )
    for register in services.values():
        register(server)
    health = Health(services)
    add_HealthServicer_to_server(health, server)
    reflection.enable_server_reflection([*services, HEALTH, reflection.SERVICE_NAME], server)
    port = _listen(server, settings)
    await server.start()
    return Server(port, settings, server, guard, health)


def _methods(service: str) -> list[str]:
    descriptor = descriptor_pool.Default().FindServiceByName(service)
    return [f"/{service}/{method.name}" for method in descriptor.methods]


def _listen(server: grpc.aio.Server, settings: ServerSettings) -> int:
    """Open the port. This is the one place where transport security belongs: credentials go to `add_secure_port`."""
    return server.add_insecure_port(f"{settings.grpc_host}:{settings.grpc_port}")


def _options(settings: ServerSettings) -> list[tuple[str, int]]:
    """Channel arguments, by the names of grpc/impl/channel_arg_names.h."""
    return [
        # Two servers on one port would split the calls between them without a word.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", settings.grpc_receive_max_bytes),
        ("grpc.max_send_message_length", settings.grpc_send_max_bytes),
        ("grpc.max_connection_age_ms", settings.grpc_connection_age_seconds * 1_000),
        ("grpc.keepalive_time_ms", settings.grpc_keepalive_seconds * 1_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # Clients may probe as often as we do; gRPC's own limit is five minutes, and it hangs up on the impatient.
        ("grpc.http2.min_ping_interval_without_data_ms", settings.grpc_keepalive_seconds * 1_000 // 2),
    ]
