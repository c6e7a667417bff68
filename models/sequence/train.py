"""Training: cross-entropy at every position of every window, until validation stops getting better."""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from models.sequence.config import Config
from models.sequence.dataset import Cases, Corpus, Dataset, training_windows
from models.sequence.evaluate import by_scorer, ndcg, ranks
from models.sequence.model import Ranker, SequenceModel
from segue.inference.bundle import Bundle
from segue.inference.sequence import Rank, SequenceScorer

LOSS_CHUNK = 512
"""Positions whose scores against the whole vocabulary are held at a time."""

WARM_UP_STEPS = 100
GRADIENT_NORM_MAX = 1.0


@dataclass(frozen=True)
class Epoch:
    """One point of the learning curve."""

    loss: float
    validation_ndcg_10: float
    seconds: float


CURVE = "curve.json"
"""The bundle's file of its learning curve."""


def read_curve(bundle: Bundle) -> list[Epoch]:
    """The learning curve of the run that made `bundle`."""
    return [Epoch(**each) for each in json.loads(bundle.file(CURVE).read_bytes())]


@dataclass(eq=False)
class Trained:
    """A model and how it was reached; once training ends, with the weights of its best epoch, on the CPU."""

    model: SequenceModel
    curve: list[Epoch] = field(default_factory=list)
    best_epoch: int = 0
    """Counted from 1."""
    best_ndcg_10: float = -math.inf
    weights: dict[str, Tensor] = field(default_factory=dict)

    def see(self, epoch: Epoch) -> None:
        """Take note of a finished epoch and keep its weights if none before it was better."""
        self.curve.append(epoch)
        if epoch.validation_ndcg_10 >= self.best_ndcg_10:
            self.best_ndcg_10, self.best_epoch = epoch.validation_ndcg_10, len(self.curve)
            self.weights = {name: weight.detach().cpu().clone() for name, weight in self.model.state_dict().items()}

    def is_over(self, epochs: int, patience_epochs: int) -> bool:
        """Whether `epochs` are done, or patience has run out."""
        return len(self.curve) >= epochs or len(self.curve) - self.best_epoch >= patience_epochs


def fit(dataset: Dataset, config: Config, *, console: Console | None = None) -> Trained:
    """Train the model to export: validation chooses the number of epochs, and nothing else.

    Equal seeds on equal data give equal weights on one machine. With `console`, shows progress on it.
    """
    chosen = train(dataset.choosing, config, validation=dataset.validation, epochs=config.max_epochs, console=console)
    if not config.refit:
        return chosen
    again = train(dataset.final, config, validation=None, epochs=chosen.best_epoch, console=console)
    return replace(chosen, model=again.model)


def train(
    corpus: Corpus, config: Config, *, validation: Cases | None, epochs: int, console: Console | None = None
) -> Trained:
    """Train for `epochs`, or until `patience_epochs` pass without a better NDCG@10 on `validation`.

    Without `validation` the newest epoch is always the best. The learning rate rises for WARM_UP_STEPS and falls in a
    straight line that would reach zero after `max_epochs`.
    """
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    model = SequenceModel(config, len(corpus.vocabulary)).to("cuda" if torch.cuda.is_available() else "cpu")
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    windows = training_windows(corpus, config.length)
    epoch_steps = math.ceil(min(len(windows), config.epoch_windows) / config.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, partial(learning_ratio, steps=config.max_epochs * epoch_steps)
    )
    scorer = as_scorer(torch_rank(model), corpus, config)
    trained = Trained(model)
    with _progress(console) as progress:
        task = progress.add_task(
            "refitting" if validation is None else "training, at most",
            total=epochs * epoch_steps,
            loss=math.nan,
            speed=0.0,
            best="",
        )
        while not trained.is_over(epochs, config.patience_epochs):
            began, tokens, loss_sum = time.perf_counter(), 0, 0.0
            model.train()
            for batch in batches(windows, config, rng):
                loss, count = gradient(model, batch, config)
                torch.nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_NORM_MAX)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
                loss_sum, tokens = loss_sum + loss, tokens + count
                speed = tokens / (time.perf_counter() - began)
                progress.update(task, advance=1, loss=loss_sum / max(1, tokens), speed=speed)
            reached = 0.0 if validation is None else ndcg_10(scorer, validation, config)
            trained.see(Epoch(loss_sum / max(1, tokens), reached, time.perf_counter() - began))
            if validation is not None:
                progress.update(task, best=f"validation NDCG@10 {trained.best_ndcg_10:.4f}")
    model.load_state_dict(trained.weights)
    model.cpu().eval()
    return trained


def learning_ratio(step: int, *, steps: int) -> float:
    """What part of the configured learning rate a step takes: up to 1 while warming up, then down to 0 at `steps`."""
    return min((step + 1) / WARM_UP_STEPS, max(0.0, 1 - step / steps))


def batches(windows: NDArray[np.int64], config: Config, rng: np.random.Generator) -> Iterator[Tensor]:
    """One epoch of random batches of windows of like length, each cut to its longest: little of a batch is padding."""
    size = config.batch_size
    windows = windows[rng.permutation(len(windows))[: config.epoch_windows]]
    lengths = (windows > 0).sum(axis=1)
    order = np.argsort(lengths + rng.random(len(windows)), kind="stable")
    for start in rng.permutation(np.arange(0, len(order), size)):
        rows = order[start : start + size]
        yield torch.from_numpy(windows[rows, -int(lengths[rows].max()) :])


def gradient(model: SequenceModel, batch: Tensor, config: Config) -> tuple[float, int]:
    """Add the gradient of the mean loss of `batch` (b, t + 1); gives the summed loss and the number of targets."""
    batch = batch.to(model.item.weight.device)
    items, targets = batch[:, :-1], batch[:, 1:]
    asked = items > 0
    hidden, target, item = model(items)[asked], targets[asked], model.item.weight  # (n, d), (n,), (v, d)
    if config.loss == "full":
        return full_gradient(hidden, item[1:], target - 1), len(target)
    loss = sampled_loss(hidden, item, target, count=config.negatives)
    torch.autograd.backward(loss / len(target))
    return loss.item(), len(target)


def full_gradient(hidden: Tensor, item: Tensor, target: Tensor) -> float:
    """Backpropagate the mean cross-entropy over all items (SASRec+, Klenitskiy and Vasilev 2023); gives its sum.

    Scores (n, v) never exist at once: each chunk's gradient is taken as soon as its loss is known, and the encoder is
    gone through once, at the end.
    """
    total = 0.0
    item_leaf = item.detach().requires_grad_()
    item_gradient = torch.zeros_like(item_leaf)
    hidden_gradients = []
    for chunk, chunk_target in zip(torch.split(hidden, LOSS_CHUNK), torch.split(target, LOSS_CHUNK), strict=True):
        leaf = chunk.detach().requires_grad_()
        loss = F.cross_entropy(leaf @ item_leaf.T, chunk_target, reduction="sum")
        hidden_gradient, item_part = torch.autograd.grad(loss / len(target), (leaf, item_leaf))
        hidden_gradients.append(hidden_gradient)
        item_gradient += item_part
        total += loss.item()
    torch.autograd.backward([hidden, item], [torch.cat(hidden_gradients), item_gradient])
    return total


def sampled_loss(hidden: Tensor, item: Tensor, target: Tensor, *, count: int) -> Tensor:
    """Summed cross-entropy over the target and `count` items drawn evenly for all rows (Jean et al. 2015)."""
    drawn = torch.randint(1, len(item), (count,), device=item.device)  # never padding
    positive = (hidden * F.embedding(target, item)).sum(dim=1, keepdim=True)  # (n, 1)
    # Each drawn item stands for (v - 2) / count of them: all but padding and the target.
    negative = hidden @ F.embedding(drawn, item).T + math.log(max(1, len(item) - 2) / count)  # (n, count)
    negative = negative.masked_fill(drawn == target[:, None], -torch.inf)
    return F.cross_entropy(torch.cat([positive, negative], dim=1), torch.zeros_like(target), reduction="sum")


def torch_rank(model: SequenceModel) -> Rank:
    """What the exported graph does, by `model` itself, as it is at each call."""
    ranker = Ranker(model)
    device = model.item.weight.device

    def rank(items: NDArray[np.int64], exclude: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        ranker.eval()
        with torch.inference_mode():
            indices, scores = ranker(torch.from_numpy(items).to(device), torch.from_numpy(exclude).to(device))
        return indices.cpu().numpy(), scores.cpu().numpy()

    return rank


def as_scorer(rank: Rank, corpus: Corpus, config: Config) -> SequenceScorer:
    """The scorer that services use, around `rank`, before there is a bundle to load it from."""
    return SequenceScorer(
        rank=rank,
        vocabulary=corpus.vocabulary,
        external_id=[""] * len(corpus.vocabulary),
        popularity=corpus.popularity,
        length=config.length,
        version="unsaved",
    )


def ndcg_10(scorer: SequenceScorer, cases: Cases, config: Config) -> float:
    """Mean NDCG@10 of `cases`; 0 where there are none, so that the newest epoch counts as the best."""
    rank = ranks(by_scorer(scorer, include_seen=config.include_seen), cases)
    return float(ndcg(rank, 10).mean()) if len(rank) else 0.0


def _progress(console: Console | None) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("loss {task.fields[loss]:.3f}  {task.fields[speed]:,.0f} tokens/s"),
        TextColumn("{task.fields[best]}"),
        TimeRemainingColumn(),
        console=console,
        disable=console is None,
    )
