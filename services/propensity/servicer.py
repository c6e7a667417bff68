"""Proto to domain and back, without decisions."""

import time
from typing import Any

from segue.adapters.event_log import from_token
from segue.errors import Violation
from segue.inference.propensity import Reason
from segue.rpc import answers, convert
from segue.v1 import propensity_pb2 as pb
from segue.v1.propensity_pb2_grpc import PropensityServiceServicer
from services.propensity.answering import Answer, Answering, Propensity

MAX_REASONS_DEFAULT = 5
MAX_REASONS_LIMIT = 20
BATCH_REASONS_LIMIT = 5
BATCH_LIMIT = 1000
OUTCOMES_LIMIT = 32


class PropensityServicer(PropensityServiceServicer):
    """segue.v1.PropensityService."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering

    async def ScorePropensity(  # noqa: N802 - the name is the proto's
        self, request: pb.ScorePropensityRequest, context: Any
    ) -> pb.ScorePropensityResponse:
        """One customer, with reasons."""
        max_reasons = request.max_reasons if request.HasField("max_reasons") else MAX_REASONS_DEFAULT
        further = [
            *_outcomes(request.outcomes),
            *convert.within("max_reasons", max_reasons, 0, MAX_REASONS_LIMIT),
        ]
        asked = convert.question(request, clock_ms=_clock_ms(), further=further)
        (answer,) = await self._answering.answer(
            [asked.customer],
            request.outcomes,
            as_of_ms=asked.as_of_ms,
            max_reasons=max_reasons,
            events=asked.events,
            read_after=from_token(request.read_after),
        )
        return _response(answer)

    async def BatchScorePropensity(  # noqa: N802 - the name is the proto's
        self, request: pb.BatchScorePropensityRequest, context: Any
    ) -> pb.BatchScorePropensityResponse:
        """Many customers as of one moment."""
        clock_ms = _clock_ms()
        convert.refuse(
            [
                *convert.within("customers.length", len(request.customers), 1, BATCH_LIMIT),
                *(
                    violation
                    for position, customer in enumerate(request.customers[:BATCH_LIMIT])
                    for violation in convert.text(f"customers[{position}]", customer)
                ),
                *_outcomes(request.outcomes),
                *convert.as_of_violations(request, clock_ms=clock_ms),
                *convert.within("max_reasons", request.max_reasons, 0, BATCH_REASONS_LIMIT),
            ]
        )
        made = await self._answering.answer(
            request.customers,
            request.outcomes,
            as_of_ms=convert.as_of_ms(request, clock_ms=clock_ms),
            max_reasons=request.max_reasons,
        )
        return pb.BatchScorePropensityResponse(answers=[_response(answer) for answer in made])


def _outcomes(outcomes: Any) -> list[Violation]:
    if len(outcomes) > OUTCOMES_LIMIT:
        return [Violation("outcomes", f"holds {len(outcomes)} outcomes, at most {OUTCOMES_LIMIT} are taken")]
    if len(set(outcomes)) < len(outcomes):
        return [Violation("outcomes", "names an outcome twice")]
    return []


def _response(answer: Answer) -> pb.ScorePropensityResponse:
    return pb.ScorePropensityResponse(
        answer_id=answer.answer_id,
        customer=answer.customer,
        propensities=[_propensity(each) for each in answer.propensities],
        context=answers.context(answer.context),
    )


def _propensity(made: Propensity) -> pb.Propensity:
    return pb.Propensity(
        outcome=made.outcome,
        probability=made.probability,
        tier=f"TIER_{made.tier.name}",
        reasons=[_reason(reason) for reason in made.reasons],
    )


def _reason(reason: Reason) -> pb.Reason:
    return pb.Reason(
        feature=reason.feature,
        value=reason.value,
        contribution=reason.contribution,
        meaning=reason.meaning,
    )


def _clock_ms() -> int:
    return time.time_ns() // 1_000_000
