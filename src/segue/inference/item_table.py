"""Item tables: for each item of a vocabulary, the few others it speaks for. Sparse rows, read without copying.

Letters in shapes: v vocabulary (index 0 is padding), m entries, n windows, w positions, s items spoken for.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from segue.errors import BundleError
from segue.inference.bundle import read_arrays

DENSE_CELLS_MAX = 1 << 18
"""Sums over fewer cells than this are made in place; with more, sorting what there is costs less."""


@dataclass(frozen=True, eq=False)
class Votes:
    """What n rows of weighted items say together, ragged: row i is the slice `offsets[i]:offsets[i + 1]`."""

    offsets: NDArray[np.int64]  # (n + 1,)
    index: NDArray[np.int64]  # (s,) ascending within a row, none twice
    value: NDArray[np.float64]  # (s,) > 0


@dataclass(frozen=True, eq=False)
class ItemTable:
    """Row i holds what item i speaks for and how strongly: the slice `offsets[i]:offsets[i + 1]`."""

    offsets: NDArray[np.int64]  # (v + 1,)
    index: NDArray[np.int32]  # (m,) from 1 to v - 1
    weight: NDArray[np.float32]  # (m,) > 0

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def votes(self, items: NDArray[np.int64], weights: NDArray[np.float64]) -> Votes:
        """The sum of the rows of `items` (n, w), each counting its weight in `weights` (n, w); index 0 says nothing."""
        row, place = np.nonzero(items)
        item = items[row, place]
        start = self.offsets[item]
        count = self.offsets[item + 1] - start
        source = np.repeat(start - np.cumsum(count) + count, count) + np.arange(count.sum())
        value = np.repeat(weights[row, place], count) * self.weight[source]
        cell = np.repeat(row, count) * len(self) + self.index[source]
        if len(items) * len(self) <= DENSE_CELLS_MAX:
            total: NDArray[np.float64] = np.bincount(cell, value).astype(np.float64)
            distinct = np.flatnonzero(total)
            summed = total[distinct]
        else:
            distinct, where = np.unique(cell, return_inverse=True)
            summed = np.bincount(where, value, minlength=len(distinct)).astype(np.float64)
        rows, index = np.divmod(distinct, len(self))
        return Votes(np.searchsorted(rows, np.arange(len(items) + 1)), index, summed)

    @classmethod
    def none(cls, size: int) -> Self:
        """A table in which no item speaks for another."""
        return cls(np.zeros(size + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))

    def save(self, path: Path) -> None:
        """Write the table as one file."""
        np.savez(path, offsets=self.offsets, index=self.index, weight=self.weight)

    @classmethod
    def load(cls, path: Path, size: int) -> Self:
        """Read the table of a vocabulary of `size`.

        Raises:
            BundleError: the file holds no such table.
        """
        table = cls(*read_arrays(path, ("offsets", "index", "weight"), "is no item table"))
        if problem := table._problem(size):
            raise BundleError(f"{path.name}: {problem}")
        return table

    def _problem(self, size: int) -> str:
        dtypes = [str(each.dtype) for each in (self.offsets, self.index, self.weight)]
        if dtypes != ["int64", "int32", "float32"]:
            return f"is of dtypes {', '.join(dtypes)}"
        if self.offsets.shape != (size + 1,):
            return f"has {self.offsets.size - 1} rows for {size} items"
        if self.index.shape != self.weight.shape or self.index.ndim != 1:
            return "has not as many weights as items"
        if self.offsets[0] or (np.diff(self.offsets) < 0).any() or self.offsets[-1] != len(self.index):
            return "has rows that do not follow each other"
        named = (self.index > 0) & (self.index < size)
        if not (named & (self.weight > 0) & np.isfinite(self.weight)).all():
            return "speaks for items that are not there, or with a weight that is no number above 0"
        return ""
