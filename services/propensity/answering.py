"""From a question to propensities: read the features, score them, say why. What both transports call."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segue.adapters.event_log import Offsets
from segue.adapters.plan_reader import PlanReader
from segue.errors import BundleError, UnknownOutcome
from segue.events import Events
from segue.history import histories_of
from segue.inference.answers import Context, Fallback, Features, new_answer_id
from segue.inference.propensity import PropensityScorer, Reason, Tier


@dataclass(frozen=True)
class Model:
    """One outcome's model: `version` is its bundle's tag."""

    scorer: PropensityScorer
    version: str


@dataclass(frozen=True)
class Propensity:
    """One outcome of one customer."""

    outcome: str
    probability: float
    tier: Tier
    reasons: Sequence[Reason]


@dataclass(frozen=True)
class Answer:
    """All outcomes asked of one customer."""

    answer_id: str
    customer: str
    propensities: Sequence[Propensity]
    context: Context


class Answering:
    """Answers by `models`, one per outcome, all of the feature service that `reader` reads."""

    def __init__(self, reader: PlanReader, models: Mapping[str, Model]) -> None:
        self._reader = reader
        self._models = dict(sorted(models.items()))
        names = {column.name: index for index, column in enumerate(reader.scalar_columns)}
        for model in models.values():
            if missing := sorted(set(model.scorer.columns) - set(names)):
                raise BundleError(f"bundle {model.version}: reads columns its plan does not have: {missing}")
        self._columns = {
            outcome: np.array([names[column] for column in model.scorer.columns], np.intp)
            for outcome, model in self._models.items()
        }

    async def warm_up(self) -> None:
        """Score somebody nobody knows once, with reasons, so that no caller pays for first calls."""
        await self.answer(["warm-up"], [], as_of_ms=0, max_reasons=1)

    async def answer(
        self,
        customers: Sequence[str],
        outcomes: Sequence[str],
        *,
        as_of_ms: int,
        max_reasons: int,
        events: Events | None = None,
        read_after: Offsets | None = None,
    ) -> list[Answer]:
        """One answer per customer, as of one time.

        Args:
            customers: n pseudonyms.
            outcomes: the outcomes asked, or none for all.
            as_of_ms: only events before it count.
            max_reasons: how many reasons each propensity gives.
            events: the newest events of `customers[0]`, the only one then.
            read_after: what must be in the online store before it is read.

        Raises:
            UnknownOutcome: an outcome is not served.
            StoreUnavailable: the online store did not answer.
            DeadlineExceeded: `read_after` is not there in time.
        """
        asked = list(outcomes) or list(self._models)
        if unknown := [outcome for outcome in asked if outcome not in self._models]:
            raise UnknownOutcome.because(
                "outcomes", f"{unknown[0]!r} is not served; these are: {', '.join(self._models)}"
            )
        now_ms = np.full(len(customers), as_of_ms, np.int64)
        extra = histories_of(events) if events else None
        features = await self._reader.read("customer", customers, now_ms, extra=extra, after=read_after)
        scored = [self._score(outcome, features.matrix, max_reasons) for outcome in asked]
        return [
            Answer(
                new_answer_id(),
                customer,
                [by_row[row] for by_row in scored],
                self._context(asked, features, row, as_of_ms),
            )
            for row, customer in enumerate(customers)
        ]

    def _score(self, outcome: str, features: NDArray[np.float64], max_reasons: int) -> list[Propensity]:
        scorer = self._models[outcome].scorer
        matrix = features[:, self._columns[outcome]]
        scores = scorer.score(matrix)
        reasons = scorer.reasons(matrix, max_reasons=max_reasons) if max_reasons else [[] for _ in matrix]
        return [
            Propensity(outcome, float(probability), Tier(int(tier)), why)
            for probability, tier, why in zip(scores.probability, scores.tier, reasons, strict=True)
        ]

    def _context(self, outcomes: Sequence[str], features: Features, row: int, as_of_ms: int) -> Context:
        versions = tuple(self._models[outcome].version for outcome in outcomes)
        service = self._reader.plan.feature_service
        return Context(versions, service, as_of_ms, features.parts, row, Fallback.NONE)
