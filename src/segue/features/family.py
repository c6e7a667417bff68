"""What the table of features is made of."""

from collections.abc import Callable
from dataclasses import dataclass

from numpy.typing import NDArray

from segue.features.batch import Batch


@dataclass(frozen=True)
class Feature:
    """One column.

    `null` says what a missing value means; it is empty where the feature is never null. `dtype` is "int64" where every
    value is a whole number and none is null, else "float64".
    """

    name: str
    unit: str
    meaning: str
    null: str = ""
    dtype: str = "float64"


@dataclass(frozen=True)
class Family:
    """Features computed together: `compute` gives shape (n, len(features)), NaN for null."""

    features: tuple[Feature, ...]
    compute: Callable[[Batch], NDArray]


def count(name: str, meaning: str, unit: str = "count") -> Feature:
    """A feature that is a whole number and never null."""
    return Feature(name, unit, meaning, dtype="int64")
