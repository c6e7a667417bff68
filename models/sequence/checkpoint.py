"""Checkpoints: a training run between two epochs as one file of plain arrays; nothing in it is executed.

A run that is resumed ends with the weights it would have had without the interruption (tested).
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.sequence.config import Config
from models.sequence.dataset import Corpus
from models.sequence.run import Epoch, Run
from segue.errors import InvalidInput

Arrays = dict[str, NDArray]


def fingerprint(corpus: Corpus, config: Config) -> str:
    """What a run must have in common with the checkpoint it resumes from."""
    digest = hashlib.sha256(json.dumps(asdict(config), sort_keys=True).encode())
    for each in (corpus.vocabulary.item, corpus.offsets, *corpus.columns):
        digest.update(np.ascontiguousarray(each).tobytes())
    return digest.hexdigest()


def save(path: Path, run: Run, fingerprint: str) -> None:
    """Write `run`; an interruption leaves the old file whole."""
    state = {
        "fingerprint": fingerprint,
        "steps": run.steps,
        "curve": [asdict(epoch) for epoch in run.curve],
        "best_epoch": run.best_epoch,
        "draws": run.rng.bit_generator.state,
    }
    arrays = _arrays("model", run.model.state_dict()) | _arrays("best", run.weights)
    for number, slots in run.optimizer.state_dict()["state"].items():
        arrays |= _arrays(f"optimizer/{number}", slots)
    arrays |= {"state": np.array(json.dumps(state)), "torch_draws": torch.get_rng_state().numpy()}
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.part")
    with unfinished.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    os.replace(unfinished, path)  # noqa: PTH105 - atomic, which Path.rename is not everywhere


def restore(path: Path, run: Run, fingerprint: str) -> None:
    """Put `run` where the checkpoint at `path` left it.

    Raises:
        InvalidInput: the file is no checkpoint, or that of another configuration or another log.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays: Arrays = dict(file)
        state: dict[str, Any] = json.loads(str(arrays["state"]))
        known = state["fingerprint"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InvalidInput.because("checkpoint", f"{path} cannot be read: {error}") from error
    if known != fingerprint:
        raise InvalidInput.because("checkpoint", f"{path} is of another configuration or another log; remove it")
    run.model.load_state_dict(_tensors("model", arrays))
    run.weights = _tensors("best", arrays)
    groups = run.optimizer.state_dict()["param_groups"]
    count = sum(len(group["params"]) for group in groups)
    slots = {number: _tensors(f"optimizer/{number}", arrays) for number in range(count)}
    run.optimizer.load_state_dict({"state": slots, "param_groups": groups})
    run.rng.bit_generator.state = state["draws"]
    torch.set_rng_state(torch.from_numpy(arrays["torch_draws"]))
    run.steps, run.best_epoch = state["steps"], state["best_epoch"]
    run.curve = [Epoch(**each) for each in state["curve"]]


def _arrays(part: str, tensors: Mapping[str, Tensor]) -> Arrays:
    return {f"{part}/{name}": tensor.detach().cpu().numpy() for name, tensor in tensors.items()}


def _tensors(part: str, arrays: Arrays) -> dict[str, Tensor]:
    begin = f"{part}/"
    return {name.removeprefix(begin): torch.from_numpy(arrays[name]) for name in arrays if name.startswith(begin)}
