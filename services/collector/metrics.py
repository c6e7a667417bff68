"""What the collector counts. No label has a value that a caller chose."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram

from segue.rpc.guard import BUCKETS_SECONDS
from segue.v1.log_pb2 import LogEntry
from services.collector.refusal import ConsentWithheld, EventTooLarge, Refused

LATE_MS = 60_000


class Metrics:
    """The counters, in a registry of their own."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._accepted = Counter("segue_collector_events_accepted", "Events accepted", registry=registry)
        self._refused = Counter("segue_collector_events_refused", "Events refused", ["reason"], registry=registry)
        self._late = Counter(
            "segue_collector_events_late", "Events received over a minute after they happened", registry=registry
        )
        self._entries = Counter("segue_collector_log_entries", "Entries the log took", ["fact"], registry=registry)
        self._bytes = Counter("segue_collector_log_bytes", "Bytes of the entries the log took", registry=registry)
        self._seconds = Histogram(
            "segue_collector_http_seconds",
            "Time to answer an HTTP request",
            ["route", "code"],
            buckets=BUCKETS_SECONDS,
            registry=registry,
        )
        for refusal in (Refused, EventTooLarge, ConsentWithheld):
            self._refused.labels(refusal.reason)
        for fact in ("event", "link", "consent", "erasure"):
            self._entries.labels(fact)

    def batch(self, *, accepted_count: int, refused: Sequence[str]) -> None:
        """A batch was answered; `refused` holds the reason of each refusal."""
        self._accepted.inc(accepted_count)
        for reason in refused:
            self._refused.labels(reason).inc()

    def logged(self, entries: Sequence[LogEntry], bytes_count: int) -> None:
        """The log took `entries`."""
        counts: dict[str, int] = {}
        late = 0
        for entry in entries:
            fact = entry.WhichOneof("fact") or "event"
            counts[fact] = counts.get(fact, 0) + 1
            late += fact == "event" and entry.receive_time_ms - entry.event.event_time_ms > LATE_MS
        for fact, count in counts.items():
            self._entries.labels(fact).inc(count)
        self._late.inc(late)
        self._bytes.inc(bytes_count)

    def answered(self, route: str, code: int, seconds: float) -> None:
        """An HTTP request was answered; `route` is one of the routes' own paths."""
        self._seconds.labels(route, str(code)).observe(seconds)
