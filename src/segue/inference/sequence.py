"""The sequence scorer: which items a customer turns to next, given those they turned to.

The graph of a bundle reads the newest known items of a sequence and ranks the whole vocabulary. What this module adds
is the way in (item ids to vocabulary indices), the way out, and the ladder: a customer of whom no item is known is
answered by what those who began alike turned to, else by what is trending, else by what was popular.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Self

import numpy as np
from numpy.typing import NDArray

from segue.errors import BundleError, InvalidInput
from segue.events import NO_ITEM
from segue.features.sequence import Sequences
from segue.inference.bundle import Bundle
from segue.inference.cohorts import CATEGORIES, NO_STEM, STEMS, Cohorts
from segue.inference.followers import MIXTURE, TABLE, Followers
from segue.inference.graph import Question, Rank, open_graph
from segue.inference.known import Known
from segue.inference.ladder import Ranked, by_cohort, by_votes
from segue.inference.windows import Vocabulary, Windows, left_padded

FAMILY = "sequence"
GRAPH, ITEMS, POPULARITY, EXTERNAL_IDS = "model.onnx", "items.npy", "popularity.npy", "external_ids.json"

LIMIT_MAX = 100
"""The most items one answer holds; the graph ranks no further."""

EXCLUDE_MAX = 1000
"""The most items one row may exclude."""

SCORES_MAX = 1 << 23
"""Scores computed at a time: bounds the graph's memory to some 32 MB, whatever the size of the batch."""

POSITIONS_MAX = 1 << 16
"""Positions of windows read at a time, likewise."""

FRESH_MAX = 10_000
"""The most items that came after training; with more it is time to train again."""


@unique
class Rung(StrEnum):
    """The rung of the ladder that answered."""

    SEQUENCE = "sequence"
    """The encoder, from items of the history."""
    COHORT = "cohort"
    """What customers turned to who began alike."""
    ITEM_TO_ITEM = "item-to-item"
    """What was counted to follow items of the history, without the encoder."""
    TRENDING = "trending"
    """What happens most now."""
    POPULAR = "popular"
    """What happened most in training."""


@dataclass(frozen=True, eq=False)
class Recommendation:
    """At most `limit` items for one row, best first; scores compare within one answer only."""

    item: NDArray[np.int64]  # (k,)
    external_id: list[str]  # k, "" where the catalogue did not name the item
    score: NDArray[np.float32]  # (k,) never rising; equal scores in the order of the vocabulary
    fallback: Rung


class SequenceScorer:
    """Ranks a bundle's vocabulary for batches of item sequences. Safe to call from several threads.

    Args:
        rank: the graph.
        vocabulary: the items of training.
        external_id: by index, "" where the catalogue does not name the item.
        popularity: turns to each item of `vocabulary` in training, shape (v,).
        length: how many newest items the model reads; a sequence may be longer.
        width: d, of the items' embeddings.
        version: the bundle's.
        followers: what was counted beside the model.
        cohorts: of customers of whom no item is known, where they were found to tell anything.
    """

    def __init__(
        self,
        *,
        rank: Rank,
        vocabulary: Vocabulary,
        external_id: list[str],
        popularity: NDArray[np.int64],
        length: int,
        width: int,
        version: str,
        followers: Followers | None = None,
        cohorts: Cohorts | None = None,
    ) -> None:
        self.version = version
        self.length = length
        self.width = width
        self.cohorts = cohorts
        self._rank = rank
        self._followers = followers or Followers.none(len(vocabulary))
        self._known = Known.of(vocabulary, external_id, width, popularity)

    @property
    def vocabulary(self) -> Vocabulary:
        """The items it can recommend, those that came after training last."""
        return self._known.vocabulary

    @property
    def external_id(self) -> list[str]:
        """The caller's own id of each item of `vocabulary`, "" where the catalogue did not name it."""
        return self._known.external_id

    def follow(self, item: NDArray[np.int64], rate: NDArray[np.floating] | NDArray[np.integer]) -> None:
        """From now on let `rate` (n,), >= 0, of each of `item` (n,) say what is trending; unknown items do no harm."""
        self._known = self._known.follow(item, rate)

    def welcome(self, item: NDArray[np.int64], external_id: Sequence[str], vector: NDArray[np.float32]) -> None:
        """From now on also recommend, and read, the items that came after training.

        Args:
            item: ids, shape (f,), instead of all that were welcome before; those of training stay as they are.
            external_id: the caller's own ids, f of them.
            vector: what stands for an embedding, shape (f, d).

        Raises:
            InvalidInput: more than FRESH_MAX, or shapes that do not fit.
        """
        if len(item) > FRESH_MAX:
            raise InvalidInput.because("item", f"has {len(item)} items, at most {FRESH_MAX} are taken")
        if len(external_id) != len(item) or vector.shape != (len(item), self.width):
            problem = f"has shape {vector.shape} for {len(item)} items of width {self.width}"
            raise InvalidInput.because("vector", problem)
        self._known = self._known.welcome(item, external_id, vector)

    @classmethod
    def load(cls, bundle: Bundle) -> Self:
        """Open the bundle's graph on one thread.

        Raises:
            BundleError: the bundle is of another family, or its files do not fit together.
        """
        vocabulary = vocabulary_of(bundle)
        popularity = np.load(bundle.file(POPULARITY), allow_pickle=False)
        external_id = json.loads(bundle.file(EXTERNAL_IDS).read_bytes())
        if not len(vocabulary) == len(popularity) == len(external_id) > 1:
            sizes = f"{len(vocabulary)} items, {len(popularity)} counts, {len(external_id)} external ids"
            raise BundleError(f"bundle {bundle.version}: its files disagree: {sizes}")
        has_cohorts = {STEMS, CATEGORIES} <= set(bundle.manifest.files)
        return cls(
            rank=open_graph(bundle.file(GRAPH)),
            vocabulary=vocabulary,
            external_id=external_id,
            popularity=popularity,
            length=int(bundle.manifest.config["length"]),
            width=int(bundle.manifest.config["width"]),
            version=bundle.version,
            followers=Followers.load(bundle.file(TABLE), bundle.file(MIXTURE), len(vocabulary)),
            cohorts=Cohorts.load(bundle.file(STEMS), bundle.file(CATEGORIES), len(vocabulary)) if has_cohorts else None,
        )

    def warm_up(self) -> None:
        """Run the graph once at full width, so that the first caller does not pay for its allocations."""
        full = np.ones((1, self.length), np.int64)
        for _ in self._encoded(self._known, Windows(full, full, full), full, np.zeros((1, 1), np.int64), 1):
            pass

    def recommend(
        self,
        sequences: Sequences,
        *,
        exclude: Sequence[NDArray[np.int64]],
        limit: int,
        include_seen: bool = False,
        stem: NDArray[np.int64] | None = None,
        encode: bool = True,
    ) -> list[Recommendation]:
        """Rank the vocabulary for each of n sequences, each by the first rung that knows something of it.

        Args:
            sequences: what each customer turned to, oldest first; unknown items are skipped.
            exclude: n arrays of item ids never to recommend to that row; unknown ids do no harm.
            limit: the most items per answer, 1 to LIMIT_MAX.
            include_seen: whether items of the row's own sequence may be recommended.
            stem: how each customer began, shape (n,), see `cohorts.stems`; for rows of which no item is known.
            encode: False answers without the encoder, from what was counted to follow.

        Returns:
            n answers, each shorter than `limit` only where nothing is left to recommend.

        Raises:
            InvalidInput: `limit` is out of range, or `exclude` has the wrong length or a row beyond EXCLUDE_MAX.
        """
        _check(len(sequences), exclude, limit)
        known = self._known
        seen = known.vocabulary.windows(sequences)
        windows = seen.newest(self.length)
        barred = _barred(known.vocabulary, exclude)
        if not include_seen:
            barred = np.hstack([barred, seen.items])
        answers: dict[int, Recommendation] = {}
        for rows in chunks(windows, len(known.vocabulary)) if encode else ():
            made = self._encoded(known, windows[rows], seen.items[rows], barred[rows], limit)
            answers.update(zip(rows.tolist(), made, strict=True))
        for row in set(range(len(sequences))) - set(answers):
            began = NO_STEM if stem is None else int(stem[row])
            answers[row] = self._below(known, seen.items[row], began, barred[row], limit)
        return [answers[row] for row in range(len(sequences))]

    def _encoded(
        self, known: Known, windows: Windows, items: NDArray[np.int64], barred: NDArray[np.int64], limit: int
    ) -> Iterator[Recommendation]:
        """What the graph says for rows with an item; `items` are all that is known of each, also beyond the window."""
        raised, raised_by = self._followers.raised(items)
        trust = self._followers.trust(items)
        if not known.vocabulary.fresh_count:
            # The graph always has a fresh item; here it stands for none.
            barred = np.hstack([barred, np.full((len(barred), 1), len(known.vocabulary))])
        question = Question(windows.trimmed(), barred, raised, raised_by, known.fresh, known.trend, trust)
        for index, score in zip(*(each[:, :limit] for each in self._rank(question)), strict=True):
            allowed = np.isfinite(score)
            yield _recommendation(known, (index[allowed], score[allowed]), Rung.SEQUENCE)

    def _below(
        self, known: Known, items: NDArray[np.int64], stem: int, barred: NDArray[np.int64], limit: int
    ) -> Recommendation:
        """What the rungs below the encoder say for one row of known items (w,)."""
        (by_items,) = by_votes(self._followers.votes(items[None]), known.popular, barred[None], limit)
        if by_items is not None:
            return _recommendation(known, by_items, Rung.ITEM_TO_ITEM)
        if self.cohorts is not None and stem != NO_STEM:
            position = int(self.cohorts.find(np.array([stem]))[0])
            if position >= 0:
                ranked = by_cohort(self.cohorts, position, known.popular, barred, limit)
                return _recommendation(known, ranked, Rung.COHORT)
        rung = Rung.TRENDING if known.is_live else Rung.POPULAR
        return _recommendation(known, known.popular.ranked(barred, limit), rung)


def vocabulary_of(bundle: Bundle) -> Vocabulary:
    """The items that a sequence bundle was trained on.

    Raises:
        BundleError: the bundle is of another family, or its file of items is none.
    """
    if bundle.manifest.family != FAMILY:
        raise BundleError(f"bundle {bundle.version}: is of family {bundle.manifest.family!r}, not {FAMILY!r}")
    item = np.load(bundle.file(ITEMS), allow_pickle=False)
    if item.dtype != np.int64 or item[0] != NO_ITEM or not (np.diff(item[1:]) > 0).all():
        raise BundleError(f"bundle {bundle.version}: {ITEMS} is not padding and then ascending int64 ids")
    return Vocabulary(item)


def chunks(windows: Windows, vocabulary_size: int) -> Iterator[NDArray[np.intp]]:
    """The rows that have an item, those of like length together, as few at a time as the graph's memory is bounded by.

    Little of what the graph reads is padding then.
    """
    lengths = (windows.items > 0).sum(axis=1)
    rows = np.argsort(lengths, kind="stable")
    rows = rows[lengths[rows] > 0]
    size = max(1, min(SCORES_MAX // vocabulary_size, POSITIONS_MAX // windows.items.shape[1]))
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _barred(vocabulary: Vocabulary, exclude: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """The indices of the excluded items, padded with 0, shape (n, m)."""
    offsets = np.cumsum([0, *map(len, exclude)])
    ids = np.concatenate([np.empty(0, np.int64), *exclude])
    return left_padded(offsets, vocabulary.index(ids))


def _recommendation(known: Known, ranked: Ranked, fallback: Rung) -> Recommendation:
    index, score = ranked
    external_id = [known.external_id[each] for each in index.tolist()]
    return Recommendation(known.vocabulary.item[index], external_id, score, fallback)


def _check(count: int, exclude: Sequence[NDArray[np.int64]], limit: int) -> None:
    if not 1 <= limit <= LIMIT_MAX:
        raise InvalidInput.because("limit", f"is {limit}, must be from 1 to {LIMIT_MAX}")
    if len(exclude) != count:
        raise InvalidInput.because("exclude", f"has {len(exclude)} rows for {count} sequences")
    for row, ids in enumerate(exclude):
        if len(ids) > EXCLUDE_MAX:
            raise InvalidInput.because(f"exclude[{row}]", f"has {len(ids)} items, at most {EXCLUDE_MAX} are allowed")
