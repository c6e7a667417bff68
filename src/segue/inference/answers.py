"""What an answer is made from, apart from the answer itself."""

import uuid
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from segue.history import Histories


class Status(Enum):
    """What is known of one view of one entity."""

    PRESENT = "PRESENT"
    EXPIRED = "EXPIRED"
    """Older than the view's ttl: its values count as missing."""
    MISSING = "MISSING"


class Fallback(Enum):
    """The rung of the ladder that answered."""

    NONE = "NONE"
    """The model itself."""
    COHORT = "COHORT"
    ITEM_TO_ITEM = "ITEM_TO_ITEM"
    TRENDING = "TRENDING"
    POPULAR = "POPULAR"


@dataclass(frozen=True, eq=False)
class Part:
    """One view of n entities."""

    view: str
    status: tuple[Status, ...]
    age_ms: NDArray[np.float64]
    """(n,) time since the view's newest data, NaN where there is none."""
    truncated: NDArray[np.bool_]
    """(n,) whether a history is full, so that older events may be missing."""


@dataclass(frozen=True, eq=False)
class Features:
    """What a plan reads of n entities, as of one time each."""

    names: tuple[str, ...]
    matrix: NDArray[np.float64]
    """(n, len(names)) the scalar columns in declared order; NaN is null, missing or expired."""
    histories: Histories
    """n histories with the request's events merged in; empty ones where the plan reads no history."""
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Context:
    """How one row of an answer came about; see AnswerContext in protos/segue/v1/answer.proto."""

    model_versions: tuple[str, ...]
    feature_service: str
    as_of_ms: int
    parts: tuple[Part, ...]
    row: int
    """The row of `parts` this answer is about."""
    fallback: Fallback


def new_answer_id() -> str:
    """An id for one answer, unique and in no order: 32 hex digits."""
    return uuid.uuid4().hex
