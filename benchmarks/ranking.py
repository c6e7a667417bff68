"""How fast a catalogue is ranked: encoder, what was counted, mask and exact top 100 in one process, on one core.

The references are ONNX Runtime's bare time for a graph of the encoder's last position and the top 100 of the same
catalogue, without anything else; and the scorer over the same graph with its weights as 8-bit integers, as ONNX
Runtime's dynamic quantisation makes them. The model is untrained, which its speed does not depend on; how much ranking
quality 8 bits cost is measured on a trained bundle, with `--bundle`.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor, nn

from benchmarks.command import command
from benchmarks.memory import held_mib
from benchmarks.table import Comparison
from benchmarks.timing import Turn, take_turns
from models.sequence.config import Config
from models.sequence.dataset import sequences_of, take
from models.sequence.export import OPSET, export_graph
from models.sequence.model import SequenceModel
from segue.features.sequence import Sequences
from segue.inference.followers import LENGTHS, Followers, Mixture
from segue.inference.graph import open_graph, open_session
from segue.inference.item_table import ItemTable
from segue.inference.sequence import GRAPH, LIMIT_MAX, SequenceScorer
from segue.inference.windows import Vocabulary

SEED = 3
FOLLOWERS_MAX = 20_000_000
"""Entries of the table of followers in all; up to 100 for each item."""


class Bare(nn.Module):
    """The encoder and the best items, nothing masked, raised or fresh."""

    def __init__(self, model: SequenceModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Indices and scores, each (b, LIMIT_MAX)."""
        best = torch.topk(self.model.last(items) @ self.model.item.weight.T, LIMIT_MAX)
        return best.indices, best.values


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.ranking", description=__doc__)
    options.add_argument("--items", type=int, nargs="+", default=[1_000, 20_000, 100_000], help="default: %(default)s")
    for name, default in {"length": 50, "width": 64, "blocks": 2, "calls": 200, "turns": 5}.items():
        options.add_argument(f"--{name}", type=int, default=default, help="default: %(default)s")
    return options


def measure(options: argparse.Namespace) -> list[Comparison]:
    """One call after the other for each size of catalogue."""
    torch.set_num_threads(1)
    return [compare(options, size) for size in options.items]


def compare(options: argparse.Namespace, size: int) -> Comparison:
    """The contenders over `size` items."""
    config = Config(length=options.length, width=options.width, blocks=options.blocks, dropout=0.0)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_graphs(directory, config, size)
        before_mib = held_mib()
        ours = scorer(directory / GRAPH, config, size)
        ours.warm_up()
        held = held_mib() - before_mib
        small = scorer(directory / "int8.onnx", config, size)
        bare = open_session(directory / "bare.onnx")
    rows = prefixes(ours.vocabulary, options)
    windows = ours.vocabulary.windows(rows, config.length).items
    contenders = {
        "Segue": each_row(options.calls, lambda row: ask(ours, take(rows, np.array([row])))),
        "ONNX Runtime, bare": each_row(options.calls, lambda row: bare.run(None, {"items": windows[row : row + 1]})),
        "Segue, int8": each_row(options.calls, lambda row: ask(small, take(rows, np.array([row])))),
    }
    timings = take_turns(contenders, turns=options.turns)
    shape = f"histories of {config.length} items, width {config.width}, {config.blocks} blocks, one thread"
    note = f"{shape}; the graph and the tables of Segue's scorer hold {held:,.0f} MiB"
    return Comparison(f"one ranking of {size:,} items", timings, note)


def write_graphs(directory: Path, config: Config, size: int) -> None:
    """The graph as it is served, the same in 8 bits, and the bare one."""
    torch.manual_seed(SEED)
    model = SequenceModel(config, size + 1).eval()
    export_graph(model, directory / GRAPH)
    quantize_dynamic(directory / GRAPH, directory / "int8.onnx", weight_type=QuantType.QInt8)
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", min=1, max=config.length)
    torch.onnx.export(
        Bare(model).eval(),
        (torch.ones(3, 2, dtype=torch.int64),),
        directory / "bare.onnx",
        input_names=["items"],
        dynamic_shapes=({0: batch, 1: length},),
        dynamo=True,
        opset_version=OPSET,
        external_data=False,
        verbose=False,
    )


def scorer(graph: Path, config: Config, size: int) -> SequenceScorer:
    """What a service would open."""
    rng = np.random.default_rng(SEED)
    count = min(100, size // 2, FOLLOWERS_MAX // size)
    index = rng.integers(1, size + 1, (size + 1, count), np.int32).ravel()
    offsets = np.arange(size + 2) * count
    table = ItemTable(offsets, index, rng.random(len(index), np.float32) + 1e-3)
    return SequenceScorer(
        rank=open_graph(graph),
        vocabulary=Vocabulary.of(np.arange(1, size + 1)),
        external_id=[str(each) for each in range(size + 1)],
        popularity=rng.integers(0, 100, size + 1),
        length=config.length,
        width=config.width,
        version="untrained",
        followers=Followers(table, Mixture(0.7, 1e-3, (1.0,) * len(LENGTHS))),
    )


def prefixes(vocabulary: Vocabulary, options: argparse.Namespace) -> Sequences:
    """As many histories as calls, of full length."""
    rng = np.random.default_rng(SEED)
    return sequences_of([rng.choice(vocabulary.item[1:], options.length) for _ in range(options.calls)])


def ask(scorer: SequenceScorer, prefix: Sequences) -> None:
    """The ten best for one customer."""
    scorer.recommend(prefix, exclude=[np.empty(0, np.int64)], limit=10)


def each_row(count: int, call: Callable[[int], object]) -> Callable[[], Turn]:
    """A contender that makes one call per row, each timed."""

    def turn() -> Turn:
        latencies = np.empty(count)
        for row in range(count):
            began = perf_counter()
            call(row)
            latencies[row] = perf_counter() - began
        return Turn(count, latencies.tolist())

    return turn


if __name__ == "__main__":
    command(parser(), measure)
