"""The ladder measured, rung by rung: `python -m models.sequence.ladder --data <folder>`.

Asked are the turns of the test span before which the encoder knows nothing, and those before which it knows of one to
three items but is not asked. All rungs rank the vocabulary; those that end in "anything" rank whatever had an event.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.sequence.baselines.markov import markov
from models.sequence.blend import strongest
from models.sequence.config import Config, read
from models.sequence.dataset import CHUNK_CASES, Cases, Corpus, Dataset, Turns, concat, draw, shares, turns_of
from models.sequence.evaluate import CUTOFFS, Evaluation, bootstrap, ndcg, rank_in
from models.sequence.stems import Pairs, choose, cohorts_of, recommend
from segue.adapters.datasets import load
from segue.catalogue import Catalogue
from segue.events import NO_ITEM, Events
from segue.features.sequence import item_sequences
from segue.history import HISTORY_LIMIT, Timelines
from segue.inference import trending
from segue.inference.cohorts import NO_STEM, Categories, Cohorts, common_names, stems
from segue.inference.followers import LENGTHS, Followers, Mixture
from segue.inference.ladder import Popular, by_votes
from segue.simulator import Shop, ShopConfig

HOUR_MS = 3_600_000
WINDOWS_MS = {"1h": HOUR_MS, "1d": 24 * HOUR_MS, "7d": 7 * 24 * HOUR_MS, "30d": 30 * 24 * HOUR_MS}

REFRESH_MS = 600_000
"""How old live statistics may be: the job that counts and the service that reads each take up to five minutes."""

ARRIVING_RATIO = 0.9
"""Share of the simulated customers who join while the shop is open."""

DRAWN = 8
"""Turns looked at for each one asked for."""

Counts = Mapping[str, NDArray[np.float64]]
"""By window, and `training`: events, or turns, of each item, shape (i,)."""

Rule = Callable[[Counts], NDArray[np.float64]]


def rising(now: NDArray[np.float64], usual: NDArray[np.float64]) -> NDArray[np.float64]:
    """By how many standard deviations of a Poisson count `now` is above what is usual."""
    return (now - usual) / np.sqrt(usual + 1)


RULES: Mapping[str, Rule] = {
    "training": lambda count: count["training"],
    "30d": lambda count: count["30d"],
    "7d": lambda count: count["7d"],
    "1d": lambda count: count["1d"],
    "1h": lambda count: count["1h"],
    "1h + 1d/24": lambda count: count["1h"] + count["1d"] / 24,
    "rising, 1d on 7d": lambda count: rising(count["1d"], count["7d"] / 7),
    "rising, 1h on 1d": lambda count: rising(count["1h"], count["1d"] / 24),
    "rate, no 1h": lambda count: trending.rate({name: count[name] for name in ("30d", "7d", "1d")}),
    **{f"rate, {strength:g}": partial(trending.rate, strength=strength) for strength in (0.3, 1.0, 3.0, 10.0)},
}
"""What may rank by live counts."""

ENDS = VOCABULARY, ANYTHING = "", ", anything"
"""What may be ranked by them."""

BESIDE = "7d"
"""What the others are compared with: what the popular rung ranked by before there was a ladder."""


@dataclass(frozen=True, eq=False)
class Asked:
    """Questions with what the rungs read of each."""

    cases: Cases
    stem: NDArray[np.int64]  # (n,)
    known_count: NDArray[np.int64]  # (n,) items of the prefix in the vocabulary

    def take(self, index: NDArray[np.intp]) -> Self:
        """The questions at positions `index`."""
        return replace(self, cases=self.cases.take(index), stem=self.stem[index], known_count=self.known_count[index])


def ask(timelines: Timelines, turns: Turns, corpus: Corpus, categories: Categories, config: Config) -> Asked:
    """The turns of `turns` that went to a new item after at most three known ones, within the limits of `config`."""
    turns = turns.take(draw(turns.customer, replace(config, max_cases=DRAWN * config.max_cases)))
    parts, stem, known = [], [], []
    for start in range(0, len(turns.item), CHUNK_CASES):
        rows = slice(start, start + CHUNK_CASES)
        now_ms = turns.time_ms[rows]
        histories = timelines.as_of(turns.customer[rows], now_ms)
        prefixes = item_sequences(histories, now_ms, length=HISTORY_LIMIT)
        parts.append(prefixes)
        stem.append(stems(histories, now_ms, categories))
        is_known = np.concatenate([[0], np.cumsum(corpus.vocabulary.index(prefixes.item) > 0)])
        known.append(np.diff(is_known[prefixes.offsets]))
    cases = Cases(turns, concat(parts), 0, len(turns.item))
    row = np.repeat(np.arange(len(cases)), np.diff(cases.prefixes.offsets))
    again = np.bincount(row[cases.prefixes.item == turns.item[row]], minlength=len(cases)) > 0
    asked = Asked(cases, np.concatenate(stem), np.concatenate(known))
    asked = asked.take(np.flatnonzero(~again & (asked.known_count <= 3)))
    # As many of either kind: first turns are rare in most logs.
    nothing = asked.known_count == 0
    drawn = [rows[draw(asked.cases.turns.customer[rows], config)] for rows in map(np.flatnonzero, (nothing, ~nothing))]
    return asked.take(np.concatenate(drawn))


@dataclass(frozen=True, eq=False)
class Live:
    """Every event of an item, in order of time: what the item statistics are counted from."""

    item: NDArray[np.int64]  # (i,) ascending
    index: NDArray[np.int64]  # (m,) position in `item`
    event_time_ms: NDArray[np.int64]  # (m,)
    available_time_ms: NDArray[np.int64]  # (m,)

    @classmethod
    def of(cls, events: Events) -> Self:
        """The events that have an item."""
        events = events.take(events.item != NO_ITEM)
        events = events.take(np.argsort(events.event_time_ms, kind="stable"))
        item, index = np.unique(events.item, return_inverse=True)
        return cls(item, index, events.event_time_ms, events.available_time_ms)

    def counts(self, cut_ms: int) -> dict[str, NDArray[np.float64]]:
        """Events of each item in each of WINDOWS_MS before `cut_ms`, of those available by then."""
        stop = np.searchsorted(self.event_time_ms, cut_ms)
        found = {}
        for name, window_ms in WINDOWS_MS.items():
            span = slice(np.searchsorted(self.event_time_ms, cut_ms - window_ms), stop)
            known = self.index[span][self.available_time_ms[span] <= cut_ms]
            found[name] = np.bincount(known, minlength=len(self.item)).astype(np.float64)
        return found


def by_rules(
    live: Live, corpus: Corpus, asked: Asked, rules: Mapping[str, Rule] = RULES
) -> dict[str, NDArray[np.int64]]:
    """What each of `rules` recommends, of the vocabulary and of anything: item ids (n, 20)."""
    place = np.searchsorted(live.item, corpus.vocabulary.item[1:])
    training = np.zeros(len(live.item))
    training[place] = corpus.popularity[1:]
    unknown = np.ones(len(live.item), bool)
    unknown[place] = False
    cut_ms = asked.cases.turns.time_ms // REFRESH_MS * REFRESH_MS
    shape = (len(asked.cases), max(CUTOFFS))
    best = {name + end: np.zeros(shape, np.int64) for end in ENDS for name in rules}
    prefixes = asked.cases.prefixes
    for cut in np.unique(cut_ms).tolist():
        count = live.counts(cut) | {"training": training}
        rows = np.flatnonzero(cut_ms == cut).tolist()
        for name, rule in rules.items():
            score = rule(count)
            for end in ENDS:
                order = live.item[
                    best_of(np.where(unknown & (end == VOCABULARY), -np.inf, score), HISTORY_LIMIT + shape[1])
                ]
                for row in rows:
                    seen = prefixes.item[prefixes.offsets[row] : prefixes.offsets[row + 1]]
                    fresh = order[~np.isin(order, seen)][: shape[1]]
                    best[name + end][row, : len(fresh)] = fresh
    return best


def best_of(score: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """The `count` highest of `score`, best first, equals in their order."""
    least = np.partition(score, -count)[-count] if len(score) > count else -np.inf
    high = np.flatnonzero(score >= least)
    return high[np.argsort(-score[high], kind="stable")[:count]]


def by_items(followers: Followers, corpus: Corpus, asked: Asked) -> NDArray[np.int64]:
    """What the items of the prefix vote for: item ids (n, 20); what is popular where they do not."""
    popular = Popular.of(corpus.popularity)
    items = corpus.vocabulary.windows(asked.cases.prefixes).items
    best = np.zeros((len(items), max(CUTOFFS)), np.int64)
    for row, ranked in enumerate(by_votes(followers.votes(items), popular, items, best.shape[1])):
        index, _ = ranked or popular.ranked(items[row], best.shape[1])
        best[row, : len(index)] = corpus.vocabulary.item[index]
    return best


def learn(events: Events, dataset: Dataset, catalogue: Catalogue, config: Config) -> Cohorts | None:
    """The cohorts of what `dataset` learns from, a split of `events`.

    Returns:
        None where validation does not show, by a 95 % interval above zero, that customers of whom the encoder knows
        nothing are answered better by cohorts than by what is trending: then they are not worth their place.
    """
    validation_ms, test_ms = dataset.cuts_ms
    timelines = Timelines.of(events)
    categories = Categories.of(catalogue, common_names(catalogue))
    turns = turns_of(timelines)
    inside = (validation_ms <= turns.time_ms) & (turns.time_ms < test_ms)
    asked = ask(timelines, turns.take(inside), dataset.choosing, categories, config)
    asked = asked.take(np.flatnonzero(asked.known_count == 0))
    if not len(asked.cases):
        return None
    pairs = Pairs.known_at(timelines, validation_ms, dataset.choosing.vocabulary, categories)
    chosen = choose(pairs, dataset.choosing, categories, asked.stem, asked.cases)
    cohorts = cohorts_of(pairs, dataset.choosing.popularity, categories, **chosen)
    rate = by_rules(Live.of(timelines.events), dataset.choosing, asked, {"rate": trending.rate})["rate" + ANYTHING]
    own = recommend(cohorts, dataset.choosing, asked.stem, asked.cases.prefixes)
    ahead = ndcg(rank_in(own, asked.cases), 10) - ndcg(rank_in(rate, asked.cases), 10)
    if not bootstrap(ahead[:, None], asked.cases.turns.customer)[0].low > 0:
        return None
    if dataset.final is not dataset.choosing:
        pairs = Pairs.known_at(timelines, test_ms, dataset.final.vocabulary, categories)
    return cohorts_of(pairs, dataset.final.popularity, categories, **chosen)


def parts(asked: Asked) -> dict[str, NDArray[np.bool_]]:
    """Parts of the questions by what is known, each (n,)."""
    nothing = asked.known_count == 0
    return {
        "no event": nothing & (asked.stem == NO_STEM),
        "events, no known item": nothing & (asked.stem != NO_STEM),
        "one to three known items": ~nothing,
    }


def measure(events: Events, catalogue: Catalogue, config: Config) -> None:
    """Choose on validation, judge on test, print both."""
    validation_ms, test_ms = shares(events.event_time_ms, config)
    timelines = Timelines.of(events)
    categories = Categories.of(catalogue, common_names(catalogue))
    turns, live = turns_of(timelines), Live.of(timelines.events)
    spans = {"validation": (validation_ms, test_ms), "test": (test_ms, np.iinfo(np.int64).max)}
    chosen: dict[str, float] = {}
    for name, (start_ms, stop_ms) in spans.items():
        corpus = Corpus.known_at(timelines, start_ms)
        inside = (start_ms <= turns.time_ms) & (turns.time_ms < stop_ms)
        asked = ask(timelines, turns.take(inside), corpus, categories, config)
        pairs = Pairs.known_at(timelines, start_ms, corpus.vocabulary, categories)
        if not chosen:
            chosen = choose(pairs, corpus, categories, asked.stem, asked.cases)
        cohorts = cohorts_of(pairs, corpus.popularity, categories, **chosen)
        table = strongest(markov(corpus, step_decay=0.7, backward=0.3, shrinkage=20.0))
        followers = Followers(table, Mixture(0.8, 1e-3, (1.0,) * len(LENGTHS)))
        best = by_rules(live, corpus, asked)
        best["cohort"] = recommend(cohorts, corpus, asked.stem, asked.cases.prefixes)
        everybody = np.full_like(asked.stem, NO_STEM)
        best["cohort of all"] = recommend(cohorts, corpus, everybody, asked.cases.prefixes)
        best["item-to-item"] = by_items(followers, corpus, asked)
        print(f"\n## {name}; cohorts: {chosen}, {len(cohorts)} stems")
        for part, rows in parts(asked).items():
            show(part, np.flatnonzero(rows), asked, corpus, best)


def show(
    part: str, rows: NDArray[np.intp], asked: Asked, corpus: Corpus, best: Mapping[str, NDArray[np.int64]]
) -> None:
    """Print the rungs on the questions `rows`, the best first."""
    if not len(rows):
        return
    cases = asked.cases.take(rows)
    lists = {name: each[rows] for name, each in best.items()}
    rank = {name: rank_in(each, cases) for name, each in lists.items()}
    is_known = corpus.vocabulary.index(cases.turns.item) > 0
    judged = Evaluation(cases, is_known, lists, rank)
    customers = len(np.unique(cases.turns.customer))
    print(f"\n{part}: {len(rows):,} turns of {customers:,} customers, {is_known.mean():.3f} of them to known items\n")
    print(f"| | NDCG@10 | Recall@10 | ahead of {BESIDE}, NDCG@10 |\n|---|---:|---:|---:|")
    for name in sorted(rank, key=lambda name: -ndcg(rank[name], 10).mean()):
        scores, margin = judged.scores(name), judged.margins(BESIDE, of=name)["ndcg@10"]
        print(f"| {name} | {scores['ndcg@10'].mean:.4f} | {scores['recall@10'].mean:.4f} | {margin:+} |")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m models.sequence.ladder", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path(__file__).parent / "configs" / "shop.toml")
    parser.add_argument("--data", type=Path, help="folder of a public data set; a simulated shop unless given")
    parser.add_argument("--customers", type=int, default=6_000, help="of the simulated shop")
    parser.add_argument("--items", type=int, default=1_000, help="of the simulated shop")
    parser.add_argument("--days", type=int, default=60, help="of the simulated shop")
    parser.add_argument("--seed", type=int, default=1, help="of the simulated shop")
    parser.add_argument("--until-days", type=float, default=1e9, help="only so much of the log, from its beginning")
    parser.add_argument("--cases", type=int, default=3_000, help="the most turns asked for of either kind")
    args = parser.parse_args()
    config = replace(read(args.config), max_cases=args.cases)
    if args.data is not None:
        data = load(args.data)
        age_ms = data.events.event_time_ms - data.events.event_time_ms.min()
        measure(data.events.take(age_ms < args.until_days * 24 * HOUR_MS), data.catalogue, config)
    else:
        # Most customers join while it lasts: their first turns are what is asked for.
        size = {name: getattr(args, name) for name in ("customers", "items", "days", "seed")}
        shop = Shop(ShopConfig(**size, arriving_ratio=ARRIVING_RATIO))
        measure(Events.concat(shop.stream()), shop.catalogue, config)


if __name__ == "__main__":
    main()
