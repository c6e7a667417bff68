"""How fast a sequence model learns: processor time per target, and until both have reached the same quality.

Leave-one-out over the data set at `--data`, or over a simulated shop: each customer's last item is left out, the one
before it is asked for, the rest is learned from. After every epoch both are asked for all customers, rank the whole
catalogue without the items of the prefix, and are judged by Segue's code; that time is not counted. They take turns, an
epoch each, on one thread each.

- Segue: `models.sequence.train` with the Transformer of `--config`, full cross-entropy, every item but a customer's
  first a target in every epoch.
- RecTools: `SASRecModel`, the library's own training loop and its own `recommend`, in an environment of its own because
  its dependencies are older. Width, blocks, heads, dropout, length, batch and learning rate are Segue's; its loss is
  its default, the full softmax; the rest is its own: a feed-forward layer a quarter as wide, dropout in the attention,
  Adam with betas 0.9 and 0.98 at a constant rate, Xavier's start, and the newest `length` targets of a customer in
  every epoch. `--rectools-loss` and `--rectools-batch` set it otherwise.

A target is an item learned to be predicted; padding is none. The quality is the highest validation NDCG@10 that both
have reached; each is charged all epochs up to the first that has it. Segue trains for `--epochs`; RecTools until it has
what Segue ends with, or has used `--cpu-minutes`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import torch

from benchmarks.command import command
from benchmarks.home import HOME, REPOSITORY
from benchmarks.table import Comparison
from benchmarks.timing import Timing
from models.sequence import config as configs
from models.sequence.config import Config
from models.sequence.dataset import Split
from models.sequence.evaluate import ndcg, rank_in
from models.sequence.protocols import leave_one_out
from models.sequence.ranking import recommender
from models.sequence.scoring import Deep
from models.sequence.train import train
from segue.adapters import datasets
from segue.events import Events
from segue.simulator import Shop, ShopConfig

RECTOOLS = "rectools[torch]==0.19.0"
SCRIPT = Path(__file__).parent / "references" / "rectools_sasrec.py"
ALL = 1_000_000
"""Validation cases: no customer is left out, and the more, the less chance decides."""

ERROR_CHARACTERS = 2000


@dataclass(frozen=True)
class Epoch:
    """What an epoch took, and what the model was worth after it."""

    cpu_seconds: float
    seconds: float
    ndcg_10: float


class Contender(Protocol):
    """Whatever trains one epoch more at a time."""

    target_count: int
    """Targets per epoch."""

    def epoch(self) -> Epoch:
        """Train for one epoch more, then be judged."""


class Ours:
    """Segue's training, resumed from its checkpoint for every epoch."""

    def __init__(self, split: Split, config: Config, folder: Path) -> None:
        self.split, self.config, self.checkpoint = split, config, folder / "segue.npz"
        self.target_count = int(np.maximum(0, np.diff(split.choosing.offsets) - 1).sum())
        self.epoch_count = 0

    def epoch(self) -> Epoch:
        self.epoch_count += 1
        corpus = self.split.choosing
        trained = train(corpus, self.config, validation=None, epochs=self.epoch_count, checkpoint=self.checkpoint)
        recommend = recommender(Deep(trained.model), corpus.vocabulary, include_seen=False)
        newest = trained.curve[-1]
        return Epoch(
            newest.processor_seconds, newest.seconds, judged(self.split, recommend(self.split.validation.prefixes))
        )


class RecTools:
    """The reference, in a process of its own."""

    def __init__(self, split: Split, config: Config, folder: Path, options: argparse.Namespace) -> None:
        self.split, self.folder = split, folder
        lengths = np.diff(split.choosing.offsets)
        self.target_count = int(np.clip(lengths - 1, 0, config.length).sum())
        asked = split.validation.turns.customer  # who begin with no item have no sequence in the corpus: the same rows
        np.savez(folder / "log.npz", offsets=split.choosing.offsets, item=split.choosing.index, asked=asked)
        given = {
            "width": config.width,
            "blocks": config.blocks,
            "heads": config.heads,
            "dropout": config.dropout,
            "length": config.length,
            "loss": options.rectools_loss,
            "negatives": options.rectools_negatives,
            "learning-rate": config.learning_rate,
            "batch-size": options.rectools_batch or config.batch_size,
            "seed": config.seed,
        }
        line = [
            options.rectools_python or made(),
            SCRIPT,
            folder,
            *(f"--{name}={value}" for name, value in given.items()),
        ]
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        self.log = (folder / "rectools.log").open("w")
        self.process = subprocess.Popen(
            list(map(str, line)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=os.environ | threads,
        )

    def epoch(self) -> Epoch:
        assert self.process.stdin
        assert self.process.stdout
        with suppress(BrokenPipeError):
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        # Lightning also writes to stdout.
        answer = next((line for line in self.process.stdout if line.startswith("{")), None)
        if answer is None:
            raise RuntimeError(f"RecTools has ended: {Path(self.log.name).read_text()[-ERROR_CHARACTERS:]}")
        best = np.load(self.folder / "best.npy")
        return Epoch(**json.loads(answer), ndcg_10=judged(self.split, self.split.choosing.vocabulary.item[best]))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        self.log.close()


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = argparse.ArgumentParser(
        prog="python -m benchmarks.sequence_training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("--data", type=Path, help="folder of a public data set (default: a simulated shop)")
    options.add_argument(
        "--config",
        type=Path,
        default=REPOSITORY / "models" / "sequence" / "configs" / "ml_1m.toml",
        help="what both train (default: that of MovieLens-1M)",
    )
    for name, default, meaning in (
        ("length", None, "newest items read (default: the configuration's, 50 for the shop)"),
        ("seed", 1, "of both trainings and of the shop (default: %(default)s)"),
        ("epochs", 4, "that Segue trains for (default: %(default)s)"),
        ("customers", 1_000, "of the shop (default: %(default)s)"),
        ("rectools-batch", None, "sequences per step (default: the configuration's)"),
        ("rectools-negatives", 256, "for losses that draw some (default: %(default)s)"),
    ):
        options.add_argument(f"--{name}", type=int, default=default, help=meaning)
    options.add_argument("--cpu-minutes", type=float, default=20, help="that RecTools may use (default: %(default)s)")
    options.add_argument("--rectools-loss", default="softmax", help="softmax, sampled_softmax, gBCE or BCE")
    options.add_argument(
        "--rectools-python",
        type=Path,
        help=f"interpreter with {RECTOOLS} (default: in .segue, made if it is not there)",
    )
    return options


def measure(options: argparse.Namespace) -> list[Comparison]:
    """Let both train in turn, and compare what it took."""
    torch.set_num_threads(1)
    given = {"seed": options.seed, "length": options.length or (None if options.data else 50)}
    config = replace(configs.read(options.config, **given), refit=False, max_cases=ALL)
    split = leave_one_out(log(options), config).split
    with (
        tempfile.TemporaryDirectory(prefix="segue-benchmark-") as folder,
        RecTools(split, config, Path(folder), options) as theirs,
    ):
        contenders: dict[str, Contender] = {"Segue": Ours(split, config, Path(folder)), "RecTools": theirs}
        curves = take_turns(contenders, epochs=options.epochs, most_seconds=options.cpu_minutes * 60)
    goal = min(max(each.ndcg_10 for each in curve) for curve in curves.values())
    size = f"{contenders['Segue'].target_count:,} items of {len(split.choosing.offsets) - 1:,} customers"
    return [
        Comparison(
            "one training target",
            {name: per_target(curve, contenders[name].target_count) for name, curve in curves.items()},
            f"{size}, a vocabulary of {len(split.choosing.vocabulary) - 1:,}; "
            + "; ".join(f"{name} {each.target_count:,} targets an epoch" for name, each in contenders.items()),
        ),
        Comparison(
            f"training until validation NDCG@10 is {goal:.4f}",
            {name: until(curve, goal) for name, curve in curves.items()},
            f"{len(split.validation):,} cases; "
            + "; ".join(f"{name} " + " ".join(f"{e.ndcg_10:.4f}" for e in curve) for name, curve in curves.items()),
        ),
    ]


def log(options: argparse.Namespace) -> datasets.Dataset:
    """What is learned from."""
    if options.data:
        return datasets.load(options.data)
    shop = Shop(ShopConfig(customers=options.customers, seed=options.seed))
    return datasets.Dataset("shop", Events.concat(shop.stream()), shop.catalogue, licence="")


def take_turns(contenders: dict[str, Contender], *, epochs: int, most_seconds: float) -> dict[str, list[Epoch]]:
    """Epochs in turn: so many of the first; of the other until it is as good, or has had its time."""
    (first, ours), (other, theirs) = contenders.items()
    curves: dict[str, list[Epoch]] = {first: [], other: []}

    def run(name: str, contender: Contender) -> None:
        newest = contender.epoch()
        curves[name].append(newest)
        took = f"{newest.cpu_seconds:.1f} CPU s, {newest.seconds:.1f} s"
        print(f"{name}, epoch {len(curves[name])}: NDCG@10 {newest.ndcg_10:.4f}, {took}", file=sys.stderr, flush=True)

    def is_over() -> bool:
        used = sum(each.cpu_seconds for each in curves[other])
        return used >= most_seconds or max(each.ndcg_10 for each in curves[other]) >= max(
            each.ndcg_10 for each in curves[first]
        )

    for _ in range(epochs):
        run(first, ours)
        if not curves[other] or not is_over():
            run(other, theirs)
    while not is_over():
        run(other, theirs)
    return curves


def per_target(curve: Sequence[Epoch], target_count: int) -> Timing:
    """What a target took in the median epoch."""
    return Timing(
        per_second=float(np.median([target_count / each.seconds for each in curve])),
        cpu_seconds=float(np.median([each.cpu_seconds / target_count for each in curve])),
        p50_seconds=np.nan,
        p99_seconds=np.nan,
    )


def until(curve: Sequence[Epoch], goal: float) -> Timing:
    """All epochs up to the first that reaches `goal`."""
    count = 1 + next(index for index, each in enumerate(curve) if each.ndcg_10 >= goal)
    seconds = sum(each.seconds for each in curve[:count])
    return Timing(1 / seconds, sum(each.cpu_seconds for each in curve[:count]), p50_seconds=seconds, p99_seconds=np.nan)


def judged(split: Split, best: np.ndarray) -> float:
    """The mean NDCG@10 of the validation cases, of item ids (n, 20)."""
    return float(ndcg(rank_in(best, split.validation), 10).mean())


def made() -> Path:
    """The interpreter of an environment with RecTools, which the first call makes: some minutes, by pip."""
    home = HOME.resolve() / "benchmarks" / "rectools"
    python = home / "bin" / "python"
    done = home / ".installed"
    if not done.exists():
        print(f"installing {RECTOOLS} into {home} ...", file=sys.stderr)
        venv.create(home, clear=True, with_pip=True)
        same_torch = f"torch=={torch.__version__.partition('+')[0]}"
        for wanted in ([same_torch], [RECTOOLS, same_torch]):  # by its exact version first: others bring CUDA
            subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True, stdout=sys.stderr)
        done.touch()
    return python


if __name__ == "__main__":
    command(parser(), measure)
