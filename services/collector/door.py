"""The door: what both transports call. Messages in, entries in the event log, and for each refusal its reason."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from segue.adapters.event_log import LogWriter, Offsets, to_token
from segue.v1.log_pb2 import LogEntry
from services.collector.clock import Arrival
from services.collector.links import SaidLinks
from services.collector.metrics import Metrics
from services.collector.refusal import Refused

BATCH_MAX_COUNT = 1_000
EVENT_MAX_BYTES = 32 * 1_024
BODY_MAX_BYTES = 512 * 1_024

M = TypeVar("M")


@dataclass(frozen=True)
class Refusal:
    """One message that was not accepted: `index` is its position in the batch."""

    index: int
    event_id: str
    reason: str
    field: str
    problem: str
    error: Refused


@dataclass(frozen=True)
class Result:
    """What became of a batch; `offsets` name its place in the log."""

    accepted_count: int
    refused: Sequence[Refusal]
    offsets: Offsets

    @property
    def token(self) -> str:
        """The place of the batch in the log, as text."""
        return to_token(self.offsets)


class Door:
    """Lets messages in, one by one, and says so when the log has them."""

    def __init__(self, log: LogWriter, metrics: Metrics) -> None:
        self._log = log
        self._metrics = metrics
        self._links = SaidLinks()

    async def accept(
        self,
        messages: Sequence[M],
        facts: Callable[[M, Arrival], list[LogEntry]],
        arrival: Arrival,
        *,
        id_of: Callable[[M], Any],
    ) -> Result:
        """Take each of `messages` or refuse it; what is taken is durable when this returns.

        Args:
            messages: of one batch.
            facts: what a message says; raises Refused for one that cannot be used.
            arrival: of the batch.
            id_of: the event id a message came with, repeated to the caller where the message is refused.

        Raises:
            Overloaded: the log is full; nothing is lost when the batch is sent again.
            LogUnavailable: the log did not take it in time; sending it again is right.
        """
        entries: list[LogEntry] = []
        refused = []
        for index, message in enumerate(messages):
            try:
                entries += facts(message, arrival)
            except Refused as error:
                refused.append(_refusal(index, id_of(message), error))
        offsets = await self.append(entries)
        self._metrics.batch(
            accepted_count=len(messages) - len(refused), refused=[refusal.reason for refusal in refused]
        )
        return Result(len(messages) - len(refused), refused, offsets)

    async def append(self, entries: Sequence[LogEntry]) -> Offsets:
        """Append `entries`, without the links the log knows; returns once they are durable.

        Raises:
            Overloaded: the log is full.
            LogUnavailable: the log did not take them in time.
        """
        news = self._links.news(entries)
        if not news:
            return {}
        bodies = [(entry.customer, entry.SerializeToString()) for entry in news]
        offsets = await self._log.append(bodies)
        self._links.say(news)
        self._metrics.logged(news, sum(len(body) for _, body in bodies))
        return offsets


def _refusal(index: int, event_id: Any, error: Refused) -> Refusal:
    field, problem = error.violations[0]
    # An id that was at fault itself is not repeated.
    told = event_id if isinstance(event_id, str) and field not in {"messageId", "event_id"} else ""
    return Refusal(index, told[:128], error.reason, field, problem, error)
