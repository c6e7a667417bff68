"""The items of a report: what the caller calls them, of which category they are, since when there is news of them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from models.sequence.dataset import Turns
from segue.catalogue import Catalogue
from segue.events import Events
from segue.inference.windows import Vocabulary

ITEM_WEIGHTS = "model.item.weight"
"""What the exported graph calls the embeddings of the items: the attribute of `Ranker` they are in."""


@dataclass(frozen=True, eq=False)
class FirstSeen:
    """When the log first held an event of each item."""

    item: NDArray[np.int64]  # (m,) ascending
    time_ms: NDArray[np.int64]  # (m,)

    @classmethod
    def of(cls, events: Events) -> Self:
        """By the events' own times, whatever their kind."""
        item, row = np.unique(events.item, return_inverse=True)
        time_ms = np.full(len(item), np.iinfo(np.int64).max)
        np.minimum.at(time_ms, row, events.event_time_ms)
        return cls(item, time_ms)

    def age_ms(self, turns: Turns) -> NDArray[np.int64]:
        """How long before each turn its item was first seen, at least 0, shape (n,); 0 where it never was."""
        if not len(self.item):
            return np.zeros(len(turns.item), np.int64)
        place = np.minimum(np.searchsorted(self.item, turns.item), len(self.item) - 1)
        age_ms = np.maximum(0, turns.time_ms - self.time_ms[place])
        return np.where(self.item[place] == turns.item, age_ms, 0)


@dataclass(frozen=True, eq=False)
class Items:
    """What is known of items besides who turned to them."""

    vocabulary: Vocabulary
    catalogue: Catalogue
    first_seen: FirstSeen
    embedding: NDArray[np.float32] | None = None  # (v, d) what the model scores, where it can be read
    _row: dict[int, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        rows = {item: row for row, item in enumerate(self.catalogue.item.tolist())}
        object.__setattr__(self, "_row", rows)

    def name(self, item: int) -> str:
        """The caller's own id of an item; its number where the catalogue does not hold it."""
        row = self._row.get(item)
        return (row is not None and self.catalogue.external_id[row]) or f"item {item}"

    def category(self, item: int) -> str:
        """The category of an item, "" where unknown."""
        row = self._row.get(item)
        return "" if row is None else self.catalogue.category[row]

    def categories(self) -> NDArray[np.object_]:
        """The category of every item of the vocabulary, "" where unknown, shape (v,)."""
        return np.array([self.category(item) for item in self.vocabulary.item.tolist()], object)


def exported_embedding(graph: Path, vocabulary: Vocabulary) -> NDArray[np.float32] | None:
    """The embeddings of the items, (v, d), as an exported graph holds them; None where it holds none in that form."""
    for tensor in onnx.load(graph).graph.initializer:
        if tensor.name == ITEM_WEIGHTS and len(tensor.dims) == 2 and tensor.dims[0] == len(vocabulary):
            return numpy_helper.to_array(tensor).astype(np.float32)
    return None
