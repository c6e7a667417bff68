"""The configuration of a training run: TOML into frozen dataclasses, where an unknown key is an error."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from models.propensity.outcomes import Outcome
from segue.errors import InvalidSettings, Violation

Span = tuple[float, float]


@dataclass(frozen=True)
class Split:
    """When predictions are made, and which of them train, validate and test.

    Prediction times lie `stride_days` apart from the start of `train` on. Each span is [from, to); `unit` says what its
    numbers are: days since the log's first event, or fractions of the time from there to the newest prediction time
    whose horizon the log still covers, which 1 includes. A split's label windows end at least `embargo_days` before the
    next split's first prediction time.
    """

    unit: Literal["days", "fraction"]
    stride_days: int
    train: Span
    validation: Span
    test: Span
    embargo_days: int = 0
    max_rows: int = 200_000
    """Rows kept of each split, drawn at random where there are more."""


@dataclass(frozen=True)
class Boosting:
    """XGBoost's parameters, under its own names where it has them (`hist`, logistic loss)."""

    learning_rate: float = 0.05
    max_depth: int = 4
    min_child_weight: float = 10.0
    subsample: float = 0.8
    colsample_bytree: float = 0.5
    reg_lambda: float = 5.0
    max_bin: int = 128
    nthread: int = 2
    max_rounds: int = 2000
    patience_rounds: int = 50
    """Stop when the validation loss has not improved for so many rounds."""


@dataclass(frozen=True)
class Calibrating:
    """How margins become probabilities, and probabilities tiers."""

    isotonic_min_positive_count: int = 300
    """With fewer positives than this to fit on, a straight line (Platt) rather than a curve (isotonic)."""
    max_knots: int = 16
    high_ratio: float = 0.1
    """The share of validation rows in tier high."""
    medium_ratio: float = 0.2
    """The share of validation rows in tier medium."""


@dataclass(frozen=True)
class Config:
    """Everything that decides what a training run makes, apart from the data."""

    name: str
    """The bundle's name: what the model answers, e.g. `purchase_7d`."""
    outcome: Outcome
    split: Split
    feature_service: str = "propensity_v1"
    seed: int = 1
    bootstrap_count: int = 200
    """Resamples of the customers behind each interval in the report."""
    boosting: Boosting = field(default_factory=Boosting)
    calibrating: Calibrating = field(default_factory=Calibrating)

    def __post_init__(self) -> None:
        if violations := list(_contradictions(self)):
            raise InvalidSettings(*violations)


def _contradictions(config: Config) -> Iterator[Violation]:
    split, horizon_days = config.split, config.outcome.horizon_days
    if split.stride_days < horizon_days:
        yield Violation("split.stride_days", f"is {split.stride_days}, must be at least the horizon, {horizon_days}")
    edges = [*split.train, *split.validation, *split.test]
    if edges != sorted(edges) or edges[0] < 0 or (split.unit == "fraction" and edges[-1] > 1):
        yield Violation("split", f"train, validation and test do not follow each other: {edges}")
    if split.embargo_days < 0:
        yield Violation("split.embargo_days", "is negative")
    if split.max_rows < 1:
        yield Violation("split.max_rows", "must be at least 1")
    if config.bootstrap_count < 1:
        yield Violation("bootstrap_count", "must be at least 1")
    high, medium = config.calibrating.high_ratio, config.calibrating.medium_ratio
    if not (high > 0 and medium > 0 and high + medium < 1):
        yield Violation("calibrating", f"high_ratio {high} and medium_ratio {medium} leave no room for a third tier")
    if config.calibrating.max_knots < 2:
        yield Violation("calibrating.max_knots", "must be at least 2")


def read(path: Path) -> Config:
    """The configuration in the TOML file at `path`.

    Raises:
        InvalidSettings: the file cannot be read, or a key is unknown, missing, of another type or out of range; named.
    """
    try:
        given = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InvalidSettings.because("config", f"{path} cannot be read: {error}") from error
    return resolve(given)


def resolve(given: Mapping[str, Any]) -> Config:
    """The configuration of the keys in `given`, e.g. a bundle's, and defaults for the rest.

    Raises:
        InvalidSettings: as for `read`.
    """
    config: Config = _table(Config, given, "")
    return config


def _table(cls: Any, given: object, path: str) -> Any:
    if not isinstance(given, Mapping):
        raise InvalidSettings.because(path.rstrip("."), "must be a table")
    types = get_type_hints(cls)
    required = [each.name for each in fields(cls) if each.default is MISSING and each.default_factory is MISSING]
    violations = [Violation(path + key, f"is no setting; there are {', '.join(types)}") for key in given.keys() - types]
    violations += [Violation(path + name, "is missing") for name in required if name not in given]
    if violations:
        raise InvalidSettings(*sorted(violations))
    return cls(**{key: _value(types[key], value, path + key) for key, value in given.items()})


def _value(kind: Any, value: object, path: str) -> object:
    parts = get_args(kind)
    if is_dataclass(kind):
        return _table(kind, value, path + ".")
    if get_origin(kind) is tuple:
        any_length = parts[-1] is Ellipsis
        if not isinstance(value, list | tuple) or not (any_length or len(value) == len(parts)):
            raise InvalidSettings.because(path, f"is {value!r}, must be a list" + ("" if any_length else " of two"))
        return tuple(_value(parts[0], each, f"{path}[{index}]") for index, each in enumerate(value))
    if get_origin(kind) is Literal:
        if value not in parts:
            raise InvalidSettings.because(path, f"is {value!r}, must be one of {', '.join(parts)}")
        return value
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise InvalidSettings.because(path, f"is {value!r}, must be of type {kind.__name__}")
    return value
