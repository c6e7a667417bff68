"""What an hour of news means: what updates online, beside what is fitted once, by the age of the item asked for."""

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from models.sequence import config, protocols
from models.sequence.benchmark import DEEP, Benchmark
from models.sequence.evaluate import Estimate, Evaluation, Recommender, joined, judge, recall
from models.sequence.live import HOUR_MS, Stream
from models.sequence.news import News, ages_of, choose, fit_trees, recommender
from models.sequence.protocols import Posed
from segue.adapters import datasets
from segue.adapters.provenance import git_sha
from segue.errors import InvalidInput
from segue.events import Events

SHOWN = ("ndcg@10", "recall@10", "mrr@10", "ndcg@20", "recall@20")
NEWS, TRENDING, LIVE_MARKOV = "news", "trending", "live-markov"


@dataclass(eq=False)
class Online:
    """The contenders that update online, over one posed data set."""

    posed: Posed
    benchmark: Benchmark
    stream: Stream
    chosen: dict[str, Any] = field(default_factory=dict)
    spent: dict[str, float] = field(default_factory=dict)
    """Processor time of choosing, fitting and asking."""

    def run(self, deep: str | None) -> Evaluation:
        """Choose, fit and ask `trending`, `live-markov`, `news` and, given a deep model, `news+<deep>`."""
        split, seen = self.posed.split, self.posed.config.include_seen
        began = time.process_time()
        trending, markov = choose(self.stream, split.validation, include_seen=seen)
        self.chosen = {TRENDING: asdict(trending), LIVE_MARKOV: asdict(markov)}
        choosing = time.process_time() - began
        answers: dict[str, Recommender] = {
            name: recommender(live, self.stream, split.test, include_seen=seen)
            for name, live in ((TRENDING, trending), (LIVE_MARKOV, markov))
        }
        news = News(self.stream, trending, markov, seen)
        answers[NEWS] = self._news(news, None)
        if deep is not None:
            answers[f"{NEWS}+{deep}"] = self._news(news, deep)
        evaluations = {}
        for name, answer in answers.items():
            began = time.process_time()
            evaluations[name] = judge(split.test, split.final.vocabulary, {name: answer})
            self.spent[name] = choosing + time.process_time() - began
        return joined(list(evaluations.values()))

    def _news(self, news: News, deep: str | None) -> Recommender:
        split = self.posed.split
        contender = self.benchmark.contender(deep) if deep else None
        choosing, final = (contender.choosing, contender.scorer) if contender else (None, None)

        def recommend(_: object) -> NDArray[np.int64]:
            before = news.retrieve(split.validation, choosing, split.choosing.vocabulary)
            trees = fit_trees(before, self.posed.config.seed)
            del before
            return news.retrieve(split.test, final, split.final.vocabulary).recommend(trees)

        return recommend


def recall_by_age(evaluation: Evaluation, stream: Stream, posed: Posed) -> dict[str, dict[str, float]]:
    """The share of the turns to items of each age, and every contender's Recall@10 on them."""
    parts = ages_of(stream, evaluation.cases, posed.split.final.vocabulary)
    return {
        part: {"share": float(inside.mean())}
        | {name: float(recall(rank, 10)[inside].mean()) for name, rank in evaluation.rank.items()}
        for part, inside in parts.items()
        if inside.any()
    }


def markdown(measured: Mapping[str, Any]) -> str:
    """The tables of what was measured."""
    scores, ahead, ages = measured["scores"], measured["ahead"], measured["recall@10_by_age"]
    lines = [f"# {measured['data']}: what is known now, {measured['cases']:,} turns", ""]
    lines += [f"- {rule}" for rule in measured["rules"]]
    lines += ["", f"| | {' | '.join(SHOWN)} | `{measured['best']}` ahead, NDCG@10 | CPU s |"]
    lines += ["|---|" + "---:|" * (len(SHOWN) + 2)]
    for name, each in scores.items():
        margin = ahead.get(name)
        cells = [
            *(f"{each[metric]['mean']:.4f}" for metric in SHOWN),
            "" if margin is None else f"{Estimate(**margin):+}",
        ]
        spent = measured["processor_seconds"].get(name)
        lines += [f"| {name} | {' | '.join(cells)} | {'' if spent is None else f'{spent:,.0f}'} |"]
    names = list(scores)
    lines += ["", f"| Recall@10, item first turned to | share of turns | {' | '.join(names)} |"]
    lines += ["|---|" + "---:|" * (len(names) + 1)]
    for part, row in ages.items():
        lines += [f"| {part} | {row['share']:.1%} | {' | '.join(f'{row[name]:.3f}' for name in names)} |"]
    return "\n".join([*lines, "", f"Chosen on validation: `{json.dumps(measured['chosen'])}`", ""])


def since_ms(events: Events, posed: Posed, days: float) -> int:
    """When the stream begins: `days` before the first question.

    Raises:
        InvalidInput: validation asks nothing.
    """
    if not len(posed.split.validation):
        raise InvalidInput.because("validation_ratio", "leaves no turn to choose by")
    first_ms = int(min(posed.split.validation.turns.time_ms.min(), events.event_time_ms.max()))
    return first_ms - int(days * 24 * HOUR_MS)


def run(args: argparse.Namespace) -> None:
    """Judge what updates online beside fitted models on a log of news, split by time."""
    console = Console()
    torch.set_num_threads(args.threads)
    data = datasets.load(args.data)
    settings = config.read(args.config, seed=args.seed)
    posed = protocols.pose("temporal", data, settings)
    stream = Stream.of(data.events, since_ms(data.events, posed, args.days))
    fitted = Benchmark(posed, console, args.checkpoint)
    offline = fitted.run(args.models)
    deep = next((name for name in args.models if name in DEEP), None)
    online = Online(posed, fitted, stream)
    evaluation = joined([online.run(deep), offline])
    best = max(evaluation.rank, key=lambda name: evaluation.scores(name)["ndcg@10"].mean)
    measured = {
        "data": data.name,
        "rules": [*posed.rules, f"Online: counted as of each turn, from {args.days:g} days before validation on."],
        "git_sha": git_sha(Path(__file__).parent),
        "seed": settings.seed,
        "cases": len(evaluation.cases),
        "best": best,
        "scores": {name: {k: vars(v) for k, v in evaluation.scores(name).items()} for name in evaluation.rank},
        "ahead": {name: vars(evaluation.margins(name, of=best)["ndcg@10"]) for name in evaluation.rank if name != best},
        "recall@10_by_age": recall_by_age(evaluation, stream, posed),
        "chosen": online.chosen | {name: fitted.contenders[name].chosen for name in args.models},
        "processor_seconds": online.spent
        | {name: fitted.contenders[name].fit_seconds + fitted.ask_seconds[name] for name in args.models},
    }
    args.report_dir.mkdir(parents=True, exist_ok=True)
    (args.report_dir / f"news-{data.name}.json").write_text(json.dumps(measured, indent=1) + "\n")
    page = args.report_dir / f"news-{data.name}.md"
    page.write_text(markdown(measured))
    console.print(page.read_text(), highlight=False, soft_wrap=True, markup=False)
