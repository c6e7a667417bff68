"""Training: a loss at the asked positions of every window, until validation stops getting better."""

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from models.sequence import checkpoint as checkpoints
from models.sequence import losses
from models.sequence.batches import Batch, batches, spans
from models.sequence.config import Config
from models.sequence.dataset import Cases, Corpus, Split
from models.sequence.evaluate import by_scorer, ndcg, ranks
from models.sequence.model import SequenceModel
from models.sequence.run import Epoch, Run
from models.sequence.scoring import as_scorer, tensors, torch_rank
from segue.inference.bundle import Bundle
from segue.inference.sequence import SequenceScorer

WARM_UP_STEPS = 100
GRADIENT_NORM_MAX = 1.0

CURVE = "curve.json"
"""The bundle's file of its learning curve."""


def read_curve(bundle: Bundle) -> list[Epoch]:
    """The learning curve of the run that made `bundle`."""
    return [Epoch(**each) for each in json.loads(bundle.file(CURVE).read_bytes())]


@dataclass(frozen=True, eq=False)
class Trained:
    """A model with the weights of its best epoch, on the CPU, and how that epoch was found."""

    model: SequenceModel
    choosing: SequenceModel
    """The one by which the number of epochs was found; `model` itself without a refit."""
    curve: list[Epoch]
    best_epoch: int
    """Counted from 1."""
    processor_seconds: float
    """Of all epochs, validation and a refit included."""


def fit(split: Split, config: Config, *, console: Console | None = None, checkpoint: Path | None = None) -> Trained:
    """Train the model to export: validation chooses the number of epochs, and nothing else.

    Equal seeds on equal data give equal weights on one machine.

    Args:
        console: shows progress; on a terminal a bar, else a line per epoch.
        checkpoint: a folder that every epoch writes to, and that an interrupted run resumes from.
    """
    first, second = (checkpoint / "choosing.npz", checkpoint / "final.npz") if checkpoint else (None, None)
    chosen = train(
        split.choosing,
        config,
        validation=split.validation,
        epochs=config.max_epochs,
        console=console,
        checkpoint=first,
    )
    if not config.refit:
        return chosen
    again = train(split.final, config, validation=None, epochs=chosen.best_epoch, console=console, checkpoint=second)
    spent = chosen.processor_seconds + again.processor_seconds
    return replace(chosen, model=again.model, processor_seconds=spent)


def train(
    corpus: Corpus,
    config: Config,
    *,
    validation: Cases | None,
    epochs: int,
    console: Console | None = None,
    checkpoint: Path | None = None,
) -> Trained:
    """Train for `epochs`, or until `patience_epochs` pass without a better NDCG@10 on `validation`.

    Without `validation` the newest epoch is always the best. The learning rate rises for WARM_UP_STEPS and falls in a
    straight line that would reach zero after `max_epochs`.
    """
    run = Run.begin(config, len(corpus.vocabulary))
    fingerprint = checkpoints.fingerprint(corpus, config)
    if checkpoint is not None and checkpoint.exists():
        checkpoints.restore(checkpoint, run, fingerprint)
    passes = spans(corpus, config)
    epoch_steps = math.ceil(min(len(passes), config.epoch_windows) / config.batch_size)
    scorer = as_scorer(torch_rank(run.model), corpus, config)
    task = "refitting" if validation is None else "training, at most"
    with _progress(console, task, done=len(run.curve), epochs=epochs, epoch_steps=epoch_steps) as show:
        while not run.is_over(epochs, config.patience_epochs):
            began, worked, tokens, loss_sum = time.perf_counter(), time.process_time(), 0, 0.0
            run.model.train()
            for batch in batches(corpus, passes, config, run.rng):
                loss, count = step(run, batch, config, learning_ratio(run.steps, config.max_epochs * epoch_steps))
                loss_sum, tokens = loss_sum + loss, tokens + count
                show.step(loss_sum / max(1, tokens), tokens / (time.perf_counter() - began))
            reached = 0.0 if validation is None else ndcg_10(scorer, validation, config)
            took = time.perf_counter() - began, time.process_time() - worked
            run.see(Epoch(loss_sum / max(1, tokens), reached, *took))
            if checkpoint is not None:
                checkpoints.save(checkpoint, run, fingerprint)
            show.epoch(run, validation is not None)
    run.model.load_state_dict(run.weights)
    model = run.model.cpu().eval()
    spent = sum(epoch.processor_seconds for epoch in run.curve)
    return Trained(model, model, run.curve, run.best_epoch, spent)


def step(run: Run, batch: Batch, config: Config, learning_ratio: float) -> tuple[float, int]:
    """Learn from `batch` at this part of the configured rate; gives the summed loss and the number of targets."""
    loss, count = gradient(run.model, batch, config)
    torch.nn.utils.clip_grad_norm_(run.model.parameters(), GRADIENT_NORM_MAX)
    for group in run.optimizer.param_groups:
        group["lr"] = config.learning_rate * learning_ratio
    run.optimizer.step()
    run.optimizer.zero_grad()
    run.steps += 1
    return loss, count


def learning_ratio(step: int, steps: int) -> float:
    """What part of the configured learning rate a step takes: up to 1 while warming up, then down to 0 at `steps`."""
    return min((step + 1) / WARM_UP_STEPS, max(0.0, 1 - step / steps))


def gradient(model: SequenceModel, batch: Batch, config: Config) -> tuple[float, int]:
    """Add the gradient of the mean loss of `batch`; gives the summed loss and the number of targets."""
    item = model.item.weight  # (v, d)
    inputs = tensors(model, batch.windows)  # each (b, t)
    target = torch.from_numpy(batch.targets[batch.asked]).to(item.device)  # (n,)
    if config.positions == "last":
        hidden = model.last(*inputs)  # (n, d): the newest position of every row is asked
    else:
        hidden = model(*inputs)[torch.from_numpy(batch.asked).to(item.device)]  # (n, d)
    return losses.backward(hidden, item, target, config), len(target)


def ndcg_10(scorer: SequenceScorer, cases: Cases, config: Config) -> float:
    """Mean NDCG@10 of `cases`; 0 where there are none, so that the newest epoch counts as the best."""
    rank = ranks(by_scorer(scorer, include_seen=config.include_seen), cases)
    return float(ndcg(rank, 10).mean()) if len(rank) else 0.0


@dataclass(frozen=True, eq=False)
class Shown:
    """Progress as a bar on a terminal, as a line per epoch elsewhere."""

    progress: Progress
    task: TaskID
    epochs: int
    lines: Console | None
    """Where lines go, where there is no bar."""

    def step(self, loss: float, speed: float) -> None:
        """After a step: the epoch's mean loss so far and its tokens per second."""
        self.progress.update(self.task, advance=1, loss=loss, speed=speed)

    def epoch(self, run: Run, validated: bool) -> None:
        """After an epoch."""
        newest, done = run.curve[-1], len(run.curve)
        reached = [f"validation NDCG@10 {newest.validation_ndcg_10:.4f}, best {run.best_ndcg_10:.4f}"] * validated
        self.progress.update(self.task, best="".join(reached))
        if self.lines is not None:
            speed = self.progress.tasks[0].fields["speed"]
            minutes = (self.epochs - done) * newest.seconds / 60
            parts = [
                f"epoch {done} of at most {self.epochs}: loss {newest.loss:.4f}",
                *reached,
                f"{speed:,.0f} tokens/s, {newest.seconds:.0f} s",
                f"at most {minutes:.0f} min left",
            ]
            self.lines.print("; ".join(parts), highlight=False, soft_wrap=True)


@contextmanager
def _progress(console: Console | None, task: str, *, done: int, epochs: int, epoch_steps: int) -> Iterator[Shown]:
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("loss {task.fields[loss]:.3f}  {task.fields[speed]:,.0f} tokens/s"),
        TextColumn("{task.fields[best]}"),
        TimeRemainingColumn(),
        console=console,
        disable=console is None or not console.is_terminal,
    )
    with progress:
        number = progress.add_task(
            task, total=epochs * epoch_steps, completed=done * epoch_steps, loss=math.nan, speed=0.0, best=""
        )
        yield Shown(progress, number, epochs, None if console is None or console.is_terminal else console)
