"""Rows to learn from and be judged by: a customer and a prediction time, the features before it, the label after it.

The split is global in time. Features come from Feast alone, as of each row's time; labels and populations from the log.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.propensity.config import Config, Split
from models.propensity.outcomes import Outcome, labels, population
from segue.errors import InvalidInput
from segue.events import Events
from segue.features.batch import DAY_MS
from segue.history import Timelines, Times
from segue.inference.plan import Plan

FeatureSource = Callable[[pd.DataFrame], pd.DataFrame]
"""From columns `customer` (str) and `event_timestamp` (UTC) to the same rows with the columns of a feature service."""

KEYS = ["customer", "event_timestamp"]

MAX_EVENTS = 2_000_000
"""Events of the log held at a time while rows are labelled."""


class EventLog(Protocol):
    """Where events are read from: the event lake."""

    def time_range(self) -> tuple[int, int]:
        """The first and the last event time, milliseconds."""

    def customer_ranges(self, max_events: int) -> Iterator[tuple[str | None, str | None]]:
        """Consecutive ranges of customers, in ascending order, with about `max_events` events each."""

    def read(self, *, first_customer: str | None, past_customer: str | None) -> Events:
        """The events of one range."""


@dataclass(frozen=True)
class Cuts:
    """The prediction times of each split, ascending, int milliseconds."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Rows:
    """n rows of one split, ordered by (time, customer)."""

    customer: NDArray[np.object_]  # (n,) str
    t_ms: Times  # (n,)
    label: NDArray[np.bool_]  # (n,)
    matrix: NDArray[np.float64]  # (n, columns), NaN is null

    def __len__(self) -> int:
        return len(self.label)

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Self:
        """The rows at `index`, positions or mask."""
        return type(self)(self.customer[index], self.t_ms[index], self.label[index], self.matrix[index])


@dataclass(frozen=True, eq=False)
class Dataset:
    """The rows of all splits, over the columns of one feature service."""

    plan: Plan
    cuts: Cuts
    train: Rows
    validation: Rows
    test: Rows

    @property
    def columns(self) -> list[str]:
        """The names of the matrices' columns: the plan's, in its order."""
        return [column.name for column in self.plan.columns]


def feast_source(repo: Path, feature_service: str) -> tuple[Plan, FeatureSource]:
    """The features of a Feast repo: the serving plan they will be served by, and their past values.

    Raises:
        InvalidInput: there is no repo, or its registry does not hold the feature service.
    """
    # Feast takes seconds to import, and only a real run needs it.
    from feast import FeatureStore  # noqa: PLC0415
    from feast.errors import FeastError  # noqa: PLC0415

    from segue.adapters.feast.plans import compile_plan  # noqa: PLC0415

    try:
        store = FeatureStore(repo_path=str(repo))
        service = store.get_feature_service(feature_service)
    except (FeastError, OSError) as error:
        raise InvalidInput.because("feature_service", f"{error}; `feast apply` in {repo} registers it") from error
    plan = compile_plan(store, feature_service)
    return plan, lambda entity_df: store.get_historical_features(entity_df=entity_df, features=service).to_df()


def build(config: Config, log: EventLog, plan: Plan, source: FeatureSource, *, cuts: Cuts | None = None) -> Dataset:
    """Make the dataset of a log.

    Args:
        config: says what is foretold, of whom, and when.
        log: every event, read by ranges of customers.
        plan: names the columns.
        source: where their values come from.
        cuts: the prediction times; those of `cut_times` unless given, to repeat an earlier run on a log that has grown.

    Raises:
        InvalidInput: a split has no prediction time, or its labels are all alike, or the features are not one numeric
            row for each row asked for.
    """
    cuts = cuts or cut_times(config.split, config.outcome.horizon_ms, *log.time_range())
    customer, t_ms, label = ask(config.outcome, log, [*cuts.train, *cuts.validation, *cuts.test])
    rng = np.random.default_rng(config.seed)
    chosen = []
    for name in ("train", "validation", "test"):
        rows = np.flatnonzero(np.isin(t_ms, getattr(cuts, name)))
        if len(rows) > config.split.max_rows:
            rows = np.sort(rng.choice(rows, config.split.max_rows, replace=False))
        if label[rows].all() or not label[rows].any():
            raise InvalidInput.because(f"split.{name}", f"its {len(rows)} rows do not hold both labels")
        chosen.append(rows)
    kept = np.concatenate(chosen)
    matrix = features(plan, source, customer[kept], t_ms[kept])
    matrices = np.split(matrix, np.cumsum([len(rows) for rows in chosen])[:-1])
    splits = (Rows(customer[at], t_ms[at], label[at], each) for at, each in zip(chosen, matrices, strict=True))
    return Dataset(plan, cuts, *splits)


def cut_times(split: Split, horizon_ms: int, first_ms: int, last_ms: int) -> Cuts:
    """The prediction times of each split in a log whose events lie in [first_ms, last_ms].

    Every label window lies inside the log. Where two splits come too close, the earlier one gives way.

    Raises:
        InvalidInput: a split is left without a prediction time.
    """
    newest = last_ms + 1 - horizon_ms
    scale = DAY_MS if split.unit == "days" else max(newest - first_ms, 0)
    start = first_ms + round(split.train[0] * scale)
    grid = np.arange(start, max(newest, start) + 1, split.stride_days * DAY_MS)
    grid = grid[grid <= newest]
    chosen: dict[str, tuple[int, ...]] = {}
    limit = newest
    for name in ("test", "validation", "train"):
        low, high = (first_ms + round(edge * scale) for edge in getattr(split, name))
        inside = (grid >= low) & (grid < high + (high == newest)) & (grid <= limit)
        if not inside.any():
            days = (last_ms - first_ms) / DAY_MS
            raise InvalidInput.because(f"split.{name}", f"no prediction time is left in a log of {days:.1f} days")
        chosen[name] = tuple(grid[inside].tolist())
        limit = chosen[name][0] - horizon_ms - split.embargo_days * DAY_MS
    return Cuts(**chosen)


def ask(outcome: Outcome, log: EventLog, cuts: Sequence[int]) -> tuple[NDArray[np.object_], Times, NDArray[np.bool_]]:
    """Every customer of whom the outcome may be asked at each time, with the answer: (n,) each, by (time, customer)."""
    customers, times, answers = [np.empty(0, np.object_)], [np.empty(0, np.int64)], [np.empty(0, bool)]
    for first, past in log.customer_ranges(MAX_EVENTS):
        timelines = Timelines.of(log.read(first_customer=first, past_customer=past))
        names = timelines.events.customers
        asked = [population(outcome, timelines, t_ms) for t_ms in cuts]
        customer = np.concatenate([each[np.argsort(names[each])] for each in asked])
        t_ms = np.repeat(np.array(cuts, np.int64), [len(each) for each in asked])
        customers.append(names[customer])
        times.append(t_ms)
        answers.append(labels(outcome, timelines, customer, t_ms))
    order = np.argsort(np.concatenate(times), kind="stable")  # ranges ascend, and each is in order already
    return np.concatenate(customers)[order], np.concatenate(times)[order], np.concatenate(answers)[order]


def features(plan: Plan, source: FeatureSource, customer: NDArray[np.object_], t_ms: Times) -> NDArray[np.float64]:
    """The plan's columns as of each (customer, time), shape (n, columns), NaN for null.

    Raises:
        InvalidInput: the source answers with other rows, lacks a column, or one does not hold numbers.
    """
    asked = pd.DataFrame(dict(zip(KEYS, (customer, pd.to_datetime(t_ms, unit="ms", utc=True)), strict=True)))
    frame = source(asked)
    frame = frame.reset_index(drop=True)
    if len(frame) != len(asked) or not all((frame[key] == asked[key]).all() for key in KEYS):
        raise InvalidInput.because("features", f"{len(frame)} rows came back that are not the {len(asked)} asked for")
    names = [column.name for column in plan.columns]
    if absent := sorted(set(names) - set(frame.columns)):
        raise InvalidInput.because("features", f"lack {', '.join(absent)}")
    if lists := [column.name for column in plan.columns if column.dtype not in {"int64", "float64"}]:
        raise InvalidInput.because("features", f"not numbers: {', '.join(lists)}")
    return frame[names].to_numpy(np.float64, na_value=np.nan)
