"""The recommendation service: BentoML's HTTP server, and our gRPC server in the same event loop.

Run it with `python -m services.recommendation`; `--help` lists its settings.
"""

import asyncio
import logging
import os
import time
from functools import partial
from typing import Any

import bentoml
from prometheus_client import REGISTRY
from pydantic import RootModel
from redis.asyncio import Redis

from segue.adapters.plan_reader import PlanReader
from segue.errors import StoreUnavailable
from segue.inference.sequence import SequenceScorer
from segue.rpc import http, settings
from segue.rpc.server import Server, start
from segue.v1 import recommendation_pb2 as pb
from segue.v1.recommendation_pb2_grpc import add_RecommendationServiceServicer_to_server
from services.recommendation import bundles
from services.recommendation.answering import Answering
from services.recommendation.servicer import RecommendationServicer
from services.recommendation.settings import RecommendationSettings

log = logging.getLogger(__name__)

Body = RootModel[dict[str, Any]]


def answering(read: RecommendationSettings, redis: Any) -> Answering:
    """Load the bundle and agree with the registry.

    Raises:
        BundleError: the bundle is missing, altered, or disagrees with the registry.
    """
    plan, served = bundles.agreed(read)
    return Answering(PlanReader(plan, redis), SequenceScorer.load(served))


async def follow_popularity(answers: Answering, every_seconds: float) -> None:
    """Keep what is popular fresh, until cancelled; a store that is away for a while is asked again the next time."""
    while True:
        try:
            await answers.follow_popularity(time.time_ns() // 1_000_000)
        except StoreUnavailable:
            log.warning("popularity was not refreshed: the online store did not answer")
        await asyncio.sleep(every_seconds)


@bentoml.service(name="segue-recommendation", workers=1, traffic={"timeout": 10})
class Recommendation:
    """The items a customer turns to next."""

    @bentoml.on_startup
    async def open(self) -> None:
        """Load, warm up, and only then say SERVING."""
        read = settings.read(RecommendationSettings, os.environ)
        timeout_seconds = read.store_timeout_ms / 1000
        self._redis = Redis.from_url(
            read.redis_url, socket_timeout=timeout_seconds, socket_connect_timeout=timeout_seconds
        )
        answers = answering(read, self._redis)
        self._servicer = RecommendationServicer(answers)
        register = partial(add_RecommendationServiceServicer_to_server, self._servicer)
        self._server: Server = await start({"segue.v1.RecommendationService": register}, read, registry=REGISTRY)
        await answers.warm_up()
        self._popularity = asyncio.create_task(follow_popularity(answers, read.popularity_refresh_seconds))
        self._server.serving()
        self._ready = True

    @bentoml.on_shutdown
    async def close(self) -> None:
        """Let the callers leave, then stop."""
        self._ready = False
        await self._server.stop()
        self._popularity.cancel()
        await self._redis.aclose()

    async def __is_ready__(self) -> bool:
        """For `/readyz`."""
        return getattr(self, "_ready", False)

    @bentoml.api(route="/v1/recommend_next")
    async def recommend_next(self, request: Body, /, context: bentoml.Context) -> Body:
        """segue.v1.RecommendationService.RecommendNext as JSON."""
        status, answer = await http.call(self._servicer.RecommendNext, pb.RecommendNextRequest(), request.root)
        context.response.status_code = status
        return Body(answer)
