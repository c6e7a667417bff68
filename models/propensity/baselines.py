"""Baselines: what a model must beat to be worth its keep.

Each is fitted on the training rows and answers with a probability, so that it can be measured like the model.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from models.propensity.dataset import Rows

BASE_RATE = "base rate"
RECENCY = "customer_seconds_since_event"
MAX_ROWS = 20_000
"""Training rows used at most: linear models gain nothing from more."""

STRENGTHS = (0.001, 0.01, 0.1)
"""Inverse ridge penalties of the logistic regression, one of them chosen on validation."""

Floats = NDArray[np.float64]


def baselines(columns: Sequence[str], train: Rows, validation: Rows, test: Rows, *, seed: int) -> dict[str, Floats]:
    """The probability each baseline gives each row of `test`, by the baseline's name.

    The base rate; the one count that ranks the training rows best; the time since the newest event; and a logistic
    regression on everything, its penalty chosen on `validation`.
    """
    if len(train) > MAX_ROWS:
        train = train.take(np.sort(np.random.default_rng(seed).choice(len(train), MAX_ROWS, replace=False)))
    answers = {BASE_RATE: np.full(len(test), train.label.mean())}
    names = {"one count": _best_count(columns, train), "recency": RECENCY}
    for name, column in names.items():
        if column in columns:
            only = [list(columns).index(column)]
            model = _logistic(1.0).fit(train.matrix[:, only], train.label)
            answers[f"{name}: {column}"] = model.predict_proba(test.matrix[:, only])[:, 1]
    fitted = [_logistic(strength).fit(train.matrix, train.label) for strength in STRENGTHS]
    losses = [log_loss(validation.label, model.predict_proba(validation.matrix)[:, 1]) for model in fitted]
    answers["logistic regression"] = fitted[int(np.argmin(losses))].predict_proba(test.matrix)[:, 1]
    return answers


def _best_count(columns: Sequence[str], train: Rows) -> str:
    counts = [position for position, name in enumerate(columns) if "_count" in name]
    values = np.nan_to_num(train.matrix[:, counts])
    areas = [abs(roc_auc_score(train.label, values[:, column]) - 0.5) for column in range(len(counts))]
    return columns[counts[int(np.argmax(areas))]] if counts else ""


def _logistic(strength: float) -> Pipeline:
    """Counts, values and ages are skewed, so it reads their logarithms; a missing value is a column of its own."""
    return make_pipeline(
        FunctionTransformer(lambda matrix: np.sign(matrix) * np.log1p(np.abs(matrix))),
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
        StandardScaler(),
        LogisticRegression(C=strength, max_iter=1000),
    )
