"""Bundles to test with: small, quickly made, and real."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from segue.adapters.plan_files import PLAN_FILE
from segue.events import item_id
from segue.features import sequence
from segue.inference import bundle
from segue.inference.bundle import Manifest
from segue.inference.plan import Plan

MANIFEST = Manifest(
    family="propensity",
    name="purchase_7d",
    feature_service="propensity_v1",
    plan_hash="ab" * 32,
    columns=["view_count", "order_count"],
    dtypes=["int64", "float64"],
    data_cut_ms=1_780_000_000_000,
    metrics={"auc": 0.75},
    config={"rounds": 3},
    git_sha="0" * 40,
    created_ms=1_780_000_000_001,
)

SKUS = [f"sku-{number}" for number in range(60)]
"""What the sequence bundle's vocabulary names."""


def propensity(directory: Path, plan: Plan, outcome: str, *, driven_by: str) -> Path:
    """A bundle whose probability of `outcome` rises with the column `driven_by`, and depends on others a little."""
    import xgboost

    from segue.inference.propensity import FAMILY, Calibration, PropensityScorer, TierCuts

    columns = [column.name for column in plan.columns]
    rng = np.random.default_rng(len(driven_by))
    matrix = rng.poisson(rng.choice([0.5, 3, 15], (800, len(columns)))).astype(float)
    matrix[rng.random(matrix.shape) < 0.1] = np.nan
    driver = np.nan_to_num(matrix[:, columns.index(driven_by)])
    label = rng.random(len(matrix)) < driver / (driver + 4)
    settings = {"objective": "binary:logistic", "max_depth": 3, "nthread": 1, "seed": 1}
    booster = xgboost.train(settings, xgboost.DMatrix(matrix, label), num_boost_round=12)
    curve = Calibration(margin=[-4.0, 0.0, 4.0], log_odds=[-5.0, -0.5, 3.0])
    scorer = PropensityScorer(booster, columns=columns, calibration=curve, tiers=TierCuts(medium=0.2, high=0.6))
    directory.mkdir()
    scorer.save(directory)
    dtypes = [column.dtype for column in plan.columns]
    return _completed(directory, plan, replace(MANIFEST, family=FAMILY, name=outcome, columns=columns, dtypes=dtypes))


def next_item(directory: Path, plan: Plan):
    """A bundle of an untrained sequence model over SKUS; returns the same model in PyTorch, as a scorer."""
    import torch

    from models.sequence.blend import strongest
    from models.sequence.config import Config
    from models.sequence.export import export_graph
    from models.sequence.model import SequenceModel
    from models.sequence.scoring import torch_rank
    from segue.inference.content import CONTENT, ContentMap
    from segue.inference.followers import Followers, Mixture
    from segue.inference.related import SIMILAR
    from segue.inference.sequence import EXTERNAL_IDS, FAMILY, GRAPH, ITEMS, POPULARITY, SequenceScorer
    from segue.inference.windows import Vocabulary

    torch.manual_seed(4)
    torch.set_num_threads(1)
    config = Config(length=8, width=8, blocks=1, heads=1, dropout=0.0)
    named = {item_id(sku): sku for sku in SKUS}
    vocabulary = Vocabulary.of(np.array(list(named)))
    model = SequenceModel(config, len(vocabulary)).eval()
    with torch.no_grad():
        # As initialised, all items are nearly alike.
        model.item.weight.mul_(50)
    external_id = ["", *(named[item] for item in vocabulary.item[1:].tolist())]
    popularity = np.arange(len(vocabulary))[::-1].copy()
    directory.mkdir()
    export_graph(model, directory / GRAPH)
    np.save(directory / ITEMS, vocabulary.item)
    np.save(directory / POPULARITY, popularity)
    (directory / EXTERNAL_IDS).write_text(json.dumps(external_id))
    counts = np.random.default_rng(4).random((len(vocabulary), len(vocabulary)))
    counts[:, 0] = counts[0] = 0
    followers = Followers(strongest(counts, 5), Mixture(0.7, 0.1, (0.5, 1.0, 2.0, 0.5, 0.5)))
    followers.save(directory)
    # Of the relations it holds one only.
    strongest(counts.T, 5).save(directory / SIMILAR)
    # An item of which nothing is known is like the first one, but better.
    nothing = np.zeros((0, config.width), np.float32)
    base = 1.5 * model.item.weight[1].detach().numpy()
    ContentMap(np.zeros(0, np.int64), nothing, base).save(directory / CONTENT)
    columns = [feature.name for feature in sequence.FEATURES]
    dtypes = [feature.dtype for feature in sequence.FEATURES]
    manifest = replace(MANIFEST, family=FAMILY, name="next_item", columns=columns, dtypes=dtypes)
    _completed(directory, plan, replace(manifest, config={"length": config.length, "width": config.width}))
    return SequenceScorer(
        rank=torch_rank(model),
        vocabulary=vocabulary,
        external_id=external_id,
        popularity=popularity,
        length=config.length,
        width=config.width,
        version="in PyTorch",
        followers=followers,
    )


def _completed(directory: Path, plan: Plan, manifest: Manifest) -> Path:
    (directory / PLAN_FILE).write_text(plan.to_json())
    bundle.write(directory, replace(manifest, feature_service=plan.feature_service, plan_hash=plan.hash))
    return directory
