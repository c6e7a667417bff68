"""The catalogue: what is known of items besides behaviour."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segue.errors import InvalidInput


@dataclass(frozen=True, eq=False)
class Catalogue:
    """n items, one per position, no item twice."""

    item: NDArray[np.int64]  # (n,) item_id(external_id)
    external_id: NDArray[np.object_]  # (n,) str, the caller's own id
    category: NDArray[np.object_]  # (n,) str, "" where unknown
    price_minor: NDArray[np.int64]  # (n,) 0 where unknown

    def __post_init__(self) -> None:
        for column in ("external_id", "category", "price_minor"):
            if (count := len(getattr(self, column))) != len(self.item):
                raise InvalidInput.because(column, f"has {count} values for {len(self.item)} items")
        if len(np.unique(self.item)) != len(self.item):
            raise InvalidInput.because("item", "an item occurs twice")

    def __len__(self) -> int:
        return len(self.item)
