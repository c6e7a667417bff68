"""The event log on Kafka: one topic, with the partition of a customer by our rule and not the client's.

Offsets are Kafka's plus one, so that they are positive; what is acked is then what Kafka calls committed. A record is a
CloudEvents 1.0 event in binary mode (Kafka protocol binding). Records leave the topic by its retention, not one by one.
A topic made anew needs another name: its offsets start again, and a lake would take its entries for ones it has.
"""

import asyncio
import threading
import time
from collections.abc import Mapping, Sequence

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition

from segue.adapters.event_log import Entry, Forgotten, LogKeeper, LogReader, LogWriter, Offsets
from segue.adapters.event_log.kafka_records import (
    Delivery,
    Options,
    available,
    consumer_config,
    produce,
    producer_config,
    to_entry,
    topic_of,
)
from segue.errors import InvalidSettings, LogUnavailable

TOPIC = "segue-events"
PARTITIONS = 16
GROUP = "updater"
TIMEOUT_MS = 10_000
RETENTION_MS = 24 * 3_600_000
QUEUE_MAX_COUNT = 100_000

_MOVED_ON = frozenset(
    {
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.FENCED_MEMBER_EPOCH,
        KafkaError._ASSIGNMENT_LOST,  # noqa: SLF001 - public under this name only
    }
)
"""What is answered to the ack of a partition that has, or is about to have, another owner."""


class KafkaLogWriter(LogWriter):
    """An idempotent producer; an append returns once all in-sync replicas have it.

    Args:
        bootstrap_servers: host:port, comma between several.
        topic: made by the operator, with `partitions`.
        partitions: how many the topic must have; adding some later would part a customer from what came before.
        timeout_ms: how long one append may take.
        queue_max_count: how many records may wait for the brokers.
        options: of librdkafka.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str = TOPIC,
        *,
        partitions: int = PARTITIONS,
        timeout_ms: int = TIMEOUT_MS,
        queue_max_count: int = QUEUE_MAX_COUNT,
        options: Options | None = None,
    ) -> None:
        ours = {"queue.buffering.max.messages": queue_max_count, "linger.ms": 1}
        config = producer_config(bootstrap_servers, timeout_ms, {**ours, **(options or {})})
        self._config = {**config, "error_cb": self._on_error}
        self._topic = topic
        self._partitions = partitions
        self._timeout_seconds = timeout_ms / 1_000
        self._producer: Producer | None = None
        self._starting = asyncio.Lock()
        self._closed = threading.Event()
        self._poller: threading.Thread | None = None

    async def append(self, entries: Sequence[tuple[str, bytes]]) -> dict[int, int]:
        """As the port says.

        Raises:
            InvalidSettings: the topic has another number of partitions.
        """
        if not entries:
            return {}
        producer = self._producer or await self._start()
        loop = asyncio.get_running_loop()
        done = asyncio.Event()
        delivery = Delivery(len(entries), lambda: loop.call_soon_threadsafe(done.set))
        with available():
            produce(producer, self._topic, self._partitions, entries, delivery)
            await done.wait()
            return delivery.offsets()

    async def close(self) -> None:
        """Wait for what is on its way, then let go of the brokers."""
        self._closed.set()
        if self._poller:
            await asyncio.to_thread(self._poller.join)

    async def _start(self) -> Producer:
        async with self._starting:
            if self._producer is None:
                producer = Producer(self._config)
                await asyncio.to_thread(self._check, producer)
                self._producer = producer
                self._poller = threading.Thread(target=self._poll, args=(producer,), name="kafka-log", daemon=True)
                self._poller.start()
            return self._producer

    def _check(self, producer: Producer) -> None:
        with available():
            _, count = topic_of(producer, self._topic, self._timeout_seconds)
        if count != self._partitions:
            problem = f"is {self._partitions}, but topic {self._topic} has {count}"
            raise InvalidSettings.because("partitions", problem)

    def _poll(self, producer: Producer) -> None:
        """Serve delivery reports; in a thread, since waiting for them blocks."""
        while producer is self._producer and not self._closed.is_set():
            producer.poll(0.1)
        producer.flush(self._timeout_seconds)

    def _on_error(self, error: KafkaError) -> None:
        # A producer that cannot be idempotent any more takes nothing; the next append starts another.
        if error.fatal():
            self._producer = None


class KafkaLogReader(LogReader):
    """A member of a consumer group; Kafka says who owns what, and takes over from the dead after `session.timeout.ms`.

    Args:
        bootstrap_servers: host:port, comma between several.
        topic: the log's.
        consumer: names the reader in the brokers' logs and metrics.
        group: the consumer group; every group gets every entry.
        timeout_ms: how long a request to the brokers may take.
        options: of librdkafka. Between two reads no more than `max.poll.interval.ms` may pass.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str = TOPIC,
        *,
        consumer: str,
        group: str = GROUP,
        timeout_ms: int = TIMEOUT_MS,
        options: Options | None = None,
    ) -> None:
        self._topic = topic
        self._timeout_seconds = timeout_ms / 1_000
        self._log_id = ""
        self._acked: dict[int, int] = {}
        """The last ack of each partition owned; 0: none."""
        self._assigned: set[int] = set()
        """Partitions to be owned from the next read on."""
        self._trouble = ""
        config = consumer_config(bootstrap_servers, group, {"client.id": consumer, **(options or {})})
        self._consumer = Consumer({**config, "error_cb": self._on_error})
        self._consumer.subscribe([topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke)

    @property
    def log_id(self) -> str:
        """The cluster's id and the topic."""
        if not self._log_id:
            with available():
                cluster_id, _ = topic_of(self._consumer, self._topic, self._timeout_seconds)
            self._log_id = f"{cluster_id}.{self._topic}"
        return self._log_id

    @property
    def owned(self) -> frozenset[int]:
        """As the port says."""
        return frozenset(self._acked)

    def read(self, max_count: int, timeout_ms: int) -> list[Entry]:
        """As the port says.

        Raises:
            LogUnavailable: also when a partition ends before its last ack, since its topic was made anew.
        """
        self._trouble = ""
        with available():
            self._welcome()
            first = self._consumer.poll(timeout_ms / 1_000)
            messages = [first] if first else []
            # `consume` by itself would wait for as many as it may return.
            if messages and max_count > 1:
                messages += self._consumer.consume(max_count - 1, 0)
        if self._trouble and not messages:
            raise LogUnavailable(self._trouble)
        return [to_entry(message) for message in messages if message.partition() in self._acked]

    def rewind(self) -> None:
        """As the port says.

        Raises:
            LogUnavailable: the client is between two states; try again.
        """
        with available():
            self._seek(self._acked)

    def ack(self, offsets: Offsets) -> None:
        """As the port says; one round trip."""
        ahead = {each: offset for each, offset in offsets.items() if offset > self._acked.get(each, offset)}
        if not ahead:
            return
        with available():
            try:
                commits = self._consumer.commit(offsets=self._places(ahead), asynchronous=False)
            except KafkaException as error:
                if error.args[0].code() in _MOVED_ON:
                    return
                raise
            for commit in commits:
                if commit.error is None:
                    self._acked[commit.partition] = commit.offset
                elif commit.error.code() not in _MOVED_ON:
                    raise KafkaException(commit.error)

    def close(self) -> None:
        """As the port says."""
        self._consumer.close()
        self._acked = {}

    def _places(self, offsets: Mapping[int, int]) -> list[TopicPartition]:
        return [TopicPartition(self._topic, partition, offset) for partition, offset in offsets.items()]

    def _seek(self, acked: Mapping[int, int]) -> None:
        for place in self._places({partition: offset or OFFSET_BEGINNING for partition, offset in acked.items()}):
            self._consumer.seek(place)

    def _welcome(self) -> None:
        """Own what was assigned, from its last ack on: what came of it during an earlier read was not returned."""
        if not self._assigned:
            return
        acked = {}
        places = self._places(dict.fromkeys(self._assigned, 0))
        for place in self._consumer.committed(places, timeout=self._timeout_seconds):
            _, end = self._consumer.get_watermark_offsets(place, timeout=self._timeout_seconds)
            acked[place.partition] = max(place.offset, 0)
            if place.offset > end:
                raise LogUnavailable(
                    f"partition {place.partition} of topic {self._topic} ends at {end}, before its last ack, "
                    f"{place.offset}: the topic was made anew and needs another name"
                )
        self._seek(acked)
        self._acked |= acked
        self._assigned.clear()

    def _on_assign(self, _: Consumer, places: Sequence[TopicPartition]) -> None:
        # Not owned before the next read, so that one that was lost in this read is seen to be.
        self._assigned |= {place.partition for place in places}

    def _on_revoke(self, _: Consumer, places: Sequence[TopicPartition]) -> None:
        for place in places:
            self._acked.pop(place.partition, None)
            self._assigned.discard(place.partition)

    def _on_error(self, error: KafkaError) -> None:
        self._trouble = f"the event log does not answer: {error.str()}"


class KafkaLogKeeper(LogKeeper):
    """Looks after the log.

    Args:
        bootstrap_servers: host:port, comma between several.
        topic: the log's.
        group: the consumer group whose backlog it is.
        retention_ms: after so long a record is gone for sure: the topic's `retention.ms` and `segment.ms` together.
        timeout_ms: how long a request to the brokers may take.
        options: of librdkafka, those of producers and consumers alike.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str = TOPIC,
        *,
        group: str = GROUP,
        retention_ms: int = RETENTION_MS,
        timeout_ms: int = TIMEOUT_MS,
        options: Options | None = None,
    ) -> None:
        self._topic = topic
        self._retention_ms = retention_ms
        self._timeout_seconds = timeout_ms / 1_000
        self._consumer = Consumer(consumer_config(bootstrap_servers, group, options or {}))
        self._producer = Producer(producer_config(bootstrap_servers, timeout_ms, options or {}))

    def backlog(self) -> dict[int, int]:
        """As the port says."""
        with available():
            _, count = topic_of(self._consumer, self._topic, self._timeout_seconds)
            places = [TopicPartition(self._topic, partition) for partition in range(count)]
            backlog = {}
            for place in self._consumer.committed(places, timeout=self._timeout_seconds):
                start, end = self._consumer.get_watermark_offsets(place, timeout=self._timeout_seconds)
                backlog[place.partition] = end - max(place.offset, start)
        return backlog

    def forget(self, customers: Sequence[str]) -> Forgotten:  # noqa: ARG002 - of the port
        """As the port says: the records stay until they expire."""
        return Forgotten(0, expire_time_ms=time.time_ns() // 1_000_000 + self._retention_ms)

    def append(self, entries: Sequence[tuple[str, bytes]]) -> None:
        """As the port says."""
        delivery = Delivery(len(entries), lambda: None)
        with available():
            _, count = topic_of(self._producer, self._topic, self._timeout_seconds)
            produce(self._producer, self._topic, count, entries, delivery)
            self._producer.flush(2 * self._timeout_seconds)
            delivery.offsets()

    def close(self) -> None:
        """Let go of the brokers."""
        self._consumer.close()
        self._producer.flush(self._timeout_seconds)
