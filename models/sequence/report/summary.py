"""The result in words and numbers: a sentence, the protocol, the model card, a table for a terminal."""

from datetime import UTC, datetime

import numpy as np
from rich.table import Table

from models.sequence.baselines import CHOOSING_CASES
from models.sequence.config import Config
from models.sequence.dataset import Cases, Corpus, Dataset
from models.sequence.evaluate import CUTOFFS, METRICS, MODEL, RESAMPLES, Evaluation
from segue.history import HISTORY_LIMIT

TITLES = {"ndcg": "NDCG", "recall": "Recall", "mrr": "MRR"}


def headline(evaluation: Evaluation) -> str:
    """The result in one sentence."""
    model = evaluation.scores(MODEL)["ndcg@10"]
    rivals = ", ".join(
        f"{evaluation.margins(rival)['ndcg@10']:+} ahead of {rival} ({evaluation.scores(rival)['ndcg@10'].mean:.4f})"
        for rival in evaluation.rivals
    )
    return (
        f"NDCG@10 {model} on {len(evaluation.cases):,} turns, {evaluation.is_known.mean():.1%} of them to items known "
        f"in training: {rivals}."
    )


def protocol(config: Config, dataset: Dataset, evaluation: Evaluation) -> list[str]:
    """How the numbers came about, in sentences."""
    validation, test = (_time(each) for each in dataset.cuts_ms)
    fitted = test if config.refit else validation
    return [
        "Asked: which item a customer turns to next, at each turn (the first event of a run of events on one item), "
        f"from what was known just before it: the newest {HISTORY_LIMIT} events with event time before the turn that "
        f"had arrived by then. The model reads the newest {config.length} items of that.",
        f"Split, global in time: validation from {validation}, test from {test} to {_time(dataset.end_ms)}.",
        f"Fitted on what was known at {fitted}, model and baselines alike: {_corpus(dataset.final)}.",
        f"Chosen: the number of epochs, by NDCG@10 on {_cases(dataset.validation)} of a model fitted on what was known "
        f"at {validation}. The test span chose nothing.",
        f"Judged on {_cases(evaluation.cases)}, drawn at random, at most {config.max_cases_per_customer} of a customer "
        f"and {config.max_cases:,} in all.",
        "Filtered: nothing; items of the prefix may be recommended and are asked for."
        if config.include_seen
        else f"Filtered: the items of the prefix. The {evaluation.cases.seen_count:,} drawn turns back to one of them "
        "are not asked for.",
        "Ranked: the whole vocabulary, never a sample. A turn to an item that was new after training counts as missed "
        f"by all: nobody can reach a recall above {evaluation.is_known.mean():.4f}.",
        "Asked through the exported graph and the ladder, as a service asks: a prefix without a known item is answered "
        "by popularity.",
        f"Baselines, counted or in closed form, are fitted as the model is; their parameters are those that rank best "
        f"at most {CHOOSING_CASES:,} of the validation turns, by NDCG@10. They read the newest {HISTORY_LIMIT} items.",
        f"Intervals: 95 %, {RESAMPLES:,} resamples of the test customers with all of their turns; training seed "
        f"{config.seed}.",
    ]


def card(config: Config, dataset: Dataset, evaluation: Evaluation) -> str:
    """The model card that travels in the bundle, as Markdown."""
    lines = "\n".join(f"- {line}" for line in protocol(config, dataset, evaluation))
    return f"# {config.name}\n\n{headline(evaluation)}\n\n## Protocol\n\n{lines}\n"


def table(evaluation: Evaluation, title: str) -> Table:
    """Every metric of every recommender, the model's with its interval, for a terminal."""
    out = Table(title=title)
    out.add_column("")
    for name in evaluation.rank:
        out.add_column(name, justify="right", style="bold" if name == MODEL else None)
    scores = {name: evaluation.scores(name) for name in evaluation.rank}
    for metric in METRICS:
        for k in CUTOFFS:
            estimates = {name: each[f"{metric}@{k}"] for name, each in scores.items()}
            cells = (f"{each:}" if name == MODEL else f"{each.mean:.4f}" for name, each in estimates.items())
            out.add_row(f"{TITLES[metric]}@{k}", *cells, end_section=k == CUTOFFS[-1])
    return out


def _corpus(corpus: Corpus) -> str:
    return (
        f"{len(corpus.index):,} turns of {len(corpus.offsets) - 1:,} customers to {len(corpus.vocabulary) - 1:,} items"
    )


def _cases(cases: Cases) -> str:
    customers = len(np.unique(cases.turns.customer))
    return f"{len(cases):,} turns of {customers:,} customers (of {cases.turn_count:,} turns in the span)"


def _time(t_ms: int) -> str:
    return datetime.fromtimestamp(t_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
