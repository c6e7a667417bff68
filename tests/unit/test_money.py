"""Amounts to minor units: exact, or refused."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.collector import money
from services.collector.refusal import Refused


@pytest.mark.parametrize(
    ("value", "code", "expected"),
    [
        (19.99, "EUR", 1999),
        ("19.99", "EUR", 1999),
        (" 19.9 ", "", 1990),
        (-5, "USD", -500),
        (1500, "JPY", 1500),
        ("1.234", "KWD", 1234),
        ("1.2345", "CLF", 12345),
        (0.1 + 0.2, "EUR", 30),
        (59.970000000000006, "EUR", 5997),
        ("0.005", "EUR", 0),
        ("0.015", "EUR", 2),
        ("90071992547409.91", "EUR", 2**53 - 1),
        (1e-300, "EUR", 0),
    ],
)
def test_amounts(value, code, expected):
    assert money.minor(money.amount(value, field="v"), code, field="v") == expected


@pytest.mark.parametrize(
    "value", ["$5", "1,000", "1e5", "NaN", "Infinity", True, [], {}, float("inf"), float("nan"), 1e300, "9" * 30, "٣"]
)
def test_what_is_no_amount_is_refused(value):
    with pytest.raises(Refused) as caught:
        money.amount(value, field="v")
    assert caught.value.violations[0].field == "v"


def test_amounts_beyond_the_range_are_refused():
    with pytest.raises(Refused):
        money.minor(Decimal("90071992547409.92"), "EUR", field="v")


@given(units=st.integers(-(2**53) + 1, 2**53 - 1), code=st.sampled_from(["EUR", "JPY", "KWD", "CLF", ""]))
def test_text_of_every_amount_is_exact(units, code):
    exponent = money.EXPONENTS.get(code, 2)
    text = str(Decimal(units).scaleb(-exponent)) if exponent else str(units)
    if "E" not in text:
        assert money.minor(money.amount(text, field="v"), code, field="v") == units


@given(cents=st.integers(-(10**12), 10**12))
def test_floats_of_cents_are_exact(cents):
    assert money.minor(money.amount(cents / 100, field="v"), "EUR", field="v") == cents
