"""The report: one HTML page that needs nothing beside it, and its plots as a PNG file."""

import base64
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from models.propensity.baselines import BASE_RATE
from models.propensity.config import Config
from models.propensity.dataset import Dataset
from models.propensity.evaluate import HEADINGS, MODEL, Evaluation, headline, protocol
from models.propensity.metrics import METRICS, Floats, Labels, calibration_bins

TOP_FEATURES = 20

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1c2530; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.1rem; margin-top: 2rem; }} img {{ max-width: 100%; }}
table {{ border-collapse: collapse; }} td, th {{ padding: .25rem .75rem; text-align: right; }}
th {{ border-bottom: 1px solid #8a94a0; }} td:first-child, th:first-child, td.text {{ text-align: left; }}
tr.model {{ font-weight: 600; }} small {{ color: #5b6672; font-weight: 400; }}
</style></head><body>
<h1>{title}</h1>
<p>{headline}</p>
<h2>Against the baselines, on the held-out future</h2>{metrics}
<img alt="ROC, precision-recall, calibration and lift curves" src="data:image/png;base64,{curves}">
<h2>Tiers</h2>{tiers}
<h2>What moves the answers</h2>
<p>Mean absolute SHAP value on test rows, in log-odds.</p>{importances}
<h2>Protocol</h2><ul>{protocol}</ul>
<details><summary>Configuration</summary><pre>{config}</pre></details>
</body></html>
"""


def write(directory: Path, config: Config, dataset: Dataset, evaluation: Evaluation) -> Path:
    """Write `<name>.html` and `<name>.png` into `directory`; return the page's path."""
    directory.mkdir(parents=True, exist_ok=True)
    png = plots(evaluation)
    (directory / f"{config.name}.png").write_bytes(png)
    page = directory / f"{config.name}.html"
    page.write_text(html(config, dataset, evaluation, png))
    return page


def html(config: Config, dataset: Dataset, evaluation: Evaluation, png: bytes) -> str:
    """The page, with the plots inside."""
    return PAGE.format(
        title=f"Propensity: {escape(config.name)}",
        headline=escape(headline(evaluation)),
        metrics=_metrics(evaluation),
        curves=base64.b64encode(png).decode(),
        tiers=_table(
            ("tier", "rows", "promised", "came true"),
            (
                (each.tier.label, f"{each.row_count:,}", f"{each.probability:.2%}", f"{each.rate:.2%}")
                for each in evaluation.tiers
            ),
        ),
        importances=_table(
            ("feature", "log-odds", "meaning"),
            (
                (each.column, f"{each.mean_contribution:.3f}", each.meaning)
                for each in evaluation.importances[:TOP_FEATURES]
            ),
        ),
        protocol="".join(f"<li>{escape(line)}</li>" for line in protocol(config, dataset)),
        config=escape(json.dumps(asdict(config), indent=2)),
    )


def plots(evaluation: Evaluation) -> bytes:
    """ROC, precision-recall, calibration and lift curves of every model, as PNG."""
    figure = Figure(figsize=(11, 9), layout="constrained")
    roc, pr, calibration, lift = figure.subplots(2, 2).flat
    label = evaluation.test.label
    for name, probability in evaluation.probability.items():
        if name == BASE_RATE:
            continue
        style = {"lw": 2.2, "color": "#1769aa"} if name == MODEL else {"lw": 1.2, "alpha": 0.75}
        hits, misses = _curve(label, probability)
        roc.plot(misses / misses[-1], hits / hits[-1], label=name.split(":")[0], **style)
        asked = hits + misses
        pr.plot(hits[1:] / hits[-1], hits[1:] / asked[1:], **style)
        lift.plot(asked[1:] / asked[-1], hits[1:] / asked[1:] / label.mean(), **style)
    _calibration(calibration, label, evaluation.probability[MODEL])
    roc.plot([0, 1], [0, 1], ":", color="#8a94a0", label=BASE_RATE)
    pr.axhline(label.mean(), ls=":", color="#8a94a0")
    lift.axhline(1, ls=":", color="#8a94a0")
    roc.legend(loc="lower right", frameon=False)
    _frame(roc, "ROC", "false positive rate", "true positive rate")
    _frame(pr, "Precision and recall", "recall", "precision")
    _frame(calibration, f"Calibration: {MODEL}", "promised", "came true")
    _frame(lift, "Lift", "share of rows asked, best first", "times the base rate")
    lift.set_xscale("log")
    lift.set_xlim(0.005, 1)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _curve(label: Labels, probability: Floats) -> tuple[Floats, Floats]:
    """Positives and negatives at or above each distinct probability, from none to all."""
    order = np.argsort(-probability, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(probability[order])), len(order) - 1)
    hits = np.cumsum(label[order])[ends]
    return np.append(0.0, hits), np.append(0.0, ends + 1 - hits)


def _calibration(axes: Axes, label: Labels, probability: Floats) -> None:
    bins = calibration_bins(probability)
    count = np.bincount(bins)
    some = count > 0
    promised = np.bincount(bins, probability)[some] / count[some]
    rate = np.bincount(bins, label)[some] / count[some]
    error = 1.96 * np.sqrt(rate * (1 - rate) / count[some])
    axes.errorbar(promised, rate, error, fmt="o-", color="#1769aa", capsize=3)
    end = 1.05 * max(promised.max(), (rate + error).max())
    axes.plot([0, end], [0, end], ":", color="#8a94a0")


def _frame(axes: Axes, title: str, across: str, up: str) -> None:
    axes.set(title=title, xlabel=across, ylabel=up)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def _metrics(evaluation: Evaluation) -> str:
    rows = []
    for name, measured in evaluation.measured.items():
        cells = [f"<td>{escape(name)}</td>"]
        for metric in METRICS:
            low, high = measured.interval(metric)
            cells.append(f"<td>{measured.value[metric]:.3f}<br><small>{low:.3f} to {high:.3f}</small></td>")
        rows.append(f'<tr class="{"model" if name == MODEL else "baseline"}">{"".join(cells)}</tr>')
    heads = "".join(f"<th>{HEADINGS[metric]}</th>" for metric in METRICS)
    return f"<table><tr><th>model</th>{heads}</tr>{''.join(rows)}</table>"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(each)}</th>" for each in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"
