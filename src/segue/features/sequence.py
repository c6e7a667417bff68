"""The item sequence: what the customer turned to, oldest first. What sequence models read, in training and serving."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segue.events import NO_ITEM, Kind
from segue.features.family import Feature
from segue.history import Histories, Times, before, gather, resolve

SEQUENCE_LENGTH = 50
"""How many newest items a sequence holds unless a model says otherwise."""

SEQUENCE_KINDS = np.array(
    [
        Kind.PRODUCT_VIEWED,
        Kind.PRODUCT_ADDED,
        Kind.PRODUCT_PURCHASED,
        Kind.CONTENT_ENGAGED,
        Kind.RECOMMENDATION_CLICKED,
        Kind.PRODUCT_WISHLISTED,
        Kind.PRODUCT_REVIEWED,
        Kind.PRODUCT_SHARED,
    ],
    np.uint8,
)
"""The kinds by which a customer turns to an item of their own will. A removal is no interest, an exposure no choice."""

FEATURES = (
    Feature("customer_item_sequence", "item ids", "items turned to, oldest first", dtype="int64[]"),
    Feature(
        "customer_kind_sequence", "kind codes", "the kind of event by which each was last turned to", dtype="int64[]"
    ),
    Feature("customer_age_seconds_sequence", "seconds", "time since each was last turned to", dtype="float64[]"),
)


@dataclass(frozen=True, eq=False)
class Sequences:
    """n item sequences as one ragged batch, oldest first: sequence i is the slice `offsets[i]:offsets[i + 1]`."""

    offsets: NDArray[np.int64]  # (n + 1,)
    item: NDArray[np.int64]  # (m,)
    kind: NDArray[np.uint8]  # (m,)
    age_ms: NDArray[np.int64]  # (m,) > 0

    def __len__(self) -> int:
        return len(self.offsets) - 1


def item_sequences(histories: Histories, now_ms: Times, *, length: int = SEQUENCE_LENGTH) -> Sequences:
    """The newest `length` items each customer turned to before their `now_ms`, shape (n,).

    A run of records of one item (viewed, then added, then bought) is one turn, told by its newest record.
    """
    histories = resolve(before(histories, now_ms))
    histories = histories.keep((histories.item != NO_ITEM) & np.isin(histories.kind, SEQUENCE_KINDS))
    row = histories.row
    last_of_run = np.ones(len(row), bool)
    last_of_run[:-1] = (row[1:] != row[:-1]) | (histories.item[1:] != histories.item[:-1])
    histories = histories.keep(last_of_run)
    stop = histories.offsets[1:]
    offsets, source = gather(np.maximum(histories.offsets[:-1], stop - length), stop)
    age_ms = np.repeat(now_ms, np.diff(offsets)) - histories.event_time_ms[source]
    return Sequences(offsets, histories.item[source], histories.kind[source], age_ms)
