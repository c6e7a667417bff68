"""What a scorer knows of items at one moment: which there are, what they are called, what is popular."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from segue.inference.ladder import Popular
from segue.inference.windows import Vocabulary

TREND_SMOOTHING = 1e-5
"""The share of all events at which the trend of an item begins to count."""


@dataclass(frozen=True, eq=False)
class Known:
    """Replaced as a whole, so that a call sees one moment only.

    Letters in shapes: v vocabulary of training (index 0 is padding), f items that came after, d width.
    """

    vocabulary: Vocabulary  # v + f items
    external_id: list[str]  # v + f, "" where the catalogue does not name the item
    fresh: NDArray[np.float32]  # (max(1, f), d) embeddings of the items that came after training
    count: NDArray[np.float64]  # (v + f,) by which the items are popular, 0 for padding
    popular: Popular
    is_live: bool
    """Whether `count` says what happens now, and not what happened in training."""

    @classmethod
    def of(cls, vocabulary: Vocabulary, external_id: list[str], width: int, popularity: NDArray[np.integer]) -> Self:
        """What a bundle holds: nothing fresh, popular by the turns of training, shape (v,)."""
        count = _counts(vocabulary, vocabulary.item, popularity)
        fresh = np.zeros((1, width), np.float32)
        return cls(vocabulary, external_id, fresh, count, Popular.of(count), is_live=False)

    @cached_property
    def trend(self) -> NDArray[np.float32]:
        """What the present says for each item, shape (v + max(1, f),); nothing while nothing live is known."""
        size = self.vocabulary.trained_count + len(self.fresh)
        said = np.zeros(size, np.float32)
        if self.is_live:
            said[: len(self.count)] = trend(self.popular.share)
        return said

    def follow(self, item: NDArray[np.int64], count: NDArray[np.floating] | NDArray[np.integer]) -> "Known":
        """With what `count` (n,) of each of `item` (n,) says now; items that are not named have none."""
        counts = _counts(self.vocabulary, item, count)
        return replace(self, count=counts, popular=Popular.of(counts), is_live=True)

    def welcome(self, item: NDArray[np.int64], external_id: Sequence[str], vector: NDArray[np.float32]) -> "Known":
        """With `item` (f,) instead of what was fresh before; those of training stay as they are."""
        vocabulary = self.vocabulary.welcome(item)
        trained = vocabulary.trained_count
        place = vocabulary.index(item)
        fresh = np.zeros((max(1, vocabulary.fresh_count), self.fresh.shape[1]), np.float32)
        names = [*self.external_id[:trained], *[""] * vocabulary.fresh_count]
        for at in np.flatnonzero(place >= trained).tolist():
            fresh[place[at] - trained] = vector[at]
            names[place[at]] = external_id[at]
        count = _counts(vocabulary, self.vocabulary.item, self.count)
        return Known(vocabulary, names, fresh, count, Popular.of(count), is_live=self.is_live)


def trend(share: NDArray[np.floating]) -> NDArray[np.floating]:
    """What an item's share of all that happens says for it, from 0, same shape."""
    return np.log1p(share / TREND_SMOOTHING)


def _counts(
    vocabulary: Vocabulary, item: NDArray[np.int64], count: NDArray[np.floating] | NDArray[np.integer]
) -> NDArray[np.float64]:
    """The count of each index of `vocabulary`, shape (v + f,)."""
    counts = np.zeros(len(vocabulary))
    counts[vocabulary.index(item)] = count
    counts[0] = 0
    return counts
