"""Export: a trained model as a bundle of an ONNX graph and plain arrays, proven to answer as PyTorch does."""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from models.sequence.config import Config
from models.sequence.dataset import Dataset, concat, sequences_of, take
from models.sequence.evaluate import Evaluation
from models.sequence.model import Ranker, SequenceModel
from models.sequence.parts import Parts
from models.sequence.train import CURVE, Trained
from segue.adapters.plan_files import PLAN_FILE
from segue.catalogue import Catalogue
from segue.errors import BundleError
from segue.features.sequence import FEATURES, Sequences
from segue.inference import bundle
from segue.inference.bundle import Manifest
from segue.inference.graph import BESIDE, EMBEDDING, INDICES, SCORES
from segue.inference.plan import Plan
from segue.inference.sequence import EXTERNAL_IDS, FAMILY, ITEMS, LIMIT_MAX, POPULARITY, Recommendation, SequenceScorer
from segue.inference.windows import Vocabulary

CARD = "card.md"

FEATURE_SERVICE = "recommendation_v1"
OPSET = 18
MESSAGE_BYTES_MAX = 2 << 30
"""What one protobuf message can hold; a larger model keeps its weights in a second file."""

VERIFIED_CASES = 512
TOLERANCE = 1e-4


def export_graph(model: SequenceModel, path: Path) -> None:
    """Write the ranker around `model` as an ONNX file.

    Inputs are those that `Windows` holds and the model reads, `items` at least, each (batch, length) int64, then those
    of a `Question` in the order of BESIDE. Outputs are `indices` int64 and `scores` float32, each (batch, k), and
    `customer_embedding` float32 (batch, width), the vector that was scored. Every size but k and width is dynamic;
    length is at most the model's.
    """
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", min=1, max=model.length)
    excluded, raised, fresh = (torch.export.Dim(name) for name in ("excluded", "raised", "fresh"))
    windows = [torch.ones(3, 2, dtype=torch.int64) for _ in model.inputs]
    rest = (
        torch.zeros(3, 4, dtype=torch.int64),
        torch.zeros(3, 5, dtype=torch.int64),
        torch.zeros(3, 5),
        torch.zeros(6, model.item.embedding_dim),
        torch.zeros(model.item.num_embeddings + 6),
        torch.zeros(3),
    )
    rows = {0: batch}
    sizes = (
        rows | {1: excluded},
        rows | {1: raised},
        rows | {1: raised},
        {0: fresh},
        {0: fresh + model.item.num_embeddings},
        rows,
    )
    with _quiet():
        torch.onnx.export(
            Ranker(model).eval(),
            (*windows, *rest),
            path,
            input_names=[*model.inputs, *BESIDE],
            output_names=[INDICES, SCORES, EMBEDDING],
            dynamic_shapes=((*({0: batch, 1: length} for _ in windows), *sizes),),
            dynamo=True,
            opset_version=OPSET,
            external_data=sum(each.nbytes for each in model.parameters()) >= MESSAGE_BYTES_MAX,
            verbose=False,
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says of packages it could use and of its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)


def export(
    directory: Path,
    config: Config,
    dataset: Dataset,
    trained: Trained,
    parts: Parts,
    evaluation: Evaluation,
    *,
    plan: Plan,
    catalogue: Catalogue,
    card: str,
    git_sha: str,
    created_ms: int,
) -> None:
    """Complete the bundle in `directory`, which holds the graph and nothing else.

    Raises:
        BundleError: the plan lacks a column that the model reads.
    """
    columns = [feature.name for feature in FEATURES]
    if missing := sorted(set(columns) - {column.name for column in plan.columns}):
        raise BundleError(f"the serving plan of {plan.feature_service} lacks {missing}")
    corpus = dataset.final
    np.save(directory / ITEMS, corpus.vocabulary.item)
    np.save(directory / POPULARITY, corpus.popularity)
    parts.save(directory)
    (directory / EXTERNAL_IDS).write_text(json.dumps(external_ids(corpus.vocabulary, catalogue)) + "\n")
    (directory / CURVE).write_text(json.dumps([asdict(epoch) for epoch in trained.curve], indent=1) + "\n")
    (directory / PLAN_FILE).write_text(plan.to_json())
    (directory / CARD).write_text(card)
    manifest = Manifest(
        family=FAMILY,
        name=config.name,
        feature_service=FEATURE_SERVICE,
        plan_hash=plan.hash,
        columns=columns,
        dtypes=[feature.dtype for feature in FEATURES],
        data_cut_ms=dataset.cuts_ms[1],
        metrics=evaluation.metrics(),
        config=asdict(config) | {"cuts_ms": dataset.cuts_ms},
        git_sha=git_sha,
        created_ms=created_ms,
    )
    bundle.write(directory, manifest)


def external_ids(vocabulary: Vocabulary, catalogue: Catalogue) -> list[str]:
    """The caller's own id of every item by index, "" where the catalogue does not hold it."""
    named = dict(zip(catalogue.item.tolist(), catalogue.external_id.tolist(), strict=True))
    return ["", *(named.get(item, "") for item in vocabulary.item[1:].tolist())]


def verify(exported: SequenceScorer, trained: SequenceScorer, cases: Sequences) -> None:
    """Compare two scorers on real prefixes and odd ones, with and without seen items.

    Raises:
        BundleError: they do not agree on every one.
    """
    probes = concat([take(cases, np.arange(min(VERIFIED_CASES, len(cases)))), odd_prefixes(trained)])
    nothing = [np.empty(0, np.int64)] * len(probes)
    for include_seen in (False, True):
        left, right = (
            each.recommend(probes, exclude=nothing, limit=LIMIT_MAX, include_seen=include_seen)
            for each in (exported, trained)
        )
        for row, pair in enumerate(zip(left, right, strict=True)):
            if not agree(*pair):
                raise BundleError(f"the exported graph does not answer prefix {row} as the model it was made from")


def agree(left: Recommendation, right: Recommendation) -> bool:
    """Whether two answers are the same but for rounding: items of almost equal score may trade places."""
    if left.fallback != right.fallback or len(left.item) != len(right.item):
        return False
    score = dict(zip(right.item.tolist(), right.score.tolist(), strict=True))
    last = float(right.score[-1]) if len(right.score) else 0.0
    answers = zip(left.item.tolist(), left.score.tolist(), strict=True)
    return all(abs(score.get(item, last) - each) <= TOLERANCE for item, each in answers)


def odd_prefixes(scorer: SequenceScorer) -> Sequences:
    """Empty, one item, an unknown item alone and among known ones, everything at once."""
    item = scorer.vocabulary.item[1:]
    unknown = np.setdiff1d(np.arange(1, len(item) + 2), item)[:1]
    return sequences_of(
        [
            item[:0],
            item[:1],
            unknown,
            np.concatenate([item[:1], unknown, item[-1:]]),
            np.resize(item, 5 * scorer.length),
        ]
    )
