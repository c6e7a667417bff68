"""The catalogue: what is known of items besides behaviour."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from segue.errors import InvalidInput


def _unknown() -> NDArray[np.object_]:
    return np.empty(0, np.object_)


@dataclass(frozen=True, eq=False)
class Catalogue:
    """n items, one per position, no item twice."""

    item: NDArray[np.int64]  # (n,) item_id(external_id)
    external_id: NDArray[np.object_]  # (n,) str, the caller's own id
    category: NDArray[np.object_]  # (n,) str, "" where unknown; levels of a path are parted by "/" or ">"
    price_minor: NDArray[np.int64]  # (n,) 0 where unknown
    title: NDArray[np.object_] = field(default_factory=_unknown)  # (n,) str, "" where unknown; left out: everywhere

    def __post_init__(self) -> None:
        if not len(self.title):
            object.__setattr__(self, "title", np.full(len(self.item), "", np.object_))
        for column in ("external_id", "category", "price_minor", "title"):
            if (count := len(getattr(self, column))) != len(self.item):
                raise InvalidInput.because(column, f"has {count} values for {len(self.item)} items")
        if len(np.unique(self.item)) != len(self.item):
            raise InvalidInput.because("item", "an item occurs twice")

    def __len__(self) -> int:
        return len(self.item)

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> "Catalogue":
        """The items at `index`, positions or mask."""
        external_id, category, title = (column[index] for column in (self.external_id, self.category, self.title))
        return Catalogue(self.item[index], external_id, category, self.price_minor[index], title)
