"""A private home to measure in: `.segue` and `feature_repo` as in the repository, in a directory that is removed."""

import contextlib
import os
import shutil
import socket
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from demo.processes import Processes, start_valkey
from segue.__main__ import main
from segue.adapters.lake import Lake
from segue.history import histories_of

REPOSITORY = Path(__file__).resolve().parent.parent
HOME = Path(".segue")
"""Where the state lies, seen from the working directory."""


@contextlib.contextmanager
def private_home() -> Iterator[Processes]:
    """Work in a new directory, whose commands find everything at its default place; yields what runs there.

    In the end its processes are stopped and the directory is removed. Progress goes to stderr: stdout is for the table.
    The environment and the warnings of this process change for good.
    """
    import feast  # noqa: F401 - it turns the deprecation warnings of all libraries on, once

    warnings.simplefilter("ignore")
    for name in [each for each in os.environ if each.startswith("SEGUE_")]:
        del os.environ[name]
    with (
        tempfile.TemporaryDirectory(prefix="segue-benchmark-") as directory,
        contextlib.chdir(directory),
        contextlib.redirect_stdout(sys.stderr),
    ):
        os.environ |= {"BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": f"{directory}/bentoml", "FEAST_USAGE": "False"}
        shutil.copytree(REPOSITORY / "feature_repo", "feature_repo", ignore=shutil.ignore_patterns("__pycache__"))
        processes = Processes(Path(directory, HOME, "logs"))
        try:
            yield processes
        finally:
            processes.stop()


def open_store(processes: Processes) -> int:
    """Start an online store that everything here will use; returns its port."""
    port = free_port()
    start_valkey(processes, HOME / "valkey", port)
    os.environ["SEGUE_REDIS"] = f"127.0.0.1:{port}"
    return port


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fill(*, customers: int, items: int, days: int, seed: int) -> None:
    """A simulated shop up to this moment, its features in the online store: `segue events`, then `segue features`.

    Raises:
        RuntimeError: one of them failed; it has said why.
    """
    shop = (f"--customers={customers}", f"--items={items}", f"--days={days}", f"--seed={seed}")
    # In this process, so that Feast is imported once.
    if main(["events", *shop]) or main(["features"]):
        raise RuntimeError("the online store was not filled")


def longest_histories(count: int) -> tuple[list[str], float]:
    """The customers with the longest histories, and their mean length."""
    events = Lake(HOME / "lake").read()
    lengths = histories_of(events).lengths
    longest = np.argsort(-lengths, kind="stable")[:count]
    return events.customers[longest].tolist(), float(lengths[longest].mean())
