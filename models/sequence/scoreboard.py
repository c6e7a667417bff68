"""The scoreboard of a benchmark: every metric of every contender, as JSON, as Markdown and for a terminal."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from models.sequence.benchmark import Benchmark
from models.sequence.evaluate import CUTOFFS, METRICS, RESAMPLES, Estimate, Evaluation
from models.sequence.spread import spread

SHOWN = ("ndcg@10", "recall@10", "mrr@10", "ndcg@20", "recall@20", "mrr@20")


def content(benchmark: Benchmark, evaluation: Evaluation, *, data: str, protocol: str, git_sha: str) -> dict[str, Any]:
    """Everything that was measured, as JSON knows it; the first contender is the one that others are compared with."""
    first, *_ = evaluation.rank
    slices = evaluation.slices()
    corpus = benchmark.posed.split.final
    return {
        "data": data,
        "protocol": protocol,
        "rules": benchmark.posed.rules,
        "seed": benchmark.posed.config.seed,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "git_sha": git_sha,
        "cases": len(evaluation.cases),
        "known_ratio": float(evaluation.is_known.mean()),
        "contenders": {
            name: {
                "metrics": _plain(evaluation.scores(name)),
                "spread": spread(evaluation.best[name], evaluation.cases.turns.item, corpus),
                f"ahead_of_{first}": {} if name == first else _plain(evaluation.margins(first, of=name)),
                "ndcg@10_by_part": {part: _plain(each)[name] for part, each in slices.items()},
                "chosen": benchmark.contenders[name].chosen,
                "fit_seconds": benchmark.contenders[name].fit_seconds,
                "ask_seconds": benchmark.ask_seconds[name],
            }
            for name in evaluation.rank
        },
    }


def write(directory: Path, measured: Mapping[str, Any]) -> Path:
    """Write `benchmark-<data>-<protocol>.json` and `.md` into `directory`; return the path of the latter."""
    directory.mkdir(parents=True, exist_ok=True)
    name = f"benchmark-{measured['data']}-{measured['protocol']}"
    (directory / f"{name}.json").write_text(json.dumps(measured, indent=1) + "\n")
    page = directory / f"{name}.md"
    page.write_text(markdown(measured))
    return page


def markdown(measured: Mapping[str, Any]) -> str:
    """The scoreboard as Markdown."""
    contenders: Mapping[str, Any] = measured["contenders"]
    first, *_ = contenders
    heads = [f"{metric}@{k}" for metric in METRICS for k in CUTOFFS]
    metrics = _rows(
        {name: [f"{each['metrics'][head]['mean']:.4f}" for head in heads] for name, each in contenders.items()}
    )
    ahead = {name: each[f"ahead_of_{first}"] for name, each in contenders.items() if name != first}
    margins = _rows(
        {name: [interval(each[head]) for head in SHOWN] for name, each in ahead.items()},
    )
    costs = {name: (f"{each['fit_seconds']:,.0f}", f"{each['ask_seconds']:,.1f}") for name, each in contenders.items()}
    spreads = _rows(
        {
            name: [*(f"{value:.4f}" for value in each["spread"].values()), *costs[name]]
            for name, each in contenders.items()
        }
    )
    parts = list(next(iter(contenders.values()))["ndcg@10_by_part"])
    slices = _rows(
        {name: [f"{each['ndcg@10_by_part'][part]['mean']:.4f}" for part in parts] for name, each in contenders.items()}
    )
    chosen = "\n".join(f"- {name}: `{json.dumps(each['chosen'])}`" for name, each in contenders.items())
    intervals = f"Intervals: 95 %, {RESAMPLES:,} resamples of the customers; training seed {measured['seed']}."
    rules = "\n".join(f"- {rule}" for rule in [*measured["rules"], intervals])
    spread_heads = [*next(iter(contenders.values()))["spread"], "fit, CPU s", "ask, CPU s"]
    return (
        f"# {measured['data']}, {measured['protocol']}, {measured['date']}\n\n{rules}\n\n"
        f"{_head(heads)}{metrics}\n\nAhead of {first} on the same cases, with p of a paired bootstrap test:\n\n"
        f"{_head(SHOWN)}{margins}\n\n{_head(spread_heads)}{spreads}\n\nNDCG@10 by part of the cases:\n\n"
        f"{_head(parts)}{slices}\n\nChosen on validation:\n\n{chosen}\n"
    )


def table(measured: Mapping[str, Any]) -> Table:
    """The metrics most often published, for a terminal."""
    out = Table(title=f"{measured['data']}, {measured['protocol']}: {measured['cases']:,} cases")
    for head in ("", *SHOWN, "fit, CPU s"):
        out.add_column(head, justify="right" if head else "left")
    for name, each in measured["contenders"].items():
        cells = (f"{each['metrics'][head]['mean']:.4f}" for head in SHOWN)
        out.add_row(name, *cells, f"{each['fit_seconds']:,.0f}")
    return out


def interval(estimate: Mapping[str, float]) -> str:
    """An estimate of a difference, with what is known of its chance."""
    return f"{estimate['mean']:+.4f} [{estimate['low']:+.4f}, {estimate['high']:+.4f}] p={estimate['p_value']:.3f}"


def _plain(estimates: Mapping[str, Estimate]) -> dict[str, dict[str, float]]:
    return {name: vars(each) for name, each in estimates.items()}


def _head(columns: Any) -> str:
    return f"| | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}\n"


def _rows(rows: Mapping[str, list[str]]) -> str:
    return "\n".join(f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items())
