"""Proto to domain and back, without decisions."""

import time
from typing import Any

from segue.adapters.event_log import from_token
from segue.errors import Violation
from segue.inference.related import ITEMS_MAX, RelatedItems, Relation
from segue.inference.sequence import EXCLUDE_MAX, LIMIT_MAX, Recommendation
from segue.rpc import answers, convert
from segue.v1 import recommendation_pb2 as pb
from segue.v1.recommendation_pb2_grpc import RecommendationServiceServicer
from services.recommendation.answering import Answering

LIMIT_DEFAULT = 10

RELATIONS = {pb.RELATION_SIMILAR: Relation.SIMILAR, pb.RELATION_COMPLEMENT: Relation.COMPLEMENT}


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
        return pb.RecommendNextResponse(
            answer_id=made.answer_id,
            customer=made.customer,
            items=_ranked(made.recommendation),
            context=answers.context(made.context),
        )

    async def RecommendRelated(  # noqa: N802 - the name is the proto's
        self, request: pb.RecommendRelatedRequest, context: Any
    ) -> pb.RecommendRelatedResponse:
        """The items related to some items."""
        limit = request.limit or LIMIT_DEFAULT
        convert.refuse(
            [
                *_asked(request.items),
                *_named(request.relation),
                *convert.within("limit", limit, 1, LIMIT_MAX),
                *_excluded(request.exclude_items),
            ]
        )
        made = self._answering.related_to(
            request.items, RELATIONS[request.relation], limit=limit, exclude_items=request.exclude_items
        )
        return pb.RecommendRelatedResponse(
            answer_id=made.answer_id, items=_ranked(made.related), context=answers.context(made.context)
        )


def _ranked(made: Recommendation | RelatedItems) -> list[pb.RecommendedItem]:
    ranked = zip(made.external_id, made.score.tolist(), strict=True)
    return [pb.RecommendedItem(item=item, score=score, rank=rank) for rank, (item, score) in enumerate(ranked, start=1)]


def _named(relation: pb.Relation) -> list[Violation]:
    return [] if relation in RELATIONS else [Violation("relation", "is none of the relations")]


def _asked(items: Any) -> list[Violation]:
    if not 1 <= len(items) <= ITEMS_MAX:
        return [Violation("items", f"holds {len(items)} items, 1 to {ITEMS_MAX} are taken")]
    return _texts("items", items)


def _excluded(items: Any) -> list[Violation]:
    if len(items) > EXCLUDE_MAX:
        return [Violation("exclude_items", f"holds {len(items)} items, at most {EXCLUDE_MAX} are taken")]
    return _texts("exclude_items", items)


def _texts(field: str, items: Any) -> list[Violation]:
    return [
        violation for position, item in enumerate(items) for violation in convert.text(f"{field}[{position}]", item)
    ]
