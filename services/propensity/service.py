"""The propensity service: BentoML's HTTP server, and our gRPC server in the same event loop.

Run it with `python -m services.propensity`; `--help` lists its settings.
"""

import os
from functools import partial
from typing import Any

import bentoml
from prometheus_client import REGISTRY
from pydantic import RootModel
from redis.asyncio import Redis

from segue.adapters.plan_reader import PlanReader
from segue.inference.propensity import PropensityScorer
from segue.rpc import http, settings
from segue.rpc.server import Server, start
from segue.v1 import propensity_pb2 as pb
from segue.v1.propensity_pb2_grpc import add_PropensityServiceServicer_to_server
from services.propensity import bundles
from services.propensity.answering import Answering, Model
from services.propensity.servicer import PropensityServicer
from services.propensity.settings import PropensitySettings

Body = RootModel[dict[str, Any]]


def answering(read: PropensitySettings, redis: Any) -> Answering:
    """Load the bundles and agree with the registry.

    Raises:
        BundleError: a bundle is missing, altered, or disagrees with the registry or with another bundle.
    """
    plan, served = bundles.agreed(read)
    models = {each.manifest.name: Model(PropensityScorer.load(each), each.version) for each in served}
    return Answering(PlanReader(plan, redis), models)


@bentoml.service(name="segue-propensity", workers=1, traffic={"timeout": 10})
class Propensity:
    """Calibrated probabilities that a customer buys, leaves or comes back."""

    @bentoml.on_startup
    async def open(self) -> None:
        """Load, warm up, and only then say SERVING."""
        read = settings.read(PropensitySettings, os.environ)
        timeout_seconds = read.store_timeout_ms / 1000
        self._redis = Redis.from_url(
            read.redis_url, socket_timeout=timeout_seconds, socket_connect_timeout=timeout_seconds
        )
        answers = answering(read, self._redis)
        self._servicer = PropensityServicer(answers)
        register = partial(add_PropensityServiceServicer_to_server, self._servicer)
        self._server: Server = await start({"segue.v1.PropensityService": register}, read, registry=REGISTRY)
        await answers.warm_up()
        self._server.serving()
        self._ready = True

    @bentoml.on_shutdown
    async def close(self) -> None:
        """Let the callers leave, then stop."""
        self._ready = False
        await self._server.stop()
        await self._redis.aclose()

    async def __is_ready__(self) -> bool:
        """For `/readyz`."""
        return getattr(self, "_ready", False)

    @bentoml.api(route="/v1/score_propensity")
    async def score_propensity(self, request: Body, /, context: bentoml.Context) -> Body:
        """segue.v1.PropensityService.ScorePropensity as JSON."""
        status, answer = await http.call(self._servicer.ScorePropensity, pb.ScorePropensityRequest(), request.root)
        context.response.status_code = status
        return Body(answer)

    @bentoml.api(route="/v1/batch_score_propensity")
    async def batch_score_propensity(self, request: Body, /, context: bentoml.Context) -> Body:
        """segue.v1.PropensityService.BatchScorePropensity as JSON."""
        status, answer = await http.call(
            self._servicer.BatchScorePropensity, pb.BatchScorePropensityRequest(), request.root
        )
        context.response.status_code = status
        return Body(answer)
