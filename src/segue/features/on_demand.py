"""The history features as Feast's on-demand views see them: columns of lists in, columns of values out."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from segue.events import COLUMNS
from segue.features import sequence, table
from segue.history import RECORD_COLUMNS, Histories, Times

AS_OF = "as_of_ms"
"""The time a history was read as of: a feature of the history view, so that history and time travel together."""


def behaviour(inputs: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """Every scalar feature of n histories, by name: n values each, NaN for null.

    Args:
        inputs: the history view's columns: a list of n lists for each record column (None for no history), and n times
            under `as_of_ms`.
    """
    histories, now_ms = _decode(inputs)
    matrix = table.compute(histories, now_ms)
    return {
        feature.name: matrix[:, column].astype(feature.dtype).tolist() for column, feature in enumerate(table.FEATURES)
    }


def item_sequence(inputs: Mapping[str, Sequence[Any]]) -> dict[str, list[list[Any]]]:
    """The item sequence of n histories: n lists for each of `sequence.FEATURES`; `inputs` as for `behaviour`."""
    sequences = sequence.item_sequences(*_decode(inputs))
    columns = (sequences.item, sequences.kind.astype(np.int64), sequences.age_ms / 1000)
    spans = [slice(*span) for span in zip(sequences.offsets[:-1], sequences.offsets[1:], strict=True)]
    return {
        feature.name: [column[span].tolist() for span in spans]
        for feature, column in zip(sequence.FEATURES, columns, strict=True)
    }


def _decode(inputs: Mapping[str, Sequence[Any]]) -> tuple[Histories, Times]:
    now_ms = np.asarray(inputs[AS_OF], np.int64)
    lists = {name: [values if values is not None else [] for values in inputs[name]] for name in RECORD_COLUMNS}
    offsets = np.concatenate([[0], np.cumsum([len(values) for values in lists["event_id"]])]).astype(np.int64)
    columns = {name: _flat(name, lists[name]) for name in RECORD_COLUMNS}
    return Histories(offsets, **columns), now_ms


def _flat(name: str, lists: Sequence[Sequence[int]]) -> np.ndarray:
    """One column of all lists; ids come as int64, bit for bit, since Feast has no unsigned types."""
    flat = np.concatenate([np.asarray(values, np.int64) for values in [[], *lists]])
    return flat.view(np.uint64) if name == "event_id" else flat.astype(COLUMNS[name])
