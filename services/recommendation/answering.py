"""From a question to recommendations: read the history, rank the items. What both transports call."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segue.adapters.event_log import Offsets
from segue.adapters.new_items import NewItemFeed
from segue.adapters.plan_reader import PlanReader
from segue.errors import BundleError
from segue.events import Events, item_id
from segue.features.sequence import item_sequences
from segue.history import HISTORY_LIMIT, histories_of
from segue.inference import trending
from segue.inference.answers import Context, Fallback, new_answer_id
from segue.inference.cohorts import stems
from segue.inference.related import Related, RelatedItems, Relation
from segue.inference.sequence import Recommendation, Rung, SequenceScorer

TRENDS = {window: f"item_event_count_{window}" for window in trending.WINDOWS}
"""The columns of the feature service that say what happens now."""

ITEMS_PER_READ = 100
"""Items whose statistics are read at a time: decoding them takes some milliseconds, in which no call is answered."""

FALLBACKS = {rung: Fallback.NONE if rung is Rung.SEQUENCE else Fallback[rung.name] for rung in Rung}


@dataclass(frozen=True)
class Answer:
    """What to show one customer next."""

    answer_id: str
    customer: str
    recommendation: Recommendation
    context: Context


@dataclass(frozen=True)
class RelatedAnswer:
    """What is related to some items."""

    answer_id: str
    related: RelatedItems
    context: Context


class Answering:
    """Answers by one sequence model over the feature service that `reader` reads, and by its bundle's item tables.

    `feed` brings the items that came after training.
    """

    def __init__(self, reader: PlanReader, scorer: SequenceScorer, related: Related, feed: NewItemFeed) -> None:
        names = [column.name for column in reader.scalar_columns]
        if missing := sorted(set(TRENDS.values()) - set(names)):
            raise BundleError(f"bundle {scorer.version}: its plan does not have {', '.join(missing)}")
        self._reader = reader
        self._scorer = scorer
        self._related = related
        self._feed = feed
        self._trend_columns = [names.index(column) for column in TRENDS.values()]

    async def warm_up(self) -> None:
        """Answer for somebody nobody knows once, so that no caller pays for first calls."""
        self._scorer.warm_up()
        await self.answer("warm-up", as_of_ms=0, limit=1)

    async def follow_trends(self, now_ms: int | None = None) -> bool:
        """Let the statistics in the online store, as of now unless told, say what is trending; whether it holds any.

        Without them it goes on by what it knew before: the counts of the training data at first.

        Raises:
            StoreUnavailable: the online store did not answer.
        """
        as_of_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
        # Items may become welcome meanwhile: counts go by id, not by index.
        items = self._scorer.vocabulary.item[1:]
        counts = np.zeros((len(items), len(TRENDS)))
        for start in range(0, len(items), ITEMS_PER_READ):
            ids = items[start : start + ITEMS_PER_READ].tolist()
            features = await self._reader.read("item", ids, np.full(len(ids), as_of_ms, np.int64))
            counts[start : start + len(ids)] = np.nan_to_num(features.matrix[:, self._trend_columns])
        if found := bool(counts.any()):
            self._scorer.follow(items, trending.rate(dict(zip(TRENDS, counts.T, strict=True))))
        return found

    async def welcome_new_items(self) -> bool:
        """Recommend, and read, the items that came after training and since the last look; whether there are any.

        Raises:
            StoreUnavailable, StoreCorrupted: the online store did not answer, or holds something else.
        """
        if changed := await self._feed.poll():
            self._scorer.welcome(*self._feed.newcomers.told())
        return changed

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
        cohorts = self._scorer.cohorts
        stem = stems(features.histories, now_ms, cohorts.categories) if cohorts else None
        (made,) = self._scorer.recommend(
            sequences, exclude=[excluded], limit=limit, include_seen=include_seen, stem=stem
        )
        service = self._reader.plan.feature_service
        versions = (self._scorer.version,)
        context = Context(versions, service, as_of_ms, features.parts, 0, FALLBACKS[made.fallback])
        return Answer(new_answer_id(), customer, made, context)

    def related_to(
        self, items: Sequence[str], relation: Relation, *, limit: int, exclude_items: Sequence[str] = ()
    ) -> RelatedAnswer:
        """The items related to all of `items` together, best first: the same for everybody.

        Args:
            items: external ids, 1 to 100; unknown ones say nothing.
            limit: at most so many items, 1 to 100.
            exclude_items: external ids never to recommend, at most 1,000.

        Raises:
            InvalidInput: `items`, `limit` or `exclude_items` is out of range.
            NotServed: the bundle has no table of `relation`.
        """
        asked, excluded = (np.array([item_id(each) for each in ids], np.int64) for ids in (items, exclude_items))
        made = self._related.answer(asked, relation, limit=limit, exclude=excluded)
        service, as_of_ms = self._reader.plan.feature_service, self._related.data_cut_ms
        context = Context((self._related.version,), service, as_of_ms, (), 0, Fallback.NONE)
        return RelatedAnswer(new_answer_id(), made, context)
