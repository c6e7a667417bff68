"""What the updater reads from its environment."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from segue.rpc.settings import setting


@dataclass(frozen=True, kw_only=True)
class UpdaterSettings:
    """See `python -m services.updater --help`."""

    PREFIX: ClassVar[str] = "SEGUE_UPDATER_"

    redis_url: str = setting(
        "redis://127.0.0.1:6399",
        meaning="the online store, and the Redis log, redis://user:password@host:port/db",
        secret=True,
    )
    store_timeout_ms: int = setting(
        5_000, meaning="how long Redis may take to connect or to answer", low=1_001, high=60_000
    )
    customers_per_call: int = setting(
        100, meaning="customers merged by one call of the script; 1 for a Redis Cluster", low=1, high=1_000
    )
    key_prefix: str = setting(
        "segue:customer_history:", meaning="what comes before the customer in the key of a history; as in the plans"
    )
    lake: str = setting(".segue/lake", meaning="the event lake, a directory or an object store's URL")
    log: Literal["redis", "kafka"] = setting("redis", meaning="where the event log is")
    log_partitions: int = setting(16, meaning="partitions of the event log; never change it", low=1, high=4_096)
    kafka_bootstrap_servers: str = setting("127.0.0.1:9092", meaning="host:port,... of the Kafka log")
    kafka_topic: str = setting("segue-events", meaning="topic of the Kafka log")
    kafka_options: str = setting(
        "", meaning="file of further librdkafka options, lines `name=value`, TLS and SASL among them; empty: none"
    )
    consumer: str = setting("", meaning="name among the updaters; empty: host, process and a random part")
    max_count: int = setting(2_000, meaning="log entries merged at a time", low=1, high=100_000)
    flush_seconds: float = setting(2.0, meaning="merged events reach the lake after this time", low=0.05, high=600)
    flush_events: int = setting(50_000, meaning="... or when there are so many", low=1, high=10_000_000)
    future_skew_seconds: int = setting(
        60, meaning="an event further ahead of our clock is put aside", low=0, high=86_400
    )
    metrics_host: str = setting("127.0.0.1", meaning="address of the metrics server")
    metrics_port: int = setting(9464, meaning="port of the metrics server, 0 for none", low=0, high=65_535)
