"""The page: one HTML file that needs nothing beside it, runs nothing and loads nothing."""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from models.sequence.config import Config
from models.sequence.dataset import Dataset
from models.sequence.evaluate import CUTOFFS, METRICS, MODEL, Estimate, Evaluation
from models.sequence.report import embedding_map, gallery, parts, plots
from models.sequence.report.examples import examples
from models.sequence.report.items import Items
from models.sequence.report.summary import TITLES, headline, protocol
from models.sequence.report.text import plain
from models.sequence.run import Epoch
from models.sequence.spread import GROUPS, diversity, spread
from segue.history import HISTORY_LIMIT
from segue.inference.sequence import SequenceScorer

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #1c2530; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.15rem; margin-top: 2.5rem; }} h3 {{ font-size: 1rem; margin: 0; }}
figure {{ margin: 1rem 0; }} img, svg.map {{ width: 100%; height: auto; display: block; }}
figcaption, p.note {{ color: #414b57; max-width: 58rem; margin: .4rem 0; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
td, th {{ padding: .25rem .6rem; text-align: right; vertical-align: top; }}
th {{ border-bottom: 1px solid #8a94a0; }} td:first-child, th:first-child {{ text-align: left; }}
td.model {{ font-weight: 600; }} small {{ color: #5b6672; font-weight: 400; }}
.wide {{ overflow-x: auto; }} .wide td {{ white-space: nowrap; }}
svg.map {{ border: 1px solid #dfe3e8; }} circle {{ fill-opacity: .75; }}
.legend span {{ display: inline-block; margin-right: 1.1rem; }}
.legend svg {{ width: .7rem; height: .7rem; margin-right: .35rem; }}
.example {{ border-top: 1px solid #dfe3e8; padding: 1rem 0; }} p.next {{ margin: .2rem 0 .6rem; }}
.sides {{ display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1.3fr); gap: 1.5rem; align-items: start; }}
.sides td {{ overflow-wrap: anywhere; font-size: .9rem; }} .sides td.why {{ text-align: left; }}
.sides th:nth-child(2), .sides td:nth-child(2), .sides th.why {{ text-align: left; }}
.sides td:last-child:not(.why) {{ white-space: nowrap; }} tr.hit {{ background: #e4f2e7; }}
@media (max-width: 50rem) {{ .sides {{ grid-template-columns: 1fr; }} }}
</style></head><body>
<h1>{title}</h1>
<p>{headline}</p>
{sections}
<h2>Protocol</h2><ul>{protocol}</ul>
<details><summary>Configuration</summary><pre>{config}</pre></details>
</body></html>
"""


@dataclass(frozen=True, eq=False)
class Subject:
    """What was judged, for what the page shows of it beyond the judgement: its items and examples of its answers."""

    scorer: SequenceScorer
    items: Items


def write(
    directory: Path,
    config: Config,
    dataset: Dataset,
    evaluation: Evaluation,
    curve: Sequence[Epoch],
    subject: Subject | None = None,
) -> Path:
    """Write `<name>.html` into `directory`, equal for equal arguments; return its path.

    Without a subject the page has no cold items, no cold customers, no map and no examples.
    """
    directory.mkdir(parents=True, exist_ok=True)
    page = directory / f"{config.name}.html"
    page.write_text(html(config, dataset, evaluation, curve, subject), encoding="utf-8")
    return page


def html(
    config: Config, dataset: Dataset, evaluation: Evaluation, curve: Sequence[Epoch], subject: Subject | None
) -> str:
    """The page as text."""
    sections = [*_accuracy(evaluation), *_learning(curve), *_parts(evaluation, subject)]
    sections += _spread(dataset, evaluation, subject)
    if subject is not None:
        sections += [*_map(dataset, subject), *_examples(config, evaluation, subject)]
    return PAGE.format(
        title=f"Sequence: {plain(config.name)}",
        headline=plain(headline(evaluation)),
        sections="\n".join(sections),
        protocol="".join(f"<li>{plain(line)}</li>" for line in protocol(config, dataset, evaluation)),
        config="\n".join(map(plain, json.dumps(asdict(config), indent=2).splitlines())),
    )


def _accuracy(evaluation: Evaluation) -> Iterable[str]:
    scores = {name: evaluation.scores(name) for name in evaluation.rank}
    margins = {name: evaluation.margins(name) for name in evaluation.rivals}
    yield "<h2>Against counting, on the held-out future</h2>"
    yield _figure(
        plots.metrics_by_cutoff(evaluation),
        "NDCG, recall and MRR by cutoff",
        "How high the item that came next stood: higher is better. Shaded: the 95 % interval of each, from resampling "
        "customers. Where two overlap, the table of differences decides.",
    )
    yield _table("", _by_metric(scores))
    yield "<h2>By how much the model is ahead, on the same turns</h2>"
    yield _note("An interval that does not hold 0 is a difference that the choice of customers does not explain.")
    yield _table("ahead of", _by_metric(margins))


def _learning(curve: Sequence[Epoch]) -> Iterable[str]:
    spent = sum(epoch.seconds for epoch in curve)
    yield "<h2>Learning</h2>"
    yield _figure(
        plots.learning(curve),
        "Training loss and validation NDCG@10 by epoch",
        f"{len(curve)} epochs, {spent:,.0f} s. The circle marks the epoch whose weights were kept; validation alone "
        "chose it. A curve that still rises at its end may rise further with longer training.",
    )


def _parts(evaluation: Evaluation, subject: Subject | None) -> Iterable[str]:
    yield "<h2>By length of the history</h2>"
    yield from _slices(
        evaluation.slices(),
        f"NDCG@10 by how many items the customer had turned to, as the newest {HISTORY_LIMIT} events tell; in brackets "
        "the number of turns. “Known item” leaves out the turns to items that are new after training.",
    )
    if subject is None:
        return
    yield "<h2>Cold items</h2>"
    yield from _slices(
        evaluation.by_part(parts.by_item_age(evaluation, subject.items)),
        "NDCG@10 by how long before the turn the log first held an event of its item. An item new after training may "
        "have been seen for days when it is asked for, and counts in both.",
    )
    yield "<h2>Cold customers</h2>"
    yield from _slices(
        evaluation.by_part(parts.by_customer(evaluation, subject.items)),
        "NDCG@10 by how little there is to go by. Customers with nothing behind them, or no item that the model knows, "
        "are answered by a lower rung of the ladder.",
    )


def _slices(slices: Mapping[str, Mapping[str, Estimate]], caption: str) -> Iterable[str]:
    yield _figure(plots.parts(slices), "NDCG@10 by part", caption)
    yield _table("turns", slices)


def _spread(dataset: Dataset, evaluation: Evaluation, subject: Subject | None) -> Iterable[str]:
    asked = evaluation.cases.turns.item
    rows = {name: spread(best, asked, dataset.final) for name, best in evaluation.best.items()}
    if subject is not None:
        items, category = subject.items, subject.items.categories()
        for name, best in evaluation.best.items():
            rows[name] |= diversity(best, items.vocabulary, category=category, embedding=items.embedding)
    yield "<h2>What is recommended beside what is wanted</h2>"
    yield _figure(
        plots.popularity(evaluation, dataset.final),
        "Popularity of what was turned to and of what was recommended",
        "Items in ten groups with a tenth of the training turns each, a few very popular items on the left, many rare "
        "ones on the right. Dashed: the known items customers turned to; lines: the ten best of every list. A line "
        "above the dashed one on the left recommends the popular more than they are wanted. The scale is that of the "
        "root.",
    )
    yield _numbers(rows)
    yield _note(
        "Coverage: the share of the vocabulary in any list. Novelty: the mean of −log₂ of an item's share of the "
        "training turns, in bits. Popularity divergence: Jensen–Shannon, between the dashed line and the other, but by "
        f"{GROUPS} groups, 0 for alike to 1. Diversity, of two items of a list: how often their categories differ; one "
        "minus the cosine of their embeddings, which are the model's, also for the baselines. None of them is better "
        "the higher it is: chance has the best coverage, novelty and diversity."
    )


def _map(dataset: Dataset, subject: Subject) -> Iterable[str]:
    yield "<h2>Map of the items</h2>"
    if subject.items.embedding is None:
        yield _note("The exported graph holds no item embeddings that could be read: there is no map.")
    else:
        yield embedding_map.render(subject.items, dataset.final)


def _examples(config: Config, evaluation: Evaluation, subject: Subject) -> Iterable[str]:
    yield "<h2>Examples</h2>"
    found = examples(evaluation, subject.scorer, include_seen=config.include_seen)
    yield gallery.render(found, subject.items)


def _figure(png: bytes, alt: str, caption: str) -> str:
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return f'<figure><img alt="{plain(alt)}" src="{source}"><figcaption>{plain(caption)}</figcaption></figure>'


def _note(text: str) -> str:
    return f'<p class="note">{plain(text)}</p>'


def _numbers(rows: Mapping[str, Mapping[str, float]]) -> str:
    columns = next(iter(rows.values()), {})
    cells = {
        name: [f"{each[key]:.3f}" if np.isfinite(each[key]) else "–" for key in columns] for name, each in rows.items()
    }
    return _rows("", [key.replace("_", " ") for key in columns], cells)


def _by_metric(estimates: Mapping[str, Mapping[str, Estimate]]) -> dict[str, dict[str, Estimate]]:
    """By metric and then by recommender, given by recommender and then by metric."""
    return {
        f"{TITLES[metric]}@{k}": {name: each[f"{metric}@{k}"] for name, each in estimates.items()}
        for metric in METRICS
        for k in CUTOFFS
    }


def _table(corner: str, rows: Mapping[str, Mapping[str, Estimate]]) -> str:
    """Estimates by row and recommender, each with its interval."""
    names = list(next(iter(rows.values()), {}))
    cells = {
        row: [f"{each.mean:.4f} <small>{each.low:.4f} to {each.high:.4f}</small>" for each in estimates.values()]
        for row, estimates in rows.items()
    }
    return _rows(corner, names, cells)


def _rows(corner: str, heads: Sequence[str], cells: Mapping[str, Sequence[str]]) -> str:
    """A table; `cells` are HTML already."""
    head = "".join(f"<th>{plain(each)}</th>" for each in (corner, *heads))
    body = []
    for name, row in cells.items():
        marked = [MODEL in (name, each) for each in heads]
        values = (f"<td{' class=model' * mark}>{cell}</td>" for mark, cell in zip(marked, row, strict=True))
        body.append(f"<tr><td>{plain(name)}</td>{''.join(values)}</tr>")
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(body)}</table></div>'
