"""Every feature is what the naive oracle says, one history or many at once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.errors import InvalidHistories
from segue.features import table
from segue.features.on_demand import AS_OF, behaviour, item_sequence
from segue.features.sequence import item_sequences
from segue.features.table import FEATURES, compute
from segue.history import RECORD_COLUMNS, Histories, Timelines
from tests import oracle

NOW = 1_780_000_000_000


def histories_of(seed, *, limit=256, rows=60, **log):
    facts = oracle.facts(seed, now=NOW, **log)
    timelines = Timelines.of(oracle.to_events(facts))
    rng = np.random.default_rng(seed)
    times = NOW - rng.choice([0, oracle.HOUR, 3 * oracle.DAY, 40 * oracle.DAY], rows)
    return timelines.as_of(rng.integers(-1, len(timelines.offsets) - 1, rows), times, limit=limit), times


def differences(matrix, histories, times, limit=256):
    for row, now in enumerate(times):
        expected = oracle.features(oracle.to_history(histories, row), int(now), limit)
        assert set(expected) == {feature.name for feature in FEATURES}
        for column, feature in enumerate(FEATURES):
            if not oracle.same(matrix[row, column], expected[feature.name]):
                yield row, feature.name, matrix[row, column], expected[feature.name]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32))
def test_features_are_what_the_oracle_says(seed):
    histories, times = histories_of(seed)
    assert list(differences(compute(histories, times), histories, times)) == []


def test_features_of_truncated_histories():
    histories, times = histories_of(3, limit=20)
    assert histories.lengths.max() == 20
    assert list(differences(compute(histories, times, limit=20), histories, times, 20)) == []


def test_a_batch_gives_what_its_histories_give_alone():
    histories, times = histories_of(5, rows=30)
    alone = [compute(histories.take([row]), times[[row]])[0] for row in range(30)]
    np.testing.assert_array_equal(compute(histories, times), alone)


def test_chunks_do_not_show(monkeypatch):
    histories, times = histories_of(7)
    whole = compute(histories, times)
    monkeypatch.setattr(table, "CHUNK_RECORDS", 50)
    np.testing.assert_array_equal(compute(histories, times), whole)


def test_no_history_at_all():
    assert compute(Histories.empty(0), np.empty(0, np.int64)).shape == (0, len(FEATURES))
    (row,) = compute(Histories.empty(1), np.array([NOW]))
    assert all(oracle.same(row[i], v) for i, v in enumerate(_in_order(oracle.features([], NOW))))


def test_the_times_must_match_the_histories():
    with pytest.raises(InvalidHistories, match=r"now_ms: has shape \(2,\), must be \(1,\)"):
        compute(Histories.empty(1), np.array([1, 2]))


def test_the_table_documents_every_feature():
    names = [feature.name for feature in FEATURES]
    assert len(names) == len(set(names)) >= 60
    for feature in FEATURES:
        assert feature.name.startswith("customer_")
        assert feature.unit
        assert feature.meaning
        assert feature.dtype in {"int64", "float64"}


def test_only_features_that_say_so_are_ever_null():
    histories, times = histories_of(11)
    matrix = np.concatenate([compute(histories, times), compute(Histories.empty(1), np.array([NOW]))])
    for column, feature in enumerate(FEATURES):
        values = matrix[:, column]
        assert np.isnan(values).any() <= bool(feature.null), feature.name
        if feature.dtype == "int64":
            assert (values == np.floor(values)).all(), feature.name


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([1, 4, 50]))
def test_item_sequences_are_what_the_oracle_says(seed, length):
    histories, times = histories_of(seed, rows=20)
    found = item_sequences(histories, times, length=length)
    for row, now in enumerate(times):
        span = slice(found.offsets[row], found.offsets[row + 1])
        turns = list(
            zip(found.item[span].tolist(), found.kind[span].tolist(), found.age_ms[span].tolist(), strict=True)
        )
        assert turns == oracle.item_sequence(oracle.to_history(histories, row), int(now), length)


def test_the_on_demand_views_compute_the_same():
    histories, times = histories_of(13, rows=12)
    inputs = {name: [] for name in RECORD_COLUMNS}
    for row in range(len(histories)):
        span = slice(histories.offsets[row], histories.offsets[row + 1])
        for name in RECORD_COLUMNS:
            values = getattr(histories, name)[span]
            inputs[name].append((values.view(np.int64) if name == "event_id" else values).tolist() or None)
    inputs[AS_OF] = times.tolist()
    columns = behaviour(inputs)
    matrix = compute(histories, times)
    for column, feature in enumerate(FEATURES):
        np.testing.assert_array_equal(np.array(columns[feature.name], float), matrix[:, column])
        assert all(isinstance(value, int if feature.dtype == "int64" else float) for value in columns[feature.name])
    sequences = item_sequences(histories, times)
    assert [
        item for items in item_sequence(inputs)["customer_item_sequence"] for item in items
    ] == sequences.item.tolist()


def _in_order(by_name):
    return [by_name[feature.name] for feature in FEATURES]
