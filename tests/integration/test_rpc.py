import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import grpc
import pytest
import uvloop
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub
from grpc_status import rpc_status
from prometheus_client import CollectorRegistry

from segue import errors
from segue.rpc.channel import connect
from segue.rpc.server import Server, ServerSettings, start
from segue.v1.propensity_pb2 import ScorePropensityRequest, ScorePropensityResponse
from segue.v1.propensity_pb2_grpc import (
    PropensityServiceServicer,
    PropensityServiceStub,
    add_PropensityServiceServicer_to_server,
)

SERVICE = "segue.v1.PropensityService"
METHOD = f"/{SERVICE}/ScorePropensity"
ASKED = ScorePropensityRequest(customer="c1")
SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING

Script = Callable[[ScorePropensityRequest], Awaitable[ScorePropensityResponse]]


async def echo(request: ScorePropensityRequest) -> ScorePropensityResponse:
    return ScorePropensityResponse(customer=request.customer)


class Scripted(PropensityServiceServicer):
    def __init__(self, script: Script) -> None:
        self.script = script

    async def ScorePropensity(self, request, context):  # noqa: N802 the name is gRPC's
        return await self.script(request)


@pytest.fixture(scope="module", params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request):
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner.run


async def started(script: Script, registry: CollectorRegistry | None = None, **settings) -> Server:
    quick = {"grpc_port": 0, "grpc_drain_seconds": 0.0}
    return await start(
        {SERVICE: partial(add_PropensityServiceServicer_to_server, Scripted(script))},
        ServerSettings(**quick | settings),
        registry=registry or CollectorRegistry(),
    )


@asynccontextmanager
async def served(script: Script = echo, registry: CollectorRegistry | None = None, **settings):
    server = await started(script, registry, **settings)
    server.serving()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield PropensityServiceStub(channel), channel, server
    await server.stop()


async def failed(call: Awaitable) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def details(error: grpc.aio.AioRpcError) -> dict[type, object]:
    status = rpc_status.from_call(error)
    kinds = ErrorInfo, BadRequest, RetryInfo
    return {kind: message for kind in kinds for detail in status.details if detail.Unpack(message := kind())}


def test_health_is_serving_only_when_told(run):
    async def scenario():
        server = await started(echo)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:

            async def health() -> set[int]:
                stub = HealthStub(channel)
                answers = [await stub.Check(HealthCheckRequest(service=service)) for service in ("", SERVICE)]
                return {answer.status for answer in answers}

            assert await health() == {NOT_SERVING}
            server.serving()
            assert await health() == {SERVING}
            unknown = await failed(HealthStub(channel).Check(HealthCheckRequest(service="segue.v1.NoService")))
            assert unknown.code() == grpc.StatusCode.NOT_FOUND
            await server.stop()
            gone = await failed(HealthStub(channel).Check(HealthCheckRequest()))
            assert gone.code() == grpc.StatusCode.UNAVAILABLE

    run(scenario())


def test_reflection_knows_the_services_and_their_protos(run):
    async def scenario():
        async with served() as (_, channel, _):
            asked = [
                ServerReflectionRequest(list_services=""),
                ServerReflectionRequest(file_containing_symbol="segue.v1.ScorePropensityRequest"),
            ]
            answers = [answer async for answer in ServerReflectionStub(channel).ServerReflectionInfo(iter(asked))]
            names = {service.name for service in answers[0].list_services_response.service}
            assert {SERVICE, "grpc.health.v1.Health"} <= names
            assert answers[1].file_descriptor_response.file_descriptor_proto

    run(scenario())


@pytest.mark.parametrize(
    ("error", "code", "reason", "retry"),
    [
        (errors.InvalidInput.because("customer", "is empty"), "INVALID_ARGUMENT", "INVALID_INPUT", False),
        (errors.UnknownOutcome.because("outcomes[0]", "is not served"), "INVALID_ARGUMENT", "UNKNOWN_OUTCOME", False),
        (errors.InvalidHistories.because("histories[0]", "hunter2"), "DATA_LOSS", "INVALID_HISTORIES", False),
        (errors.BundleError("hunter2"), "INTERNAL", "BUNDLE_REJECTED", False),
        (errors.StoreUnavailable("hunter2"), "UNAVAILABLE", "STORE_UNAVAILABLE", True),
        (errors.Overloaded("hunter2"), "RESOURCE_EXHAUSTED", "OVERLOADED", True),
        (errors.DeadlineExceeded("hunter2"), "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", False),
        (errors.SegueError("hunter2"), "INTERNAL", "INTERNAL", False),
        (KeyError("hunter2"), "INTERNAL", "INTERNAL", False),
        (TimeoutError("hunter2"), "INTERNAL", "INTERNAL", False),
    ],
)
def test_errors_arrive_with_code_and_details(run, error, code, reason, retry):
    async def script(request):
        raise error

    async def scenario():
        async with served(script) as (stub, _, _):
            caught = await failed(stub.ScorePropensity(ASKED))
        assert caught.code() == grpc.StatusCode[code]
        told = details(caught)
        assert (told[ErrorInfo].reason, told[ErrorInfo].domain) == (reason, "segue")
        assert (RetryInfo in told) == retry
        violations = [(each.field, each.description) for each in told.get(BadRequest, BadRequest()).field_violations]
        assert violations == (list(error.violations) if code == "INVALID_ARGUMENT" else [])
        assert "hunter2" not in str(caught)

    run(scenario())


def test_an_unexpected_error_leaks_nothing_and_is_logged_under_its_incident(run, caplog):
    async def script(request):
        raise RuntimeError(f"no such customer: {request.customer}")

    async def scenario():
        async with served(script) as (stub, _, _):
            return await failed(stub.ScorePropensity(ScorePropensityRequest(customer="hunter2")))

    with caplog.at_level(logging.DEBUG):
        caught = run(scenario())
    assert caught.code() == grpc.StatusCode.INTERNAL
    assert caught.details() == "something went wrong inside; it has been logged"
    assert details(caught)[ErrorInfo].metadata["incident"] in caplog.text
    assert "hunter2" not in str(caught)
    assert "hunter2" not in caplog.text


def test_more_violations_than_a_trailer_holds_still_arrive(run):
    async def script(request):
        raise errors.InvalidInput(*[errors.Violation(f"events[{n}].kind", "ü" * 200) for n in range(256)])

    async def scenario():
        async with served(script) as (stub, _, _):
            caught = await failed(stub.ScorePropensity(ASKED))
        assert caught.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert details(caught)[ErrorInfo].metadata["violation_count"] == "256"

    run(scenario())


def test_bytes_that_are_no_request_are_the_caller_s_fault(run):
    async def scenario():
        async with served() as (_, channel, _):
            caught = await failed(channel.unary_unary(METHOD)(b"\xff\xff"))
        assert caught.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert details(caught)[BadRequest].field_violations[0].field == "request"

    run(scenario())


def test_a_request_beyond_the_size_limit_is_refused(run):
    async def scenario():
        async with served(grpc_receive_max_bytes=1_024) as (stub, _, _):
            caught = await failed(stub.ScorePropensity(ScorePropensityRequest(customer="x" * 2_000)))
            assert caught.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert (await stub.ScorePropensity(ASKED)).customer == "c1"

    run(scenario())


def test_an_unknown_method_is_unimplemented(run):
    async def scenario():
        async with served() as (_, channel, _):
            caught = await failed(channel.unary_unary(f"/{SERVICE}/Guess")(b""))
        assert caught.code() == grpc.StatusCode.UNIMPLEMENTED

    run(scenario())


def test_a_call_without_a_deadline_gets_one(run):
    async def script(request):
        await asyncio.Event().wait()

    async def scenario():
        async with served(script, grpc_deadline_default_ms=20) as (stub, _, _):
            caught = await failed(stub.ScorePropensity(ASKED))
        assert caught.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert details(caught)[ErrorInfo].reason == "DEADLINE_EXCEEDED"

    run(scenario())


def test_a_call_with_too_little_time_left_is_refused_before_any_work(run):
    asked = []

    async def script(request):
        asked.append(request)
        return await echo(request)

    async def scenario():
        async with served(script, grpc_deadline_min_ms=60_000) as (stub, _, _):
            caught = await failed(stub.ScorePropensity(ASKED, timeout=30))
            assert caught.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            assert details(caught)[ErrorInfo].reason == "DEADLINE_EXCEEDED"
            assert not asked
            await stub.ScorePropensity(ASKED, timeout=90)
        assert asked

    run(scenario())


@pytest.mark.parametrize("how", ["deadline", "cancelled"])
def test_work_ends_when_its_caller_is_gone(run, how):
    async def scenario():
        begun, ended = asyncio.Event(), asyncio.Event()

        async def script(request):
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        async with served(script, grpc_deadline_default_ms=600_000) as (stub, _, _):
            call = stub.ScorePropensity(ASKED, timeout=0.2 if how == "deadline" else None)
            await begun.wait() if how == "cancelled" else await failed(call)
            call.cancel()
            await ended.wait()

    run(scenario())


def test_a_call_too_many_is_refused_while_health_still_answers(run):
    async def scenario():
        begun, go = asyncio.Event(), asyncio.Event()

        async def script(request):
            begun.set()
            await go.wait()
            return await echo(request)

        async with served(script, grpc_concurrent_calls=1) as (stub, channel, _):
            first = asyncio.ensure_future(stub.ScorePropensity(ASKED, timeout=60))
            await begun.wait()
            caught = await failed(stub.ScorePropensity(ASKED, timeout=60))
            assert caught.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert details(caught)[ErrorInfo].reason == "OVERLOADED"
            assert details(caught)[RetryInfo].retry_delay.ToMilliseconds() > 0
            assert (await HealthStub(channel).Check(HealthCheckRequest())).status == SERVING
            go.set()
            assert (await first).customer == "c1"
            assert (await stub.ScorePropensity(ASKED, timeout=60)).customer == "c1"

    run(scenario())


def test_a_servicer_s_own_abort_is_passed_on_and_counted(run):
    class Aborting(PropensityServiceServicer):
        async def ScorePropensity(self, request, context):  # noqa: N802 the name is gRPC's
            await context.abort(grpc.StatusCode.ABORTED, "no more")

    async def scenario():
        registry = CollectorRegistry()
        register = partial(add_PropensityServiceServicer_to_server, Aborting())
        server = await start({SERVICE: register}, ServerSettings(grpc_port=0), registry=registry)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            caught = await failed(PropensityServiceStub(channel).ScorePropensity(ASKED))
        await server.stop()
        assert (caught.code(), caught.details()) == (grpc.StatusCode.ABORTED, "no more")
        assert registry.get_sample_value("segue_rpc_requests_total", {"method": METHOD, "code": "ABORTED"}) == 1

    run(scenario())


def test_calls_are_counted_by_method_and_code(run):
    registry = CollectorRegistry()

    async def script(request):
        if not request.customer:
            raise errors.InvalidInput.because("customer", "is empty")
        return await echo(request)

    def count(code: str) -> float | None:
        return registry.get_sample_value("segue_rpc_requests_total", {"method": METHOD, "code": code})

    async def scenario():
        async with served(script, registry) as (stub, channel, _):
            assert (count("OK"), count("INTERNAL"), count("INVALID_ARGUMENT")) == (0, 0, None)
            for _ in range(3):
                await stub.ScorePropensity(ASKED)
            await failed(stub.ScorePropensity(ScorePropensityRequest()))
            await failed(channel.unary_unary(f"/{SERVICE}/Guess")(b""))
            await HealthStub(channel).Check(HealthCheckRequest())
        assert (count("OK"), count("INTERNAL"), count("INVALID_ARGUMENT")) == (3, 0, 1)
        assert registry.get_sample_value("segue_rpc_seconds_count", {"method": METHOD}) == 4
        methods = {sample.labels.get("method") for metric in registry.collect() for sample in metric.samples}
        assert methods == {METHOD, f"/{SERVICE}/BatchScorePropensity"}

    run(scenario())


def test_a_taken_port_is_an_error(run):
    async def scenario():
        async with served() as (_, _, server):
            with pytest.raises(RuntimeError, match=str(server.port)):
                await started(echo, grpc_port=server.port)

    run(scenario())


def test_a_service_that_is_in_no_proto_is_an_error(run):
    async def scenario():
        with pytest.raises(KeyError):
            await start({"segue.v1.NoService": print}, ServerSettings(grpc_port=0), registry=CollectorRegistry())

    run(scenario())


def test_a_stop_ends_health_watches_and_may_be_repeated(run):
    async def scenario():
        async with served(grpc_grace_seconds=600.0) as (_, channel, server):
            watch = HealthStub(channel).Watch(HealthCheckRequest())
            assert (await watch.read()).status == SERVING
            await server.stop()
            assert (await watch.read()).status == NOT_SERVING
            assert await watch.read() == grpc.aio.EOF
            assert await watch.code() == grpc.StatusCode.OK
            server.serving()
            await server.stop()

    run(scenario())


def test_a_watch_is_told_of_every_turn_and_of_services_that_are_not_here(run):
    async def scenario():
        server = await started(echo)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            known, unknown = [HealthStub(channel).Watch(HealthCheckRequest(service=name)) for name in (SERVICE, "no")]
            assert (await known.read()).status == NOT_SERVING
            assert (await unknown.read()).status == HealthCheckResponse.SERVICE_UNKNOWN
            server.serving()
            assert (await known.read()).status == SERVING
            await server.stop()
            assert (await known.read()).status == NOT_SERVING

    run(scenario())


def test_calls_in_progress_are_answered_before_a_stop_ends(run):
    async def scenario():
        begun, go = asyncio.Event(), asyncio.Event()

        async def script(request):
            begun.set()
            await go.wait()
            return await echo(request)

        async with served(script, grpc_grace_seconds=600.0) as (stub, channel, server):
            call = asyncio.ensure_future(stub.ScorePropensity(ASKED, timeout=60))
            await begun.wait()
            watch = HealthStub(channel).Watch(HealthCheckRequest())
            await watch.read()
            stopping = asyncio.ensure_future(server.stop())
            while await watch.read() != grpc.aio.EOF:
                pass
            assert not stopping.done()
            go.set()
            assert (await call).customer == "c1"
            await stopping

    run(scenario())


def test_a_stopping_server_answers_those_who_have_not_left(run):
    async def scenario():
        begun, go = asyncio.Event(), asyncio.Event()

        async def script(request):
            if request.customer == "slow":
                begun.set()
                await go.wait()
            return await echo(request)

        async with served(script, grpc_drain_seconds=600.0) as (stub, channel, server):
            slow = asyncio.ensure_future(stub.ScorePropensity(ScorePropensityRequest(customer="slow"), timeout=60))
            await begun.wait()
            watch = HealthStub(channel).Watch(HealthCheckRequest())
            assert (await watch.read()).status == SERVING
            stopping = asyncio.ensure_future(server.stop())
            assert (await watch.read()).status == NOT_SERVING
            server.serving()
            assert (await HealthStub(channel).Check(HealthCheckRequest())).status == NOT_SERVING
            assert (await stub.ScorePropensity(ASKED, timeout=60)).customer == "c1"
            go.set()
            assert (await slow).customer == "slow"
            await stopping

    run(scenario())


def test_a_stop_under_load_fails_no_call(run):
    """Two servers and a crowd that asks without pause: one stops, the other goes on, nobody sees an error."""

    async def scenario():
        begun, answered = [0, 0], [0, 0]

        def counting(server: int) -> Script:
            async def script(request):
                begun[server] += 1
                await asyncio.sleep(0.001)
                answered[server] += 1
                return await echo(request)

            return script

        leaving, staying = [await started(counting(server), grpc_drain_seconds=5.0) for server in (0, 1)]
        leaving.serving()
        staying.serving()
        received = itertools.count()
        crowd_goes_home = asyncio.Event()

        async with connect(f"ipv4:127.0.0.1:{leaving.port},127.0.0.1:{staying.port}") as channel:
            stub = PropensityServiceStub(channel)

            async def ask() -> None:
                while not crowd_goes_home.is_set():
                    assert (await stub.ScorePropensity(ASKED, timeout=60, wait_for_ready=True)).customer == "c1"
                    next(received)

            async with asyncio.TaskGroup() as crowd:
                for _ in range(16):
                    crowd.create_task(ask())
                while min(answered) < 100:
                    await asyncio.sleep(0)
                await leaving.stop()
                after = answered[1]
                while answered[1] < after + 100:
                    await asyncio.sleep(0)
                crowd_goes_home.set()
        await staying.stop()
        assert begun == answered
        assert sum(answered) == next(received)

    run(scenario())
