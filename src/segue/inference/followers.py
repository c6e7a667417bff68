"""Followers: what was counted to come after the newest items, added to what the encoder expects.

Counting is sure of what it has seen often, the encoder generalises; which is right more often depends on how much of a
history there is. A follower that counting gives the vote c is raised by `weight * log(1 + c / smoothing)`: but for a
constant per row, a weighted sum of the logarithms of both.

Letters in shapes: n windows, w positions, v vocabulary (index 0 is padding), s items raised.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from segue.errors import BundleError
from segue.inference.item_table import ItemTable, Votes

TABLE, MIXTURE = "followers.npz", "followers.json"
"""A bundle's files of them."""

LENGTHS = (0, 3, 10, 30, 100)
"""Where the parts by length of history begin, in known items."""

REACH = 32
"""How many newest items vote; by the decay, older ones would not be heard."""


@dataclass(frozen=True)
class Mixture:
    """How counting is mixed in, as validation chose it."""

    age_decay: float
    """What an item counts per turn further back, above 0 and at most 1."""
    smoothing: float
    """The vote that counts as twice nothing, above 0."""
    weight: tuple[float, ...]
    """By part of LENGTHS, none below 0."""
    trust: tuple[float, ...] = (0.0,) * len(LENGTHS)
    """What the trend counts, likewise; see `Known.trend`."""

    def __post_init__(self) -> None:
        if not (0 < self.age_decay <= 1 and 0 < self.smoothing < math.inf):
            raise ValueError(f"age_decay is {self.age_decay} and smoothing {self.smoothing}")
        for name in ("weight", "trust"):
            value = getattr(self, name)
            if len(value) != len(LENGTHS) or not all(0 <= each < math.inf for each in value):
                raise ValueError(f"{name} is {value}, must be {len(LENGTHS)} values from 0")


@dataclass(frozen=True, eq=False)
class Followers:
    """A table of what follows what, and how much it says."""

    table: ItemTable
    mixture: Mixture

    def votes(self, items: NDArray[np.int64]) -> Votes:
        """What the newest items of `items` (n, w), oldest first, say; the table speaks of none that came after it."""
        newest = items[:, -REACH:]
        newest = np.where(newest < len(self.table), newest, 0)
        decayed = self.mixture.age_decay ** np.arange(newest.shape[1] - 1, -1, -1.0)
        return self.table.votes(newest, np.broadcast_to(decayed, newest.shape))

    def raised(self, items: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Whom each row of `items` (n, w) raises and by how much, both (n, s), s >= 1; index 0 is raised by 0."""
        votes = self.votes(items)
        count = np.diff(votes.offsets)
        row = np.repeat(np.arange(len(items)), count)
        weight = np.array(self.mixture.weight)[part(items)]
        place = np.arange(len(row)) - votes.offsets[row]
        index = np.zeros((len(items), max(1, count.max(initial=0))), np.int64)
        by = np.zeros(index.shape, np.float32)
        index[row, place] = votes.index
        by[row, place] = weight[row] * np.log1p(votes.value / self.mixture.smoothing)
        return index, by

    def trust(self, items: NDArray[np.int64]) -> NDArray[np.float32]:
        """What the trend counts for each row of `items` (n, w), shape (n,)."""
        return np.array(self.mixture.trust, np.float32)[part(items)]

    @classmethod
    def none(cls, size: int) -> Self:
        """Nothing counted, for a vocabulary of `size`."""
        return cls(ItemTable.none(size), Mixture(1.0, 1.0, (0.0,) * len(LENGTHS)))

    def save(self, directory: Path) -> None:
        """Write TABLE and MIXTURE into `directory`."""
        self.table.save(directory / TABLE)
        (directory / MIXTURE).write_text(json.dumps(asdict(self.mixture)) + "\n")

    @classmethod
    def load(cls, table: Path, mixture: Path, size: int) -> Self:
        """Read the two files of a vocabulary of `size`.

        Raises:
            BundleError: they do not hold what `save` writes.
        """
        try:
            given = json.loads(mixture.read_bytes())
            mixed = Mixture(given["age_decay"], given["smoothing"], tuple(given["weight"]), tuple(given["trust"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BundleError(f"{mixture.name}: is no mixture: {error}") from error
        return cls(ItemTable.load(table, size), mixed)


def part(items: NDArray[np.int64]) -> NDArray[np.intp]:
    """The part of LENGTHS of each row of `items` (n, w), shape (n,)."""
    return np.searchsorted(LENGTHS, (items > 0).sum(axis=1), side="right") - 1
