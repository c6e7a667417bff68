"""The report: one HTML page that needs nothing beside it, its plots, and the same numbers as a table for a terminal."""

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from html import escape
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

from models.sequence.baselines import CHOOSING_CASES
from models.sequence.config import Config
from models.sequence.dataset import Cases, Corpus, Dataset
from models.sequence.evaluate import CUTOFFS, METRICS, MODEL, RESAMPLES, Estimate, Evaluation
from models.sequence.run import Epoch
from segue.history import HISTORY_LIMIT

TITLES = {"ndcg": "NDCG", "recall": "Recall", "mrr": "MRR"}
COLOURS = ("#1769aa", "#c2570c", "#5b6672", "#2f7d4f", "#8a4fa3", "#b08a00", "#3aa0a8")

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; color: #1c2530; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.1rem; margin-top: 2rem; }} img {{ max-width: 100%; }}
table {{ border-collapse: collapse; }} td, th {{ padding: .25rem .6rem; text-align: right; }}
th {{ border-bottom: 1px solid #8a94a0; }} td:first-child, th:first-child {{ text-align: left; }}
tr.model {{ font-weight: 600; }} small {{ color: #5b6672; font-weight: 400; }}
</style></head><body>
<h1>{title}</h1>
<p>{headline}</p>
<h2>Against counting, on the held-out future</h2>{scores}
<h2>By how much the model is ahead, on the same turns</h2>{margins}
<img alt="NDCG, recall and MRR by cutoff, NDCG by part, learning curve" src="data:image/png;base64,{plots}">
<h2>NDCG@10 by part</h2>{slices}
<h2>Protocol</h2><ul>{protocol}</ul>
<details><summary>Configuration</summary><pre>{config}</pre></details>
</body></html>
"""


def write(directory: Path, config: Config, dataset: Dataset, evaluation: Evaluation, curve: Sequence[Epoch]) -> Path:
    """Write `<name>.html` and `<name>.png` into `directory`; return the page's path."""
    directory.mkdir(parents=True, exist_ok=True)
    png = plots(evaluation, curve)
    (directory / f"{config.name}.png").write_bytes(png)
    names = {TITLES[metric] + f"@{k}": f"{metric}@{k}" for metric in METRICS for k in CUTOFFS}
    page = directory / f"{config.name}.html"
    page.write_text(
        PAGE.format(
            title=f"Sequence: {escape(config.name)}",
            headline=escape(headline(evaluation)),
            scores=_table("", names, {name: evaluation.scores(name) for name in evaluation.rank}),
            margins=_table("ahead of", names, {name: evaluation.margins(name) for name in evaluation.rivals}),
            plots=base64.b64encode(png).decode(),
            slices=_table("turns", {name: name for name in evaluation.rank}, evaluation.slices()),
            protocol="".join(f"<li>{escape(line)}</li>" for line in protocol(config, dataset, evaluation)),
            config=escape(json.dumps(asdict(config), indent=2)),
        )
    )
    return page


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


def plots(evaluation: Evaluation, curve: Sequence[Epoch]) -> bytes:
    """Metrics by cutoff, NDCG@10 by part of the cases, and the learning curve, as PNG."""
    figure = Figure(figsize=(13, 8), layout="constrained")
    panels = figure.add_gridspec(2, 6)
    for number, metric in enumerate(METRICS):
        panel = figure.add_subplot(panels[0, 2 * number : 2 * number + 2])
        for name, colour in zip(evaluation.rank, COLOURS, strict=False):
            scores = [evaluation.scores(name)[f"{metric}@{k}"] for k in CUTOFFS]
            panel.plot(CUTOFFS, [each.mean for each in scores], "o-", color=colour, label=name)
            panel.fill_between(
                CUTOFFS, [each.low for each in scores], [each.high for each in scores], color=colour, alpha=0.15, lw=0
            )
        _frame(panel, TITLES[metric], "k", f"{TITLES[metric]}@k")
    figure.axes[0].legend(frameon=False, fontsize=8)
    _slices(figure.add_subplot(panels[1, :3]), evaluation)
    _curve(figure.add_subplot(panels[1, 3:]), curve)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _slices(axes: Axes, evaluation: Evaluation) -> None:
    slices = evaluation.slices()
    place = np.arange(len(slices))
    for number, (name, colour) in enumerate(zip(evaluation.rank, COLOURS, strict=False)):
        estimates = [each[name] for each in slices.values()]
        mean = np.array([each.mean for each in estimates])
        error = [mean - [each.low for each in estimates], [each.high for each in estimates] - mean]
        offset = 0.1 * (number - (len(evaluation.rank) - 1) / 2)
        axes.errorbar(place + offset, mean, error, fmt="o", color=colour, capsize=2)
    axes.set_xticks(place, [part.replace(" (", "\n(") for part in slices], fontsize=8)
    _frame(axes, "NDCG@10 by part", "turns", "NDCG@10")


def _curve(axes: Axes, curve: Sequence[Epoch]) -> None:
    epochs = np.arange(1, len(curve) + 1)
    axes.plot(epochs, [epoch.validation_ndcg_10 for epoch in curve], "o-", color=COLOURS[0])
    _frame(axes, "Learning: validation NDCG@10 (line), training loss (dots)", "epoch", "NDCG@10")
    loss = axes.twinx()
    loss.plot(epochs, [epoch.loss for epoch in curve], ".", color=COLOURS[2])
    loss.set_ylabel("loss")
    loss.spines["top"].set_visible(False)


def _frame(axes: Axes, title: str, across: str, up: str) -> None:
    axes.set(title=title, xlabel=across, ylabel=up)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def _table(corner: str, columns: dict[str, str], rows: dict[str, dict[str, Estimate]]) -> str:
    heads = "".join(f"<th>{escape(head)}</th>" for head in (corner, *columns))
    body = []
    for name, estimates in rows.items():
        shown = (estimates[key] for key in columns.values())
        cells = "".join(f"<td>{e.mean:.4f}<br><small>{e.low:.4f} to {e.high:.4f}</small></td>" for e in shown)
        body.append(f'<tr class="{"model" if name == MODEL else "rival"}"><td>{escape(name)}</td>{cells}</tr>')
    return f"<table><tr>{heads}</tr>{''.join(body)}</table>"


def _corpus(corpus: Corpus) -> str:
    return (
        f"{len(corpus.index):,} turns of {len(corpus.offsets) - 1:,} customers to {len(corpus.vocabulary) - 1:,} items"
    )


def _cases(cases: Cases) -> str:
    customers = len(np.unique(cases.turns.customer))
    return f"{len(cases):,} turns of {customers:,} customers (of {cases.turn_count:,} turns in the span)"


def _time(t_ms: int) -> str:
    return datetime.fromtimestamp(t_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
