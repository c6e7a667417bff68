"""Export: the trained scorer as a bundle, with what monitoring will compare the future to."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from models.propensity.config import Config
from models.propensity.dataset import Dataset, Rows
from models.propensity.evaluate import Evaluation, headline, protocol
from models.propensity.metrics import Floats
from models.propensity.train import Fitted
from segue.adapters.plan_files import PLAN_FILE
from segue.errors import BundleError
from segue.inference import bundle
from segue.inference.bundle import Bundle, Manifest
from segue.inference.propensity import FAMILY, PropensityScorer

REFERENCE, CARD = "reference.json", "card.md"

REFERENCE_BINS = 10
VERIFIED_ROWS = 1000
TOLERANCE = 1e-6


def export(
    directory: Path,
    config: Config,
    dataset: Dataset,
    fitted: Fitted,
    evaluation: Evaluation,
    *,
    git_sha: str,
    created_ms: int,
) -> None:
    """Write the bundle into the empty `directory`, read it back, and compare its answers with the trained scorer's.

    Raises:
        BundleError: what was written does not answer what was trained.
    """
    fitted.scorer.save(directory)
    (directory / PLAN_FILE).write_text(dataset.plan.to_json())
    reference = summary(dataset.columns, dataset.train, fitted.scorer)
    (directory / REFERENCE).write_text(json.dumps(reference, indent=1) + "\n")
    (directory / CARD).write_text(card(config, dataset, fitted, evaluation))
    manifest = Manifest(
        family=FAMILY,
        name=config.name,
        feature_service=config.feature_service,
        plan_hash=dataset.plan.hash,
        columns=dataset.columns,
        dtypes=[column.dtype for column in dataset.plan.columns],
        data_cut_ms=dataset.cuts.validation[-1] + config.outcome.horizon_ms,
        metrics=evaluation.metrics(),
        config=asdict(config) | {"cuts_ms": asdict(dataset.cuts)},
        git_sha=git_sha,
        created_ms=created_ms,
    )
    bundle.write(directory, manifest)
    verify(directory, fitted.scorer, dataset.test.matrix[:VERIFIED_ROWS])


def verify(directory: Path, scorer: PropensityScorer, matrix: Floats) -> None:
    """Compare the bundle in `directory` with `scorer` on `matrix`.

    Raises:
        BundleError: a probability differs by more than TOLERANCE.
    """
    exported = PropensityScorer.load(Bundle.read(directory, "just written"))
    difference = np.abs(exported.score(matrix).probability - scorer.score(matrix).probability).max(initial=0)
    if not difference <= TOLERANCE:
        raise BundleError(f"the bundle's probabilities differ from the trained model's by {difference:.2g}")


def summary(columns: Sequence[str], rows: Rows, scorer: PropensityScorer) -> dict[str, Any]:
    """What the training rows look like, column by column: the reference that drift is measured against.

    Of each column and of the answers: the ratio that is missing, mean and standard deviation, and the ratio of the
    present values in each bin between `edges` (the first bin reaches down, the last up, without end; a value at an edge
    is in the bin below).
    """
    values = {name: rows.matrix[:, position] for position, name in enumerate(columns)}
    return {
        "row_count": len(rows),
        "label_ratio": float(rows.label.mean()),
        "probability": _summary(scorer.score(rows.matrix).probability),
        "columns": {name: _summary(each) for name, each in values.items()},
    }


def card(config: Config, dataset: Dataset, fitted: Fitted, evaluation: Evaluation) -> str:
    """The model card: what the bundle answers, how well, and how that is known. Markdown."""
    tiers = [
        f"| {each.tier.label} | {each.row_count} | {each.probability:.4f} | {each.rate:.4f} |"
        for each in evaluation.tiers
    ]
    top = [f"- `{each.column}`: {each.meaning}" for each in evaluation.importances[:10]]
    parts = [
        f"# {config.name}",
        headline(evaluation),
        f"{fitted.rounds} trees, calibrated by {fitted.calibrated_by}.",
        "## Protocol",
        "\n".join(f"- {line}" for line in protocol(config, dataset)),
        "## Tiers",
        "\n".join(["| tier | test rows | promised | came true |", "|---|---|---|---|", *tiers]),
        "## What moves the answers most",
        "\n".join(top),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(values: Floats) -> dict[str, Any]:
    present = values[~np.isnan(values)]
    out: dict[str, Any] = {"missing_ratio": float(1 - len(present) / max(len(values), 1))}
    if len(present):
        edges = np.unique(np.quantile(present, np.linspace(0, 1, REFERENCE_BINS + 1)[1:-1], method="inverted_cdf"))
        counts = np.bincount(np.searchsorted(edges, present, side="left"), minlength=len(edges) + 1)
        out |= {
            "mean": float(present.mean()),
            "standard_deviation": float(present.std()),
            "edges": edges.tolist(),
            "ratios": (counts / len(present)).tolist(),
        }
    return out
