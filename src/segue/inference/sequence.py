"""The sequence scorer: which items a customer turns to next, given those they turned to.

The graph of a bundle reads the newest known items of a sequence and ranks the whole vocabulary. What this module adds
is the way in (item ids to vocabulary indices), the way out, and the ladder: a sequence without a known item is answered
by what is popular.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum, unique
from pathlib import Path
from typing import Self

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from segue.errors import BundleError, InvalidInput
from segue.events import NO_ITEM
from segue.features.sequence import Sequences
from segue.inference.bundle import Bundle

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


Rank = Callable[[Windows, NDArray[np.int64]], tuple[NDArray[np.int64], NDArray[np.float32]]]
"""From n windows and barred indices (n, m) to the best indices and their scores, each (n, k)."""


@unique
class Rung(StrEnum):
    """The rung of the ladder that answered."""

    SEQUENCE = "sequence"
    POPULAR = "popular"


@dataclass(frozen=True, eq=False)
class Recommendation:
    """At most `limit` items for one row, best first; scores compare within one answer only."""

    item: NDArray[np.int64]  # (k,)
    external_id: list[str]  # k, "" where the catalogue did not name the item
    score: NDArray[np.float32]  # (k,) never rising; equal scores in the order of the vocabulary
    fallback: Rung


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The items a model knows, by index. Index 0 is padding; the ids after it ascend."""

    item: NDArray[np.int64]  # (v,), item[0] == NO_ITEM

    @classmethod
    def of(cls, item: NDArray[np.int64]) -> Self:
        """The distinct ids of `item`, any order, copies allowed."""
        return cls(np.concatenate([np.array([NO_ITEM], np.int64), np.unique(item)]))

    def __len__(self) -> int:
        return len(self.item)

    def index(self, item: NDArray[np.int64]) -> NDArray[np.int64]:
        """The index of each id, same shape; 0 where it is unknown."""
        place = np.searchsorted(self.item[1:], item, side="right")
        return np.where(self.item[place] == item, place, 0)

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


class SequenceScorer:
    """Ranks a bundle's vocabulary for batches of item sequences. Safe to call from several threads.

    Attributes:
        version: the bundle's version.
        vocabulary: the items it can recommend.
        length: how many newest items the model reads; a sequence may be longer.
    """

    def __init__(
        self,
        *,
        rank: Rank,
        vocabulary: Vocabulary,
        external_id: list[str],
        popularity: NDArray[np.int64],
        length: int,
        version: str,
    ) -> None:
        self.version = version
        self.vocabulary = vocabulary
        self.length = length
        self._rank = rank
        self._external_id = external_id
        self.follow(popularity)

    def follow(self, popularity: NDArray[np.int64]) -> None:
        """Let what is popular be what `popularity`, a count for each of `vocabulary.item`, shape (v,), says."""
        # A stable sort of the negated counts: the most popular first, equals in the order of the vocabulary.
        popular = 1 + np.argsort(-popularity[1:], kind="stable")
        share = (popularity / max(1, popularity.sum())).astype(np.float32)
        self._popular = popular, share  # one assignment: a call in another thread sees both or neither

    @classmethod
    def load(cls, bundle: Bundle) -> Self:
        """Open the bundle's graph on one thread.

        Raises:
            BundleError: the bundle is of another family, or its files do not fit together.
        """
        if bundle.manifest.family != FAMILY:
            raise BundleError(f"bundle {bundle.version}: is of family {bundle.manifest.family!r}, not {FAMILY!r}")
        item = np.load(bundle.file(ITEMS), allow_pickle=False)
        popularity = np.load(bundle.file(POPULARITY), allow_pickle=False)
        external_id = json.loads(bundle.file(EXTERNAL_IDS).read_bytes())
        if not len(item) == len(popularity) == len(external_id) > 1:
            sizes = f"{len(item)} items, {len(popularity)} counts, {len(external_id)} external ids"
            raise BundleError(f"bundle {bundle.version}: its files disagree: {sizes}")
        if item.dtype != np.int64 or item[0] != NO_ITEM or not (np.diff(item[1:]) > 0).all():
            raise BundleError(f"bundle {bundle.version}: {ITEMS} is not padding and then ascending int64 ids")
        return cls(
            rank=open_graph(bundle.file(GRAPH)),
            vocabulary=Vocabulary(item),
            external_id=external_id,
            popularity=popularity,
            length=int(bundle.manifest.config["length"]),
            version=bundle.version,
        )

    def warm_up(self) -> None:
        """Run the graph once at full width, so that the first caller does not pay for its allocations."""
        full = np.ones((1, self.length), np.int64)
        self._rank(Windows(full, full, full), np.zeros((1, 1), np.int64))

    def recommend(
        self,
        sequences: Sequences,
        *,
        exclude: Sequence[NDArray[np.int64]],
        limit: int,
        include_seen: bool = False,
    ) -> list[Recommendation]:
        """Rank the vocabulary for each of n sequences.

        Args:
            sequences: what each customer turned to, oldest first; unknown items are skipped.
            exclude: n arrays of item ids never to recommend to that row; unknown ids do no harm.
            limit: the most items per answer, 1 to LIMIT_MAX.
            include_seen: whether items of the row's own sequence may be recommended.

        Returns:
            n answers, each shorter than `limit` only where nothing is left to recommend.

        Raises:
            InvalidInput: `limit` is out of range, or `exclude` has the wrong length or a row beyond EXCLUDE_MAX.
        """
        _check(len(sequences), exclude, limit)
        seen = self.vocabulary.windows(sequences)
        windows = seen.newest(self.length)
        barred = self._barred(exclude)
        if not include_seen:
            barred = np.hstack([barred, seen.items])
        known = windows.items[:, -1] > 0
        answers = [None if known[row] else self._popular_but(barred[row], limit) for row in range(len(sequences))]
        for rows in self._chunks(windows):
            for row, answer in zip(rows, self._ranked(windows[rows], barred[rows], limit), strict=True):
                answers[row] = answer
        return [answer for answer in answers if answer is not None]

    def _barred(self, exclude: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
        """The indices of the excluded items, padded with 0, shape (n, m)."""
        offsets = np.cumsum([0, *map(len, exclude)])
        ids = np.concatenate([np.empty(0, np.int64), *exclude])
        return left_padded(offsets, self.vocabulary.index(ids))

    def _ranked(self, windows: Windows, barred: NDArray[np.int64], limit: int) -> Iterator[Recommendation]:
        indices, scores = self._rank(windows.trimmed(), barred)
        for index, score in zip(indices[:, :limit], scores[:, :limit], strict=True):
            allowed = np.isfinite(score)
            yield self._recommendation(index[allowed], score[allowed], Rung.SEQUENCE)

    def _popular_but(self, barred: NDArray[np.int64], limit: int) -> Recommendation:
        popular, share = self._popular
        candidates = popular[: limit + len(barred)]
        index = candidates[~np.isin(candidates, barred)][:limit]
        return self._recommendation(index, share[index], Rung.POPULAR)

    def _recommendation(self, index: NDArray[np.int64], score: NDArray[np.float32], fallback: Rung) -> Recommendation:
        external_id = [self._external_id[each] for each in index.tolist()]
        return Recommendation(self.vocabulary.item[index], external_id, score, fallback)

    def _chunks(self, windows: Windows) -> Iterator[NDArray[np.intp]]:
        """The rows that have an item, those of like length together: little of what the graph reads is padding."""
        lengths = (windows.items > 0).sum(axis=1)
        rows = np.argsort(lengths, kind="stable")
        rows = rows[lengths[rows] > 0]
        size = max(1, min(SCORES_MAX // len(self.vocabulary), POSITIONS_MAX // windows.items.shape[1]))
        for start in range(0, len(rows), size):
            yield rows[start : start + size]


def open_graph(path: Path) -> Rank:
    """The graph at `path` on one thread: more threads made a call of 1 ms into one of 12 under load."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    reads = [each.name for each in session.get_inputs() if each.name != "exclude"]

    def rank(windows: Windows, exclude: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        given = {name: getattr(windows, name) for name in reads}
        indices, scores = session.run(["indices", "scores"], given | {"exclude": exclude})
        return indices, scores

    return rank


def _check(count: int, exclude: Sequence[NDArray[np.int64]], limit: int) -> None:
    if not 1 <= limit <= LIMIT_MAX:
        raise InvalidInput.because("limit", f"is {limit}, must be from 1 to {LIMIT_MAX}")
    if len(exclude) != count:
        raise InvalidInput.because("exclude", f"has {len(exclude)} rows for {count} sequences")
    for row, ids in enumerate(exclude):
        if len(ids) > EXCLUDE_MAX:
            raise InvalidInput.because(f"exclude[{row}]", f"has {len(ids)} items, at most {EXCLUDE_MAX} are allowed")
