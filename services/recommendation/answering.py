"""From a question to recommendations: read the history, rank the items. What both transports call."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segue.adapters.event_log import Offsets
from segue.adapters.plan_reader import PlanReader
from segue.errors import BundleError
from segue.events import Events, item_id
from segue.features.sequence import item_sequences
from segue.history import HISTORY_LIMIT, histories_of
from segue.inference.answers import Context, Fallback, new_answer_id
from segue.inference.sequence import Recommendation, Rung, SequenceScorer

POPULARITY = "item_event_count_7d"
"""The column of the feature service that says what is popular now."""

ITEMS_PER_READ = 100
"""Items whose statistics are read at a time: decoding them takes some milliseconds, in which no call is answered."""

FALLBACKS = {Rung.SEQUENCE: Fallback.NONE, Rung.POPULAR: Fallback.POPULAR}


@dataclass(frozen=True)
class Answer:
    """What to show one customer next."""

    answer_id: str
    customer: str
    recommendation: Recommendation
    context: Context


class Answering:
    """Answers by one sequence model over the feature service that `reader` reads."""

    def __init__(self, reader: PlanReader, scorer: SequenceScorer) -> None:
        names = [column.name for column in reader.scalar_columns]
        if POPULARITY not in names:
            raise BundleError(f"bundle {scorer.version}: its plan does not have the column {POPULARITY}")
        self._reader = reader
        self._scorer = scorer
        self._popularity_column = names.index(POPULARITY)

    async def warm_up(self) -> None:
        """Answer for somebody nobody knows once, so that no caller pays for first calls."""
        self._scorer.warm_up()
        await self.answer("warm-up", as_of_ms=0, limit=1)

    async def follow_popularity(self, now_ms: int) -> bool:
        """Let the popular rung rank by the statistics in the online store; returns whether it holds any.

        Without them it goes on ranking by what it knew before: the counts of the training data at first.

        Raises:
            StoreUnavailable: the online store did not answer.
        """
        items = self._scorer.vocabulary.item.tolist()
        counts = np.zeros(len(items), np.int64)
        for start in range(1, len(items), ITEMS_PER_READ):
            ids = items[start : start + ITEMS_PER_READ]
            features = await self._reader.read("item", ids, np.full(len(ids), now_ms, np.int64))
            counts[start : start + len(ids)] = np.nan_to_num(features.matrix[:, self._popularity_column])
        if found := bool(counts.any()):
            self._scorer.follow(counts)
        return found

    async def answer(
        self,
        customer: str,
        *,
        as_of_ms: int,
        limit: int,
        events: Events | None = None,
        read_after: Offsets | None = None,
        exclude_items: Sequence[str] = (),
        include_seen: bool = False,
    ) -> Answer:
        """The items `customer` turns to next, best first.

        Args:
            customer: a pseudonym.
            as_of_ms: only events before it count.
            limit: at most so many items, 1 to 100.
            events: the customer's newest events, which count as if they were stored.
            exclude_items: external ids never to recommend, at most 1,000.
            include_seen: whether items of the history may be recommended.
            read_after: what must be in the online store before it is read.

        Raises:
            InvalidInput: `limit` or `exclude_items` is out of range.
            StoreUnavailable: the online store did not answer.
            DeadlineExceeded: `read_after` is not there in time.
        """
        now_ms = np.array([as_of_ms], np.int64)
        extra = histories_of(events) if events else None
        features = await self._reader.read("customer", [customer], now_ms, extra=extra, after=read_after)
        # The whole history, not only what the model reads: items seen long ago are seen too.
        sequences = item_sequences(features.histories, now_ms, length=HISTORY_LIMIT)
        excluded = np.array([item_id(each) for each in exclude_items], np.int64)
        (made,) = self._scorer.recommend(sequences, exclude=[excluded], limit=limit, include_seen=include_seen)
        service = self._reader.plan.feature_service
        versions = (self._scorer.version,)
        context = Context(versions, service, as_of_ms, features.parts, 0, FALLBACKS[made.fallback])
        return Answer(new_answer_id(), customer, made, context)
