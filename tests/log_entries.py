"""Entries of the event log, made by hand, and a log in memory to read them from."""

import bisect

from segue.adapters.event_log import Entry, LogReader, partition_of
from segue.v1.log_pb2 import LogEntry

PARTITIONS = 3


def pseudonym(name):
    """The pseudonym that stands for a short name."""
    return f"{int.from_bytes(name.encode()):032x}"


def event(name, time, number=0, **fields):
    fact = {"event_id": number, "kind": "product_viewed", "item": "shoe", "event_time_ms": time, **fields}
    return LogEntry(customer=pseudonym(name), receive_time_ms=max(0, time), event=fact)


def link(source, target):
    return LogEntry(customer=pseudonym(source), receive_time_ms=1, link={"target": pseudonym(target)})


def consent(name, time, *, granted):
    change = {"granted": granted, "change_time_ms": time}
    return LogEntry(customer=pseudonym(name), receive_time_ms=time, consent=change)


def erasure(name, time, erasure_id="erasure"):
    order = {"erased_at_ms": time, "erasure_id": erasure_id}
    return LogEntry(customer=pseudonym(name), receive_time_ms=time, erasure=order)


def entry(message, offset=1, partition=0):
    return Entry(partition, offset, message.customer, message.SerializeToString())


class MemoryLog:
    """A log of PARTITIONS partitions, with the acks of its only group of readers."""

    def __init__(self):
        self.entries = {partition: [] for partition in range(PARTITIONS)}
        self.acked = dict.fromkeys(self.entries, 0)

    def append(self, messages):
        for message in messages:
            self.put(message.customer, message.SerializeToString())

    def put(self, customer, body):
        partition = partition_of(customer, PARTITIONS)
        rows = self.entries[partition]
        rows.append(Entry(partition, 2 * len(rows) + 1, customer, body))


class MemoryReader(LogReader):
    """A reader of a MemoryLog that owns the partitions it is given."""

    def __init__(self, log, owned=range(PARTITIONS)):
        self.log = log
        self.cursors = {}
        self.closed = False
        self.own(owned)

    @property
    def log_id(self):
        return "memory"

    @property
    def owned(self):
        return frozenset(self.cursors)

    def own(self, partitions):
        """What a rebalance does: what is new is read from its last ack on."""
        self.cursors = {each: self.cursors.get(each, self.log.acked[each]) for each in partitions}

    def read(self, max_count, timeout_ms):
        found = []
        for partition, after in self.cursors.items():
            rows = self.log.entries[partition]
            first = bisect.bisect_right([row.offset for row in rows], after)
            found += rows[first : first + max_count - len(found)]
        for each in found:
            self.cursors[each.partition] = each.offset
        return found

    def rewind(self):
        self.cursors = {each: self.log.acked[each] for each in self.cursors}

    def ack(self, offsets):
        for partition, offset in offsets.items():
            if partition in self.cursors:
                self.log.acked[partition] = max(self.log.acked[partition], offset)

    def close(self):
        self.closed = True
        self.cursors = {}
