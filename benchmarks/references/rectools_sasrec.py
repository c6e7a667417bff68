"""RecTools' SASRecModel, one epoch for every line on standard input: `python rectools_sasrec.py <folder> ...`.

Run by the interpreter of an environment that holds RecTools; nothing here is Segue's. The folder's `log.npz` holds
`offsets` (s + 1,) and `item` (m,), sequences of items numbered from 1, oldest first, and `asked` (n,), the sequences to
continue. After an epoch its `best.npy` (n, 20) holds the items recommended for each, best first, 0 where there are no
more, none of them from the sequence; then one line of JSON says what the epoch took, recommending not counted.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel

BEST = 20


class Clock(Callback):
    """Takes the time of the newest epoch, all threads of this process."""

    def on_train_epoch_start(self, *_) -> None:
        self.began = time.process_time(), time.perf_counter()

    def on_train_epoch_end(self, *_) -> None:
        worked, began = self.began
        self.took = {"cpu_seconds": time.process_time() - worked, "seconds": time.perf_counter() - began}


def main() -> None:
    options = arguments()
    torch.set_num_threads(1)
    seed_everything(options.seed)
    with np.load(options.folder / "log.npz") as file:
        offsets, item, asked = file["offsets"], file["item"], file["asked"]
    dataset = Dataset.construct(interactions(offsets, item))
    model = SASRecModel(
        n_factors=options.width,
        n_blocks=options.blocks,
        n_heads=options.heads,
        dropout_rate=options.dropout,
        session_max_len=options.length,
        loss=options.loss,
        n_negatives=options.negatives,
        lr=options.learning_rate,
        batch_size=options.batch_size,
        get_trainer_func=trainer,
        recommend_torch_device="cpu",
    )
    for _ in sys.stdin:
        model.fit_partial(dataset, min_epochs=1, max_epochs=1)
        np.save(options.folder / "best.npy", best(model, dataset, asked))
        clock = next(each for each in model.fit_trainer.callbacks if isinstance(each, Clock))
        print(json.dumps(clock.took), flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    for name in ("width", "blocks", "heads", "length", "negatives", "batch-size", "seed"):
        parser.add_argument(f"--{name}", type=int, required=True)
    for name in ("dropout", "learning-rate"):
        parser.add_argument(f"--{name}", type=float, required=True)
    parser.add_argument("--loss", required=True)
    return parser.parse_args()


def trainer() -> Trainer:
    """RecTools' own default trainer, on the processor, with a clock."""
    return Trainer(
        accelerator="cpu",
        devices=1,
        callbacks=[Clock()],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=False,
    )


def interactions(offsets: np.ndarray, item: np.ndarray) -> pd.DataFrame:
    """The sequences as RecTools reads them; times say no more than the order."""
    return pd.DataFrame(
        {
            Columns.User: np.repeat(np.arange(len(offsets) - 1), np.diff(offsets)),
            Columns.Item: item,
            Columns.Weight: 1.0,
            Columns.Datetime: pd.to_datetime(np.arange(len(item)), unit="s"),
        }
    )


def best(model: SASRecModel, dataset: Dataset, asked: np.ndarray) -> np.ndarray:
    """What the model recommends for `asked`, (n, 20)."""
    found = model.recommend(asked, dataset, k=BEST, filter_viewed=True, on_unsupported_targets="ignore")
    table = np.zeros((len(asked), BEST), np.int64)
    table[np.searchsorted(asked, found[Columns.User]), found[Columns.Rank] - 1] = found[Columns.Item]
    return table


if __name__ == "__main__":
    main()
