"""The propensity training job, from events to a bundle and its report."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from propensity_log import PLAN, MemoryLog, as_of_source, shop_log

from models.propensity import report
from models.propensity.baselines import BASE_RATE
from models.propensity.config import Boosting, Calibrating, Config, Split, resolve
from models.propensity.dataset import Cuts, Dataset, build
from models.propensity.evaluate import MODEL, Evaluation, evaluate, headline, protocol, table
from models.propensity.export import export, verify
from models.propensity.outcomes import Outcome
from models.propensity.train import FAR, Fitted, calibrate, fit, halves, tier_cuts
from segue.errors import BundleError, InvalidInput
from segue.inference.bundle import Bundle
from segue.inference.plan import Plan
from segue.inference.propensity import PropensityScorer, Tier

CONFIG = Config(
    name="purchase_7d",
    outcome=Outcome(("order_completed",), horizon_days=7, active_within_days=30),
    split=Split("days", stride_days=7, train=(15, 60), validation=(60, 85), test=(85, 120)),
    boosting=Boosting(learning_rate=0.1, max_rounds=80, nthread=1),
    bootstrap_count=50,
)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    events = shop_log(customers=500, days=120)
    return build(CONFIG, MemoryLog(events), PLAN, as_of_source(events))


@pytest.fixture(scope="module")
def fitted(dataset: Dataset) -> Fitted:
    return fit(CONFIG, dataset.columns, dataset.train, dataset.validation)


@pytest.fixture(scope="module")
def evaluation(dataset: Dataset, fitted: Fitted) -> Evaluation:
    return evaluate(CONFIG, dataset, fitted.scorer)


@pytest.fixture(scope="module")
def bundle(
    dataset: Dataset, fitted: Fitted, evaluation: Evaluation, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    directory = tmp_path_factory.mktemp("bundle")
    export(directory, CONFIG, dataset, fitted, evaluation, git_sha="abc", created_ms=17)
    return Bundle.read(directory, "purchase_7d:1")


def test_it_beats_the_base_rate_on_the_held_out_future(evaluation: Evaluation) -> None:
    model, base = evaluation.measured[MODEL], evaluation.measured[BASE_RATE]
    assert model.interval("roc_auc")[0] > 0.7
    assert model.interval("pr_auc")[0] > 1.5 * evaluation.base_rate
    for metric in ("log_loss", "brier"):
        assert model.gain(base, metric)[2] < 0


def test_its_probabilities_come_true(evaluation: Evaluation) -> None:
    assert evaluation.measured[MODEL].value["calibration_error"] < 0.05
    rates = {each.tier: each.rate for each in evaluation.tiers}
    assert rates[Tier.LOW] < rates[Tier.MEDIUM] < rates[Tier.HIGH]
    assert sum(each.row_count for each in evaluation.tiers) == len(evaluation.test)


def test_the_same_run_gives_the_same_model(dataset: Dataset, fitted: Fitted) -> None:
    again = fit(CONFIG, dataset.columns, dataset.train, dataset.validation)
    left, right = (each.scorer.score(dataset.test.matrix).probability for each in (fitted, again))
    np.testing.assert_array_equal(left, right)


def test_rounds_are_reported_and_the_best_kept(dataset: Dataset, fitted: Fitted) -> None:
    seen: list[int] = []
    fit(CONFIG, dataset.columns, dataset.train, dataset.validation, on_round=seen.append)
    assert seen == list(range(1, len(seen) + 1))
    assert 1 <= fitted.rounds <= len(seen) <= CONFIG.boosting.max_rounds


def test_halves_share_no_customer(dataset: Dataset) -> None:
    first, second = halves(dataset.validation, seed=1)
    assert not set(first.customer) & set(second.customer)
    assert len(first) + len(second) == len(dataset.validation)
    with pytest.raises(InvalidInput, match=r"split\.validation"):
        halves(dataset.validation.take(~dataset.validation.label), seed=1)


def distorted(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Margins that overstate: the truth's log-odds are half as large and shifted."""
    rng = np.random.default_rng(seed)
    margin = rng.normal(0, 2, count)
    truth = 1 / (1 + np.exp(-(0.5 * margin - 1)))
    return margin, truth, rng.random(count) < truth


@pytest.mark.parametrize(("count", "method", "error"), [(600, "platt", 0.06), (20_000, "isotonic", 0.03)])
def test_calibration_finds_the_truth_and_keeps_the_order(count: int, method: str, error: float) -> None:
    margin, truth, label = distorted(count)
    curve, how = calibrate(Calibrating(), margin, label)
    assert how == method
    assert np.abs(curve.probability(margin) - truth).mean() < error
    ladder = np.linspace(-FAR, FAR, 2001)
    assert (np.diff(np.interp(ladder, curve.margin, curve.log_odds)) > 0).all()
    assert len(curve.margin) <= Calibrating().max_knots + 2


def test_margins_that_rank_backwards_are_calibrated_to_the_base_rate() -> None:
    margin, _, label = distorted(500)
    curve, _ = calibrate(Calibrating(), -margin, label)
    np.testing.assert_allclose(curve.probability(margin), label.mean())
    many, _, labels = distorted(20_000)
    assert (np.diff(calibrate(Calibrating(), -many, labels)[0].log_odds) >= 0).all()


@pytest.mark.parametrize("distinct", [1, 2, 5])
def test_a_forest_of_few_leaves_is_calibrated_too(distinct: int) -> None:
    margin, _, _ = distorted(20_000)
    margin = np.digitize(margin, np.linspace(-2, 2, distinct + 1)[1:-1]).astype(float) - 2
    label = np.random.default_rng(0).random(len(margin)) < 0.1 + 0.1 * (margin + 2)
    curve, how = calibrate(Calibrating(), margin, label)
    assert how == "isotonic"
    for each in np.unique(margin):
        assert curve.probability(each) == pytest.approx(label[margin == each].mean(), abs=0.01)


def test_tiers_hold_their_shares() -> None:
    probability = np.random.default_rng(0).random(1000)
    tiers = tier_cuts(Calibrating(high_ratio=0.1, medium_ratio=0.3), probability).of(probability)
    assert np.bincount(tiers).tolist() == [600, 300, 100]


def test_the_bundle_answers_what_was_evaluated(dataset: Dataset, evaluation: Evaluation, bundle: Bundle) -> None:
    scores = PropensityScorer.load(bundle).score(dataset.test.matrix)
    np.testing.assert_allclose(scores.probability, evaluation.probability[MODEL], atol=1e-6)


def test_the_reasons_of_the_bundle_sum_to_its_margin(dataset: Dataset, bundle: Bundle) -> None:
    scorer = PropensityScorer.load(bundle)
    matrix = dataset.test.matrix[:200]
    np.testing.assert_allclose(scorer.contributions(matrix).sum(axis=1), scorer.score(matrix).margin, atol=1e-5)
    assert all(each.meaning != each.feature for row in scorer.reasons(matrix, max_reasons=5) for each in row)


def test_the_manifest_says_what_repeats_the_run(dataset: Dataset, bundle: Bundle) -> None:
    manifest = bundle.manifest
    given = dict(manifest.config)
    assert Cuts(**{name: tuple(times) for name, times in given.pop("cuts_ms").items()}) == dataset.cuts
    assert resolve(given) == CONFIG
    assert (manifest.family, manifest.name, manifest.feature_service) == ("propensity", "purchase_7d", "propensity_v1")
    assert list(manifest.columns) == dataset.columns
    assert manifest.plan_hash == PLAN.hash == Plan.from_json(bundle.file("plan.json").read_bytes()).hash
    assert dataset.validation.t_ms.max() < manifest.data_cut_ms <= dataset.test.t_ms.min()
    assert manifest.metrics["base_rate"] == dataset.test.label.mean()
    assert all(np.isfinite(each) for each in manifest.metrics.values())


def test_the_reference_describes_every_column_of_the_training_rows(dataset: Dataset, bundle: Bundle) -> None:
    reference = json.loads(bundle.file("reference.json").read_text())
    assert reference["row_count"] == len(dataset.train)
    assert list(reference["columns"]) == dataset.columns
    for position, summary in enumerate(reference["columns"].values()):
        values = dataset.train.matrix[:, position]
        present = values[~np.isnan(values)]
        assert summary["missing_ratio"] == pytest.approx(np.isnan(values).mean())
        if len(present):
            ends = np.concatenate([[-np.inf], summary["edges"], [np.inf]])
            inside = [((present > low) & (present <= high)).mean() for low, high in pairwise(ends)]
            assert summary["ratios"] == pytest.approx(inside)


def test_an_export_that_answers_otherwise_is_refused(dataset: Dataset, fitted: Fitted, bundle: Bundle) -> None:
    other = fit(CONFIG, dataset.columns, dataset.validation, dataset.test).scorer
    verify(bundle.path, fitted.scorer, dataset.test.matrix)
    with pytest.raises(BundleError, match="differ"):
        verify(bundle.path, other, dataset.test.matrix)


def test_the_report_stands_alone_and_tells_the_protocol(
    tmp_path: Path, dataset: Dataset, evaluation: Evaluation, bundle: Bundle
) -> None:
    page = report.write(tmp_path / "reports", CONFIG, dataset, evaluation).read_text()
    assert (tmp_path / "reports" / "purchase_7d.png").read_bytes().startswith(b"\x89PNG")
    assert 'src="data:image/png;base64,' in page
    assert "http" not in page
    assert headline(evaluation) in bundle.file("card.md").read_text()
    for line in protocol(CONFIG, dataset):
        assert line.split("'")[0] in page
    for name in evaluation.measured:
        assert name in page
    assert table(evaluation, "purchase_7d").row_count == len(evaluation.measured) == 5


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_the_command_line_explains_itself_without_its_libraries(command: str) -> None:
    code = f"""
import sys
from models.propensity.__main__ import main
try:
    main(["{command}", "--help"])
finally:
    assert not {{"feast", "xgboost", "pandas", "matplotlib", "bentoml"}} & set(sys.modules)
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for flag in ("--lake", "--feature-repo", "--store", "--report-dir"):
        assert flag in answer.stdout


def test_a_wrong_configuration_ends_the_command_with_its_name(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from models.propensity.__main__ import main

    path = tmp_path / "wrong.toml"
    path.write_text('name = "x"\nsead = 1\n')
    assert main(["train", "--config", str(path)]) == 1
    assert "sead" in capsys.readouterr().err
