"""The event log on Kafka, against librdkafka's mock cluster: what only Kafka does."""

import time
from collections.abc import Iterator

import pytest

from segue.adapters.event_log.kafka_records import cloud_event
from segue.errors import LogUnavailable, Overloaded
from tests.contract.logs import (
    CUSTOMERS,
    KAFKA_READER,
    WAIT_SECONDS,
    bodies,
    ends,
    facts,
    kafka_log,
    mock_cluster,
    read_all,
    read_until,
)


@pytest.fixture(scope="module")
def brokers() -> Iterator[str]:
    with mock_cluster() as addresses:
        yield addresses


def test_a_record_is_a_cloud_event(brokers):
    from confluent_kafka import Consumer

    with kafka_log(brokers) as log:
        log.write(facts(1))
        topic = log.reader().log_id.rpartition(".")[2]
    consumer = Consumer(
        {"bootstrap.servers": brokers, "group.id": "any", "auto.offset.reset": "earliest", **KAFKA_READER}
    )
    consumer.subscribe([topic])
    message = consumer.poll(WAIT_SECONDS)
    consumer.close()
    headers = dict(message.headers())
    assert message.value() == b"fact 000000"
    assert headers["content-type"] == b"application/protobuf"
    assert headers["ce_specversion"] == b"1.0"
    assert headers["ce_type"] == b"segue.v1.LogEntry"
    assert headers["ce_source"]
    assert headers["ce_id"]
    assert cloud_event(b"a") == cloud_event(b"a") != cloud_event(b"b")


def test_kafka_tells_when_the_last_copy_expires(brokers):
    with kafka_log(brokers) as log:
        before = time.time_ns() // 1_000_000
        forgotten = log.keeper(retention_ms=3_600_000).forget(CUSTOMERS)
        after = time.time_ns() // 1_000_000
    assert forgotten.entry_count == 0
    assert before <= forgotten.expire_time_ms - 3_600_000 <= after


def test_a_full_queue_is_overload(brokers):
    with kafka_log(brokers) as log, pytest.raises(Overloaded):
        log.write(facts(20_000), queue_max_count=10)


def test_a_topic_that_ends_before_its_last_ack_is_refused(brokers):
    with kafka_log(brokers) as log:
        log.write(facts(8))
        reader = log.reader()
        read_all(reader, 8)
        # As of the topic's former life.
        reader.ack({0: 1_000})
        log.close()
        later = log.reader("b")
        for _ in range(2):
            with pytest.raises(LogUnavailable, match="anew"):
                read_until(later, lambda: False)


def test_the_classic_group_protocol_works_as_well(brokers):
    with kafka_log(brokers) as log:
        log.write(facts(20))
        reader = log.reader(options={"log_level": 2})
        entries = read_all(reader, 20)
        reader.ack(ends([entry for entry in entries if entry.body < b"fact 000010"]))
        reader.rewind()
        assert bodies(read_all(reader, 10)) == [body for _, body in facts(10, start=10)]
