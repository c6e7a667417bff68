"""Encoders to test with: untrained models over the items they are given, as bundles without what only ranks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from models.sequence.config import Config
from models.sequence.export import export_graph
from models.sequence.model import SequenceModel
from segue.inference import bundle
from segue.inference.bundle import Bundle
from segue.inference.sequence import FAMILY, GRAPH, ITEMS
from segue.inference.windows import Vocabulary
from tests.bundles import MANIFEST

CONFIGS = {
    "transformer": Config(length=8, width=12, blocks=2, heads=2, dropout=0.0),
    "kinds and gaps": Config(length=8, width=12, blocks=2, heads=2, dropout=0.0, kinds=True, gaps=True),
    "gru": Config(family="gru", length=8, width=12, blocks=2, dropout=0.0),
}


def write(directory: Path, config: Config, items: np.ndarray) -> SequenceModel:
    """Write the bundle of an untrained model that knows `items` into `directory`; returns the model."""
    torch.manual_seed(7)
    torch.set_num_threads(1)
    vocabulary = Vocabulary.of(items)
    model = SequenceModel(config, len(vocabulary)).eval()
    with torch.no_grad():
        # As initialised, all items are nearly alike.
        model.item.weight.mul_(20)
    export_graph(model, directory / GRAPH)
    np.save(directory / ITEMS, vocabulary.item)
    complete(directory, length=config.length)
    return model


def complete(directory: Path, *, length: int) -> None:
    """Add the manifest to a graph and its vocabulary."""
    bundle.write(directory, replace(MANIFEST, family=FAMILY, name="next_item", config={"length": length}))


def read(directory: Path, tag: str = "next_item:test") -> Bundle:
    """The bundle in `directory`."""
    return Bundle.read(directory, tag)
