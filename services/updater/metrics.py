"""What the updater tells Prometheus about itself."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.updater.merging import Merged

LATE_MS = 60_000

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3_600)


class Metrics:
    """The updater's metrics, in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        name = "segue_updater"
        self.merged = Counter(f"{name}_events_merged", "Events merged into the online store.", registry=registry)
        self.late = Counter(
            f"{name}_events_late", "Events received more than a minute after they happened.", registry=registry
        )
        self.barred = Counter(
            f"{name}_events_barred", "Events stopped by an erasure or by withdrawn consent.", registry=registry
        )
        self.facts = Counter(f"{name}_facts", "Links, barriers and erasures applied.", ["fact"], registry=registry)
        self.dead_letters = Counter(
            f"{name}_dead_letters", "Entries put aside, by reason.", ["reason"], registry=registry
        )
        self.written = Counter(f"{name}_events_written", "Events committed to the lake.", registry=registry)
        self.conflicts = Counter(
            f"{name}_lake_conflicts", "Flushes the lake refused because another updater was first.", registry=registry
        )
        self.failures = Counter(
            f"{name}_failures", "Attempts that met something unavailable.", ["part"], registry=registry
        )
        self.flush_seconds = Histogram(
            f"{name}_flush_seconds", "Time of a flush, with its ack.", buckets=SECONDS, registry=registry
        )
        self.age_seconds = Histogram(
            f"{name}_event_age_seconds",
            "Time from the collector to the online store, of the oldest event of each micro-batch.",
            buckets=SECONDS,
            registry=registry,
        )
        self.backlog = Gauge(
            f"{name}_backlog", "Entries of the log not acked yet, of all partitions.", registry=registry
        )
        self.buffered = Gauge(f"{name}_events_buffered", "Events waiting for the lake.", registry=registry)

    def batch(self, merged: Merged, *, now_ms: int) -> None:
        """Count a micro-batch that has been merged by now."""
        received_ms = merged.decoded.details.receive_time_ms
        self.merged.inc(len(merged.batch.events))
        self.barred.inc(merged.barred_count)
        self.late.inc(int((received_ms - merged.decoded.events.event_time_ms > LATE_MS).sum()))
        for fact in merged.facts:
            self.facts.labels(type(fact).__name__.lower()).inc()
        for letter in merged.letters:
            self.dead_letters.labels(letter.reason).inc()
        if len(received_ms):
            self.age_seconds.observe(max(0, now_ms - int(received_ms.min())) / 1_000)
