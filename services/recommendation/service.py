"""The recommendation service: BentoML's HTTP server, and our gRPC server in the same event loop.

Run it with `python -m services.recommendation`; `--help` lists its settings.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import bentoml
from prometheus_client import REGISTRY
from pydantic import RootModel
from redis.asyncio import Redis

from segue.adapters.new_items import NewItemFeed
from segue.adapters.plan_reader import PlanReader
from segue.errors import StoreCorrupted, StoreUnavailable
from segue.inference.content import CONTENT, ContentMap, Newcomers
from segue.inference.related import Related
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
    scorer = SequenceScorer.load(served)
    content = ContentMap.load(served.file(CONTENT), scorer.width)
    feed = NewItemFeed(redis, Newcomers(content, scorer.vocabulary.item))
    return Answering(PlanReader(plan, redis), scorer, Related.load(served), feed)


async def repeat(what: Callable[[], Awaitable[object]], every_seconds: float, *, purpose: str) -> None:
    """Do it again and again, until cancelled; a store that is away for a while is asked again the next time."""
    while True:
        try:
            await what()
        except (StoreUnavailable, StoreCorrupted) as error:
            log.warning("%s: %s", purpose, error)
        await asyncio.sleep(every_seconds)


@bentoml.service(name="segue-recommendation", workers=1, traffic={"timeout": 10})
class Recommendation:
    """The items a customer turns to next, and those that are related to some items."""

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
        self._following = [
            asyncio.create_task(repeat(answers.follow_trends, read.trend_refresh_seconds, purpose="following trends")),
            asyncio.create_task(
                repeat(answers.welcome_new_items, read.new_items_refresh_seconds, purpose="welcoming new items")
            ),
        ]
        self._server.serving()
        self._ready = True

    @bentoml.on_shutdown
    async def close(self) -> None:
        """Let the callers leave, then stop."""
        self._ready = False
        await self._server.stop()
        for each in self._following:
            each.cancel()
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

    @bentoml.api(route="/v1/recommend_related")
    async def recommend_related(self, request: Body, /, context: bentoml.Context) -> Body:
        """segue.v1.RecommendationService.RecommendRelated as JSON."""
        status, answer = await http.call(self._servicer.RecommendRelated, pb.RecommendRelatedRequest(), request.root)
        context.response.status_code = status
        return Body(answer)
