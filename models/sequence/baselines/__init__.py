"""Baselines in closed form or by counting: what a model must beat to be worth its cost.

Each is fitted on the corpus the model was trained on. Its parameters are the ones that rank the validation cases best
when fitted on what was known before them, found one parameter at a time from the first of its choices.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from models.sequence.baselines.ease import ease
from models.sequence.baselines.linear import Linear, Table, silence
from models.sequence.baselines.markov import markov
from models.sequence.baselines.neighbours import neighbours
from models.sequence.config import Config
from models.sequence.dataset import Cases, Corpus, Split, sample
from models.sequence.evaluate import Recommender, ndcg
from models.sequence.ranking import places, recommender

CHOOSING_CASES = 1000
"""The most validation cases by which parameters are chosen."""

EASE_ITEMS_MAX = 20_000
"""EASE's table is dense: with more items than this it is left out."""

BESIDE = ("markov", "ease-recency", "popularity")
"""What every training run is reported beside: the strongest here, and the usual one."""

BESIDE_EASE_ITEMS_MAX = 4000
"""With more items than this EASE is too slow for that."""


@dataclass(frozen=True)
class Family:
    """One kind of baseline and what its parameters may be; the first of the choices is where the search begins."""

    table: Callable[..., Table]
    """From a corpus and one of the choices for each parameter."""
    parameters: Mapping[str, Sequence[float]] = field(default_factory=dict)
    age_decay: Sequence[float] = (1.0,)
    """What an item of the prefix counts per turn further back: 1 is the plain method."""


RECENCY = (0.8, 0.5, 0.6, 0.7, 0.9, 0.95, 1.0)
FOLLOWERS = {"step_decay": (0.7, 0.5, 0.85), "backward": (0.0, 0.3, 0.6), "shrinkage": (20.0, 5.0, 60.0)}
COSINE = {"shrinkage": (20.0, 1.0, 80.0), "count": (200, 50)}
RIDGE = {"penalty": (300.0, 30.0, 1000.0)}

FAMILIES: Mapping[str, Family] = {
    "markov": Family(markov, FOLLOWERS, RECENCY),
    "ease-recency": Family(ease, RIDGE, RECENCY),
    "ease": Family(ease, RIDGE),
    "knn-recency": Family(neighbours, COSINE, RECENCY),
    "knn": Family(neighbours, COSINE),
    "popularity": Family(silence),
}
"""Every baseline by name."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """A baseline with the parameters that validation chose."""

    choosing: Linear
    """Fitted on what was known before validation, by which the parameters were chosen."""
    scorer: Linear
    parameters: Mapping[str, float]


def fit(name: str, split: Split, *, include_seen: bool) -> Fitted:
    """Choose the parameters of the baseline `name` on validation, and fit it on the final corpus."""
    family = FAMILIES[name]
    chosen = choose(family, split.choosing, sample(split.validation, CHOOSING_CASES), include_seen=include_seen)
    if split.final is split.choosing:
        return chosen
    table = family.table(split.final, **chosen.parameters)
    return replace(chosen, scorer=linear(table, split.final, chosen.scorer.age_decay))


def choose(family: Family, corpus: Corpus, cases: Cases, *, include_seen: bool) -> Fitted:
    """`family` fitted on `corpus` with the parameters by which it ranks `cases` best, by NDCG@10.

    Where there is no case, or no difference, the first choice wins.
    """

    def judged(scorer: Linear) -> float:
        return float(ndcg(places(scorer, corpus.vocabulary, cases, include_seen=include_seen), 10).sum())

    parameters = {name: choices[0] for name, choices in family.parameters.items()}
    best = linear(family.table(corpus, **parameters), corpus, family.age_decay[0])
    value = judged(best)
    for name, choices in family.parameters.items():
        for choice in choices[1:]:
            tried = parameters | {name: choice}
            other = linear(family.table(corpus, **tried), corpus, family.age_decay[0])
            if (reached := judged(other)) > value:
                best, value, parameters = other, reached, tried
    for age_decay in family.age_decay[1:]:
        other = replace(best, age_decay=age_decay)
        if (reached := judged(other)) > value:
            best, value = other, reached
    return Fitted(best, best, parameters)


def linear(table: Table, corpus: Corpus, age_decay: float) -> Linear:
    """The scorer around `table`, with the popularity of `corpus` below it."""
    return Linear(table, corpus.popularity / corpus.popularity.sum(), age_decay)


def names(item_count: int, ease_items_max: int = EASE_ITEMS_MAX) -> list[str]:
    """The baselines that a vocabulary of `item_count` items allows."""
    return [name for name, family in FAMILIES.items() if family.table is not ease or item_count <= ease_items_max]


def beside(split: Split, config: Config) -> dict[str, Fitted]:
    """Every baseline that is cheap beside a training run: chosen on validation, fitted on the final corpus."""
    return {
        name: fit(name, split, include_seen=config.include_seen)
        for name in names(len(split.final.vocabulary), BESIDE_EASE_ITEMS_MAX)
        if name in BESIDE
    }


def recommenders(split: Split, config: Config, fitted: Mapping[str, Fitted] | None = None) -> dict[str, Recommender]:
    """What the baselines `fitted` recommend; those of `beside` unless given."""
    vocabulary, seen = split.final.vocabulary, config.include_seen
    given = beside(split, config) if fitted is None else fitted
    return {name: recommender(each.scorer, vocabulary, include_seen=seen) for name, each in given.items()}
