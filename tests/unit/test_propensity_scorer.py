"""The propensity scorer: what both transports call, and what a bundle must hold for it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xgboost

from segue.errors import BundleError, InvalidInput
from segue.features.table import FEATURES
from segue.inference import bundle
from segue.inference.bundle import Bundle, Manifest
from segue.inference.propensity import Calibration, PropensityScorer, Tier, TierCuts

COLUMNS = ("customer_view_count_7d", "customer_seconds_since_order", "customer_order_count_lifetime", "of_our_own")
CALIBRATION = Calibration([-40, -2, 1, 40], [-38, -3, 0.5, 39])
TIERS = TierCuts(medium=0.3, high=0.6)

MANIFEST = Manifest(
    family="propensity",
    name="purchase_7d",
    feature_service="propensity_v1",
    plan_hash="",
    columns=COLUMNS,
    dtypes=("int64", "float64", "int64", "float64"),
    data_cut_ms=0,
    metrics={},
    config={},
    git_sha="",
    created_ms=0,
)


def rows(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(count, len(COLUMNS)))
    matrix[rng.random(matrix.shape) < 0.2] = np.nan
    return matrix


@pytest.fixture(scope="module")
def booster() -> xgboost.Booster:
    matrix = rows(2000)
    score = np.nansum(matrix * [1.5, -1, 0.5, 0.25], axis=1) + np.isnan(matrix[:, 1])
    label = score + np.random.default_rng(1).logistic(size=len(score)) > 1
    params = {"objective": "binary:logistic", "max_depth": 3, "nthread": 1, "seed": 1}
    return xgboost.train(params, xgboost.DMatrix(matrix, label), 25)


@pytest.fixture
def scorer(booster: xgboost.Booster) -> PropensityScorer:
    return PropensityScorer(booster.copy(), columns=COLUMNS, calibration=CALIBRATION, tiers=TIERS)


def written(directory: Path, scorer: PropensityScorer, manifest: Manifest = MANIFEST) -> Bundle:
    directory.mkdir(exist_ok=True)
    scorer.save(directory)
    bundle.write(directory, manifest)
    return Bundle.read(directory, "purchase_7d:test")


def test_a_bundle_answers_what_was_saved(tmp_path: Path, scorer: PropensityScorer) -> None:
    loaded = PropensityScorer.load(written(tmp_path / "bundle", scorer))
    matrix = rows(1000, 5)
    for left, right in zip(vars(scorer.score(matrix)).values(), vars(loaded.score(matrix)).values(), strict=True):
        np.testing.assert_array_equal(left, right)
    assert loaded.reasons(matrix[:5], max_reasons=3) == scorer.reasons(matrix[:5], max_reasons=3)
    assert loaded.columns == COLUMNS


def test_scores_are_the_boosters_margin_calibrated_and_cut(booster: xgboost.Booster, scorer: PropensityScorer) -> None:
    matrix = rows(300, 2)
    scores = scorer.score(matrix)
    margin = booster.predict(xgboost.DMatrix(matrix), output_margin=True)
    np.testing.assert_allclose(scores.margin, margin, atol=1e-6)
    log_odds = np.interp(scores.margin, CALIBRATION.margin, CALIBRATION.log_odds)
    np.testing.assert_allclose(scores.probability, 1 / (1 + np.exp(-log_odds)))
    expected = [Tier.HIGH if p >= 0.6 else Tier.MEDIUM if p >= 0.3 else Tier.LOW for p in scores.probability]
    assert scores.tier.tolist() == expected
    assert set(expected) == set(Tier)


def test_one_row_scores_as_it_does_among_many(scorer: PropensityScorer) -> None:
    matrix = rows(20, 3)
    together = scorer.score(matrix).probability
    assert [float(scorer.score(row[None]).probability[0]) for row in matrix] == together.tolist()


def test_contributions_sum_to_the_margin(scorer: PropensityScorer) -> None:
    matrix = rows(500, 4)
    np.testing.assert_allclose(scorer.contributions(matrix).sum(axis=1), scorer.score(matrix).margin, atol=1e-5)


def test_all_reasons_and_the_bias_sum_to_the_margin(scorer: PropensityScorer) -> None:
    matrix = rows(50, 6)
    bias = scorer.contributions(matrix)[:, -1]
    told = [sum(each.contribution for each in reasons) for reasons in scorer.reasons(matrix, max_reasons=99)]
    np.testing.assert_allclose(told + bias, scorer.score(matrix).margin, atol=1e-5)


def test_reasons_are_the_strongest_first_with_their_values(scorer: PropensityScorer) -> None:
    matrix = rows(30, 7)
    everything = scorer.reasons(matrix, max_reasons=len(COLUMNS))
    for row, reasons, few in zip(matrix, everything, scorer.reasons(matrix, max_reasons=2), strict=True):
        assert few == reasons[:2]
        strengths = [abs(each.contribution) for each in reasons]
        assert strengths == sorted(strengths, reverse=True)
        for each in reasons:
            value = row[COLUMNS.index(each.feature)]
            assert each.value is None if np.isnan(value) else each.value == value


def test_reasons_say_what_a_value_or_its_absence_means(scorer: PropensityScorer) -> None:
    given = {each.feature: each.meaning for each in scorer.reasons(np.ones((1, 4)), max_reasons=4)[0]}
    absent = {each.feature: each.meaning for each in scorer.reasons(np.full((1, 4), np.nan), max_reasons=4)[0]}
    table = {feature.name: feature for feature in FEATURES}
    assert given["customer_view_count_7d"] == table["customer_view_count_7d"].meaning
    assert given["customer_seconds_since_order"] == table["customer_seconds_since_order"].meaning
    assert absent["customer_seconds_since_order"] == table["customer_seconds_since_order"].null
    assert given["customer_order_count_lifetime"] == "order_completed events ever"
    assert given["of_our_own"] == "of_our_own"


@pytest.mark.parametrize("max_reasons", [0, -1])
def test_no_reasons_asked_none_given(scorer: PropensityScorer, max_reasons: int) -> None:
    assert scorer.reasons(rows(3), max_reasons=max_reasons) == [[], [], []]


def test_no_rows_no_answers(scorer: PropensityScorer) -> None:
    nothing = np.empty((0, len(COLUMNS)))
    assert len(scorer.score(nothing).probability) == 0
    assert scorer.reasons(nothing, max_reasons=3) == []


@pytest.mark.parametrize(
    ("matrix", "problem"),
    [
        (np.zeros((2, 3)), "shape"),
        (np.zeros((2, 5)), "shape"),
        (np.zeros(4), "shape"),
        (np.zeros((2, 4), np.float32), "float32"),
        (np.array([[0, np.inf, 0, 0]]), "customer_seconds_since_order"),
        (np.array([[-np.inf, 0, 0, 0]]), "customer_view_count_7d"),
    ],
)
def test_a_matrix_that_does_not_fit_is_refused(scorer: PropensityScorer, matrix: np.ndarray, problem: str) -> None:
    for call in (scorer.score, scorer.contributions, lambda each: scorer.reasons(each, max_reasons=1)):
        with pytest.raises(InvalidInput, match=problem) as error:
            call(matrix)
        assert error.value.violations[0].field == "matrix"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.ubj", b"{}"),
        ("model.ubj", b"not a model"),
        ("calibration.json", b"[]"),
        ("calibration.json", b"{"),
        ("calibration.json", b'{"margin": [0, 1]}'),
        ("calibration.json", b'{"margin": [0], "log_odds": [0]}'),
        ("calibration.json", b'{"margin": [1, 0], "log_odds": [0, 1]}'),
        ("calibration.json", b'{"margin": [0, 1], "log_odds": [1, 0]}'),
        ("calibration.json", b'{"margin": [0, 1], "log_odds": [0, NaN]}'),
        ("calibration.json", b'{"margin": ["0", "1"], "log_odds": [0, 1]}'),
        ("tiers.json", b'{"medium": 0.5, "high": 0.4}'),
        ("tiers.json", b'{"medium": 0.5, "high": "1"}'),
        ("tiers.json", b'{"medium": 0.5, "high": NaN}'),
        ("tiers.json", b'{"medium": 0.5, "high": 0.9, "top": 1}'),
    ],
)
def test_a_malformed_file_is_refused_even_with_the_right_hash(
    tmp_path: Path, scorer: PropensityScorer, name: str, content: bytes
) -> None:
    scorer.save(tmp_path)
    (tmp_path / name).write_bytes(content)
    bundle.write(tmp_path, MANIFEST)
    with pytest.raises(BundleError, match="purchase_7d:test"):
        PropensityScorer.load(Bundle.read(tmp_path, "purchase_7d:test"))


@pytest.mark.parametrize(
    "changes",
    [{"family": "sequence"}, {"columns": COLUMNS[:3], "dtypes": MANIFEST.dtypes[:3]}],
    ids=["family", "columns"],
)
def test_a_bundle_for_something_else_is_refused(tmp_path: Path, scorer: PropensityScorer, changes: dict) -> None:
    with pytest.raises(BundleError):
        PropensityScorer.load(written(tmp_path / "bundle", scorer, replace(MANIFEST, **changes)))


def test_a_bundle_without_the_model_is_refused(tmp_path: Path, scorer: PropensityScorer) -> None:
    scorer.save(tmp_path)
    (tmp_path / "tiers.json").unlink()
    bundle.write(tmp_path, MANIFEST)
    with pytest.raises(BundleError, match=r"tiers\.json"):
        PropensityScorer.load(Bundle.read(tmp_path, "purchase_7d:test"))


def test_column_names_live_in_the_manifest_alone(tmp_path: Path, scorer: PropensityScorer) -> None:
    """Converters to other formats refuse boosters with names of their own."""
    scorer.save(tmp_path)
    assert xgboost.Booster(model_file=tmp_path / "model.ubj").feature_names is None
    assert json.loads((tmp_path / "tiers.json").read_text()) == {"medium": 0.3, "high": 0.6}
