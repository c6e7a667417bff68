"""What a backend asks: the calls of the demonstration, and how their answers are shown."""

import asyncio
import uuid
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from segue.rpc.channel import connect
from segue.rpc.convert import to_timestamp
from segue.v1.collector_pb2 import CollectEventsRequest, CustomerId, SubmittedEvent
from segue.v1.collector_pb2_grpc import CollectorServiceStub
from segue.v1.propensity_pb2 import BatchScorePropensityRequest, ScorePropensityRequest, ScorePropensityResponse, Tier
from segue.v1.propensity_pb2_grpc import PropensityServiceStub
from segue.v1.recommendation_pb2 import RecommendNextRequest, RecommendNextResponse
from segue.v1.recommendation_pb2_grpc import RecommendationServiceStub

TIMEOUT_SECONDS = 5.0


class Backend:
    """A backend that calls both services over gRPC, and tells the collector what happens."""

    def __init__(self, propensity: str, recommendation: str, collector: str, *, write_key: str) -> None:
        self._channels = [connect(propensity), connect(recommendation), connect(collector)]
        self._propensity: Any = PropensityServiceStub(self._channels[0])  # type: ignore[no-untyped-call] # generated
        self._recommendation: Any = RecommendationServiceStub(self._channels[1])  # type: ignore[no-untyped-call]
        self._collector: Any = CollectorServiceStub(self._channels[2])  # type: ignore[no-untyped-call]
        self._credentials = (("authorization", f"Bearer {write_key}"),)

    async def ask(
        self, customer: str, as_of_ms: int, *, read_after: str = ""
    ) -> tuple[ScorePropensityResponse, RecommendNextResponse]:
        """Both answers about one customer, asked at the same time, and not before `read_after` is part of them."""
        as_of = to_timestamp(as_of_ms)
        propensity = ScorePropensityRequest(customer=customer, as_of=as_of, read_after=read_after)
        recommendation = RecommendNextRequest(customer=customer, as_of=as_of, limit=10, read_after=read_after)
        score, items = await asyncio.gather(
            self._propensity.ScorePropensity(propensity, timeout=TIMEOUT_SECONDS),
            self._recommendation.RecommendNext(recommendation, timeout=TIMEOUT_SECONDS),
        )
        return score, items

    async def choose(self, customers: Sequence[str], as_of_ms: int) -> str:
        """The customer whose propensity is in the middle: one for whom the next event can change much."""
        request = BatchScorePropensityRequest(customers=customers, as_of=to_timestamp(as_of_ms))
        answer = await self._propensity.BatchScorePropensity(request, timeout=TIMEOUT_SECONDS)
        ranked = sorted(answer.answers, key=lambda each: each.propensities[0].probability)
        return str(ranked[len(ranked) // 2].customer)

    async def send(self, customer: str, kind: str, item: str, value_minor: int, event_time_ms: int) -> str:
        """Tell the collector one new event; returns the token of its place in the event log."""
        event = SubmittedEvent(
            event_id=str(uuid.uuid4()),
            customer=CustomerId(customer=customer),
            kind=kind,
            item=item,
            event_time=to_timestamp(event_time_ms),
            value_minor=value_minor,
        )
        request = CollectEventsRequest(events=[event])
        answer = await self._collector.CollectEvents(request, timeout=TIMEOUT_SECONDS, metadata=self._credentials)
        return str(answer.token)

    async def close(self) -> None:
        """Close the channels."""
        for channel in self._channels:
            await channel.close()


def show_propensity(console: Console, answer: ScorePropensityResponse) -> None:
    """Print the propensities with their reasons."""
    for propensity in answer.propensities:
        tier = Tier.Name(propensity.tier).removeprefix("TIER_").lower()
        table = Table(title=f"{propensity.outcome}: {propensity.probability:.1%}, tier {tier}", title_justify="left")
        for heading in ("because", "value", "log-odds", "meaning"):
            is_number = heading in {"value", "log-odds"}
            table.add_column(heading, justify="right" if is_number else "left", no_wrap=heading != "meaning")
        for reason in propensity.reasons:
            value = f"{reason.value:,.6g}" if reason.HasField("value") else "-"
            table.add_row(reason.feature, value, f"{reason.contribution:+.2f}", reason.meaning)
        console.print(table)


def show_change(
    console: Console,
    before: tuple[ScorePropensityResponse, RecommendNextResponse],
    after: tuple[ScorePropensityResponse, RecommendNextResponse],
) -> None:
    """Print the ten next items before and after, side by side."""
    table = Table(title="ten next items, before and after the event", title_justify="left")
    for heading in ("rank", "before", "score", "after", "score", "moved"):
        table.add_column(heading, justify="right" if heading in {"rank", "score"} else "left")
    old = {each.item: each.rank for each in before[1].items}
    for was, now in zip(before[1].items, after[1].items, strict=False):
        moved = "new" if now.item not in old else f"{old[now.item] - now.rank:+d}" if old[now.item] != now.rank else ""
        table.add_row(str(now.rank), was.item, f"{was.score:.2f}", now.item, f"{now.score:.2f}", moved)
    console.print(table)
    for old_score, new_score in zip(before[0].propensities, after[0].propensities, strict=True):
        change = f"{old_score.probability:.1%} -> {new_score.probability:.1%}"
        console.print(f"{new_score.outcome}: {change}", highlight=False)
