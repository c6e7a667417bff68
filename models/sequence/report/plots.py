"""The plots of the page, each as PNG."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from models.sequence.dataset import Corpus
from models.sequence.evaluate import CUTOFFS, METRICS, Estimate, Evaluation
from models.sequence.report.summary import TITLES
from models.sequence.run import Epoch
from models.sequence.spread import TOP, popularity_group

COLOURS = ("#1769aa", "#c2570c", "#5b6672", "#2f7d4f", "#8a4fa3", "#b08a00", "#3aa0a8")
TURNED_TO = "#1c2530"
DECILES = 10
SHARES = (0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
DPI = 130


def metrics_by_cutoff(evaluation: Evaluation) -> bytes:
    """One panel per metric: every recommender at every cutoff, with its interval."""
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    for number, metric in enumerate(METRICS, 1):
        panel = figure.add_subplot(1, len(METRICS), number)
        for name, colour in zip(evaluation.rank, COLOURS, strict=False):
            scores = [evaluation.scores(name)[f"{metric}@{k}"] for k in CUTOFFS]
            panel.plot(CUTOFFS, [each.mean for each in scores], "o-", color=colour, label=name)
            panel.fill_between(
                CUTOFFS, [each.low for each in scores], [each.high for each in scores], color=colour, alpha=0.15, lw=0
            )
        panel.set_xticks(CUTOFFS)
        _frame(panel, TITLES[metric], "k", f"{TITLES[metric]}@k")
    _legend(figure)
    return _png(figure)


def learning(curve: Sequence[Epoch]) -> bytes:
    """Training loss, and NDCG@10 on validation with the best epoch marked."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    epochs = np.arange(1, len(curve) + 1)
    reached = np.array([epoch.validation_ndcg_10 for epoch in curve])
    loss = figure.add_subplot(1, 2, 1)
    loss.plot(epochs, [epoch.loss for epoch in curve], "o-", color=COLOURS[2])
    _frame(loss, "Training loss", "epoch", "mean loss per target")
    validation = figure.add_subplot(1, 2, 2)
    validation.plot(epochs, reached, "o-", color=COLOURS[0])
    _frame(validation, "Validation", "epoch", "NDCG@10")
    if len(curve):
        # The newest of equal ones, as training chooses.
        best = len(reached) - 1 - int(reached[::-1].argmax())
        validation.plot(epochs[best], reached[best], "o", ms=12, mfc="none", color=COLOURS[1])
    for panel in figure.axes:
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _png(figure)


def parts(slices: Mapping[str, Mapping[str, Estimate]]) -> bytes:
    """NDCG@10 of every recommender on every part, with its interval."""
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    axes = figure.add_subplot()
    place = np.arange(len(slices))
    names = list(next(iter(slices.values()), {}))
    for number, (name, colour) in enumerate(zip(names, COLOURS, strict=False)):
        estimates = [each[name] for each in slices.values()]
        mean = np.array([each.mean for each in estimates])
        error = [mean - [each.low for each in estimates], [each.high for each in estimates] - mean]
        offset = 0.1 * (number - (len(names) - 1) / 2)
        axes.errorbar(place + offset, mean, error, fmt="o", color=colour, capsize=2, label=name)
    axes.set_xticks(place, [part.replace(" (", "\n(") for part in slices])
    axes.set_xlim(-0.5, len(slices) - 0.5)
    _frame(axes, "", "", "NDCG@10")
    _legend(figure)
    return _png(figure)


def popularity(evaluation: Evaluation, corpus: Corpus) -> bytes:
    """How what was turned to, and the TOP best of every list, spread over tenths of the training turns."""
    group = popularity_group(corpus.popularity, DECILES)
    held = np.bincount(group[1:], minlength=DECILES)
    decile = np.arange(DECILES)
    figure = Figure(figsize=(12, 4), layout="constrained")
    axes = figure.add_subplot()
    turned_to = _shares(corpus.vocabulary.index(evaluation.cases.turns.item), group)
    axes.plot(decile, turned_to, "--", color=TURNED_TO, lw=2, label="turned to")
    for name, colour in zip(evaluation.best, COLOURS, strict=False):
        shares = _shares(corpus.vocabulary.index(evaluation.best[name][:, :TOP]), group)
        axes.plot(decile, shares, "o-", color=colour, label=name)
    axes.set_xticks(decile, [f"{each + 1}\n{count:,} items" for each, count in enumerate(held)], fontsize=8)
    # Shares of a twentieth and of nearly all stand side by side: a root keeps both readable, and 0 in the picture.
    axes.set_yscale("function", functions=(lambda share: np.sqrt(np.maximum(share, 0)), np.square))
    axes.set_yticks(SHARES, [f"{share:.0%}" for share in SHARES])
    axes.set_ylim(0, 1.02)
    _frame(axes, "", "tenth of the training turns, the most popular items first", "share of the items named")
    _legend(figure)
    return _png(figure)


def _shares(index: np.ndarray, group: np.ndarray) -> np.ndarray:
    counts = np.bincount(group[index[index > 0]], minlength=DECILES)
    return counts / max(1, counts.sum())


def _legend(figure: Figure) -> None:
    """The first panel's names above all panels, where they hide nothing."""
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper left", ncols=len(names), frameon=False, fontsize=9)


def _frame(axes: Axes, title: str, across: str, up: str) -> None:
    axes.set(title=title, xlabel=across, ylabel=up)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()
