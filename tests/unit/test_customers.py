"""Barriers merge like sets, and say what is forgotten."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.customers import BARRED_MS, Barrier
from segue.errors import InvalidInput

times = st.none() | st.integers(0, 5)
barriers = st.builds(Barrier, st.just("c"), times, times, times)


@given(barriers, barriers)
def test_merging_is_commutative(one, other):
    assert one.merge(other) == other.merge(one)


@given(barriers, barriers, barriers)
def test_merging_is_associative(a, b, c):
    assert a.merge(b).merge(c) == a.merge(b.merge(c))


@given(barriers)
def test_merging_is_idempotent_and_nothing_is_its_neutral(barrier):
    assert barrier.merge(barrier) == barrier == barrier.merge(Barrier("c"))


@given(barriers)
def test_nothing_granted_or_denied_undoes_an_erasure(barrier):
    if barrier.erased_at_ms is not None:
        assert barrier.effective_ms >= barrier.erased_at_ms


@given(barriers, st.integers(0, 5))
def test_an_erasure_never_lowers_a_barrier(barrier, erased_at_ms):
    before = barrier.effective_ms
    after = barrier.merge(Barrier("c", erased_at_ms=erased_at_ms)).effective_ms
    assert after >= (erased_at_ms if before is None else before)


@pytest.mark.parametrize(
    ("erased", "denied", "granted", "expected"),
    [
        (None, None, None, None),
        (7, None, None, 7),
        (0, None, None, 0),
        (None, None, 3, None),  # consent given by somebody who never withdrew it forgets nothing
        (7, None, 9, 7),
        (None, 3, None, BARRED_MS),
        (7, 3, None, BARRED_MS),
        (None, 3, 2, BARRED_MS),
        (None, 3, 3, 3),  # of two changes at one moment consent counts
        (None, 3, 4, 4),
        (9, 3, 4, 9),
    ],
)
def test_what_is_forgotten(erased, denied, granted, expected):
    assert Barrier("c", erased, denied, granted).effective_ms == expected


def test_barriers_of_two_customers_do_not_merge():
    with pytest.raises(InvalidInput, match="customer"):
        Barrier("a").merge(Barrier("b"))
