"""The clock rule: whatever the client's clock says, and however often a message is sent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.collector import clock
from services.collector.clock import Arrival
from services.collector.refusal import Refused

NOW = 1_790_000_000_123
HOUR = 3_600_000


def event_time(original, sent, receive=NOW):
    return clock.times(original, Arrival(receive, sent), field="timestamp").event_time_ms


@pytest.mark.parametrize(
    ("original", "sent", "expected"),
    [
        (NOW - HOUR, NOW - 40, NOW - HOUR),
        (NOW - HOUR, NOW, NOW - HOUR),
        (NOW - HOUR, NOW - 9_999, NOW - HOUR),
        (NOW - HOUR, NOW - 10_000, NOW - HOUR + 10_000),
        (NOW - HOUR, NOW - 10_999, NOW - HOUR + 10_000),
        (NOW + HOUR - 500, NOW + HOUR, NOW - 500),
        (NOW + HOUR, NOW + HOUR + 1, NOW - 1_000),
        (NOW - HOUR, None, NOW - HOUR),
        (None, NOW - 40, NOW - 40),
        (None, NOW - HOUR, NOW),
        (None, None, NOW),
        (NOW + 60_000, None, NOW + 60_000),
        (0, None, 0),
        (-HOUR, -HOUR, NOW - 123),
    ],
)
def test_the_rule(original, sent, expected):
    assert abs(event_time(original, sent) - expected) < (1_000 if original == -HOUR else 1)


@pytest.mark.parametrize(("original", "sent"), [(-1, None), (NOW + 60_001, None), (NOW + HOUR, NOW), (0, NOW + HOUR)])
def test_what_cannot_be_is_refused(original, sent):
    with pytest.raises(Refused) as caught:
        event_time(original, sent)
    assert caught.value.violations[0].field == "timestamp"


@given(
    age=st.integers(60_000, 30 * 86_400_000),
    skew=st.integers(-400 * 86_400_000, 400 * 86_400_000),
    way=st.integers(0, 9_000),
)
def test_however_wrong_a_clock_is_the_time_is_right_but_for_the_way(age, skew, way):
    """By a clock that is `skew` ahead, something happened `age` ago and was sent just now."""
    told = event_time(NOW - age + skew, NOW - way + skew)
    assert told == NOW - age + skew or way - 1_000 < told - (NOW - age) <= way
    # A clock within the seconds that may be the way is taken for right.
    assert told - (NOW - age) <= max(10_000, way)


@given(age=st.integers(0, 10**9), ways=st.lists(st.integers(0, 9_999), min_size=2, max_size=9))
def test_a_right_clock_gives_every_retry_the_same_time(age, ways):
    assert {event_time(NOW - age, NOW - way) for way in ways} == {NOW - age}


def test_raw_times_are_kept_where_they_can_be():
    assert clock.times(5, Arrival(NOW, NOW), field="t") == (5, 5, NOW)
    assert clock.times(-5_000, Arrival(NOW, -5_000), field="t")[1:] == (None, None)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.1239999Z", 123),
        ("1970-01-01T00:00:00.123456789Z", 123),
        ("1969-12-31T23:59:59.9995Z", -1),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01 00:00:01", 1_000),
        ("9999-12-31T23:59:59Z", clock.END_MS - 1_000),
        ("0001-01-01T00:00:00Z", clock.START_MS),
        (17, 17),
        (None, None),
        ("", None),
    ],
)
def test_times_are_read(value, expected):
    assert clock.parse(value, field="t") == expected


@pytest.mark.parametrize("value", ["now", "2026-13-01", -1, clock.END_MS, 1.5, True, [], {}, "1" * 65, "\x00", "२०२६"])
def test_what_is_no_time_is_refused(value):
    with pytest.raises(Refused):
        clock.parse(value, field="t")
