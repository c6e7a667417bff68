"""The content map: from what a catalogue says of an item to the vector a trained model would have given it.

An item that came after training has no embedding, only attributes. A linear map learned from the items that have both
(`models/sequence/content.py`) places it among them at once: attribute-to-feature mapping, as Gantner et al. ("Learning
Attribute-to-Feature Mappings for Cold-Start Recommendations", ICDM 2010) have it.

Letters in shapes: n items, m tokens the map knows, d the model's width.
"""

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from segue.catalogue import Catalogue
from segue.errors import BundleError
from segue.inference.bundle import read_arrays
from segue.inference.sequence import FRESH_MAX

CONTENT = "content.npz"
"""The bundle's file of its content map."""

ITEM_TOKENS_MAX = 64
"""The most tokens one item has; what a longer text says further on does not count."""

MAP_TOKENS_MAX = 4096
"""The most tokens a map knows."""

TEXT_MAX_CHARS = 2048
"""How much of a text is read."""

_WORD = re.compile(r"\w+")
_LEVEL = re.compile(r"[/>]")


def words(text: str) -> list[str]:
    """The words of `text`, folded so that case, width and composition make no difference (Unicode NFKC)."""
    return _WORD.findall(unicodedata.normalize("NFKC", text[:TEXT_MAX_CHARS]).casefold())


def tokens(external_id: str, category: str, price_minor: int, title: str) -> list[str]:
    """What an item's attributes say, as at most ITEM_TOKENS_MAX distinct words, each marked by where it stands.

    Every level of a category path is one, with all above it. A price is two, the half octaves around it: near prices
    share one. What is unknown is none.
    """
    found: dict[str, None] = {}
    path = ""
    for level in _LEVEL.split(category[:TEXT_MAX_CHARS]):
        if name := " ".join(words(level)):
            path = f"{path}/{name}"
            found[f"category:{path}"] = None
    if price_minor > 0:
        half_octave = int(2 * np.log2(price_minor))
        found |= {f"price:{half_octave}": None, f"price:{half_octave + 1}": None}
    found |= {f"title:{word}": None for word in words(title)}
    found |= {f"id:{word}": None for word in words(external_id)}
    return list(found)[:ITEM_TOKENS_MAX]


def token_ids(catalogue: Catalogue) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The tokens of n items as one ragged batch: offsets (n + 1,) and stable 64-bit hashes of the tokens (BLAKE2b)."""
    rows = [
        [_hash(each) for each in tokens(*attributes)]
        for attributes in zip(
            catalogue.external_id, catalogue.category, catalogue.price_minor.tolist(), catalogue.title, strict=True
        )
    ]
    flat = [each for row in rows for each in row]
    return np.cumsum([0, *map(len, rows)]), np.array(flat, np.int64)


def _hash(token: str) -> int:
    return int.from_bytes(hashlib.blake2b(token.encode(), digest_size=8).digest(), "big", signed=True)


@dataclass(frozen=True, eq=False)
class ContentMap:
    """Adds up what each token of an item says. A token it does not know says nothing."""

    token: NDArray[np.int64]  # (m,) hashes, ascending
    weight: NDArray[np.float32]  # (m, d)
    base: NDArray[np.float32]  # (d,) the vector of an item of which nothing is known

    def features(self, catalogue: Catalogue) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the feature matrix (n, m) of `catalogue` is 1: rows and columns, by row."""
        offsets, hashes = token_ids(catalogue)
        row = np.repeat(np.arange(len(catalogue)), np.diff(offsets))
        place = np.searchsorted(self.token, hashes)
        known = np.append(self.token, 0)[place] == hashes
        known &= place < len(self.token)
        return row[known], place[known]

    def vectors(self, catalogue: Catalogue) -> NDArray[np.float32]:
        """The vector of each item, shape (n, d)."""
        row, column = self.features(catalogue)
        out = np.tile(self.base, (len(catalogue), 1))
        np.add.at(out, row, self.weight[column])
        return out

    def save(self, path: Path) -> None:
        """Write the map as one file."""
        np.savez(path, token=self.token, weight=self.weight, base=self.base)

    @classmethod
    def load(cls, path: Path, width: int) -> Self:
        """Read the map of a model of that width.

        Raises:
            BundleError: the file holds no such map.
        """
        made = cls(*read_arrays(path, ("token", "weight", "base"), "is no content map"))
        if problem := made._problem(width):
            raise BundleError(f"{path.name}: {problem}")
        return made

    def _problem(self, width: int) -> str:
        dtypes = [str(each.dtype) for each in (self.token, self.weight, self.base)]
        if dtypes != ["int64", "float32", "float32"]:
            return f"is of dtypes {', '.join(dtypes)}"
        if self.token.ndim != 1 or len(self.token) > MAP_TOKENS_MAX or (np.diff(self.token) <= 0).any():
            return f"does not hold at most {MAP_TOKENS_MAX} ascending tokens"
        if self.base.shape != (width,) or self.weight.shape != (len(self.token), width):
            return f"is of shapes {self.weight.shape} and {self.base.shape} for {len(self.token)} tokens, width {width}"
        if not (np.isfinite(self.weight).all() and np.isfinite(self.base).all()):
            return "holds what is no number"
        return ""


class Newcomers:
    """The items that came after training, at most FRESH_MAX, with their vectors: what a scorer is to welcome.

    One that comes again, or changes, counts as the newest. With more than `limit`, the oldest go. An item that the
    model was trained on keeps its trained embedding: it takes a place here, but is not told.
    """

    def __init__(self, content: ContentMap, trained: NDArray[np.int64], *, limit: int = FRESH_MAX) -> None:
        """Nothing yet; `trained` are the ids of the items the model knows, any order, shape (v,)."""
        self._content = content
        self._trained = frozenset(trained.tolist())
        self._limit = limit
        self._known: dict[str, tuple[int, NDArray[np.float32]] | None] = {}  # by external id, the oldest first

    def add(self, catalogue: Catalogue) -> None:
        """Take in items, the oldest first."""
        vectors = self._content.vectors(catalogue)
        for external_id, item, vector in zip(catalogue.external_id, catalogue.item.tolist(), vectors, strict=True):
            self._put(external_id, None if item in self._trained else (item, vector))

    def remove(self, external_id: str) -> None:
        """Forget an item; that it is gone takes its place, as it does in the store."""
        self._put(external_id, None)

    def told(self) -> tuple[NDArray[np.int64], list[str], NDArray[np.float32]]:
        """Ids (f,), external ids and vectors (f, d), the oldest first: the arguments of `SequenceScorer.welcome`."""
        present = [(external_id, *known) for external_id, known in self._known.items() if known]
        vectors = [vector for *_, vector in present]
        return (
            np.array([item for _, item, _ in present], np.int64),
            [external_id for external_id, *_ in present],
            np.array(vectors, np.float32).reshape(len(present), len(self._content.base)),
        )

    def _put(self, external_id: str, known: tuple[int, NDArray[np.float32]] | None) -> None:
        self._known.pop(external_id, None)
        self._known[external_id] = known
        if len(self._known) > self._limit:
            del self._known[next(iter(self._known))]
