"""What the sides of the event log on Kafka share: clients' options, records, the topic's facts, errors."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from segue.adapters.event_log import Entry, partition_of
from segue.errors import InvalidSettings, LogUnavailable, Overloaded

Options = Mapping[str, str | int | float | bool]
"""Options of librdkafka, e.g. `security.protocol`; they overrule ours."""


def read_options(path: str, *, field: str) -> Options:
    """The options in a file of lines `name=value`; none without a path. It may hold secrets: no value is ever told.

    Raises:
        InvalidSettings: the file cannot be read, or has another line; `field` is the setting it came from.
    """
    if not path:
        return {}
    try:
        lines = [line.strip() for line in Path(path).read_text().splitlines()]
    except (OSError, UnicodeDecodeError):
        raise InvalidSettings.because(field, f"{path} cannot be read") from None
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#")]
    for number, (name, equals, _) in enumerate(pairs, start=1):
        if not (name.strip() and equals):
            raise InvalidSettings.because(field, f"option {number} in {path} is not name=value")
    return {name.strip(): value.strip() for name, _, value in pairs}


def producer_config(bootstrap_servers: str, timeout_ms: int, options: Options) -> dict[str, Any]:
    """The configuration of a producer that neither loses nor doubles nor reorders what it retries."""
    return {
        "bootstrap.servers": bootstrap_servers,
        "enable.idempotence": True,
        "acks": "all",
        "message.timeout.ms": timeout_ms,
        **options,
    }


def consumer_config(bootstrap_servers: str, group: str, options: Options) -> dict[str, Any]:
    """The configuration of a member of `group` that acks by itself, from the oldest record on."""
    config: dict[str, Any] = {
        "bootstrap.servers": bootstrap_servers,
        "group.id": group,
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
    }
    # A newcomer takes its share; what others keep is not interrupted. The newer protocol does so anyhow.
    if options.get("group.protocol") != "consumer":
        config["partition.assignment.strategy"] = "cooperative-sticky"
    return config | dict(options)


class Delivery:
    """What becomes of the records of one append. Called with each report, in whichever thread serves them."""

    def __init__(self, count: int, done: Callable[[], object]) -> None:
        self._left = count
        self._done = done
        self._error: KafkaError | None = None
        self._offsets: dict[int, int] = {}

    def __call__(self, error: KafkaError | None, message: Any) -> None:
        """Take one report; after the last one say so."""
        if error:
            self._error = error
        else:
            partition, offset = message.partition(), message.offset() + 1
            self._offsets[partition] = max(offset, self._offsets.get(partition, 0))
        self._left -= 1
        if not self._left:
            self._done()

    def offsets(self) -> dict[int, int]:
        """The last offset of each partition.

        Raises:
            LogUnavailable: a record was not taken, or not in time.
        """
        if self._error or self._left:
            raise LogUnavailable(f"the event log did not take all: {self._error or 'no answer in time'}")
        return self._offsets


def produce(
    producer: Producer, topic: str, partitions: int, entries: Iterable[tuple[str, bytes]], delivery: Delivery
) -> None:
    """Hand `entries` to the producer's queue.

    Raises:
        Overloaded: the queue is full.
    """
    try:
        for customer, body in entries:
            producer.produce(
                topic,
                body,
                customer,
                partition_of(customer, partitions),
                on_delivery=delivery,
                headers=cloud_event(body),
            )
    except BufferError:
        raise Overloaded("as many entries as may wait for the event log do so") from None


def to_entry(message: Any) -> Entry:
    """The entry in a record.

    Raises:
        LogUnavailable: it is no record but an error.
    """
    if error := message.error():
        raise LogUnavailable(f"the event log does not answer: {error.str()}")
    customer = (message.key() or b"").decode(errors="replace")
    return Entry(message.partition(), message.offset() + 1, customer, message.value() or b"")


def cloud_event(body: bytes) -> list[tuple[str, str | bytes | None]]:
    """The attributes of a record as a CloudEvents 1.0 event, as Kafka headers; a copy has the same id."""
    return [
        ("content-type", "application/protobuf"),
        ("ce_specversion", "1.0"),
        ("ce_type", "segue.v1.LogEntry"),
        ("ce_source", "/segue/collector"),
        ("ce_id", hashlib.blake2b(body, digest_size=16).hexdigest()),
    ]


def topic_of(client: Any, topic: str, timeout_seconds: float) -> tuple[str, int]:
    """The cluster's id, and the number of the topic's partitions.

    Raises:
        LogUnavailable: the brokers do not know the topic, or not their cluster's id.
    """
    metadata = client.list_topics(topic, timeout=timeout_seconds)
    described = metadata.topics[topic]
    if described.error or not metadata.cluster_id:
        raise LogUnavailable(f"topic {topic} is not to be used: {described.error or 'its cluster has no id'}")
    return metadata.cluster_id, len(described.partitions)


@contextmanager
def available() -> Iterator[None]:
    """Turn an error of the client into that of the log.

    Raises:
        LogUnavailable: the brokers did not answer, or not as they should.
    """
    try:
        yield
    except KafkaException as error:
        raise LogUnavailable(f"the event log does not answer: {error}") from error
