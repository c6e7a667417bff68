"""Every entry of the log ends in one place, in columns, and none that is hostile gets far."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.adapters.event_log import Entry
from segue.adapters.lake import DETAILS_SCHEMA
from segue.adapters.log_entries import FUTURE, MALFORMED, Erasure, decode
from segue.customers import Barrier, Link
from segue.events import NO_ITEM, Kind, item_id
from segue.v1.log_pb2 import LogEntry
from tests.log_entries import consent, entry, erasure, event, link, pseudonym

NOW = 1_700_000_000_000
SKEW = 60_000


def decoded(*messages):
    return decode([entry(each, offset) for offset, each in enumerate(messages, start=1)], now_ms=NOW, skew_ms=SKEW)


def poison(*messages):
    return [(each.entry.offset, each.reason, each.problem) for each in decoded(*messages).poison]


def test_events_become_columns_in_the_order_of_their_entries():
    first = event("b", 5, 2**64 - 1, value_minor=-3, kind="order_completed", item="")
    found = decode(
        [entry(first, 7, 1), entry(event("a", 4, 1), 3, 2), entry(event("b", 6), 9, 1)], now_ms=NOW, skew_ms=0
    )
    events = found.events
    assert events.customers[events.customer].tolist() == [pseudonym(each) for each in "bab"]
    assert events.event_id.tolist() == [2**64 - 1, 1, 0]
    assert events.kind.tolist() == [Kind.ORDER_COMPLETED, Kind.PRODUCT_VIEWED, Kind.PRODUCT_VIEWED]
    assert events.item.tolist() == [NO_ITEM, item_id("shoe"), item_id("shoe")]
    assert events.event_time_ms.tolist() == [5, 4, 6]
    assert events.available_time_ms.tolist() == [0, 0, 0]
    assert events.value_minor.tolist() == [-3, 0, 0]
    assert (found.partition.tolist(), found.offset.tolist()) == ([1, 2, 1], [7, 3, 9])
    assert (found.facts, found.poison) == ([], [])


def test_a_kind_nobody_knows_is_kept_by_its_name():
    found = decoded(event("a", 5, kind="page_scrolled"))
    assert found.events.kind.tolist() == [Kind.UNKNOWN]
    assert found.details.table()["kind"].to_pylist() == ["page_scrolled"]


def test_details_are_as_the_lake_wants_them():
    told = event("a", 5, currency="EUR", properties_json='{"a": 1}', original_time_ms=0, sent_time_ms=4)
    table = decoded(told, event("b", 6, item="")).details.table()
    assert table.schema == DETAILS_SCHEMA
    times = table.select(["receive_time", "original_time", "sent_time"])
    assert [column.cast(pa.int64()).to_pylist() for column in times.columns] == [
        [5_000, 6_000],
        [0, None],
        [4_000, None],
    ]
    assert table["item_id"].to_pylist() == ["shoe", None]
    assert table["currency"].to_pylist() == ["EUR", None]
    assert table["properties"].to_pylist() == ['{"a": 1}', None]


def test_what_is_no_event_comes_in_its_order_with_its_entry():
    messages = [erasure("a", 5, "e1"), link("a", "b"), consent("a", 6, granted=True), consent("c", 7, granted=False)]
    found = decoded(*messages)
    a, b, c = (pseudonym(each) for each in "abc")
    assert [fact for _, fact in found.facts] == [
        Erasure("e1", a, 5),
        Link(a, b, 0),
        Barrier(a, granted_at_ms=6),
        Barrier(c, denied_at_ms=7),
    ]
    assert [each.offset for each, _ in found.facts] == [1, 2, 3, 4]
    assert len(found.events) == len(found.poison) == 0


def test_nothing_decodes_to_nothing():
    found = decoded()
    assert len(found.events) == 0
    assert found.details.table().schema == DETAILS_SCHEMA
    assert (found.facts, found.poison) == ([], [])


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (LogEntry(customer=pseudonym("a")), "fact"),
        (event("a", -1), "event.event_time_ms"),
        (event("a", 1, kind=""), "event.kind"),
        (event("a", 1, kind="k" * 65), "event.kind"),
        (event("a", 1, item="i" * 129), "event.item"),
        (event("a", 1, currency="EURO"), "event.currency"),
        (event("a", 1, properties_json="x" * 65_537), "event.properties_json"),
        (event("a", 1, value_minor=2**53), "event.value_minor"),
        (event("a", 1, value_minor=-(2**53)), "event.value_minor"),
        (event("a", 1, original_time_ms=-1), "event.original_time_ms"),
        (event("a", 1, original_time_ms=2**62), "event.original_time_ms"),
        (event("a", 1, sent_time_ms=2**63 - 1), "event.sent_time_ms"),
        (LogEntry(customer=pseudonym("a"), receive_time_ms=-1, event={"kind": "k"}), "receive_time_ms"),
        (LogEntry(customer=pseudonym("a"), link={"target": "b"}), "link.target"),
        (LogEntry(customer=pseudonym("a"), link={}), "link.target"),
        (consent("a", -1, granted=True), "consent.change_time_ms"),
        (erasure("a", -1), "erasure.erased_at_ms"),
        (erasure("a", 1, ""), "erasure.erasure_id"),
        (erasure("a", 1, "e" * 129), "erasure.erasure_id"),
    ],
)
def test_what_breaks_a_rule_is_poison_and_harms_no_other(message, field):
    found = decoded(event("b", 1), message, event("c", 2))
    ((offset, reason, problem),) = [(each.entry.offset, each.reason, each.problem) for each in found.poison]
    assert (offset, reason) == (2, MALFORMED)
    assert problem.startswith(f"{field}: ")
    assert found.offset.tolist() == [1, 3]


@pytest.mark.parametrize("late", [0, 1])
@pytest.mark.parametrize(
    "make",
    [
        lambda time: event("a", time),
        lambda time: consent("a", time, granted=False),
        lambda time: erasure("a", time),
    ],
)
def test_what_lies_further_in_the_future_than_clocks_differ_waits(make, late):
    reasons = [reason for _, reason, _ in poison(make(NOW + SKEW + late))]
    assert reasons == [FUTURE] * late


@pytest.mark.parametrize("customer", ["", "a", "A" * 32, "0" * 31, "0" * 33, "0" * 31 + "\n", "٠" * 32])
def test_a_customer_that_is_no_pseudonym_is_poison(customer):
    body = LogEntry(customer=customer, event={"kind": "k"}).SerializeToString()
    (found,) = decode([Entry(0, 1, customer, body)], now_ms=NOW, skew_ms=0).poison
    assert found.problem == "customer: is no pseudonym"


def test_an_entry_under_another_customers_key_is_poison():
    (found,) = decode([Entry(0, 1, pseudonym("b"), event("a", 1).SerializeToString())], now_ms=NOW, skew_ms=0).poison
    assert found.problem == "customer: is not the key of the entry"


@given(st.binary(max_size=64), st.integers(0, 200))
def test_no_bytes_are_too_strange(noise, cut):
    body = event("a", 5, currency="EUR").SerializeToString()
    entries = [Entry(0, n, pseudonym("a"), each) for n, each in enumerate([noise, body[:cut] + noise, body], start=1)]
    found = decode(entries, now_ms=NOW, skew_ms=SKEW)
    assert len(found.events) + len(found.facts) + len(found.poison) == 3
    assert 3 in found.offset
