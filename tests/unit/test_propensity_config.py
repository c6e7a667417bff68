"""Training configuration: what is written is what runs, and a slip of the pen is named."""

from dataclasses import asdict
from pathlib import Path

import pytest

from models.propensity.config import read, resolve
from segue.errors import InvalidSettings

CONFIGS = sorted((Path(__file__).parents[2] / "models" / "propensity" / "configs").glob("*.toml"))

GIVEN = {
    "name": "purchase_7d",
    "outcome": {"kinds": ["order_completed"], "horizon_days": 7, "active_within_days": 30},
    "split": {"unit": "fraction", "stride_days": 7, "train": [0, 0.5], "validation": [0.5, 0.7], "test": [0.7, 1]},
}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configurations_are_valid_and_named_after_their_file(path: Path) -> None:
    config = read(path)
    assert config.name == path.stem
    assert resolve(asdict(config)) == config


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"sead": 1}, "sead"),
        ({"boosting": {"depth": 3}}, "boosting.depth"),
        ({"boosting": {"max_depth": 3.5}}, "boosting.max_depth"),
        ({"boosting": 3}, "boosting"),
        ({"seed": True}, "seed"),
        ({"name": 7}, "name"),
        ({"outcome": {"kinds": ["order_completed"], "horizon_days": 7}}, "outcome.active_within_days"),
        ({"outcome": {**GIVEN["outcome"], "kinds": "order_completed"}}, "outcome.kinds"),
        ({"outcome": {**GIVEN["outcome"], "kinds": [3]}}, "outcome.kinds[0]"),
        ({"split": {**GIVEN["split"], "unit": "weeks"}}, "split.unit"),
        ({"split": {**GIVEN["split"], "test": [0.7]}}, "split.test"),
        ({"split": {**GIVEN["split"], "test": [0.6, 1]}}, "split"),
        ({"split": {**GIVEN["split"], "test": [0.7, 1.1]}}, "split"),
        ({"split": {**GIVEN["split"], "stride_days": 6}}, "split.stride_days"),
        ({"split": {**GIVEN["split"], "embargo_days": -1}}, "split.embargo_days"),
        ({"split": {**GIVEN["split"], "max_rows": 0}}, "split.max_rows"),
        ({"calibrating": {"high_ratio": 0.9}}, "calibrating"),
        ({"calibrating": {"max_knots": 1}}, "calibrating.max_knots"),
        ({"bootstrap_count": 0}, "bootstrap_count"),
    ],
)
def test_a_wrong_key_or_value_is_named(changes: dict, field: str) -> None:
    with pytest.raises(InvalidSettings) as error:
        resolve({**GIVEN, **changes})
    assert field in [violation.field for violation in error.value.violations]


def test_every_unknown_and_missing_key_is_reported_at_once() -> None:
    with pytest.raises(InvalidSettings) as error:
        resolve({"nam": "x", "outcom": {}})
    assert {violation.field for violation in error.value.violations} == {"nam", "outcom", "name", "outcome", "split"}


@pytest.mark.parametrize("content", ["name = ", None])
def test_an_unreadable_file_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "broken.toml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InvalidSettings, match=r"broken\.toml"):
        read(path)
