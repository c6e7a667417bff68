"""Configuration of a training run: a TOML file, checked and frozen, saved as it was resolved in the bundle."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from segue.errors import InvalidSettings, Violation
from segue.history import HISTORY_LIMIT

CHOICES = {
    "family": ("transformer", "gru"),
    "loss": ("full", "sampled", "gbce"),
    "positions": ("all", "last"),
}


def _number(default: float, low: float, high: float) -> Any:
    """A field of `default`'s type within [low, high]."""
    return field(default=default, metadata={"range": (low, high)})


@dataclass(frozen=True)
class Config:
    """Everything a run depends on besides the lake.

    Raises:
        InvalidSettings: values of a wrong type or out of range; every one is listed.
    """

    name: str = "next_item"
    """What the model answers, and its name in the model store."""

    length: int = _number(50, 1, HISTORY_LIMIT)
    """How many newest items the model reads."""
    validation_ratio: float = _number(0.1, 0.0, 0.5)
    """Share of the events, by time, that choose when to stop."""
    test_ratio: float = _number(0.1, 0.0, 0.5)
    """Share of the events, the newest, that judge."""
    refit: bool = True
    """Whether to train anew, for as many epochs as validation chose, on all that was known when test begins."""
    include_seen: bool = False
    """Whether items of the prefix may be recommended, and are asked for."""
    max_cases: int = _number(10_000, 1, 1_000_000)
    """The most turns that validation and test each ask for."""
    max_cases_per_customer: int = _number(20, 1, 10_000)
    """The most of them that one customer gives."""

    family: str = "transformer"
    """SASRec's causal `transformer`, or GRU4Rec's `gru`."""
    width: int = _number(64, 2, 1024)
    blocks: int = _number(2, 1, 16)
    """Layers, of either family."""
    heads: int = _number(2, 1, 16)
    """Of the transformer's attention."""
    dropout: float = _number(0.2, 0.0, 0.9)
    kinds: bool = False
    """Whether the model reads by which kind of event each item was turned to; for logs with several kinds."""
    gaps: bool = False
    """Whether the model reads the time between turns; for logs with real times."""

    loss: str = "full"
    """Cross-entropy over the `full` vocabulary, or over the target and `sampled` negatives; or `gbce`."""
    negatives: int = _number(256, 1, 100_000)
    """Items drawn per batch for the sampled and the gbce loss, shared by its rows."""
    gbce_calibration: float = _number(0.75, 0.0, 1.0)
    """The t of gbce: 0 is plain binary cross-entropy, at 1 scores are calibrated as without sampling."""
    positions: str = "all"
    """Which positions of a window are asked for what follows: `all`, or only the `last` of windows drawn anew."""
    batch_size: int = _number(128, 1, 65_536)
    """Windows per step."""
    epoch_windows: int = _number(1_000_000, 1, 1_000_000_000)
    """The most windows in one epoch, drawn anew for each: bounds its time, whatever the size of the log."""
    learning_rate: float = _number(1e-3, 1e-6, 1.0)
    weight_decay: float = _number(0.01, 0.0, 1.0)
    max_epochs: int = _number(100, 1, 10_000)
    patience_epochs: int = _number(5, 1, 1000)
    """Stop after this many epochs without a better validation NDCG@10."""
    seed: int = _number(1, 0, 2**31 - 1)

    def __post_init__(self) -> None:
        violations = [
            problem for each in fields(self) if (problem := _problem(each.name, each.type, each.metadata, self))
        ]
        if not violations:
            violations = [
                Violation(name, f"is {getattr(self, name)!r}, must be one of {', '.join(choices)}")
                for name, choices in CHOICES.items()
                if getattr(self, name) not in choices
            ]
        if not violations and self.width % (2 * self.heads):
            violations.append(
                Violation("width", f"is {self.width}, must be a multiple of twice the {self.heads} heads")
            )
        if violations:
            raise InvalidSettings(*violations)


def _problem(name: str, kind: Any, metadata: Mapping[str, Any], config: Config) -> Violation | None:
    value = getattr(config, name)
    accepted = (int, float) if kind is float else (kind,)
    if type(value) not in accepted:
        return Violation(name, f"is {value!r}, must be of type {kind.__name__}")
    low, high = metadata.get("range", (value, value))
    return None if low <= value <= high else Violation(name, f"is {value}, must be from {low} to {high}")


def read(path: Path, **overrides: Any) -> Config:
    """The configuration in the TOML file at `path`; overrides that are not None win.

    Raises:
        InvalidSettings: the file cannot be read, holds an unknown key, or a value is not acceptable.
    """
    try:
        given = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InvalidSettings.because("config", f"{path} cannot be read: {error}") from error
    return resolve(given | {key: value for key, value in overrides.items() if value is not None})


def resolve(given: Mapping[str, Any]) -> Config:
    """The configuration of the keys in `given`, e.g. a bundle's, and defaults for the rest.

    Raises:
        InvalidSettings: a key is unknown, or a value is not acceptable.
    """
    known = [each.name for each in fields(Config)]
    if unknown := sorted(set(given) - set(known)):
        raise InvalidSettings(*(Violation(key, f"is no setting; there are {', '.join(known)}") for key in unknown))
    return Config(**given)
