"""Windowed features: counts, sums and distinct items over the last hour, day, week, month and quarter."""

import numpy as np
from numpy.typing import NDArray

from segue.events import NO_ITEM, Kind
from segue.features.batch import SIGNAL_COLUMN, SIGNALS, WINDOWS_MS, Batch, cumulative, ratio
from segue.features.family import Family, Feature, count

VALUES = {"add": Kind.PRODUCT_ADDED, "order": Kind.ORDER_COMPLETED}
"""The kinds whose value is summed."""

RATIOS = {"add_per_view": ("add", "view"), "order_per_add": ("order", "add"), "search_per_view": ("search", "view")}


def counts(batch: Batch) -> NDArray[np.int64]:
    """Records of each signal in each window, shape (n, s * w)."""
    return _columns(batch.in_windows(batch.signals_before))


def values(batch: Batch) -> NDArray[np.int64]:
    """Summed value of each of VALUES in each window, shape (n, v * w)."""
    histories = batch.histories
    valued = np.stack([np.where(histories.kind == kind, histories.value_minor, 0) for kind in VALUES.values()])
    return _columns(batch.in_windows(cumulative(valued)))


def distinct_items(batch: Batch) -> NDArray[np.int64]:
    """Distinct items viewed, added, and acted on in any way, in each window, shape (n, 3 * w)."""
    histories = batch.histories
    masks = (histories.kind == Kind.PRODUCT_VIEWED, histories.kind == Kind.PRODUCT_ADDED, histories.item != NO_ITEM)
    return _columns(batch.in_windows(cumulative(np.stack([batch.last_of_item(mask) for mask in masks]))))


def ratios(batch: Batch) -> NDArray[np.float64]:
    """RATIOS over 30 days, shape (n, r)."""
    windowed = batch.in_windows(batch.signals_before)[..., list(WINDOWS_MS).index("30d")]  # (s, n)
    pairs = [(SIGNAL_COLUMN[part], SIGNAL_COLUMN[whole]) for part, whole in RATIOS.values()]
    return np.column_stack([ratio(windowed[part], windowed[whole]) for part, whole in pairs])


def _columns(windowed: NDArray) -> NDArray:
    """Shape (n, k * w) for (k, n, w)."""
    return windowed.transpose(1, 0, 2).reshape(windowed.shape[1], -1)


FAMILIES = (
    Family(
        tuple(
            count(f"customer_{signal}_count_{window}", f"{kind.label} events in the last {window}")
            for signal, kind in SIGNALS.items()
            for window in WINDOWS_MS
        ),
        counts,
    ),
    Family(
        tuple(
            count(
                f"customer_{signal}_value_minor_{window}", f"summed value of {kind.label} in the last {window}", "minor"
            )
            for signal, kind in VALUES.items()
            for window in WINDOWS_MS
        ),
        values,
    ),
    Family(
        tuple(
            count(f"customer_{word}_distinct_count_{window}", f"distinct items {done} in the last {window}")
            for word, done in {"view_item": "viewed", "add_item": "added", "item": "acted on in any way"}.items()
            for window in WINDOWS_MS
        ),
        distinct_items,
    ),
    Family(
        tuple(
            Feature(
                f"customer_{name}_ratio_30d",
                "ratio",
                f"{SIGNALS[part].label} per {SIGNALS[whole].label} in the last 30d",
                null=f"no {SIGNALS[whole].label} in the last 30d",
            )
            for name, (part, whole) in RATIOS.items()
        ),
        ratios,
    ),
)
