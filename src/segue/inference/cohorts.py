"""Cohorts: customers alike by their first events, and what those of each cohort turned to next.

A *stem* is a customer's first few events as coarse words: the kind of event, and the category of its item. It says
something even where no item is known: of a search, or of an item newer than training, by the catalogue's category.
Where a stem was too rare in training to be kept, the longest kept beginning of it speaks; the empty one is everybody's.

Letters in shapes: n histories, m records, s stems, e entries, c catalogue items, v vocabulary (index 0 is padding).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from segue.catalogue import Catalogue
from segue.errors import BundleError
from segue.events import NO_ITEM, Kind
from segue.history import Histories, Times, before, resolve
from segue.inference.bundle import read_arrays

STEMS, CATEGORIES = "stems.npz", "categories.json"
ARRAYS = ("stem", "offsets", "index", "share", "rest")
"""What STEMS holds of the cohorts, in the order of their fields."""

DEPTH = 3
"""The most words of a stem."""

STEMS_MAX = 4096
"""The most stems of a bundle."""

STEM_ITEMS_MAX = 100
"""The most items kept for one stem."""

WORD_BITS, CATEGORY_BITS = 20, 12

ITEMLESS, UNNAMED, FIRST_NAMED = 1, 2, 3
"""Codes of categories: an event without an item, an item whose category has no name here, and the first named one.

None is 0, so that no word is 0.
"""

CATEGORIES_MAX = (1 << CATEGORY_BITS) - FIRST_NAMED
"""The most named categories; rarer ones go without a name."""

NO_STEM = 0
"""The stem of a customer who did nothing yet."""


@dataclass(frozen=True, eq=False)
class Categories:
    """Which category each item of a catalogue belongs to, as a code."""

    names: tuple[str, ...]
    """The category of code FIRST_NAMED + i is `names[i]`."""
    item: NDArray[np.int64]  # (c,) ascending
    code: NDArray[np.int16]  # (c,) UNNAMED or above

    @classmethod
    def of(cls, catalogue: Catalogue, names: Sequence[str]) -> Self:
        """The items of `catalogue` by these names; of those whose category is another, or "", nothing is known."""
        code_of = {name: FIRST_NAMED + place for place, name in enumerate(names) if name}
        code = np.array([code_of.get(name, UNNAMED) for name in catalogue.category], np.int16)
        order = np.argsort(catalogue.item)
        return cls(tuple(names), catalogue.item[order], code[order])

    def codes(self, item: NDArray[np.int64]) -> NDArray[np.int64]:
        """The code of each item's category, same shape: UNNAMED where it is unknown, ITEMLESS for NO_ITEM."""
        place = np.minimum(np.searchsorted(self.item, item), max(len(self.item) - 1, 0))
        code = np.full(item.shape, UNNAMED, np.int64)
        if len(self.item):
            code = np.where(self.item[place] == item, self.code[place], code)
        return np.where(item == NO_ITEM, ITEMLESS, code)


def common_names(catalogue: Catalogue) -> tuple[str, ...]:
    """The categories of `catalogue` with the most items, at most CATEGORIES_MAX, in alphabetical order."""
    names, count = np.unique(catalogue.category[catalogue.category != ""].astype(str), return_counts=True)
    most = np.argsort(-count, kind="stable")[:CATEGORIES_MAX]
    return tuple(names[np.sort(most)].tolist())


def told(histories: Histories, now_ms: Times) -> Histories:
    """The records that stems are made of: those before `now_ms`, shape (n,), that the customer made happen.

    An event sent twice counts once; what was only shown to the customer says nothing of them.
    """
    histories = resolve(before(histories, now_ms))
    return histories.keep(histories.kind != Kind.RECOMMENDATION_SHOWN)


def stems(histories: Histories, now_ms: Times, categories: Categories, depth: int = DEPTH) -> NDArray[np.int64]:
    """The stem of each history as of its `now_ms`: the words of its first `depth` events, shape (n,).

    The first word is in the highest bits, and a stem of fewer words ends in zeros: in ascending order a stem comes
    after its beginnings. Of a history at its limit the first events are those that it still holds.
    """
    histories = told(histories, now_ms)
    start = np.repeat(histories.offsets[:-1], histories.lengths)
    place = np.arange(len(histories.kind)) - start
    first = np.flatnonzero(place < depth)
    word = (histories.kind[first].astype(np.int64) << CATEGORY_BITS) | categories.codes(histories.item[first])
    stem = np.zeros(len(histories), np.int64)
    np.bitwise_or.at(stem, histories.row[first], word << (WORD_BITS * (DEPTH - 1 - place[first])))
    return stem


def beginning(stem: NDArray[np.int64], depth: int) -> NDArray[np.int64]:
    """The first `depth` words of each stem, same shape."""
    return stem & ~np.int64((1 << (WORD_BITS * (DEPTH - depth))) - 1)


def word_count(stem: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many words each stem has, same shape."""
    return np.stack([beginning(stem, depth) != stem for depth in range(DEPTH)]).sum(axis=0)


@dataclass(frozen=True, eq=False)
class Cohorts:
    """What customers of each stem turned to next: stem i has the entries `offsets[i]:offsets[i + 1]`, best first."""

    categories: Categories
    """Of the items known when the stems were counted; a service may know of more by the same names."""
    stem: NDArray[np.int64]  # (s,) ascending; with each its beginnings
    offsets: NDArray[np.int64]  # (s + 1,)
    index: NDArray[np.int32]  # (e,) from 1 to v - 1
    share: NDArray[np.float32]  # (e,) > 0, the smoothed share of the cohort's turns, never rising within a stem
    rest: NDArray[np.float32]  # (s,) what the share of an item without an entry is of its popularity, 0 to 1

    def __len__(self) -> int:
        return len(self.stem)

    def find(self, stem: NDArray[np.int64]) -> NDArray[np.int64]:
        """The position of the longest kept beginning of each stem, shape (n,); -1 where not even the empty one is."""
        found = np.full(len(stem), -1, np.int64)
        for depth in range(DEPTH + 1):
            short = beginning(stem, depth)
            place = np.searchsorted(self.stem, short)
            kept = np.append(self.stem, -1)[place] == short
            found = np.where(kept, place, found)
        return found

    def entries(self, position: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Indices and shares of the stem at `position`, best first, each (at most STEM_ITEMS_MAX,)."""
        span = slice(self.offsets[position], self.offsets[position + 1])
        return self.index[span].astype(np.int64), self.share[span]

    def save(self, directory: Path) -> None:
        """Write the cohorts as two files, STEMS and CATEGORIES."""
        arrays = {name: getattr(self, name) for name in ARRAYS}
        np.savez(directory / STEMS, **arrays, item=self.categories.item, code=self.categories.code)
        (directory / CATEGORIES).write_text(json.dumps(self.categories.names) + "\n")

    @classmethod
    def load(cls, stems: Path, categories: Path, size: int) -> Self:
        """Read the cohorts of a vocabulary of `size`.

        Raises:
            BundleError: the files hold no such cohorts.
        """
        item, code, *arrays = read_arrays(stems, ("item", "code", *ARRAYS), "holds no cohorts")
        try:
            known = Categories(tuple(json.loads(categories.read_bytes())), item, code)
        except (OSError, ValueError, TypeError) as error:
            raise BundleError(f"{stems.name}: holds no cohorts: {error}") from error
        cohorts = cls(known, *arrays)
        if problem := cohorts._problem(size):
            raise BundleError(f"{stems.name}: {problem}")
        return cohorts

    def _problem(self, size: int) -> str:
        known = self.categories
        arrays: list[NDArray] = [self.stem, self.offsets, self.index, self.share, self.rest, known.item, known.code]
        dtypes = (np.int64, np.int64, np.int32, np.float32, np.float32, np.int64, np.int16)
        if any(each.dtype != dtype or each.ndim != 1 for each, dtype in zip(arrays, dtypes, strict=True)):
            return "has arrays of another dtype or shape"
        checks = {
            f"has {len(self)} stems, {len(self.offsets)} offsets, {len(self.rest)} rests": (
                len(self) > STEMS_MAX or not len(self) + 1 == len(self.offsets) == len(self.rest) + 1
            ),
            "has not as many shares as items": len(self.index) != len(self.share),
            "has stems that do not ascend": (np.diff(self.stem) <= 0).any(),
            "has a rest that is no ratio": not ((self.rest >= 0) & (self.rest <= 1)).all(),
            "has a share that is not above 0": not (self.share > 0).all(),
            "speaks for items that are not there": not ((self.index > 0) & (self.index < size)).all(),
            "has not as many categories as items": len(known.item) != len(known.code),
            "has categories of items that do not ascend": (np.diff(known.item) <= 0).any(),
            "names its categories by other than texts": not all(isinstance(name, str) for name in known.names),
            "has items of a category without a name": not (
                (known.code >= UNNAMED) & (known.code < FIRST_NAMED + min(len(known.names), CATEGORIES_MAX))
            ).all(),
        }
        if problem := next((what for what, wrong in checks.items() if wrong), ""):
            return problem
        count = np.diff(self.offsets)
        if self.offsets[0] or self.offsets[-1] != len(self.index) or (count < 0).any():
            return "has stems whose entries do not follow each other"
        return "has more items for a stem than are allowed" if (count > STEM_ITEMS_MAX).any() else ""
