"""Metrics, against scikit-learn and against counting by hand."""

import numpy as np
import pytest
from sklearn import metrics as reference

from models.propensity.metrics import METRICS, calibration_bins, measure


def question(seed: int, count: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, probabilities with ties, customers with several rows each."""
    rng = np.random.default_rng(seed)
    probability = np.round(rng.beta(1, 6, count), 2)
    label = rng.random(count) < probability
    label[:2] = True, False
    return label, probability, rng.integers(0, count // 5, count).astype(str).astype(object)


def value(label: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    return measure(label, probability, np.arange(len(label)).astype(object), resamples=1, seed=0).value


@pytest.mark.parametrize("seed", range(5))
def test_equal_to_scikit_learn(seed: int) -> None:
    label, probability, _ = question(seed)
    got = value(label, probability)
    assert got["roc_auc"] == pytest.approx(reference.roc_auc_score(label, probability), abs=1e-12)
    assert got["pr_auc"] == pytest.approx(reference.average_precision_score(label, probability), abs=1e-12)
    assert got["log_loss"] == pytest.approx(reference.log_loss(label, np.clip(probability, 1e-15, 1 - 1e-15)), abs=1e-9)
    assert got["brier"] == pytest.approx(reference.brier_score_loss(label, probability), abs=1e-12)


def test_roc_auc_counts_pairs_and_halves_of_ties() -> None:
    label, probability, _ = question(7, 60)
    pairs = [
        (positive > negative) + (positive == negative) / 2
        for positive in probability[label]
        for negative in probability[~label]
    ]
    assert value(label, probability)["roc_auc"] == pytest.approx(np.mean(pairs))


def test_calibration_error_is_the_mean_gap_over_bins() -> None:
    label, probability, _ = question(3)
    bins = calibration_bins(probability)
    gap = 0.0
    for each in set(bins.tolist()):
        inside = bins == each
        gap += inside.sum() * abs(probability[inside].mean() - label[inside].mean())
    assert value(label, probability)["calibration_error"] == pytest.approx(gap / len(label))
    assert value(np.array([True, False]), np.array([1.0, 0.0]))["calibration_error"] == 0


def test_bins_hold_equal_counts_and_never_divide_equals() -> None:
    rng = np.random.default_rng(0)
    assert np.bincount(calibration_bins(rng.random(1000))).tolist() == [100] * 10
    assert set(calibration_bins(np.full(50, 0.3)).tolist()) == {0}


def test_a_constant_ranks_like_chance_and_hits_the_base_rate() -> None:
    label, _, _ = question(1)
    got = value(label, np.full(len(label), label.mean()))
    assert got["roc_auc"] == 0.5
    assert got["pr_auc"] == pytest.approx(label.mean())
    assert got["calibration_error"] == pytest.approx(0)


def test_resampling_draws_customers_with_all_their_rows() -> None:
    """Fifty copies of every row as one customer are worth one row: the interval must not shrink."""
    label, probability, _ = question(5, 80)
    customer = np.arange(80).astype(str).astype(object)
    once = measure(label, probability, customer, resamples=300, seed=1).interval("roc_auc")
    copied = (np.repeat(each, 50) for each in (label, probability, customer))
    assert measure(*copied, resamples=300, seed=1).interval("roc_auc") == pytest.approx(once)


def test_intervals_hold_the_value_and_gains_are_paired() -> None:
    label, probability, customer = question(2)
    good = measure(label, probability, customer, resamples=200, seed=1)
    same = measure(label, probability, customer, resamples=200, seed=1)
    poor = measure(label, np.roll(probability, 1), customer, resamples=200, seed=1)
    for metric in METRICS:
        low, high = good.interval(metric)
        assert low <= high
        assert good.gain(same, metric) == (0, 0, 0)
    low, high = good.interval("roc_auc")
    assert low < good.value["roc_auc"] < high
    gain, low, high = good.gain(poor, "roc_auc")
    assert 0 < low < gain < high


def test_resamples_with_one_label_only_are_left_out() -> None:
    label, probability = np.array([True, False, False]), np.array([0.9, 0.2, 0.1])
    low, high = measure(label, probability, np.array(["a", "b", "c"], object), resamples=50, seed=0).interval("roc_auc")
    assert (low, high) == (1, 1)
