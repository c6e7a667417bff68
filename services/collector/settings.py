"""What the collector reads from its environment."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from segue.rpc.server import ServerSettings
from segue.rpc.settings import setting
from services.collector.door import BODY_MAX_BYTES


@dataclass(frozen=True, kw_only=True)
class CollectorSettings(ServerSettings):
    """See `python -m services.collector --help`."""

    PREFIX: ClassVar[str] = "SEGUE_COLLECTOR_"

    grpc_port: int = setting(50053, meaning="port of the gRPC server, 0 for any free one", low=0, high=65_535)
    grpc_receive_max_bytes: int = setting(BODY_MAX_BYTES, meaning="largest request", low=1_024, high=1 << 26)
    grpc_deadline_default_ms: int = setting(
        10_000, meaning="deadline of a call that brings none, also of a whole stream", low=1, high=600_000
    )
    http_host: str = setting(
        "127.0.0.1", meaning="address the HTTP server listens on, in plaintext: elsewhere only behind a proxy"
    )
    http_port: int = setting(3003, meaning="port of the HTTP server, 0 for any free one", low=0, high=65_535)
    http_body_seconds: float = setting(10.0, meaning="how long a body may take to arrive", low=0.1, high=600)
    cors_origins: tuple[str, ...] = setting(("*",), meaning="origins whose pages may send events; * for all")
    concurrent_requests: int = setting(512, meaning="requests answered at once; more are refused", low=1, high=100_000)
    concurrent_bytes: int = setting(
        32 << 20, meaning="bytes of requests under way at once; more are refused", low=BODY_MAX_BYTES, high=1 << 34
    )
    keys: Path = setting(
        Path(".segue/collector/keys"), meaning="file of the pseudonym keys, lines `name:hex`, the current one first"
    )
    write_keys: Path = setting(
        Path(".segue/collector/write-keys"), meaning="file of the write keys, lines `name:key` or `name:sha256:hex`"
    )
    privacy: str = setting("", meaning="TOML file with further fields to drop, pseudonymise or keep; empty: none")
    consent_category: str = setting(
        "Analytics", meaning="the category of a consent tool that allows a profile; case does not matter"
    )
    consent_required: bool = setting(
        False, meaning="refuse HTTP messages that do not say that the category is granted; false: that say it is not"
    )
    currency: str = setting("EUR", meaning="ISO 4217 code of the shop's own currency")
    redis_url: str = setting(
        "redis://127.0.0.1:6399",
        meaning="the event log, and the receipts of erasures, redis://user:password@host:port/db",
        secret=True,
    )
    log: Literal["redis", "kafka"] = setting("redis", meaning="where the event log is")
    log_partitions: int = setting(16, meaning="partitions of the event log; never change it", low=1, high=4_096)
    log_capacity: int = setting(
        1_000_000, meaning="entries the Redis log holds unread; beyond, events are refused", low=1, high=1 << 40
    )
    log_timeout_ms: int = setting(
        2_000, meaning="how long the event log, and Redis, may take to answer", low=1, high=60_000
    )
    kafka_bootstrap_servers: str = setting("127.0.0.1:9092", meaning="host:port,... of the Kafka log")
    kafka_topic: str = setting("segue-events", meaning="topic of the Kafka log")
    kafka_options: str = setting(
        "", meaning="file of further librdkafka options, lines `name=value`, TLS and SASL among them; empty: none"
    )
