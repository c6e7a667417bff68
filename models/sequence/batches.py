"""Batches: random windows of a corpus, of like length, cut only when they are needed."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.sequence.config import Config
from models.sequence.dataset import Corpus
from segue.inference.windows import Windows


@dataclass(frozen=True, eq=False)
class Spans:
    """n windows of a corpus, the positions `start` to `stop`: the last item of each is only a target."""

    start: NDArray[np.int64]  # (n,)
    stop: NDArray[np.int64]  # (n,) at least 2 after start

    def __len__(self) -> int:
        return len(self.start)

    def take(self, index: NDArray[np.intp]) -> "Spans":
        """The windows at positions `index`."""
        return Spans(self.start[index], self.stop[index])


@dataclass(frozen=True, eq=False)
class Batch:
    """b windows left-padded to one width, and what followed at each position."""

    windows: Windows  # (b, t)
    targets: NDArray[np.int64]  # (b, t)
    asked: NDArray[np.bool_]  # (b, t) the positions whose target counts


def spans(corpus: Corpus, config: Config) -> Spans:
    """The windows of one pass over `corpus`, of at most `length` items and their targets.

    For `all` positions, every sequence is cut from its end into windows that share one item, so that every item but a
    sequence's first is a target exactly once. For the `last` position, every such item ends a window.
    """
    length = config.length
    step = length if config.positions == "all" else 1
    start, stop = corpus.offsets[:-1], corpus.offsets[1:]
    pieces = np.maximum(0, -((stop - start - 1) // -step))  # ceil((n - 1) / step)
    row = np.repeat(np.arange(len(start)), pieces)
    back = np.arange(len(row)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    ends = stop[row] - back * step
    return Spans(np.maximum(start[row], ends - length - 1), ends)


def batches(corpus: Corpus, passes: Spans, config: Config, rng: np.random.Generator) -> Iterator[Batch]:
    """One epoch: at most `epoch_windows` of the windows in random batches of like length, little of them padding."""
    drawn = passes.take(rng.permutation(len(passes))[: config.epoch_windows])
    lengths = drawn.stop - drawn.start
    order = np.argsort(lengths + rng.random(len(drawn)), kind="stable")
    size = config.batch_size
    for start in rng.permutation(np.arange(0, len(order), size)):
        yield cut(corpus, drawn.take(order[start : start + size]), last=config.positions == "last")


def cut(corpus: Corpus, windows: Spans, *, last: bool) -> Batch:
    """The windows as arrays; with `last`, only the newest position is asked."""
    width = int((windows.stop - windows.start).max()) - 1
    position = windows.stop[:, None] - np.arange(width + 1, 0, -1)  # (b, t + 1)
    inside = position[:, :-1] >= windows.start[:, None]  # (b, t)
    source = np.maximum(position, 0)
    columns = (np.where(inside, each[source[:, :-1]], 0).astype(np.int64) for each in corpus.columns)
    asked = inside & (np.arange(width) == width - 1) if last else inside
    return Batch(Windows(*columns), corpus.index[source[:, 1:]], asked)
