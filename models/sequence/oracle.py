"""The oracle of the simulated shop: the next item to who knows what no log shows, and how near models come to it.

Two answers stand above every model's. `truth` knows each customer's taste and the item they viewed last, even where
that view is late: the simulator draws the next view from that distribution, so nothing ranks better. `inferred` knows
the shop (what is on sale, where views lead, how tastes are spread) and infers the taste from the prefix alone, as Bayes
has it: about what a model reaches that has learned everything a log can teach.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from models.sequence import baselines, config, dataset
from models.sequence.baselines import Fitted
from models.sequence.config import Config
from models.sequence.dataset import Cases, Dataset, take
from models.sequence.evaluate import (
    CONFIDENCE,
    CUTOFFS,
    METRICS,
    MODEL,
    RESAMPLES,
    Evaluation,
    Recommender,
    evaluate,
)
from models.sequence.ladder import Live
from models.sequence.parts import mixed_in
from models.sequence.ranking import top
from models.sequence.scoring import as_scorer, torch_rank
from models.sequence.train import fit
from models.sequence.trends import Following
from segue.adapters.model_store import ModelStore
from segue.events import NO_ITEM, Events, Kind
from segue.inference.sequence import SequenceScorer
from segue.inference.windows import Vocabulary
from segue.simulator import Shop, ShopConfig, Truth
from segue.simulator.config import DAY_MS
from segue.simulator.population import mood, unit

TRUTH, INFERRED, FLOOR = "truth", "inferred", "popularity"
SHOWN = ("ndcg@10", "recall@10")

DRAWN = 1000
"""Tastes among which the likeliest begin to wander."""
CHAINS = 100
"""Tastes that wander for one customer; their mean mood is what is inferred."""
STRIDES = (0.6, 0.3, 0.15) * 10
"""How far a taste tries to move in each step, before it is scaled back to length 1."""
SETTLING = 12
"""Steps before the tastes count."""
SEED = 0
LEAST_LIKELY = 1e-12
"""Below the probability of any view: a prefix may hold a turn that is no view."""


@dataclass(frozen=True, eq=False)
class Oracle:
    """Answers `cases`, and only them: what it knows of each is not in the prefix."""

    truth: Truth
    cases: Cases
    customer: NDArray[np.int64]  # (n,) rows of the truth
    last_item: NDArray[np.int64]  # (n,) the item viewed last before the turn, known or not; NO_ITEM for none
    include_seen: bool
    vocabulary: Vocabulary = field(init=False)
    """Every item of the shop: the oracle knows those that are new as well."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "vocabulary", Vocabulary.of(self.truth.catalogue.item))

    @classmethod
    def of(cls, truth: Truth, events: Events, cases: Cases, *, include_seen: bool) -> Self:
        """The oracle for `cases` of the log `events` of the shop behind `truth`."""
        row = {name: place for place, name in enumerate(truth.customers)}
        of_truth = np.array([row[name] for name in events.customers], np.int64)
        last = last_viewed(events, cases.turns.customer, cases.turns.time_ms)
        return cls(truth, cases, of_truth[cases.turns.customer], last, include_seen)

    def recommenders(self) -> dict[str, Recommender]:
        """The two answers by name."""
        return {TRUTH: lambda _: self._best(self._true), INFERRED: lambda _: self._best(self._inferred)}

    def _best(self, probability: Callable[[NDArray[np.intp], int], NDArray[np.float64]]) -> NDArray[np.int64]:
        """Each case's best items by what `probability` of some cases of one day gives for the catalogue, (n, 20)."""
        best = np.zeros((len(self.cases), max(CUTOFFS)), np.int64)
        columns = self.vocabulary.index(self.truth.catalogue.item)
        time_ms = self.cases.turns.time_ms
        for day in np.unique(time_ms // DAY_MS).tolist():
            rows = np.flatnonzero(time_ms // DAY_MS == day)
            scores = np.zeros((len(rows), len(self.vocabulary)))
            scores[:, columns] = probability(rows, day * DAY_MS)
            seen = self.vocabulary.windows(take(self.cases.prefixes, rows)).items
            best[rows] = top(scores, np.zeros_like(seen[:, :1]) if self.include_seen else seen, max(CUTOFFS))
        return self.vocabulary.item[best]

    def _true(self, rows: NDArray[np.intp], t_ms: int) -> NDArray[np.float64]:
        return self.truth.next_view_probability(self.customer[rows], self.last_item[rows], t_ms)

    def _inferred(self, rows: NDArray[np.intp], t_ms: int) -> NDArray[np.float64]:
        """From the views that each prefix holds, as if it held all there were."""
        views = [viewed(self.cases, row) for row in rows.tolist()]
        last = np.array([item[-1] if len(item) else NO_ITEM for item, _ in views], np.int64)
        before = [np.concatenate([[NO_ITEM], item])[:-1].astype(np.int64) for item, _ in views]
        items, times = (np.concatenate(column) for column in zip(*views, strict=True))
        by_mood, led = self.truth.view_terms(items, np.concatenate(before), times)
        ends = np.cumsum([0, *(len(each) for each in before)])
        moods = np.empty((len(rows), by_mood.shape[1]))
        for place, row in enumerate(rows.tolist()):
            own = slice(ends[place], ends[place + 1])
            moods[place] = inferred_mood(self.truth, by_mood[own], led[own], np.random.default_rng([SEED, row]))
        return self.truth.next_view_in_mood(moods, last, t_ms)


def inferred_mood(
    truth: Truth, by_mood: NDArray[np.float64], led: NDArray[np.float64], random: np.random.Generator
) -> NDArray[np.float64]:
    """The mean mood of all tastes, weighted by how well they explain views, shape (categories,).

    By random-walk Metropolis on the sphere of tastes, which are spread evenly over it before anything is seen.

    Args:
        by_mood: shape (k, categories), and
        led: shape (k,): the views, as `Truth.view_terms` gives them.
    """

    def explain(tastes: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        moods = mood(tastes, truth.items)  # (tastes, categories)
        return moods, np.log(by_mood @ moods.T + led[:, None] + LEAST_LIKELY).sum(axis=0)

    tastes = unit(random.standard_normal((DRAWN, truth.taste.shape[1])))
    moods, likelihood = explain(tastes)
    weight = np.exp(likelihood - likelihood.max())
    start = random.choice(DRAWN, CHAINS, p=weight / weight.sum())
    tastes, moods, likelihood = tastes[start], moods[start], likelihood[start]
    total = np.zeros(moods.shape[1])
    for step, stride in enumerate(STRIDES):
        moved = unit(tastes + stride * random.standard_normal(tastes.shape))
        moved_moods, moved_likelihood = explain(moved)
        taken = np.log(random.random(CHAINS)) < moved_likelihood - likelihood
        tastes[taken], moods[taken], likelihood[taken] = moved[taken], moved_moods[taken], moved_likelihood[taken]
        if step >= SETTLING:
            total += moods.mean(axis=0)
    return total / (len(STRIDES) - SETTLING)


def viewed(cases: Cases, row: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The items of a prefix and when they were turned to, without what was bought: that says what a cart held."""
    prefix = slice(*cases.prefixes.offsets[row : row + 2])
    drawn = cases.prefixes.kind[prefix] != Kind.PRODUCT_PURCHASED
    return cases.prefixes.item[prefix][drawn], (cases.turns.time_ms[row] - cases.prefixes.age_ms[prefix])[drawn]


def last_viewed(events: Events, customer: NDArray[np.int64], time_ms: NDArray[np.int64]) -> NDArray[np.int64]:
    """The item that each `customer` (n,) viewed last before `time_ms` (n,), whenever it arrived; NO_ITEM for none."""
    views = events.take(events.kind == Kind.PRODUCT_VIEWED)
    order = np.lexsort((views.event_time_ms, views.customer))
    owner, item, when = views.customer[order].astype(np.int64), views.item[order], views.event_time_ms[order]
    start = int(min(when.min(initial=0), time_ms.min(initial=0)))
    span = 1 + int(max(when.max(initial=0), time_ms.max(initial=0))) - start
    place = np.searchsorted(owner * span + when - start, customer * span + time_ms - start) - 1
    own = (place >= 0) & (owner[np.maximum(place, 0)] == customer)
    return np.where(own, item[np.maximum(place, 0)], NO_ITEM)


@dataclass(frozen=True)
class Share:
    """How much of the way from popularity to an oracle a recommender goes, and its bootstrap interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def share(evaluation: Evaluation, name: str, ceiling: str, metric: str, *, seed: int = 0) -> Share:
    """`(name - popularity) / (ceiling - popularity)` in a metric such as `ndcg@10`, resampled by customer."""
    kind, k = metric.split("@")
    values = [METRICS[kind](evaluation.rank[each], int(k)) for each in (name, ceiling, FLOOR)]
    distinct, row = np.unique(evaluation.cases.turns.customer, return_inverse=True)
    above = np.stack([np.bincount(row, each - values[2], minlength=len(distinct)) for each in values[:2]], axis=1)
    rng = np.random.default_rng(seed)
    drawn = [above[rng.integers(len(distinct), size=len(distinct))].sum(axis=0) for _ in range(RESAMPLES)]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile([gained / possible for gained, possible in drawn], (tail, 1 - tail))
    gained, possible = above.sum(axis=0)
    return Share(float(gained / possible), float(low), float(high))


def compare(
    data: Dataset, events: Events, truth: Truth, settings: Config, model: Recommender, rivals: Mapping[str, Recommender]
) -> Evaluation:
    """The model, its rivals and both oracles on the same turns of the test span."""
    oracle = Oracle.of(truth, events, data.test, include_seen=settings.include_seen)
    return evaluate(data.test, data.final.vocabulary, model, {**oracle.recommenders(), **rivals})


def table(evaluation: Evaluation) -> Table:
    """Metrics, and how much of the way to either oracle, for a terminal."""
    known = f"{evaluation.is_known.mean():.1%} of them to items that training holds"
    out = Table(title=f"{len(evaluation.cases):,} turns, {known}")
    for head in ("", *SHOWN, *(f"{metric}, of the way to {each}" for metric in SHOWN for each in (TRUTH, INFERRED))):
        out.add_column(head, justify="right" if head else "left")
    for name in sorted(evaluation.rank, key=lambda each: -evaluation.scores(each)["ndcg@10"].mean):
        scores = (f"{evaluation.scores(name)[metric]}" for metric in SHOWN)
        shares = (str(share(evaluation, name, each, metric)) for metric in SHOWN for each in (TRUTH, INFERRED))
        out.add_row(name, *scores, *shares)
    return out


def run(args: argparse.Namespace) -> None:
    """Train on a simulated shop, or take a stored bundle, and say how near it comes to who knows the truth."""
    console = Console(width=args.width)
    torch.set_num_threads(1)
    shop = Shop(ShopConfig(customers=args.customers, items=args.items, days=args.days, seed=args.shop_seed))
    events = Events.concat(shop.stream())
    live = Live.of(events)
    if args.bundle:
        bundle = ModelStore(args.store).get(args.bundle)
        given = dict(bundle.manifest.config)
        validation_ms, test_ms = given.pop("cuts_ms")
        settings = config.resolve(given)
        data = dataset.split(events, settings, (validation_ms, test_ms))
        counted = baselines.beside(data, settings)
        scorer = SequenceScorer.load(bundle)
    else:
        settings = config.read(args.config, seed=args.seed)
        data = dataset.split(events, settings)
        counted = baselines.beside(data, settings)
        scorer = trained(data, settings, counted["markov"], live, console)
    model = Following(scorer, live, data.test, settings.include_seen)
    evaluation = compare(data, events, shop.truth(), settings, model, baselines.recommenders(data, settings, counted))
    console.print(table(evaluation))
    bought = asked_by_purchase(events, data.test)
    console.print(f"{MODEL}: {scorer.version}, seed {settings.seed}; {bought} turns are purchases", highlight=False)


def trained(data: Dataset, settings: Config, counted: Fitted, live: Live, console: Console) -> SequenceScorer:
    """What `train` would export."""
    found = fit(data, settings, console=console)
    followers = mixed_in(data, found, counted, live, include_seen=settings.include_seen)
    return as_scorer(torch_rank(found.model), data.final, settings, followers)


def asked_by_purchase(events: Events, cases: Cases) -> int:
    """How many of the turns are purchases, which the oracles rank as if they were views."""
    lines = events.take(events.kind == Kind.PRODUCT_PURCHASED)
    bought = set(zip(lines.customer.tolist(), lines.item.tolist(), lines.event_time_ms.tolist(), strict=True))
    turns = cases.turns
    asked = zip(turns.customer.tolist(), turns.item.tolist(), turns.time_ms.tolist(), strict=True)
    return sum(turn in bought for turn in asked)
