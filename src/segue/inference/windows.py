"""Windows: what a sequence model reads, as indices of its vocabulary."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from segue.events import NO_ITEM
from segue.features.sequence import Sequences

GAP_BUCKETS = 32
"""Buckets of the time after an item: 0 for padding, then powers of two of seconds, the last one without an end."""


@dataclass(frozen=True, eq=False)
class Windows:
    """The newest known items of n sequences, oldest first, left-padded with 0 to a width w of at least 1.

    A padded row means what it means at any other width.
    """

    items: NDArray[np.int64]  # (n, w) vocabulary indices
    kinds: NDArray[np.int64]  # (n, w) the kind of event by which each was last turned to
    gaps: NDArray[np.int64]  # (n, w) the bucket of the time until the next one, or until now for the newest

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, rows: slice | NDArray[np.integer] | NDArray[np.bool_]) -> "Windows":
        return Windows(self.items[rows], self.kinds[rows], self.gaps[rows])

    def newest(self, length: int) -> "Windows":
        """The last `length` positions of each row."""
        return Windows(self.items[:, -length:], self.kinds[:, -length:], self.gaps[:, -length:])

    def trimmed(self) -> "Windows":
        """Without the positions at which every row is padding."""
        longest = self.items.shape[1] - int((self.items > 0).any(axis=0).argmax())
        return self.newest(longest)


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The items a model can name, by index: padding, those it was trained on, then those that came after.

    The ids of either part ascend.
    """

    item: NDArray[np.int64]  # (v + f,), item[0] == NO_ITEM
    fresh_count: int = 0
    """f: how many came after training."""

    @classmethod
    def of(cls, item: NDArray[np.int64]) -> Self:
        """The distinct ids of `item`, any order, copies allowed."""
        return cls(np.concatenate([np.array([NO_ITEM], np.int64), np.unique(item)]))

    def __len__(self) -> int:
        return len(self.item)

    @property
    def trained_count(self) -> int:
        """v: padding and the items of training."""
        return len(self.item) - self.fresh_count

    def welcome(self, item: NDArray[np.int64]) -> "Vocabulary":
        """The trained part with the distinct ids of `item` that it lacks after it."""
        trained = self.item[: self.trained_count]
        fresh = np.setdiff1d(item, trained)
        return Vocabulary(np.concatenate([trained, fresh]), len(fresh))

    def index(self, item: NDArray[np.int64]) -> NDArray[np.int64]:
        """The index of each id, same shape; 0 where it is unknown."""
        trained = self.item[1 : self.trained_count]
        place = np.searchsorted(trained, item, side="right")
        found = np.where(self.item[place] == item, place, 0)
        if self.fresh_count:
            later = self.trained_count - 1 + np.searchsorted(self.item[self.trained_count :], item, side="right")
            found = np.where((found == 0) & (self.item[later] == item), later, found)
        return found

    def windows(self, sequences: Sequences, length: int | None = None) -> Windows:
        """The newest `length` known items of each sequence, or all of them; unknown ones are skipped."""
        index = self.index(sequences.item)
        known = index > 0
        offsets = np.concatenate([[0], np.cumsum(known)])[sequences.offsets]
        gaps = gap_buckets(offsets, sequences.age_ms[known])
        columns = (index[known], sequences.kind[known], gaps)
        return Windows(*(left_padded(offsets, each, length) for each in columns))


def left_padded(offsets: NDArray[np.int64], values: NDArray, length: int | None = None) -> NDArray[np.int64]:
    """The last `length` values of each slice of a ragged batch, right-aligned among 0, shape (n, w >= 1)."""
    count = np.diff(offsets)
    longest = int(count.max(initial=0))
    width = max(1, longest if length is None else min(length, longest))
    row = np.repeat(np.arange(len(count)), count)
    from_end = np.repeat(offsets[1:], count) - np.arange(len(row))
    recent = from_end <= width
    out = np.zeros((len(count), width), np.int64)
    out[row[recent], width - from_end[recent]] = values[recent]
    return out


def gap_buckets(offsets: NDArray[np.int64], age_ms: NDArray[np.int64]) -> NDArray[np.int64]:
    """The bucket, 1 to GAP_BUCKETS - 1, of the time between each item of a ragged batch and the next one of its slice.

    For the newest item of a slice it is the time until now. Bucket b is [2 ** (b - 1) - 1, 2 ** b - 1) seconds.
    """
    next_age_ms = np.zeros_like(age_ms)
    next_age_ms[:-1] = age_ms[1:]
    next_age_ms[offsets[1:][np.diff(offsets) > 0] - 1] = 0
    seconds = (age_ms - next_age_ms) // 1000
    return np.minimum(np.frexp(1.0 + seconds)[1].astype(np.int64), GAP_BUCKETS - 1)
