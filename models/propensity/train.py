"""Training: a gradient-boosted forest, the calibration of its margins, and the tiers of its probabilities.

Validation is divided by customer: one half stops the boosting, the other, which it never saw, calibrates.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xgboost
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from models.propensity.config import Boosting, Calibrating, Config
from models.propensity.dataset import Rows
from segue.errors import InvalidInput
from segue.inference.propensity import Calibration, PropensityScorer, TierCuts

FAR = 40.0
"""Log-odds beyond any margin: where calibration curves end."""

Floats = NDArray[np.float64]
Labels = NDArray[np.bool_]


@dataclass(frozen=True)
class Fitted:
    """A trained scorer and how it came about."""

    scorer: PropensityScorer
    rounds: int
    """Trees kept: up to the round with the best loss on the stopping half."""
    calibrated_by: str
    """platt or isotonic."""


def fit(
    config: Config,
    columns: Sequence[str],
    train: Rows,
    validation: Rows,
    *,
    on_round: Callable[[int], None] | None = None,
) -> Fitted:
    """Train on `train`; stop, calibrate and choose tiers on `validation`.

    Args:
        config: the parameters; the same ones and the same rows give the same model.
        columns: the names of the matrices' columns.
        train: rows to learn from.
        validation: later rows.
        on_round: called with the number of each boosting round.

    Raises:
        InvalidInput: a half of the validation customers has rows of one label only.
    """
    stopping, calibrating = halves(validation, config.seed)
    booster = boost(config.boosting, config.seed, train, stopping, on_round)
    calibration, method = calibrate(config.calibrating, margins(booster, calibrating), calibrating.label)
    tiers = tier_cuts(config.calibrating, calibration.probability(margins(booster, validation)))
    scorer = PropensityScorer(booster, columns=columns, calibration=calibration, tiers=tiers)
    return Fitted(scorer, booster.num_boosted_rounds(), method)


def halves(rows: Rows, seed: int) -> tuple[Rows, Rows]:
    """Two parts of `rows`, each customer's rows in one of them.

    Raises:
        InvalidInput: a part has rows of one label only.
    """
    customers, customer = np.unique(rows.customer, return_inverse=True)
    first = np.random.default_rng(seed).permutation(len(customers)) % 2 == 0
    parts = rows.take(first[customer]), rows.take(~first[customer])
    for part in parts:
        if part.label.all() or not part.label.any():
            raise InvalidInput.because("split.validation", f"half of it, {len(part)} rows, does not hold both labels")
    return parts


def boost(
    boosting: Boosting, seed: int, train: Rows, stopping: Rows, on_round: Callable[[int], None] | None
) -> xgboost.Booster:
    """The forest up to its best round by log-loss on `stopping`. It knows columns by position only."""
    params = {
        "objective": "binary:logistic",
        "tree_method": "hist",
        "eval_metric": ["aucpr", "logloss"],  # the last one stops
        "seed": seed,
        "nthread": boosting.nthread,
        "learning_rate": boosting.learning_rate,
        "max_depth": boosting.max_depth,
        "min_child_weight": boosting.min_child_weight,
        "subsample": boosting.subsample,
        "colsample_bytree": boosting.colsample_bytree,
        "reg_lambda": boosting.reg_lambda,
        "max_bin": boosting.max_bin,
    }
    data = xgboost.QuantileDMatrix(train.matrix, train.label, max_bin=boosting.max_bin, nthread=boosting.nthread)
    booster = xgboost.train(
        params,
        data,
        num_boost_round=boosting.max_rounds,
        evals=[(xgboost.DMatrix(stopping.matrix, stopping.label, nthread=boosting.nthread), "stopping")],
        early_stopping_rounds=boosting.patience_rounds,
        verbose_eval=False,
        callbacks=[_Rounds(on_round)] if on_round else [],
    )
    best = booster[: booster.best_iteration + 1]
    best.set_param({"nthread": boosting.nthread})
    return best


def margins(booster: xgboost.Booster, rows: Rows) -> Floats:
    """The booster's log-odds for each row, shape (n,)."""
    return np.asarray(booster.inplace_predict(rows.matrix, predict_type="margin"), np.float64)


def calibrate(calibrating: Calibrating, margin: Floats, label: Labels) -> tuple[Calibration, str]:
    """The rising curve from margin to log-odds that fits the labels, and how it was fitted: platt or isotonic.

    Platt (1999) with few positives: a straight line. Otherwise isotonic regression (Zadrozny & Elkan 2002) over bins
    with equally many positives, whose steps are joined by straight lines through their middles: a step would make
    equals of customers whom the margin tells apart.
    """
    if min(label.sum(), (~label).sum()) < calibrating.isotonic_min_positive_count:
        return _platt(margin, label), "platt"
    return _isotonic(margin, label, calibrating.max_knots), "isotonic"


def tier_cuts(calibrating: Calibrating, probability: Floats) -> TierCuts:
    """The cut-offs that put the configured shares of `probability` into tiers high and medium."""
    high = 1 - calibrating.high_ratio
    medium, high = np.quantile(probability, [high - calibrating.medium_ratio, high])
    return TierCuts(medium=float(medium), high=float(high))


def _platt(margin: Floats, label: Labels) -> Calibration:
    line = LogisticRegression(C=1e6).fit(margin[:, None], label)
    slope, intercept = float(line.coef_[0, 0]), float(line.intercept_[0])
    if slope <= 0:  # the margins rank no better than chance here: say the base rate
        slope, intercept = 0.0, float(np.log(label.mean() / (1 - label.mean())))
    return Calibration([-FAR, FAR], [intercept - slope * FAR, intercept + slope * FAR])


def _isotonic(margin: Floats, label: Labels, max_knots: int) -> Calibration:
    """The middles of the isotonic steps, joined, with an end far out on either side."""
    order = np.argsort(margin, kind="stable")
    label, margin = label[order], margin[order]
    bins = np.cumsum(label) * max_knots // (label.sum() + 1)
    bins = np.unique(bins[np.searchsorted(margin, margin)], return_inverse=True)[1]  # equal margins share a bin
    count = np.bincount(bins)
    rate = (np.bincount(bins, label) + 0.5) / (count + 1)  # the halves keep log-odds finite
    step = IsotonicRegression().fit_transform(np.arange(len(count)), rate, sample_weight=count)
    level, block = np.unique(step, return_inverse=True)
    block = block[bins]
    middle = np.bincount(block, margin) / np.bincount(block)
    log_odds = np.log(level / (1 - level))
    # Beyond the outermost steps nothing was seen: there the curve follows the margin itself.
    first, last = log_odds[0] - (middle[0] + FAR), log_odds[-1] + (FAR - middle[-1])
    return Calibration([-FAR, *middle.tolist(), FAR], [float(first), *log_odds.tolist(), float(last)])


class _Rounds(xgboost.callback.TrainingCallback):
    def __init__(self, on_round: Callable[[int], None]) -> None:
        self._on_round = on_round

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        """Report the round and go on."""
        del model, evals_log
        self._on_round(epoch + 1)
        return False
