"""Proto to domain and back, without decisions."""

import time
from typing import Any

from segue.adapters.event_log import from_token
from segue.errors import Violation
from segue.inference.sequence import EXCLUDE_MAX, LIMIT_MAX
from segue.rpc import answers, convert
from segue.v1 import recommendation_pb2 as pb
from segue.v1.recommendation_pb2_grpc import RecommendationServiceServicer
from services.recommendation.answering import Answering

LIMIT_DEFAULT = 10


class RecommendationServicer(RecommendationServiceServicer):
    """segue.v1.RecommendationService."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering

    async def RecommendNext(  # noqa: N802 - the name is the proto's
        self, request: pb.RecommendNextRequest, context: Any
    ) -> pb.RecommendNextResponse:
        """The items a customer turns to next."""
        limit = request.limit or LIMIT_DEFAULT
        further = [*convert.within("limit", limit, 1, LIMIT_MAX), *_excluded(request.exclude_items)]
        asked = convert.question(request, clock_ms=time.time_ns() // 1_000_000, further=further)
        made = await self._answering.answer(
            asked.customer,
            as_of_ms=asked.as_of_ms,
            limit=limit,
            events=asked.events,
            read_after=from_token(request.read_after),
            exclude_items=request.exclude_items,
            include_seen=request.include_seen,
        )
        ranked = zip(made.recommendation.external_id, made.recommendation.score.tolist(), strict=True)
        return pb.RecommendNextResponse(
            answer_id=made.answer_id,
            customer=made.customer,
            items=[
                pb.RecommendedItem(item=item, score=score, rank=rank)
                for rank, (item, score) in enumerate(ranked, start=1)
            ],
            context=answers.context(made.context),
        )


def _excluded(items: Any) -> list[Violation]:
    if len(items) > EXCLUDE_MAX:
        return [Violation("exclude_items", f"holds {len(items)} items, at most {EXCLUDE_MAX} are taken")]
    return [
        violation
        for position, item in enumerate(items)
        for violation in convert.text(f"exclude_items[{position}]", item)
    ]
