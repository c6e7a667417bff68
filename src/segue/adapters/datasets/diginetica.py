"""Diginetica, CIKM Cup 2016: shop sessions in SR-GNN's split (Wu et al., AAAI 2019).

Every item of a session is one product_viewed; sessions are anonymous, so each is a customer: `train-0`, `train-1`, ...,
`test-0`, ... by its place in its file. The split knows only the order of sessions and the order within them, so times
are made up: session k begins k minutes after 2020-01-01, its views are one minute apart, and the test sessions begin
after the last training view, at `Dataset.test_from_ms`. The published test file lists each session's prefixes, longest
first; here every test session occurs once and whole.

The raw purchases and categories that lie beside it number sessions and items otherwise, so they are left out.
"""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd

from segue.adapters.datasets.dataset import (
    MINUTE_MS,
    ORDER_ONLY_START_MS,
    Dataset,
    Source,
    assemble,
    reading,
)
from segue.events import Kind
from segue.simulator import DEMO_KEY

SOURCE = Source("train_sessions.txt.gz")
TEST_FILE = "test_prefix_target.txt.gz"
LICENCE = "CIKM Cup 2016 terms: research only"


def load(path: Path, *, key: bytes = DEMO_KEY) -> Dataset:
    """Read `train_sessions.txt.gz` and `test_prefix_target.txt.gz` in the folder `path`, or beside the file `path`.

    Raises:
        InvalidInput: they are not there or not readable.
    """
    file = SOURCE.locate(path)
    with reading(file), gzip.open(file, "rt") as lines:
        training = log_of(lines.read().splitlines(), "train", ORDER_ONLY_START_MS)
    test_from_ms = int(training["event_time_ms"].max()) + MINUTE_MS
    with reading(test_file := file.parent / TEST_FILE), gzip.open(test_file, "rt") as lines:
        test = log_of(whole_sessions(lines.read().splitlines()), "test", test_from_ms)
    log = pd.concat([training, test])
    return assemble(log, name="diginetica", licence=LICENCE, key=key, order_only=True, test_from_ms=test_from_ms)


def whole_sessions(rows: list[str]) -> list[str]:
    """The sessions behind rows of prefix TAB target, which shorten each session view by view down to two."""
    sessions = [row.replace("\t", " ") for row in rows]
    shortened = ["", *(session.rpartition(" ")[0] for session in sessions)]
    return [session for session, before in zip(sessions, shortened, strict=False) if session != before]


def log_of(sessions: list[str], part: str, start_ms: int) -> pd.DataFrame:
    """One row per view of sessions "item item ..."; session k begins k minutes after `start_ms`."""
    items = np.array(" ".join(sessions).split(" "), np.int64)
    lengths = np.array([session.count(" ") + 1 for session in sessions])
    session = np.repeat(np.arange(len(sessions)), lengths)
    step = np.arange(len(session)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return pd.DataFrame(
        {
            "customer": np.array([f"{part}-{k}" for k in range(len(sessions))], object)[session],
            "item": items,
            "kind": Kind.PRODUCT_VIEWED,
            "event_time_ms": start_ms + (session + step) * MINUTE_MS,
        }
    )
