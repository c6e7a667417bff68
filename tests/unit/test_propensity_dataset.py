"""Rows of the propensity dataset: split in time, with features from before t and labels from after it."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from propensity_log import DAY_MS, PLAN, START_MS, MemoryLog, as_of_source, log_of, shop_log

from models.propensity.config import Boosting, Config, Split
from models.propensity.dataset import Cuts, Dataset, build, cut_times
from models.propensity.outcomes import Outcome
from models.propensity.train import fit
from segue.errors import InvalidInput
from segue.events import Events, Kind
from segue.inference.plan import Column

CONFIG = Config(
    name="purchase_7d",
    outcome=Outcome(("order_completed",), horizon_days=7, active_within_days=30),
    split=Split("days", stride_days=7, train=(20, 50), validation=(50, 70), test=(70, 90)),
    boosting=Boosting(learning_rate=0.2, max_rounds=30, nthread=1),
)
HORIZON_MS = CONFIG.outcome.horizon_ms
SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def events() -> Events:
    return shop_log()


@pytest.fixture(scope="module")
def dataset(events: Events) -> Dataset:
    return build(CONFIG, MemoryLog(events), PLAN, as_of_source(events))


@given(
    log_days=st.floats(1, 400),
    horizon_days=st.integers(1, 30),
    extra_days=st.integers(0, 10),
    embargo_days=st.integers(0, 30),
    edges=st.lists(st.floats(0, 1), min_size=4, max_size=4).map(sorted),
    unit=st.sampled_from(["days", "fraction"]),
)
def test_cuts_keep_their_distance_and_their_windows_inside_the_log(
    log_days: float, horizon_days: int, extra_days: int, embargo_days: int, edges: list[float], unit: str
) -> None:
    scale = log_days if unit == "days" else 1.0
    spans = [(low * scale, high * scale) for low, high in zip(edges, [*edges[1:], 1.0], strict=True)]
    stride_days = horizon_days + extra_days
    split = Split(unit, stride_days, *spans[:3], embargo_days=embargo_days)  # type: ignore[arg-type]
    last_ms = START_MS + round(log_days * DAY_MS)
    try:
        cuts = cut_times(split, horizon_days * DAY_MS, START_MS, last_ms)
    except InvalidInput:
        return
    every = [*cuts.train, *cuts.validation, *cuts.test]
    assert min(every) >= START_MS
    assert max(every) + horizon_days * DAY_MS <= last_ms + 1
    assert (np.diff(every) >= stride_days * DAY_MS).all()
    apart_ms = (horizon_days + embargo_days) * DAY_MS
    assert cuts.train[-1] + apart_ms <= cuts.validation[0]
    assert cuts.validation[-1] + apart_ms <= cuts.test[0]


def test_days_are_counted_from_the_first_event() -> None:
    cuts = cut_times(CONFIG.split, HORIZON_MS, START_MS, START_MS + 90 * DAY_MS)
    days = {name: [(t - START_MS) / DAY_MS for t in getattr(cuts, name)] for name in SPLITS}
    assert days == {"train": [20, 27, 34, 41, 48], "validation": [55, 62, 69], "test": [76, 83]}


def test_the_whole_fraction_ends_with_the_newest_time_the_log_covers() -> None:
    split = Split("fraction", 7, (0, 0.5), (0.5, 0.75), (0.75, 1))
    cuts = cut_times(split, HORIZON_MS, START_MS, START_MS + 35 * DAY_MS - 1)
    assert cuts.test[-1] == START_MS + 28 * DAY_MS


@pytest.mark.parametrize(("days", "field"), [(60, "split.test"), (3, "split.test")])
def test_a_log_too_short_names_the_split_left_empty(days: int, field: str) -> None:
    with pytest.raises(InvalidInput) as error:
        cut_times(CONFIG.split, HORIZON_MS, START_MS, START_MS + days * DAY_MS)
    assert error.value.violations[0].field == field


def test_no_label_window_reaches_into_a_later_split(dataset: Dataset) -> None:
    assert dataset.train.t_ms.max() + HORIZON_MS <= dataset.validation.t_ms.min()
    assert dataset.validation.t_ms.max() + HORIZON_MS <= dataset.test.t_ms.min()
    for name in SPLITS:
        rows = getattr(dataset, name)
        assert set(rows.t_ms.tolist()) == set(getattr(dataset.cuts, name))
        assert sorted(zip(rows.t_ms, rows.customer, strict=True)) == list(zip(rows.t_ms, rows.customer, strict=True))
        assert 0 < rows.label.mean() < 0.5


def test_rows_do_not_depend_on_how_the_log_is_read(events: Events, dataset: Dataset) -> None:
    """Nor on the order of the events and of the customers in them."""
    shuffle = np.random.default_rng(0).permutation
    order, moved = shuffle(len(events)), shuffle(len(events.customers))
    shuffled = events.take(order)
    shuffled = replace(
        shuffled, customers=events.customers[np.argsort(moved)], customer=moved[shuffled.customer].astype(np.int32)
    )
    again = build(CONFIG, MemoryLog(shuffled, ranges=5), PLAN, as_of_source(shuffled))
    for name in SPLITS:
        left, right = getattr(dataset, name), getattr(again, name)
        assert left.customer.tolist() == right.customer.tolist()
        assert (left.label == right.label).all()
        np.testing.assert_array_equal(left.matrix, right.matrix)


def test_nothing_that_happens_or_arrives_after_t_is_in_a_row(events: Events, dataset: Dataset) -> None:
    cut_ms = dataset.cuts.validation[0]
    known = (events.event_time_ms < cut_ms) & (events.available_time_ms <= cut_ms)
    first = dataset.validation.t_ms == cut_ms
    at_the_time = build(CONFIG, MemoryLog(events), PLAN, as_of_source(events.take(known)), cuts=dataset.cuts)
    np.testing.assert_array_equal(dataset.validation.matrix[first], at_the_time.validation.matrix[first])


def with_signal(events: Events, dataset: Dataset, *, late: bool) -> Events:
    """A review one hour before t for every row whose label is true; where late, it arrives an hour after t."""
    rows = [getattr(dataset, name) for name in SPLITS]
    t_ms = np.concatenate([each.t_ms[each.label] for each in rows])
    place = {name: index for index, name in enumerate(events.customers)}
    customer = np.array([place[name] for each in rows for name in each.customer[each.label]])
    columns = {
        "customer": customer,
        "kind": np.full(len(t_ms), Kind.PRODUCT_REVIEWED, np.uint8),
        "event_time_ms": t_ms - DAY_MS // 24,
        "available_time_ms": t_ms + (DAY_MS // 24 if late else -1),
        "event_id": np.arange(len(t_ms), dtype=np.uint64) + np.uint64(1 << 40),
    }
    return Events.concat([events, log_of(columns, len(events.customers))])


@pytest.mark.parametrize("late", [True, False])
def test_a_signal_from_the_future_has_no_importance(events: Events, dataset: Dataset, late: bool) -> None:
    """The same signal, had it arrived in time, would give every label away: so the test would notice."""
    planted = with_signal(events, dataset, late=late)
    rows = build(CONFIG, MemoryLog(planted), PLAN, as_of_source(planted), cuts=dataset.cuts)
    scorer = fit(CONFIG, rows.columns, rows.train, rows.validation).scorer
    moved = np.abs(scorer.contributions(rows.test.matrix)[:, :-1]).mean(axis=0)
    signal = [rows.columns.index(f"customer_review_count_{window}") for window in ("1h", "1d", "7d")]
    top = int(np.argmax(moved))
    if late:
        assert not rows.test.matrix[:, signal].any()
        assert not moved[signal].any()
    else:
        assert "review" in rows.columns[top]
        assert moved[top] > 0.5


def test_no_more_rows_than_asked_for_and_the_same_ones_for_the_same_seed(events: Events, dataset: Dataset) -> None:
    config = replace(CONFIG, split=replace(CONFIG.split, max_rows=150))
    drawn = [build(config, MemoryLog(events), PLAN, as_of_source(events)) for _ in range(2)]
    other = build(replace(config, seed=2), MemoryLog(events), PLAN, as_of_source(events))
    keys = [list(zip(each.train.t_ms, each.train.customer, strict=True)) for each in (*drawn, other, dataset)]
    assert len(keys[0]) == len(drawn[0].test) == 150
    assert keys[0] == keys[1] == sorted(keys[0])
    assert keys[0] != keys[2]
    assert set(keys[0]) < set(keys[3])


def test_a_split_whose_labels_are_all_alike_is_refused(events: Events) -> None:
    config = replace(CONFIG, outcome=replace(CONFIG.outcome, kinds=("product_shared",)))
    with pytest.raises(InvalidInput, match=r"split\.train"):
        build(config, MemoryLog(events), PLAN, as_of_source(events))


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda frame: frame.iloc[::-1], "not the"),
        (lambda frame: frame.iloc[:-1], "not the"),
        (lambda frame: frame.drop(columns="customer_view_count_7d"), "lack customer_view_count_7d"),
    ],
)
def test_features_that_do_not_fit_the_rows_are_refused(events: Events, spoil, problem: str) -> None:
    source = as_of_source(events)

    def spoilt(asked: pd.DataFrame) -> pd.DataFrame:
        return spoil(source(asked))

    with pytest.raises(InvalidInput, match=problem):
        build(CONFIG, MemoryLog(events), PLAN, spoilt)


def test_a_list_is_no_input_of_this_model(events: Events) -> None:
    plan = replace(PLAN, columns=(*PLAN.columns, Column("customer_item_sequence", "int64[]", "history")))
    source = as_of_source(events)
    with pytest.raises(InvalidInput, match="customer_item_sequence"):
        build(CONFIG, MemoryLog(events), plan, lambda asked: source(asked).assign(customer_item_sequence=None))


def test_columns_follow_the_plan_not_the_source(events: Events, dataset: Dataset) -> None:
    cuts = Cuts(*(getattr(dataset.cuts, name)[-1:] for name in SPLITS))
    plan = replace(PLAN, columns=PLAN.columns[::-1][:20])
    again = build(CONFIG, MemoryLog(events), plan, as_of_source(events), cuts=cuts)
    assert again.columns == dataset.columns[::-1][:20]
    newest = dataset.test.t_ms == cuts.test[0]
    np.testing.assert_array_equal(again.test.matrix, dataset.test.matrix[newest][:, ::-1][:, :20])
