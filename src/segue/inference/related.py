"""Related items: what goes with some items, or could stand in for them. Read from the tables of a sequence bundle."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Self

import numpy as np
from numpy.typing import NDArray

from segue.errors import BundleError, InvalidInput, NotServed
from segue.inference.bundle import Bundle
from segue.inference.item_table import ItemTable
from segue.inference.sequence import EXCLUDE_MAX, EXTERNAL_IDS, ITEMS, LIMIT_MAX
from segue.inference.windows import Vocabulary

ITEMS_MAX = 100
"""The most items one question names."""


@unique
class Relation(StrEnum):
    """How an item relates to those that are asked about."""

    SIMILAR = "similar"
    """Looked at instead of them."""
    COMPLEMENT = "complement"
    """Taken after them, and not instead."""


COMPLEMENTS, SIMILAR = "complements.npz", "similar.npz"

FILES: Mapping[Relation, str] = {Relation.COMPLEMENT: COMPLEMENTS, Relation.SIMILAR: SIMILAR}
"""The bundle's file of each relation's table."""


@dataclass(frozen=True, eq=False)
class RelatedItems:
    """At most `limit` items, best first; scores compare within one answer only."""

    item: NDArray[np.int64]  # (k,)
    external_id: list[str]  # k, "" where the catalogue did not name the item
    score: NDArray[np.float64]  # (k,) > 0, never rising; equal scores in the order of the vocabulary


class Related:
    """Answers from the tables of a bundle. Safe to call from several threads.

    Attributes:
        version: the bundle's version.
        data_cut_ms: no event after this time was counted.
    """

    def __init__(
        self,
        tables: Mapping[Relation, ItemTable],
        *,
        vocabulary: Vocabulary,
        external_id: list[str],
        version: str,
        data_cut_ms: int,
    ) -> None:
        self.version = version
        self.data_cut_ms = data_cut_ms
        self._tables = tables
        self._vocabulary = vocabulary
        self._external_id = external_id

    @classmethod
    def load(cls, bundle: Bundle) -> Self:
        """Read the tables that the bundle has: it may lack either.

        Raises:
            BundleError: a table cannot be read, or the files do not fit together.
        """
        vocabulary = Vocabulary(np.load(bundle.file(ITEMS), allow_pickle=False))
        external_id = json.loads(bundle.file(EXTERNAL_IDS).read_bytes())
        if len(vocabulary) != len(external_id):
            sizes = f"{len(vocabulary)} items, {len(external_id)} external ids"
            raise BundleError(f"bundle {bundle.version}: its files disagree: {sizes}")
        tables = {
            relation: ItemTable.load(bundle.file(name), len(vocabulary))
            for relation, name in FILES.items()
            if name in bundle.manifest.files
        }
        return cls(
            tables,
            vocabulary=vocabulary,
            external_id=external_id,
            version=bundle.version,
            data_cut_ms=bundle.manifest.data_cut_ms,
        )

    def answer(
        self,
        items: NDArray[np.int64],
        relation: Relation,
        *,
        limit: int,
        exclude: Sequence[int] | NDArray[np.int64] = (),
    ) -> RelatedItems:
        """The items most related to all of `items` together.

        Args:
            items: ids, shape (w,), 1 to ITEMS_MAX; unknown ones say nothing, and one named twice counts once.
            limit: the most items of the answer, 1 to LIMIT_MAX.
            exclude: ids never to answer with, besides `items`; unknown ones do no harm.

        Returns:
            An answer shorter than `limit` where no more is known to be related, empty where nothing is.

        Raises:
            InvalidInput: `items`, `limit` or `exclude` is out of range.
            NotServed: the bundle has no table of `relation`.
        """
        _check(items, limit, exclude)
        if (table := self._tables.get(relation)) is None:
            raise NotServed(f"bundle {self.version}: has no {FILES[relation]}")
        asked = np.unique(self._vocabulary.index(items))[None]  # (1, w)
        votes = table.votes(asked, np.ones(asked.shape))
        barred = self._vocabulary.index(np.asarray(exclude, np.int64))
        allowed = ~np.isin(votes.index, np.append(barred, asked))
        index, value = votes.index[allowed], votes.value[allowed]
        # A stable sort of the negated sums: the best first, equals in the order of the vocabulary.
        best = np.argsort(-value, kind="stable")[:limit]
        external_id = [self._external_id[each] for each in index[best].tolist()]
        return RelatedItems(self._vocabulary.item[index[best]], external_id, value[best])


def _check(items: NDArray[np.int64], limit: int, exclude: Sequence[int] | NDArray[np.int64]) -> None:
    if not 1 <= len(items) <= ITEMS_MAX:
        raise InvalidInput.because("items", f"has {len(items)} items, must have from 1 to {ITEMS_MAX}")
    if not 1 <= limit <= LIMIT_MAX:
        raise InvalidInput.because("limit", f"is {limit}, must be from 1 to {LIMIT_MAX}")
    if len(exclude) > EXCLUDE_MAX:
        raise InvalidInput.because("exclude", f"has {len(exclude)} items, at most {EXCLUDE_MAX} are allowed")
