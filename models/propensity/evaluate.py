"""Evaluation: the scorer that will answer, beside its baselines, on a future that none of them saw."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from rich import box
from rich.table import Table

from models.propensity.baselines import baselines
from models.propensity.config import Config
from models.propensity.dataset import Dataset, Rows
from models.propensity.metrics import CALIBRATION_BINS, METRICS, Floats, Measured, measure
from segue.inference.propensity import FEATURE_BY_NAME, PropensityScorer, Tier

MODEL = "XGBoost"

MAX_EXPLAINED_ROWS = 2000
"""Test rows whose SHAP values make the importances."""

HEADINGS = {
    "roc_auc": "ROC-AUC",
    "pr_auc": "PR-AUC",
    "log_loss": "log-loss",
    "brier": "Brier",
    "calibration_error": "ECE",
}


@dataclass(frozen=True)
class TierResult:
    """What became of the test rows in one tier."""

    tier: Tier
    row_count: int
    probability: float
    """The mean promised."""
    rate: float
    """The share that came true."""


@dataclass(frozen=True)
class Importance:
    """How much one column moves the answers."""

    column: str
    mean_contribution: float
    """Mean absolute SHAP value, log-odds."""
    meaning: str


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Everything the report tells. Dictionaries are by model name, MODEL first."""

    test: Rows
    probability: Mapping[str, Floats]
    measured: Mapping[str, Measured]
    tiers: tuple[TierResult, ...]
    importances: tuple[Importance, ...]
    """Of every column, most important first."""

    @property
    def base_rate(self) -> float:
        """The share of test rows for which the outcome came true."""
        return float(self.test.label.mean())

    @property
    def best_baseline(self) -> str:
        """The baseline with the highest PR-AUC."""
        rivals = [name for name in self.measured if name != MODEL]
        return max(rivals, key=lambda name: self.measured[name].value["pr_auc"])

    def metrics(self) -> dict[str, float]:
        """The flat metrics that a bundle's manifest holds: each with its interval, and each baseline's."""
        flat = {"row_count": float(len(self.test)), "base_rate": self.base_rate}
        for metric in METRICS:
            low, high = self.measured[MODEL].interval(metric)
            flat |= {metric: self.measured[MODEL].value[metric], f"{metric}_low": low, f"{metric}_high": high}
        for name, measured in self.measured.items():
            if name != MODEL:
                word = name.split(":")[0].replace(" ", "_")
                flat |= {f"{word}_{metric}": measured.value[metric] for metric in METRICS}
        return flat


def evaluate(config: Config, dataset: Dataset, scorer: PropensityScorer) -> Evaluation:
    """Judge `scorer` and the baselines on the test rows of `dataset`."""
    test = dataset.test
    scores = scorer.score(test.matrix)
    rivals = baselines(dataset.columns, dataset.train, dataset.validation, test, seed=config.seed)
    probability = {MODEL: scores.probability, **rivals}
    measured = {
        name: measure(test.label, each, test.customer, resamples=config.bootstrap_count, seed=config.seed)
        for name, each in probability.items()
    }
    tiers = []
    for tier in sorted(Tier, reverse=True):
        inside = scores.tier == tier
        if inside.any():
            promised, rate = float(scores.probability[inside].mean()), float(test.label[inside].mean())
            tiers.append(TierResult(tier, int(inside.sum()), promised, rate))
    return Evaluation(test, probability, measured, tuple(tiers), importances(scorer, test, seed=config.seed))


def importances(scorer: PropensityScorer, rows: Rows, *, seed: int) -> tuple[Importance, ...]:
    """Every column's mean absolute SHAP value over at most MAX_EXPLAINED_ROWS of `rows`, largest first."""
    count = min(len(rows), MAX_EXPLAINED_ROWS)
    chosen = np.sort(np.random.default_rng(seed).choice(len(rows), count, replace=False))
    mean = np.abs(scorer.contributions(rows.matrix[chosen])[:, :-1]).mean(axis=0)
    names = [scorer.columns[position] for position in np.argsort(-mean, kind="stable")]
    meanings = [FEATURE_BY_NAME[name].meaning if name in FEATURE_BY_NAME else name for name in names]
    return tuple(map(Importance, names, np.sort(mean)[::-1].tolist(), meanings))


def headline(evaluation: Evaluation) -> str:
    """The result in one sentence."""
    model, rival = evaluation.measured[MODEL], evaluation.best_baseline
    gains = (model.gain(evaluation.measured[rival], metric) for metric in ("roc_auc", "pr_auc"))
    roc, pr = (f"{gain:+.3f} [{low:+.3f}, {high:+.3f}]" for gain, low, high in gains)
    return (
        f"ROC-AUC {_with_interval(model, 'roc_auc')} and PR-AUC {_with_interval(model, 'pr_auc')} where "
        f"{evaluation.base_rate:.3f} of the rows are positive; against the strongest baseline, {rival}: "
        f"ROC-AUC {roc}, PR-AUC {pr}."
    )


def protocol(config: Config, dataset: Dataset) -> list[str]:
    """How the numbers came about, in sentences."""
    outcome, split = config.outcome, config.split
    active = ", ".join(outcome.active_kinds) or "any"
    lines = [
        f"Foretold: at least one event of {', '.join(outcome.kinds)} in [t, t + {outcome.horizon_days} d).",
        f"Asked of: customers with an event of {active} kind in the {outcome.active_within_days} days before t, "
        "known by t.",
        f"Features: {len(dataset.columns)} columns of the Feast feature service {config.feature_service}, from events "
        "strictly before t that had arrived by t.",
        f"Prediction times: {split.stride_days} days apart. A split's label windows end before the next split's first "
        f"prediction time, by {split.embargo_days} days or more: nothing learnt from lies in what is foretold.",
    ]
    for name in ("train", "validation", "test"):
        cuts, rows = getattr(dataset.cuts, name), getattr(dataset, name)
        lines.append(
            f"{name.capitalize()}: {len(cuts)} prediction times from {_day(cuts[0])} to {_day(cuts[-1])}; "
            f"{len(rows):,} rows of {len(set(rows.customer)):,} customers, {rows.label.mean():.2%} positive."
        )
    return [
        *lines,
        "Chosen on validation alone: the number of trees (one half of the customers), calibration and tiers (the other "
        "half), the penalty of the logistic regression. The test span chose nothing.",
        f"Intervals: 95 %, {config.bootstrap_count} resamples of the test customers with all of their rows; seed "
        f"{config.seed}. ECE: mean gap between promise and truth over {CALIBRATION_BINS} bins of equal count.",
    ]


def table(evaluation: Evaluation, title: str) -> Table:
    """The metrics of every model, for a terminal, where ± is half the width of the 95 % interval."""
    out = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    out.add_column("model", no_wrap=True)
    for metric in METRICS:
        out.add_column(HEADINGS[metric], justify="right", no_wrap=True)
    for name, measured in evaluation.measured.items():
        halves = {metric: np.diff(measured.interval(metric))[0] / 2 for metric in ("roc_auc", "pr_auc")}
        spread = {metric: f" ±{half:.3f}".replace("0.", ".") for metric, half in halves.items()}
        cells = (f"{measured.value[metric]:.3f}{spread.get(metric, '')}" for metric in METRICS)
        out.add_row(name.split(":")[0], *cells, style="bold" if name == MODEL else None)
    return out


def _with_interval(measured: Measured, metric: str) -> str:
    low, high = measured.interval(metric)
    return f"{measured.value[metric]:.3f} [{low:.3f}, {high:.3f}]"


def _day(t_ms: int) -> str:
    return datetime.fromtimestamp(t_ms / 1000, UTC).strftime("%Y-%m-%d")
