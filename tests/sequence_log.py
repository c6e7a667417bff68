"""A small log in which what comes next can be learned, and the bundle of a model trained on it."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from models.sequence.baselines import beside, recommenders
from models.sequence.config import Config
from models.sequence.dataset import Dataset, split
from models.sequence.evaluate import by_scorer, evaluate
from models.sequence.export import FEATURE_SERVICE, export, export_graph
from models.sequence.parts import Parts
from models.sequence.scoring import as_scorer, torch_rank
from models.sequence.train import Trained, fit
from segue.catalogue import Catalogue
from segue.events import Events, Kind, item_id
from segue.features.sequence import FEATURES
from segue.inference.bundle import Bundle
from segue.inference.followers import Followers
from segue.inference.plan import Column, Plan
from segue.inference.sequence import GRAPH, SequenceScorer

ITEMS = np.array([item_id(f"sku-{number}") for number in range(150)])

CONFIG = Config(
    length=8, width=16, blocks=2, dropout=0.0, batch_size=16, learning_rate=0.02, max_epochs=3, max_cases=600, seed=3
)

PLAN = Plan(FEATURE_SERVICE, "test", tuple(Column(each.name, each.dtype, "history") for each in FEATURES), (), ())


@dataclass(frozen=True)
class Run:
    dataset: Dataset
    trained: Trained
    followers: Followers
    bundle: Bundle
    torch: SequenceScorer
    onnx: SequenceScorer


def events(*, customers: int = 250, turns: int = 16, seed: int = 5) -> Events:
    """Customers who mostly go from an item to the next one, now and then to another; an hour apart."""
    rng = np.random.default_rng(seed)
    place = rng.integers(len(ITEMS), size=(customers, turns))
    for turn in range(1, turns):
        follows = rng.random(customers) < 0.8
        place[follows, turn] = (place[follows, turn - 1] + 1) % len(ITEMS)
    count = place.size
    time_ms = (rng.integers(2_000, size=(customers, 1)) + np.arange(turns)).ravel() * 3_600_000
    return Events(
        customers=np.array([f"c{number:04}" for number in range(customers)], object),
        customer=np.repeat(np.arange(customers, dtype=np.int32), turns),
        event_id=np.arange(count, dtype=np.uint64),
        kind=np.full(count, Kind.PRODUCT_VIEWED, np.uint8),
        item=ITEMS[place.ravel()],
        event_time_ms=time_ms,
        available_time_ms=time_ms,
        value_minor=np.zeros(count, np.int64),
    )


def run(directory: Path, config: Config = CONFIG) -> Run:
    """Train, export and read back."""
    torch.set_num_threads(1)
    dataset = split(events(), config)
    trained = fit(dataset, config)
    named = np.array([f"sku-{number}" for number in range(len(ITEMS))], object)
    nothing = np.full(len(ITEMS), "", object)
    catalogue = Catalogue(ITEMS, named, nothing, np.zeros(len(ITEMS), np.int64))
    counted = beside(dataset, config)
    parts = Parts.learn(events(), dataset, trained, catalogue, config, counted=counted["markov"])
    in_torch = as_scorer(torch_rank(trained.model), dataset.final, config, parts.followers)
    evaluation = evaluate(
        dataset.test,
        dataset.final.vocabulary,
        by_scorer(in_torch, include_seen=config.include_seen),
        recommenders(dataset, config, counted),
    )
    export_graph(trained.model, directory / GRAPH)
    export(
        directory,
        config,
        dataset,
        trained,
        parts,
        evaluation,
        plan=PLAN,
        catalogue=catalogue,
        card="# next_item\n",
        git_sha="",
        created_ms=0,
    )
    bundle = Bundle.read(directory, "next_item:test")
    assert json.loads((directory / "manifest.json").read_text())["metrics"]
    return Run(dataset, trained, parts.followers, bundle, in_torch, SequenceScorer.load(bundle))
