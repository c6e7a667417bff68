"""Parts of the cases: items that are new to the model, customers of whom little is known."""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from models.sequence.evaluate import Evaluation
from models.sequence.report.items import Items

AGES_DAYS = (0, 1, 7, 28)
"""Where the parts by the age of an item begin; the last one has no end."""

DAY_MS = 24 * 3600 * 1000

Parts = Mapping[str, NDArray[np.bool_]]


def by_item_age(evaluation: Evaluation, items: Items) -> Parts:
    """Cases for items that are new after training, and all cases by how long their item had been in the log."""
    age_ms = items.first_seen.age_ms(evaluation.cases.turns)
    parts = {"new after training": ~evaluation.is_known}
    for low, high in pairwise(AGES_DAYS):
        parts[f"seen {low}-{high} days" if low else f"seen < {high} day"] = (low * DAY_MS <= age_ms) & (
            age_ms < high * DAY_MS
        )
    return parts | {f"seen {AGES_DAYS[-1]}+ days": AGES_DAYS[-1] * DAY_MS <= age_ms}


def by_customer(evaluation: Evaluation, items: Items) -> Parts:
    """Cases by how much a model can know of the customer: the cold ones have turned to two items at most."""
    prefixes = evaluation.cases.prefixes
    length = np.diff(prefixes.offsets)
    known = np.concatenate([[0], np.cumsum(items.vocabulary.index(prefixes.item) > 0)])[prefixes.offsets]
    return {
        "cold: nothing": length == 0,
        "cold: 1 item": length == 1,
        "cold: 2 items": length == 2,
        "warm: 3+ items": length > 2,
        "items, none known": (length > 0) & (np.diff(known) == 0),
    }
