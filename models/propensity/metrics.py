"""How good probabilities are: do they rank, and do they come true. Every measure takes weights, for the bootstrap."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

METRICS = ("roc_auc", "pr_auc", "log_loss", "brier", "calibration_error")
"""ROC-AUC and PR-AUC (average precision) rank; log-loss, Brier score and calibration error judge the probability."""

CALIBRATION_BINS = 10

Floats = NDArray[np.float64]
Labels = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Measured:
    """One model's metrics on n rows, with what the bootstrap says of their uncertainty."""

    value: dict[str, float]
    resampled: dict[str, Floats]
    """Each metric on each resample; resample i holds the same customers for every model measured with the same seed."""

    def interval(self, metric: str) -> tuple[float, float]:
        """The 95 % interval of `metric`: percentiles 2.5 and 97.5 of the resamples."""
        low, high = np.nanquantile(self.resampled[metric], [0.025, 0.975])
        return float(low), float(high)

    def gain(self, other: "Measured", metric: str) -> tuple[float, float, float]:
        """`metric` minus that of `other`, with its 95 % interval over the common resamples."""
        low, high = np.nanquantile(self.resampled[metric] - other.resampled[metric], [0.025, 0.975])
        return self.value[metric] - other.value[metric], float(low), float(high)


def measure(
    label: Labels, probability: Floats, customer: NDArray[np.object_], *, resamples: int, seed: int
) -> Measured:
    """All METRICS, and again on resamples of the customers, drawn with replacement with all of their rows.

    Rows of one customer are not independent, so resampling rows would make the intervals too narrow.

    Args:
        label: shape (n,), with both values.
        probability: shape (n,), in [0, 1].
        customer: shape (n,).
        resamples: how many.
        seed: of the draw.
    """
    question = _Question(label, probability)
    value = question.metrics(np.ones(len(label)))
    customers, row = np.unique(customer, return_inverse=True)
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(resamples):
        times = np.bincount(rng.integers(len(customers), size=len(customers)), minlength=len(customers))
        drawn.append(question.metrics(times[row].astype(np.float64)))
    return Measured(value, {name: np.array([each[name] for each in drawn]) for name in METRICS})


def calibration_bins(probability: Floats, bins: int = CALIBRATION_BINS) -> NDArray[np.intp]:
    """The bin of each row, shape (n,): bins hold about equally many rows, and equal probabilities share one."""
    edges = np.quantile(probability, np.linspace(0, 1, bins + 1)[1:-1])
    return np.searchsorted(np.unique(edges), probability, side="left")


class _Question:
    """Labels and probabilities, sorted once, to be measured under many weights."""

    def __init__(self, label: Labels, probability: Floats) -> None:
        self.order = np.argsort(-probability, kind="stable")
        ranked = probability[self.order]
        self.starts = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))  # of runs of equal probability
        self.label = label
        self.probability = probability
        clipped = np.clip(probability, 1e-15, 1 - 1e-15)
        self.loss = -np.where(label, np.log(clipped), np.log1p(-clipped))
        self.square = (probability - label) ** 2
        self.bin = calibration_bins(probability)

    def metrics(self, weight: Floats) -> dict[str, float]:
        """METRICS under `weight`, shape (n,); NaN where the weights leave one label only."""
        total = weight.sum()
        roc_auc, pr_auc = self._areas(weight)
        gap = np.bincount(self.bin, weight * (self.probability - self.label))
        values = (
            roc_auc,
            pr_auc,
            (weight @ self.loss) / total,
            (weight @ self.square) / total,
            np.abs(gap).sum() / total,
        )
        return {name: float(value) for name, value in zip(METRICS, values, strict=True)}

    def _areas(self, weight: Floats) -> tuple[float, float]:
        positive = np.where(self.label, weight, 0)[self.order]
        true = np.add.reduceat(positive, self.starts)
        false = np.add.reduceat(weight[self.order] - positive, self.starts)
        hits, misses = np.cumsum(true), np.cumsum(false)
        if not hits[-1] or not misses[-1]:
            return np.nan, np.nan
        # A pair of equal probabilities counts half.
        roc_auc = (true * (misses[-1] - misses + false / 2)).sum() / (hits[-1] * misses[-1])
        precision = hits / np.maximum(hits + misses, np.finfo(float).tiny)
        return roc_auc, (precision * true).sum() / hits[-1]
