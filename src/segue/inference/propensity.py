"""Propensity: calibrated probabilities of an outcome, their tiers, and the reasons for them.

The model is a gradient-boosted forest (XGBoost). Its margin, in log-odds, ranks; the calibration turns margins into
probabilities that come true as often as they say; the tiers cut probabilities into words. Training builds the same
scorer that serving loads, so that what was evaluated is what answers.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import IntEnum, unique
from pathlib import Path
from typing import Any, Self

import numpy as np
import xgboost
from numpy.typing import NDArray

from segue.errors import BundleError, InvalidInput
from segue.features.snapshots import CUSTOMER_LIFETIME
from segue.features.table import FEATURES
from segue.inference.bundle import Bundle

FAMILY = "propensity"
MODEL, CALIBRATION, TIERS = "model.ubj", "calibration.json", "tiers.json"

FEATURE_BY_NAME = {feature.name: feature for feature in (*FEATURES, *CUSTOMER_LIFETIME)}
"""What the columns of a customer mean."""

Matrix = NDArray[np.float64]


@unique
class Tier(IntEnum):
    """How a probability compares with those of other customers. The codes are those of `Scores.tier`."""

    LOW = 0
    MEDIUM = 1
    HIGH = 2

    @property
    def label(self) -> str:
        """The name used in protos and documents, e.g. `high`."""
        return self.name.lower()


@dataclass(frozen=True)
class TierCuts:
    """The smallest calibrated probability of tier medium and of tier high."""

    medium: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.medium <= self.high <= 1:
            raise ValueError(f"medium {self.medium} and high {self.high} are not 0 <= medium <= high <= 1")

    def of(self, probability: NDArray[np.float64]) -> NDArray[np.uint8]:
        """The `Tier` code of each probability, same shape."""
        return np.searchsorted([self.medium, self.high], probability, side="right").astype(np.uint8)


@dataclass(frozen=True)
class Calibration:
    """A rising curve from the model's margin to the log-odds of the outcome: straight lines between knots.

    A rising curve keeps the model's order of customers. It is constant before the first knot and after the last.
    """

    margin: Sequence[float]
    log_odds: Sequence[float]

    def __post_init__(self) -> None:
        if not 2 <= len(self.margin) == len(self.log_odds):
            raise ValueError(f"{len(self.margin)} margins and {len(self.log_odds)} log-odds are not two knots or more")
        if not np.isfinite([self.margin, self.log_odds]).all():
            raise ValueError("a knot is not finite")
        if (np.diff(self.margin) <= 0).any() or (np.diff(self.log_odds) < 0).any():
            raise ValueError("the knots do not rise")

    def probability(self, margin: NDArray[np.floating]) -> NDArray[np.float64]:
        """The probability for each margin, in (0, 1), same shape."""
        log_odds = np.interp(np.asarray(margin, np.float64), self.margin, self.log_odds)
        return 1 / (1 + np.exp(-log_odds))


@dataclass(frozen=True, eq=False)
class Scores:
    """Answers for n rows."""

    probability: NDArray[np.float64]  # (n,) calibrated, in (0, 1)
    margin: NDArray[np.float64]  # (n,) the model's log-odds before calibration
    tier: NDArray[np.uint8]  # (n,) a Tier


@dataclass(frozen=True)
class Reason:
    """What one feature did to one margin."""

    feature: str
    value: float | None
    """The feature's value; None where it was missing."""
    contribution: float
    """Log-odds added to the margin by this value, compared with not knowing it (SHAP)."""
    meaning: str


class PropensityScorer:
    """A loaded model. Calls may come from several threads; each runs on the caller's thread alone."""

    def __init__(
        self,
        booster: xgboost.Booster,
        *,
        columns: Sequence[str],
        calibration: Calibration,
        tiers: TierCuts,
    ) -> None:
        """Take over `booster`, which must read `len(columns)` nameless columns.

        Raises:
            BundleError: the booster reads another number of columns.
        """
        if booster.num_features() != len(columns):
            raise BundleError(f"{MODEL} reads {booster.num_features()} columns, the manifest lists {len(columns)}")
        booster.set_param({"nthread": 1})
        self.columns = tuple(columns)
        self.calibration = calibration
        self.tiers = tiers
        self._booster = booster

    @classmethod
    def load(cls, bundle: Bundle) -> Self:
        """Load the model of `bundle`.

        Raises:
            BundleError: the bundle is of another family, or one of its files cannot be used.
        """
        manifest = bundle.manifest
        if manifest.family != FAMILY:
            raise BundleError(f"bundle {bundle.version}: is of family {manifest.family!r}, not {FAMILY!r}")
        booster = xgboost.Booster()
        try:
            booster.load_model(bundle.file(MODEL))
            calibration = Calibration(**_object(bundle.file(CALIBRATION)))
            tiers = TierCuts(**_object(bundle.file(TIERS)))
            return cls(booster, columns=manifest.columns, calibration=calibration, tiers=tiers)
        except (BundleError, TypeError, ValueError, xgboost.core.XGBoostError) as error:
            raise BundleError(f"bundle {bundle.version}: {error}") from error

    def save(self, directory: Path) -> None:
        """Write the files that `load` reads into `directory`."""
        self._booster.save_model(directory / MODEL)
        (directory / CALIBRATION).write_text(json.dumps(asdict(self.calibration), indent=2) + "\n")
        (directory / TIERS).write_text(json.dumps(asdict(self.tiers), indent=2) + "\n")

    def score(self, matrix: Matrix) -> Scores:
        """Score n rows of features.

        Args:
            matrix: shape (n, len(columns)), in the order of `columns`; NaN is missing.

        Raises:
            InvalidInput: the matrix has another shape or dtype, or holds an infinity.
        """
        self._check(matrix)
        margin = np.zeros(len(matrix))
        if len(matrix):
            margin[:] = self._booster.inplace_predict(matrix, predict_type="margin", validate_features=False)
        probability = self.calibration.probability(margin)
        return Scores(probability, margin, self.tiers.of(probability))

    def contributions(self, matrix: Matrix) -> Matrix:
        """What each column adds to each margin (TreeSHAP; Lundberg et al. 2018), and last the margin of no knowledge.

        Args:
            matrix: as for `score`.

        Returns:
            Shape (n, len(columns) + 1), log-odds; a row's sum is its margin.

        Raises:
            InvalidInput: as for `score`.
        """
        self._check(matrix)
        if not len(matrix):
            return np.zeros((0, len(self.columns) + 1))
        return np.asarray(self._booster.predict(xgboost.DMatrix(matrix, nthread=1), pred_contribs=True), np.float64)

    def reasons(self, matrix: Matrix, *, max_reasons: int) -> list[list[Reason]]:
        """The columns that moved each margin most, strongest first; those that moved it by nothing are left out.

        Args:
            matrix: as for `score`.
            max_reasons: at most so many per row, at least 0.

        Raises:
            InvalidInput: as for `score`.
        """
        contributions = self.contributions(matrix)[:, :-1]
        strongest = np.argsort(-np.abs(contributions), axis=1, kind="stable")[:, : max(max_reasons, 0)]
        return [
            [self._reason(column, row[column], added[column]) for column in columns if added[column]]
            for columns, row, added in zip(strongest, matrix, contributions, strict=True)
        ]

    def _reason(self, column: int, value: float, contribution: float) -> Reason:
        name, missing = self.columns[column], bool(np.isnan(value))
        return Reason(name, None if missing else float(value), float(contribution), _meaning(name, missing))

    def _check(self, matrix: Matrix) -> None:
        if matrix.ndim != 2 or matrix.shape[1] != len(self.columns):
            raise InvalidInput.because("matrix", f"has shape {matrix.shape}, must be (n, {len(self.columns)})")
        if matrix.dtype != np.float64:
            raise InvalidInput.because("matrix", f"has dtype {matrix.dtype}, must be float64")
        if infinite := [self.columns[column] for column in np.flatnonzero(np.isinf(matrix).any(axis=0))]:
            raise InvalidInput.because("matrix", f"holds an infinity in {', '.join(infinite)}")


def _meaning(name: str, missing: bool) -> str:
    feature = FEATURE_BY_NAME.get(name)
    if feature is None:
        return name
    return feature.null if missing and feature.null else feature.meaning


def _object(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_bytes())
    if not isinstance(content, dict):
        raise TypeError(f"{path.name} holds no JSON object")
    return content
