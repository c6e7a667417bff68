"""The graph of a sequence bundle: from windows to the best items, in one call of ONNX Runtime.

Letters in shapes: n rows, w positions, m barred, s raised, f fresh items, d width, k best.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from segue.errors import BundleError
from segue.inference.windows import Windows

INDICES, SCORES, EMBEDDING = "indices", "scores", "customer_embedding"
"""The graph's outputs; the last is the vector (n, d) whose products with the items' are scores before any is raised."""


@dataclass(frozen=True, eq=False)
class Question:
    """n rows to rank. An index at or beyond the size v of the trained vocabulary means `fresh[index - v]`."""

    windows: Windows  # (n, w)
    exclude: NDArray[np.int64]  # (n, m) indices that are never to be ranked, 0 for padding
    raised: NDArray[np.int64]  # (n, s) indices of items whose scores are raised, none twice but 0
    raised_by: NDArray[np.float32]  # (n, s)
    fresh: NDArray[np.float32]  # (f, d) f >= 1: the embeddings of items that came after training
    trend: NDArray[np.float32]  # (v + f,) what the present says for each item, to whomever
    trust: NDArray[np.float32]  # (n,) by how much of it each row's scores are raised

    @classmethod
    def plain(cls, windows: Windows, vocabulary_size: int, width: int) -> Self:
        """Nothing excluded, raised or fresh, no trend; v is `vocabulary_size` and d `width`."""
        none, no_score = np.zeros((len(windows), 1), np.int64), np.zeros((len(windows), 1), np.float32)
        fresh, trend = np.zeros((1, width), np.float32), np.zeros(vocabulary_size + 1, np.float32)
        return cls(windows, none, none, no_score, fresh, trend, no_score[:, 0])


BESIDE = tuple(each.name for each in fields(Question) if each.name != "windows")
"""The graph's inputs besides those that `Windows` holds, in this order."""

Rank = Callable[[Question], tuple[NDArray[np.int64], NDArray[np.float32]]]
"""Gives the best indices and their scores, each (n, k), best first; what may not be ranked has score -inf."""


def open_graph(path: Path) -> Rank:
    """The graph at `path` on one thread: more threads made a call of 1 ms into one of 12 under load.

    Raises:
        BundleError: it is no graph, or does not read what a `Question` holds.
    """
    session = open_session(path)
    feed = feeding(session, path.name)

    def rank(question: Question) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        indices, scores = session.run([INDICES, SCORES], feed(question))
        return indices, scores

    return rank


def feeding(session: ort.InferenceSession, name: str) -> Callable[[Question], dict[str, NDArray]]:
    """From a question to the inputs of the graph that `session` holds and errors call `name`.

    Raises:
        BundleError: the graph does not read what a question holds.
    """
    reads = [each.name for each in session.get_inputs()]
    if missing := sorted({"items", *BESIDE} - set(reads)):
        raise BundleError(f"{name}: does not read {', '.join(missing)}; train the model anew")
    of_windows = [each for each in reads if each not in BESIDE]

    def feed(question: Question) -> dict[str, NDArray]:
        given = {each: getattr(question.windows, each) for each in of_windows}
        return given | {each: getattr(question, each) for each in BESIDE}

    return feed


def open_session(path: Path) -> ort.InferenceSession:
    """ONNX Runtime over the graph at `path`, on one thread that does not spin while it waits.

    Raises:
        BundleError: it is no graph.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own errors have no common class that it names publicly
        raise BundleError(f"{path.name}: cannot be opened: {error}") from error
