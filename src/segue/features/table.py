"""The table of features: every name with its meaning, unit and null, next to the function that computes it.

The order of the table is the order of the columns everywhere: in Feast's views, in serving plans, in bundles.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from segue.errors import InvalidHistories
from segue.features import calendar, cart, recency, sessions, windows
from segue.features.batch import Batch
from segue.history import HISTORY_LIMIT, Histories, Times

FAMILIES = (*windows.FAMILIES, *recency.FAMILIES, *sessions.FAMILIES, *cart.FAMILIES, *calendar.FAMILIES)

FEATURES = tuple(feature for family in FAMILIES for feature in family.features)
"""Every scalar feature, in column order."""

CHUNK_RECORDS = 1 << 18
"""Records computed at a time: bounds memory to some 200 MB and keeps the work near the processor's caches."""


def compute(histories: Histories, now_ms: Times, *, limit: int = HISTORY_LIMIT) -> NDArray[np.float64]:
    """Compute every feature of every history as of its own time.

    Args:
        histories: n histories; records at or after a history's time are ignored.
        now_ms: shape (n,), int64.
        limit: how many records a history keeps; one that holds as many counts as truncated.

    Returns:
        Shape (n, len(FEATURES)); NaN is null; whole numbers are exact below 2**53.

    Raises:
        InvalidHistories: `now_ms` does not hold one time per history.
    """
    if now_ms.shape != (len(histories),):
        raise InvalidHistories.because("now_ms", f"has shape {now_ms.shape}, must be ({len(histories)},)")
    out = np.empty((len(histories), len(FEATURES)))
    for rows in _chunks(histories):
        part = histories if len(rows) == len(histories) else histories.take(rows)
        batch = Batch(part, now_ms[rows], limit=limit)
        column = 0
        for family in FAMILIES:
            width = len(family.features)
            out[rows, column : column + width] = family.compute(batch)
            column += width
    return out


def _chunks(histories: Histories) -> Iterator[NDArray[np.int64]]:
    """Runs of rows that hold about CHUNK_RECORDS records each."""
    if len(histories):
        chunk = histories.offsets[1:] // CHUNK_RECORDS
        yield from np.split(np.arange(len(histories)), np.flatnonzero(np.diff(chunk)) + 1)
