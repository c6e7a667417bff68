"""Everything the commands beside the stream work on, opened from where it lives."""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from redis import Redis

from segue.adapters.batch_views import BatchViews
from segue.adapters.dead_letters import DeadLetters
from segue.adapters.erasure_job import ErasureJob
from segue.adapters.erasures import Receipts
from segue.adapters.event_log import LogKeeper
from segue.adapters.histories import HistoryStore
from segue.adapters.lake import Lake
from segue.adapters.refills import Refills
from segue.errors import InvalidInput

HISTORY_PREFIX = "segue:customer_history:"
"""Of the keys of histories: the feature repo's project and its history view."""


@dataclass(frozen=True)
class Kafka:
    """An event log on Kafka."""

    bootstrap_servers: str
    topic: str
    options: str = ""
    """A file of librdkafka's options; empty: none."""


@dataclass(frozen=True)
class Upkeep:
    """The lake and the models under `home`, the online store, the event log; connected to when first used."""

    home: Path
    redis: Any
    kafka: Kafka | None
    """The event log; None: it is in the online store."""

    @classmethod
    def of(cls, home: Path, address: str, *, kafka: Kafka | None = None) -> Self:
        """What lies under `home` and in the store at `address`, as Feast writes it: host:port,db=0,password=...

        Raises:
            InvalidInput: `address` is none.
        """
        where, *words = address.split(",")
        host, _, port = where.partition(":")
        options = dict(word.partition("=")[::2] for word in words)
        if unknown := sorted(options.keys() - {"db", "username", "password", "ssl"}):
            raise InvalidInput.because("redis", f"{unknown[0]!r} is no option; there are db, username, password, ssl")
        try:
            found: dict[str, Any] = {"port": int(port or 6379), "db": int(options.get("db", 0))}
        except ValueError:
            raise InvalidInput.because("redis", "is not host:port, options behind commas") from None
        found |= {name: options[name] for name in ("username", "password") if name in options}
        return cls(home, Redis(host=host, ssl=options.get("ssl", "").lower() == "true", **found), kafka)

    @property
    def lake(self) -> Lake:
        """The event lake."""
        return Lake(self.home / "lake")

    @property
    def histories(self) -> HistoryStore:
        """The online store's histories."""
        return HistoryStore(self.redis, HISTORY_PREFIX)

    @property
    def letters(self) -> DeadLetters:
        """What could not be processed."""
        return DeadLetters(self.redis)

    @property
    def refills(self) -> Refills:
        """Customers to be merged again."""
        return Refills(self.redis)

    @cached_property
    def log(self) -> LogKeeper:
        """The event log."""
        if self.kafka is None:
            from segue.adapters.event_log.redis_streams import RedisLogKeeper  # noqa: PLC0415

            return RedisLogKeeper(self.redis)
        # Only one who has Kafka needs its client.
        from segue.adapters.event_log.kafka import KafkaLogKeeper  # noqa: PLC0415
        from segue.adapters.event_log.kafka_records import read_options  # noqa: PLC0415

        further = read_options(self.kafka.options, field="kafka-options")
        return KafkaLogKeeper(self.kafka.bootstrap_servers, self.kafka.topic, options=further)

    @property
    def erasures(self) -> ErasureJob:
        """What completes erasures; it knows of models where there is a store of them."""
        bundles = None
        if (self.home / "bentoml").is_dir():
            from segue.adapters.model_store import ModelStore  # noqa: PLC0415 - BentoML is slow to import

            bundles = ModelStore(self.home / "bentoml")
        views = BatchViews(self.home / "snapshots", self.home / "plans", self.redis)
        return ErasureJob(self.lake, self.histories, Receipts(self.redis), self.log, self.letters, views, bundles)

    def item_statistics(self) -> int:
        """Refresh the item statistics of the feature repo beside `home`; returns how many items they are of."""
        from feast import FeatureStore  # noqa: PLC0415 - takes seconds to import

        from segue.adapters.feast import pipeline  # noqa: PLC0415

        store = FeatureStore(str(self.home.parent / "feature_repo"))
        return pipeline.refresh_item_statistics(self.home, store, until=datetime.now(UTC))
