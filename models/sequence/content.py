"""Content: learns where an item belongs among the trained ones from what the catalogue says of it.

A ridge regression from tokens of attributes to the trained item embeddings (Gantner et al., ICDM 2010). An embedding
also holds how popular its item is, which no attribute tells: left as they are, predicted vectors are never shown. They
are raised along a direction that adds the same to every score, as far as old items can afford: with a fifth of the
items taken for new, these must not lose more than LOSS_MAX_RATIO of their NDCG@10.

Letters in shapes: v vocabulary (index 0 is padding), m tokens, d width, n cases.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import linalg, sparse  # type: ignore[import-untyped]

from models.sequence.config import Config
from models.sequence.dataset import CASES_SEED, Cases, Corpus, Split, sample
from models.sequence.evaluate import ndcg
from models.sequence.model import SequenceModel
from models.sequence.ranking import chunks, places
from models.sequence.scoring import Deep, tensors
from models.sequence.train import Trained
from segue.catalogue import Catalogue
from segue.inference.content import MAP_TOKENS_MAX, ContentMap, token_ids
from segue.inference.windows import Vocabulary, Windows

HELD_OUT_RATIO = 0.2
CHOOSING_CASES = 1000
"""The most validation cases by which parameters are chosen."""

TOKEN_ITEMS_MIN = 2
"""Items a token must occur in for the map to know it: from a single one nothing carries over."""

TURNS_HALF = 10.0
"""Turns after which an item's embedding counts half of what it can: those of rare items are mostly noise."""

LIFT_RIDGE = 1e-3
"""How long the direction that raises all scores may be, relative to the spread of the states."""

LOSS_MAX_RATIO = 0.02
"""Of a fifth of the items: where fewer are new at a time, they take less."""

PENALTIES = (3.0, 1.0, 10.0, 30.0, 100.0)
SCALES = (1.0, 0.5, 1.5, 2.0)
"""What a predicted vector is multiplied with."""
LIFTS = (0.0, *(step / 4 for step in range(1, 17)), -0.5, -1.0, -2.0)
"""What is added to the score of every new item, in the model's logits."""


@dataclass(frozen=True)
class Parameters:
    """What the held-out test chooses; the first of the choices wins where there is no difference."""

    penalty: float = PENALTIES[0]
    scale: float = SCALES[0]
    lift: float = LIFTS[0]


@dataclass(frozen=True)
class Outcome:
    """What the held-out test says of parameters; 0 where it asks for no such item."""

    new_ndcg: float
    """Of the items taken for new, over the whole ranking: smoother than a cut one where they rank low."""
    old_loss_ratio: float
    """What share of their NDCG@10 the other items lose to them."""


@dataclass(frozen=True, eq=False)
class Content:
    """A content map, what it was made with, and how that did in the held-out test."""

    map: ContentMap
    parameters: Parameters
    outcome: Outcome


def fit(trained: Trained, split: Split, catalogue: Catalogue, config: Config) -> Content:
    """Choose parameters by the model that validation did not train, then map onto the final one's embeddings."""
    held_out = HeldOut(trained.choosing, split.choosing, split.validation, catalogue, config)
    parameters, outcome = held_out.choose()
    final = Regression.of(trained.model, split.final, catalogue)
    lift = lifting(states(trained.model, split.final.vocabulary, held_out.cases, config))
    everything = np.ones(len(split.final.vocabulary), bool)
    return Content(final.solve(everything, parameters, lift), parameters, outcome)


def aligned(catalogue: Catalogue, vocabulary: Vocabulary) -> Catalogue:
    """What `catalogue` says of each item of `vocabulary`, padding included; nothing of items it does not hold."""
    index = vocabulary.index(catalogue.item)
    texts = np.full((3, len(vocabulary)), "", np.object_)
    price_minor = np.zeros(len(vocabulary), np.int64)
    texts[:, index] = catalogue.external_id, catalogue.category, catalogue.title
    price_minor[index] = catalogue.price_minor
    texts[:, 0], price_minor[0] = "", 0  # the place of items that the vocabulary lacks
    return Catalogue(vocabulary.item, texts[0], texts[1], price_minor, texts[2])


def known_tokens(catalogue: Catalogue) -> NDArray[np.int64]:
    """The tokens of at least TOKEN_ITEMS_MIN items, the MAP_TOKENS_MAX most frequent of them, ascending."""
    _, hashes = token_ids(catalogue)
    token, count = np.unique(hashes, return_counts=True)
    token, count = token[count >= TOKEN_ITEMS_MIN], count[count >= TOKEN_ITEMS_MIN]
    return np.sort(token[np.argsort(-count, kind="stable")[:MAP_TOKENS_MAX]])


@dataclass(frozen=True, eq=False)
class Regression:
    """Items with both attributes and an embedding."""

    token: NDArray[np.int64]  # (m,)
    features: Any  # (v, m) sparse, 0 and 1
    embedding: NDArray[np.float64]  # (v, d)
    importance: NDArray[np.float64]  # (v,) what an item's embedding counts, 0 for padding

    @classmethod
    def of(cls, model: SequenceModel, corpus: Corpus, catalogue: Catalogue) -> "Regression":
        """The items of `corpus` as `model` learned them."""
        described = aligned(catalogue, corpus.vocabulary)
        token = known_tokens(described)
        width = model.item.weight.shape[1]
        empty = ContentMap(token, np.zeros((len(token), width), np.float32), np.zeros(width, np.float32))
        row, column = empty.features(described)
        features = sparse.csr_array((np.ones(len(row)), (row, column)), shape=(len(described), len(token)))
        importance = corpus.popularity / (corpus.popularity + TURNS_HALF)
        return cls(token, features, model.item.weight.detach().cpu().numpy().astype(np.float64), importance)

    def solve(self, rows: NDArray[np.bool_], parameters: Parameters, lift: NDArray[np.float64]) -> ContentMap:
        """The map learned from `rows`, a mask of shape (v,)."""
        importance = np.where(rows, self.importance, 0.0)
        share = importance / max(importance.sum(), 1e-12)
        mean_features, mean_embedding = share @ self.features, share @ self.embedding
        weighted = sparse.diags_array(importance) @ self.features
        # Centred by the weighted means, so that the base is not shrunk: (X'WX - s xx' + penalty) A = X'WE - s xe'.
        square = (self.features.T @ weighted).toarray() - importance.sum() * np.outer(mean_features, mean_features)
        square[np.diag_indices_from(square)] += parameters.penalty
        target = weighted.T @ self.embedding - importance.sum() * np.outer(mean_features, mean_embedding)
        weight = linalg.solve(square, target, assume_a="pos") if len(square) else target
        base = mean_embedding - mean_features @ weight
        scaled = parameters.scale * weight, parameters.scale * base + parameters.lift * lift
        return ContentMap(self.token, *(each.astype(np.float32) for each in scaled))

    def vectors(self, learned: ContentMap) -> NDArray[np.float32]:
        """What `learned` gives each item, shape (v, d)."""
        return (self.features @ learned.weight + learned.base).astype(np.float32)


class HeldOut:
    """The test by which parameters are chosen: a fifth of the items has the vectors that a map of the others gives."""

    def __init__(
        self, model: SequenceModel, corpus: Corpus, validation: Cases, catalogue: Catalogue, config: Config
    ) -> None:
        self.cases = sample(validation, CHOOSING_CASES)
        self._model, self._vocabulary, self._config = model, corpus.vocabulary, config
        self._regression = Regression.of(model, corpus, catalogue)
        self._lift = lifting(states(model, corpus.vocabulary, self.cases, config))
        self.new = np.random.default_rng(CASES_SEED).random(len(corpus.vocabulary)) < HELD_OUT_RATIO
        self.new[0] = False
        self.asks_new = self.new[corpus.vocabulary.index(self.cases.turns.item)]
        _, self._old_ndcg_10 = self._gains(self.places(Parameters(), hidden=True))

    def choose(self) -> tuple[Parameters, Outcome]:
        """The parameters that rank new items best, of those that old ones can afford, and what they come to.

        First the penalty, then how long and how much raised the vectors are.
        """
        tried = {each: self.outcome(each) for each in (Parameters(penalty) for penalty in PENALTIES)}
        best = max(tried, key=lambda each: tried[each].new_ndcg)
        for scale, lift in product(SCALES, LIFTS):
            each = replace(best, scale=scale, lift=lift)
            tried[each] = self.outcome(each)
        affordable = {each: found for each, found in tried.items() if found.old_loss_ratio <= LOSS_MAX_RATIO}
        best = max(affordable or {best: tried[best]}, key=lambda each: tried[each].new_ndcg)
        return best, tried[best]

    def outcome(self, parameters: Parameters) -> Outcome:
        """What `parameters` come to."""
        new, old = self._gains(self.places(parameters))
        return Outcome(new, 1 - old / self._old_ndcg_10 if self._old_ndcg_10 else 0.0)

    def places(self, parameters: Parameters, *, hidden: bool = False) -> NDArray[np.int64]:
        """Where each case's item is ranked, shape (n,); with `hidden`, new items are read but never recommended."""
        learned = self._regression.solve(~self.new, parameters, self._lift)
        vectors = np.where(self.new[:, None], self._regression.vectors(learned), self._regression.embedding)
        deep = Deep(with_items(self._model, vectors))
        scorer = Without(deep, self.new) if hidden else deep
        return places(scorer, self._vocabulary, self.cases, include_seen=self._config.include_seen)

    def _gains(self, place: NDArray[np.int64]) -> tuple[float, float]:
        """The mean NDCG of new items, and the mean NDCG@10 of old ones."""
        of_new, of_old = ndcg(place, len(self.new))[self.asks_new], ndcg(place, 10)[~self.asks_new]
        return float(of_new.sum() / max(1, len(of_new))), float(of_old.sum() / max(1, len(of_old)))


@dataclass(frozen=True, eq=False)
class Without:
    """A scorer that recommends some items never."""

    scorer: Deep
    hidden: NDArray[np.bool_]  # (v,)

    @property
    def length(self) -> int:
        """How many newest items it reads."""
        return self.scorer.length

    def scores(self, windows: Windows) -> NDArray[np.float64]:
        """Shape (n, v)."""
        return np.where(self.hidden, -np.inf, self.scorer.scores(windows))


def with_items(model: SequenceModel, vectors: NDArray[np.floating]) -> SequenceModel:
    """A copy of `model` with the item embeddings `vectors` (v, d), v as large as is liked."""
    changed = copy.deepcopy(model)
    weight = torch.from_numpy(vectors.astype(np.float32)).to(model.item.weight.device)
    rows, width = weight.shape
    changed.item = torch.nn.Embedding(rows, width, padding_idx=0, _weight=weight)
    return changed


def states(model: SequenceModel, vocabulary: Vocabulary, cases: Cases, config: Config) -> NDArray[np.float64]:
    """The vector after each prefix, which item embeddings are multiplied by, shape (n, d)."""
    parts: Sequence[NDArray] = [
        model.last(*tensors(model, windows.trimmed())).cpu().numpy()
        for windows in _windows(model, vocabulary, cases, config)
    ]
    return np.concatenate([np.empty((0, model.item.weight.shape[1])), *parts])


def _windows(model: SequenceModel, vocabulary: Vocabulary, cases: Cases, config: Config) -> Any:
    model.eval()
    with torch.inference_mode():
        for _, windows, _ in chunks(model.length, vocabulary, cases.prefixes, include_seen=config.include_seen):
            yield windows


def lifting(state: NDArray[np.float64]) -> NDArray[np.float64]:
    """The vector that adds about 1 to the score after every state (n, d): least squares, kept short by a ridge."""
    square = state.T @ state / max(1, len(state))
    square[np.diag_indices_from(square)] += max(LIFT_RIDGE * np.trace(square) / len(square), 1e-12)
    mean = state.mean(axis=0) if len(state) else np.zeros(state.shape[1])
    return linalg.solve(square, mean, assume_a="pos")
