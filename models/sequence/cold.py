"""Cold items: what is lost where items came after training, and how much of it their content gives back.

Either a tenth of a data set's items is taken out of all that is learned from and stays in what is asked, or the items
are those that really came after training. Run it with `python -m models.sequence.cold`; `--help` lists its flags.
"""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from models.sequence import config, content, dataset
from models.sequence.baselines.linear import Linear, silence
from models.sequence.config import Config
from models.sequence.dataset import Cases, Split
from models.sequence.evaluate import CUTOFFS, bootstrap, ndcg, rank_in, recall
from models.sequence.model import SequenceModel
from models.sequence.protocols import leave_one_out
from models.sequence.ranking import ItemScorer, chunks, top
from models.sequence.scoring import Deep
from models.sequence.train import Trained, fit
from segue.adapters import datasets
from segue.adapters.datasets import Dataset
from segue.events import NO_ITEM, Events
from segue.inference.windows import Vocabulary
from segue.simulator import Shop, ShopConfig

COLD_RATIO = 0.1
TRENDING_MS = 86_400_000
SHOP = ShopConfig(customers=6000, items=2000, days=90, seed=7, start_ms=1_750_000_000_000 // 86_400_000 * 86_400_000)
"""The shop of `segue events`, at a fixed time."""


@dataclass(frozen=True, eq=False)
class Posed:
    """What is learned from, which knows no cold item, and what is asked, which does."""

    data: Dataset
    split: Split
    whole: Split
    """With the cold items where they were withheld: what a retrained model learns from."""
    test: Cases
    cold: NDArray[np.int64]  # (f,) item ids
    born_ms: NDArray[np.int64]  # (f,) before then an item is not recommended
    config: Config


def withheld(data: Dataset, protocol: str, settings: Config, seed: int) -> Posed:
    """Take a tenth of the items, drawn by `seed`, out of what is learned from."""
    item = data.catalogue.item
    cold = np.random.default_rng(seed).permutation(item)[: round(COLD_RATIO * len(item))]
    rest = replace(data, events=data.events.take(~np.isin(data.events.item, cold)))
    if protocol == "leave-one-out":
        posed = leave_one_out(data, settings)
        settings, whole, part = posed.config, posed.split, leave_one_out(rest, settings).split
    else:
        whole = dataset.split(data.events, settings)
        part = dataset.split(rest.events, settings, whole.cuts_ms)
    return Posed(data, part, whole, whole.test, cold, np.zeros(len(cold), np.int64), settings)


def newer(data: Dataset, settings: Config) -> Posed:
    """The items whose first event came after training; each can be recommended from that event on."""
    split = dataset.split(data.events, settings)
    item, place = np.unique(data.events.item, return_inverse=True)
    born_ms = np.full(len(item), np.iinfo(np.int64).max)
    np.minimum.at(born_ms, place, data.events.event_time_ms)
    is_cold = (split.final.vocabulary.index(item) == 0) & (item != NO_ITEM)
    return Posed(data, split, split, split.test, item[is_cold], born_ms[is_cold], settings)


@dataclass(frozen=True, eq=False)
class Contender:
    """A scorer of a vocabulary."""

    scorer: ItemScorer
    vocabulary: Vocabulary

    def best(self, posed: Posed) -> NDArray[np.int64]:
        """The best max(CUTOFFS) items for each test case, none before it was born, shape (n, 20)."""
        vocabulary, test = self.vocabulary, posed.test
        best = np.zeros((len(test), max(CUTOFFS)), np.int64)
        born_ms = np.full(len(vocabulary), np.iinfo(np.int64).min)
        place = vocabulary.index(posed.cold)
        born_ms[place[place > 0]] = posed.born_ms[place > 0]
        seen = posed.config.include_seen
        for rows, windows, barred in chunks(self.scorer.length, vocabulary, test.prefixes, include_seen=seen):
            now_ms = test.turns.time_ms[rows]
            scores = self.scorer.scores(windows) + self.trend(now_ms)
            scores[now_ms[:, None] < born_ms] = -np.inf
            best[rows] = top(scores, barred, max(CUTOFFS))
        return vocabulary.item[best]

    def trend(self, now_ms: NDArray[np.int64]) -> NDArray[np.float64]:
        """What is added to the scores as of `now_ms` (n,), shape (n, v): nothing."""
        return np.zeros((len(now_ms), 1))


@dataclass(frozen=True, eq=False)
class Trending(Contender):
    """Ranks by how often items were turned to within TRENDING_MS before: what needs neither a model nor content."""

    index: NDArray[np.int64]  # (m,) of all events, in order of
    available_ms: NDArray[np.int64]  # (m,)

    @classmethod
    def of(cls, events: Events, scorer: ItemScorer, vocabulary: Vocabulary) -> "Trending":
        """By `events`; where nothing is trending, `scorer` decides."""
        order = np.argsort(events.available_time_ms, kind="stable")
        return cls(scorer, vocabulary, vocabulary.index(events.item[order]), events.available_time_ms[order])

    def trend(self, now_ms: NDArray[np.int64]) -> NDArray[np.float64]:
        """Shape (n, v): counts of what was available before `now_ms`."""
        first, past = (np.searchsorted(self.available_ms, now_ms - ago) for ago in (TRENDING_MS, 0))
        size = len(self.vocabulary)
        return np.array([np.bincount(self.index[a:b], minlength=size) for a, b in zip(first, past, strict=True)], float)


def with_cold(model: SequenceModel, known: Vocabulary, cold: NDArray, vectors: NDArray) -> Contender:
    """`model` with the items `cold` (f,) at `vectors` (f, d)."""
    union = Vocabulary.of(np.concatenate([known.item[1:], cold]))
    weight = np.zeros((len(union), vectors.shape[1]), np.float32)
    weight[union.index(known.item[1:])] = model.item.weight.detach().cpu().numpy()[1:]
    weight[union.index(cold)] = vectors
    return Contender(Deep(content.with_items(model, weight)), union)


def category_popularity(posed: Posed) -> Contender:
    """Every item by its count, a cold one by the mean of its category, for everybody the same."""
    corpus = posed.split.final
    union = Vocabulary.of(np.concatenate([corpus.vocabulary.item[1:], posed.cold]))
    category = content.aligned(posed.data.catalogue, union).category.astype(str)
    warm = corpus.vocabulary.index(union.item) > 0
    count = corpus.popularity[corpus.vocabulary.index(union.item)].astype(float)
    names, code = np.unique(category, return_inverse=True)
    mean = np.bincount(code[warm], count[warm], len(names)) / np.maximum(
        1, np.bincount(code[warm], minlength=len(names))
    )
    popularity = np.where(warm, count, mean[code])
    table = silence(replace(corpus, vocabulary=union))
    return Contender(Linear(table, popularity / popularity.sum(), 1.0), union)


def contenders(posed: Posed, trained: Trained, retrained: Trained | None, seed: int) -> Mapping[str, Contender]:
    """What is compared, `none` first."""
    console = Console()
    learned = content.fit(trained, posed.split, posed.data.catalogue, posed.config)
    console.print(f"chosen: {learned.parameters}, {learned.outcome}", highlight=False)
    model, known = trained.model, posed.split.final.vocabulary
    described = content.aligned(posed.data.catalogue, Vocabulary.of(posed.cold))
    cold = described.item[1:]
    vectors = learned.map.vectors(described)[1:]
    weight = model.item.weight.detach().numpy()
    drawn = weight[np.random.default_rng(seed).integers(1, len(known), len(cold))]
    found = {
        "none": Contender(Deep(model), known),
        "category popularity": category_popularity(posed),
        "random": with_cold(model, known, cold, drawn),
        "no attributes": with_cold(model, known, cold, np.tile(learned.map.base, (len(cold), 1))),
        "content": with_cold(model, known, cold, vectors),
    }
    if not posed.data.order_only:
        popular = found["category popularity"]
        found["trending"] = Trending.of(posed.data.events, popular.scorer, popular.vocabulary)
    if retrained is not None:
        found["retrained"] = Contender(Deep(retrained.model), posed.whole.final.vocabulary)
    return found


def report(posed: Posed, found: Mapping[str, Contender]) -> Table:
    """What each contender reaches on cold, warm and all cases, and how much of what it shows is cold."""
    test = posed.test
    asked_cold = np.isin(test.turns.item, posed.cold)
    asked_warm = posed.split.final.vocabulary.index(test.turns.item) > 0
    table = Table(title=f"{len(test):,} cases, {asked_cold.sum():,} cold, {asked_warm.sum():,} warm")
    for name in (
        "",
        "cold NDCG@10",
        "cold Recall@10",
        "cold Recall@20",
        "warm NDCG@10",
        "warm less than none",
        "all NDCG@10",
        "cold shown",
    ):
        table.add_column(name)
    ranks = {}
    for name, contender in found.items():
        best = contender.best(posed)
        rank = ranks[name] = rank_in(best, test)
        lost = (ndcg(rank, 10) - ndcg(ranks["none"], 10))[asked_warm]
        margin = bootstrap(lost[:, None], test.turns.customer[asked_warm])[0]
        cold, warm = rank[asked_cold], rank[asked_warm]
        table.add_row(
            name,
            format(bootstrap(ndcg(cold, 10)[:, None], test.turns.customer[asked_cold])[0]),
            f"{recall(cold, 10).mean():.4f}",
            f"{recall(cold, 20).mean():.4f}",
            f"{ndcg(warm, 10).mean():.4f}",
            format(margin, "+"),
            f"{ndcg(rank, 10).mean():.4f}",
            f"{np.isin(best[:, :10], posed.cold).mean():.3f}",
        )
    return table


def main() -> int:
    """Measure one data set."""
    parser = argparse.ArgumentParser(
        prog="python -m models.sequence.cold",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--data", type=Path, help="folder of a public data set; else the simulated shop")
    parser.add_argument("--config", type=Path, default=Path(__file__).parent / "configs" / "shop.toml", help="TOML")
    parser.add_argument("--protocol", default="temporal", choices=("temporal", "leave-one-out"), help="what is asked")
    parser.add_argument("--newer", action="store_true", help="the items that came after training, and none withheld")
    parser.add_argument("--seed", type=int, default=1, help="of training and of which items are withheld")
    parser.add_argument("--retrain", action="store_true", help="also train a model that knows the withheld items")
    parser.add_argument("--max-epochs", type=int, help="instead of the configuration's")
    parser.add_argument("--length", type=int, help="instead of the configuration's")
    parser.add_argument("--checkpoint", type=Path, help="folder to write to every epoch, and to resume from")
    args = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=200)
    settings = config.read(args.config, seed=args.seed, max_epochs=args.max_epochs, length=args.length)
    if args.data is None:
        shop = Shop(SHOP)
        data = Dataset("shop", Events.concat(shop.stream()), shop.catalogue, "")
    else:
        data = datasets.load(args.data)
    posed = newer(data, settings) if args.newer else withheld(data, args.protocol, settings, args.seed)
    trained = fit(posed.split, posed.config, console=console, checkpoint=args.checkpoint)
    retrained = None
    if args.retrain:
        folder = args.checkpoint / "retrained" if args.checkpoint else None
        retrained = fit(posed.whole, posed.config, console=console, checkpoint=folder)
    console.print(report(posed, contenders(posed, trained, retrained, args.seed)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
