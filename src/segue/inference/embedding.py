"""The behavioural embedding of a customer: a pure function of the history as of a time, and of one sequence bundle.

It is the vector that the bundle's graph holds against every item: what ranks items next is also the shortest account of
what the customer did. Nothing is stored. Online it is made of the history that was read anyway, offline of the history
as it was known at a row's own time, by the same lines.

Two versions of an encoder do not share coordinates: a number that one of them put at position 3 means something else
in the other. So every batch of embeddings names its encoder, and refuses to meet one of another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from segue.errors import BundleError, EncoderMismatch, InvalidInput
from segue.features.batch import DAY_MS
from segue.features.sequence import item_sequences
from segue.history import HISTORY_LIMIT, Histories, Times
from segue.inference.answers import Part, Status
from segue.inference.bundle import Bundle
from segue.inference.graph import EMBEDDING, Question, feeding, open_session
from segue.inference.sequence import GRAPH, ITEMS, chunks, vocabulary_of
from segue.inference.windows import Vocabulary, Windows

VIEW = "customer_embedding"
"""What embeddings are called where views of a customer are told of."""

TTL_MS = 7 * DAY_MS
"""How long an embedding may be used unless an encoder says otherwise: after a week without one it tells of the past."""

TTL_MAX_MS = 366 * DAY_MS


@dataclass(frozen=True)
class EncoderVersion:
    """Which encoder made an embedding. Whatever is trained on embeddings keeps this, and is served by no other."""

    tag: str
    """The tag of its bundle in the model store."""
    sha256: str
    """Of all that the vector is made by: the names and hashes of the graph's files and of the vocabulary."""
    data_cut_ms: int
    """No event after this time was used in training. An embedding as of an earlier time may know what came after it:
    fit to learn from, not to be judged by."""

    @classmethod
    def of(cls, bundle: Bundle) -> Self:
        """The version of the encoder in `bundle`."""
        manifest = bundle.manifest
        read = sorted((name, digest) for name, digest in manifest.files.items() if name.startswith((GRAPH, ITEMS)))
        content = "".join(f"{digest}  {name}\n" for name, digest in read)
        return cls(bundle.version, sha256(content.encode()).hexdigest(), manifest.data_cut_ms)

    def to_json(self) -> dict[str, Any]:
        """What a consumer writes into its own manifest, to be pinned to this version."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """The version that a manifest is pinned to.

        Raises:
            BundleError: `content` is not what `to_json` gives.
        """
        try:
            pinned = cls(**content)
        except TypeError as error:
            raise BundleError(f"encoder version: malformed: {error}") from error
        texts = isinstance(pinned.tag, str) and isinstance(pinned.sha256, str)
        if not texts or not isinstance(pinned.data_cut_ms, int):
            raise BundleError("encoder version: malformed: a field is of another type")
        return pinned

    def check(self, other: "EncoderVersion") -> None:
        """Refuse any version but this one.

        Raises:
            EncoderMismatch: `other` is another one, were it only under the same tag or of the same content.
        """
        if other != self:
            raise EncoderMismatch(
                f"embeddings of {other.tag} ({other.sha256[:12]}) where those of {self.tag} ({self.sha256[:12]}) are"
                " expected"
            )


@dataclass(frozen=True, eq=False)
class Embeddings:
    """n embeddings of width d by one version of the encoder, each as of a time. They do not say whose they are."""

    matrix: NDArray[np.float32]  # (n, d) a row of NaN where the status is not PRESENT
    status: tuple[Status, ...]
    as_of_ms: Times  # (n,)
    expires_ms: Times  # (n,) the last moment at which each may be used
    version: EncoderVersion

    def __len__(self) -> int:
        return len(self.matrix)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the matrix's columns, as features."""
        return column_names(self.matrix.shape[1])

    @property
    def present(self) -> NDArray[np.bool_]:
        """Which rows hold an embedding, shape (n,)."""
        return np.array([each is Status.PRESENT for each in self.status], bool)

    @property
    def before_cut(self) -> NDArray[np.bool_]:
        """Which rows are as of a time that the encoder was trained beyond, shape (n,): not to be judged by."""
        return self.as_of_ms < self.version.data_cut_ms

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Self:
        """The rows at `index`, positions or mask."""
        status = tuple(self.status[row] for row in np.arange(len(self))[index].tolist())
        return type(self)(self.matrix[index], status, self.as_of_ms[index], self.expires_ms[index], self.version)

    def at(self, now_ms: Times) -> Self:
        """The same as they count at `now_ms`, shape (n,): what has expired, or was not yet known then, is missing.

        Raises:
            InvalidInput: another number of times than rows.
        """
        _check_times(now_ms, len(self))
        expired = (now_ms > self.expires_ms) & self.present
        unknown = now_ms < self.as_of_ms
        status = list(self.status)
        for row in np.flatnonzero(expired).tolist():
            status[row] = Status.EXPIRED
        for row in np.flatnonzero(unknown).tolist():
            status[row] = Status.MISSING
        matrix = np.where((expired | unknown)[:, None], np.float32(np.nan), self.matrix)
        return type(self)(matrix, tuple(status), self.as_of_ms, self.expires_ms, self.version)

    def part(self, now_ms: Times) -> Part:
        """What an answer made at `now_ms`, shape (n,), tells of them."""
        counted = self.at(now_ms)
        some = np.array([each is not Status.MISSING for each in counted.status], bool)
        age_ms = np.where(some, now_ms - self.as_of_ms, np.nan)
        return Part(VIEW, counted.status, age_ms, np.zeros(len(self), bool))


def column_names(width: int) -> tuple[str, ...]:
    """The names of the columns of embeddings of `width`."""
    return tuple(f"{VIEW}_{column}" for column in range(width))


def concat(parts: Sequence[Embeddings]) -> Embeddings:
    """All rows of `parts`, in their order.

    Raises:
        EncoderMismatch: they are of several versions.
        InvalidInput: there is no part, so that there is no version.
    """
    if not parts:
        raise InvalidInput.because("parts", "is empty")
    version = parts[0].version
    for part in parts:
        version.check(part.version)
    return Embeddings(
        np.concatenate([part.matrix for part in parts]),
        tuple(each for part in parts for each in part.status),
        np.concatenate([part.as_of_ms for part in parts]),
        np.concatenate([part.expires_ms for part in parts]),
        version,
    )


def cosine(left: Embeddings, right: Embeddings) -> NDArray[np.float32]:
    """The cosine of row i of `left` and row i of `right`, -1 to 1, NaN where one is missing, shape (n,).

    Raises:
        EncoderMismatch: they are of different versions.
        InvalidInput: they differ in length.
    """
    left.version.check(right.version)
    if len(left) != len(right):
        raise InvalidInput.because("right", f"has {len(right)} rows, left has {len(left)}")
    unit = [each.matrix / np.linalg.norm(each.matrix, axis=1, keepdims=True) for each in (left, right)]
    return (unit[0] * unit[1]).sum(axis=1)


class Encoder:
    """Makes the embeddings of one sequence bundle. Safe to call from several threads.

    An item that came after the bundle's training is skipped, also where the recommender already reads it: an embedding
    that changed with the catalogue of the moment could not be made again as of that moment.

    Attributes:
        version: what the embeddings are of.
        width: d, how many numbers an embedding has.
        ttl_ms: how long one may be used.
    """

    def __init__(self, session: Any, vocabulary: Vocabulary, *, length: int, version: EncoderVersion, ttl_ms: int):
        self.version = version
        self.ttl_ms = ttl_ms
        outputs = {each.name: each.shape for each in session.get_outputs()}
        if not isinstance((outputs.get(EMBEDDING) or [None])[-1], int):
            raise BundleError(f"bundle {version.tag}: {GRAPH} does not give an embedding; train the model anew")
        self.width = int(outputs[EMBEDDING][-1])
        self._feed = feeding(session, GRAPH)
        self._session = session
        self._vocabulary = vocabulary
        self._length = length

    @classmethod
    def load(cls, bundle: Bundle, *, ttl_ms: int = TTL_MS) -> Self:
        """Open the bundle's graph on one thread; beside a scorer of the same bundle its weights are held twice.

        Raises:
            BundleError: the bundle is of another family, or does not hold an encoder.
            InvalidInput: `ttl_ms` is not from 1 to TTL_MAX_MS.
        """
        if not 1 <= ttl_ms <= TTL_MAX_MS:
            raise InvalidInput.because("ttl_ms", f"is {ttl_ms}, must be from 1 to {TTL_MAX_MS}")
        vocabulary = vocabulary_of(bundle)
        session = open_session(bundle.file(GRAPH))
        length = int(bundle.manifest.config["length"])
        return cls(session, vocabulary, length=length, version=EncoderVersion.of(bundle), ttl_ms=ttl_ms)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of an embedding's numbers, as features."""
        return column_names(self.width)

    def embed(self, histories: Histories, now_ms: Times) -> Embeddings:
        """The embedding of n customers, each as of a time.

        But for rounding, a row does not depend on the rows beside it.

        Args:
            histories: what was known of each, at most HISTORY_LIMIT records of it are read.
            now_ms: the time each is asked about, shape (n,); only events before it count.

        Returns:
            n rows; MISSING is whoever had not turned to any item that the encoder knows.

        Raises:
            InvalidInput: another number of times than histories.
        """
        _check_times(now_ms, len(histories))
        sequences = item_sequences(histories, now_ms, length=HISTORY_LIMIT)
        windows = self._vocabulary.windows(sequences, self._length)
        known = windows.items[:, -1] > 0
        matrix = np.full((len(histories), self.width), np.nan, np.float32)
        # ONNX Runtime computes the scores whether or not they are asked for.
        for rows in chunks(windows, len(self._vocabulary)):
            matrix[rows] = self._vectors(windows[rows].trimmed())
        status = tuple(Status.PRESENT if each else Status.MISSING for each in known.tolist())
        return Embeddings(matrix, status, now_ms, now_ms + self.ttl_ms, self.version)

    def _vectors(self, windows: Windows) -> NDArray[np.float32]:
        """The vector of each row, shape (n, d)."""
        question = Question.plain(windows, len(self._vocabulary), self.width)
        (vectors,) = self._session.run([EMBEDDING], self._feed(question))
        return vectors


def _check_times(now_ms: Times, count: int) -> None:
    if np.shape(now_ms) != (count,):
        raise InvalidInput.because("now_ms", f"has shape {np.shape(now_ms)}, must be ({count},)")
