"""The cart: what was added and not removed since the newest order."""

import numpy as np
from numpy.typing import NDArray

from segue.events import NO_ITEM, Kind
from segue.features.batch import SIGNAL_COLUMN, Batch
from segue.features.family import Family, Feature, count


def cart_features(batch: Batch) -> NDArray[np.float64]:
    """Items in the cart, their value, and the age of its newest change, shape (n, 3).

    An item is in the cart when the newest of its add and remove events after the newest order is an add; its value is
    that event's value.
    """
    histories = batch.histories
    changes = (histories.kind == Kind.PRODUCT_ADDED) | (histories.kind == Kind.PRODUCT_REMOVED)
    changes &= np.arange(len(changes)) > batch.last_signal[SIGNAL_COLUMN["order"]][batch.row]
    last = batch.last_of_item(changes)
    inside = np.flatnonzero(last & (histories.kind == Kind.PRODUCT_ADDED) & (histories.item != NO_ITEM))
    rows = batch.row[inside]
    value = np.zeros(len(batch), np.int64)
    np.add.at(value, rows, histories.value_minor[inside])
    changed = np.full(len(batch), -1)
    positions = np.flatnonzero(changes)
    changed[batch.row[positions]] = positions  # positions ascend, so the newest of a row is the one that stays
    return np.column_stack([np.bincount(rows, minlength=len(batch)), value, batch.seconds_since(changed)])


FAMILIES = (
    Family(
        (
            count("customer_cart_item_count", "items in the cart"),
            count("customer_cart_value_minor", "summed value of the items in the cart", "minor"),
            Feature(
                "customer_seconds_since_cart_change",
                "seconds",
                "time since an item was added or removed, after the newest order",
                null="no item was added or removed since the newest order",
            ),
        ),
        cart_features,
    ),
)
