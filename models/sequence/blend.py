"""Blend: a deep model and a counted one, in the logarithm of what each expects, weighted by the length of the history.

The counted table is sure of what it has seen often, the deep model generalises: which is right more often depends on
how much of a history there is. Validation chooses the weights, one per part of LENGTHS, and the smoothing.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.sequence.dataset import Cases
from models.sequence.evaluate import ndcg
from models.sequence.ranking import ItemScorer, chunks, place_of
from segue.inference.sequence import Vocabulary, Windows

LENGTHS = (0, 3, 10, 30, 100)
"""Where the parts begin, in known items of the prefix."""

WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.5, 4.0)
"""Choices of what the logarithm of the counted score counts, that of the deep one counting 1."""

SMOOTHINGS = (1e-3, 1e-2, 1e-4, 1e-5)
"""Choices of what is added to a counted score before the logarithm; the first wins where there is no difference."""


@dataclass(frozen=True, eq=False)
class Blend:
    """Scores every item by both."""

    deep: ItemScorer
    counted: ItemScorer
    weight: tuple[float, ...]
    """By part of LENGTHS."""
    smoothing: float

    @property
    def length(self) -> int:
        """How many newest items either reads."""
        return max(self.deep.length, self.counted.length)

    def scores(self, windows: Windows) -> NDArray[np.float64]:
        """Shape (n, v)."""
        deep = self.deep.scores(windows.newest(self.deep.length))
        counted = self.counted.scores(windows.newest(self.counted.length))
        weight = np.array(self.weight)[part(windows)]
        # Without the softmax's denominator, which is the same for all items of a row: it changes no order.
        return deep + weight[:, None] * np.log(counted + self.smoothing)

    @classmethod
    def choose(
        cls, deep: ItemScorer, counted: ItemScorer, vocabulary: Vocabulary, cases: Cases, *, include_seen: bool
    ) -> Self:
        """The blend that ranks `cases` best by NDCG@10, each part of LENGTHS with the weight that is best for it."""
        length = max(deep.length, counted.length)
        target = vocabulary.index(cases.turns.item)
        gain = np.zeros((len(SMOOTHINGS), len(WEIGHTS), len(LENGTHS)))
        for rows, windows, barred in chunks(length, vocabulary, cases.prefixes, include_seen=include_seen):
            deep_scores = deep.scores(windows.newest(deep.length))
            counted_scores = counted.scores(windows.newest(counted.length))
            for at, smoothing in enumerate(SMOOTHINGS):
                log = np.log(counted_scores + smoothing)
                for which, tried in enumerate(WEIGHTS):
                    place = place_of(deep_scores + tried * log, barred, target[rows])
                    gain[at, which] += np.bincount(part(windows), ndcg(place, 10), minlength=len(LENGTHS))
        best = int(gain.max(axis=1).sum(axis=1).argmax())
        weight = tuple(WEIGHTS[which] for which in gain[best].argmax(axis=0))
        return cls(deep, counted, weight, SMOOTHINGS[best])


def part(windows: Windows) -> NDArray[np.intp]:
    """The part of LENGTHS that each window belongs to, shape (n,)."""
    return np.searchsorted(LENGTHS, (windows.items > 0).sum(axis=1), side="right") - 1
