"""The published plans, and whether a bundle agrees with them."""

from dataclasses import replace

import pytest

from segue.adapters.plan_files import PLAN_FILE, agreed, publish, published
from segue.errors import BundleError
from segue.inference import bundle
from segue.inference.bundle import Bundle
from segue.inference.plan import Column, Plan
from tests.bundles import MANIFEST

PLAN = Plan(
    feature_service="propensity_v1",
    project="shop",
    columns=(Column("view_count", "int64", "history"), Column("order_count", "int64", "lifetime")),
    hashes=(),
    histories=(),
)


@pytest.fixture
def plans(tmp_path):
    return tmp_path / "home" / "plans"


def trained_with(directory, plan, **manifest):
    directory.mkdir()
    (directory / PLAN_FILE).write_text(plan.to_json())
    bundle.write(directory, replace(MANIFEST, plan_hash=plan.hash, **manifest))
    return Bundle.read(directory, "purchase_7d:1")


def test_a_plan_is_published_under_its_services_name(plans):
    assert publish(plans, PLAN) == plans / "propensity_v1.json"
    assert published(plans, "propensity_v1") == PLAN
    other = replace(PLAN, feature_service="recommendation_v1")
    publish(plans, other)
    assert published(plans, "propensity_v1") == PLAN
    assert published(plans, "recommendation_v1") == other


def test_publishing_again_replaces_it_and_leaves_nothing_else(plans):
    publish(plans, PLAN)
    newer = replace(PLAN, columns=PLAN.columns[:1])
    publish(plans, newer)
    assert published(plans, "propensity_v1") == newer
    assert [path.name for path in plans.iterdir()] == ["propensity_v1.json"]


def test_a_service_nobody_published_is_named(plans):
    with pytest.raises(BundleError, match=r"no serving plan for churn_v1 in .*plans; `segue plan` writes it"):
        published(plans, "churn_v1")


def test_a_published_plan_cut_short_is_refused(plans):
    path = publish(plans, PLAN)
    path.write_text(path.read_text()[:-10])
    with pytest.raises(BundleError, match="serving plan: malformed"):
        published(plans, "propensity_v1")


def test_a_bundle_agrees_with_the_plan_it_was_trained_with(plans, tmp_path):
    publish(plans, PLAN)
    assert agreed(trained_with(tmp_path / "bundle", PLAN), plans) == PLAN


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        (PLAN.columns[:1], r"\['order_count'\]"),
        ((*PLAN.columns, Column("age", "int64", "lifetime")), r"\['age'\]"),
        ((replace(PLAN.columns[0], name="views"), PLAN.columns[1]), r"\['view_count', 'views'\]"),
        (PLAN.columns[::-1], "none, but types, order or places do"),
        ((replace(PLAN.columns[0], dtype="float64"), PLAN.columns[1]), "none, but types, order or places do"),
    ],
    ids=["one less", "one more", "one renamed", "another order", "another type"],
)
def test_a_bundle_that_disagrees_with_the_registry_is_refused_by_columns(plans, tmp_path, columns, told):
    made = trained_with(tmp_path / "bundle", PLAN)
    publish(plans, replace(PLAN, columns=columns))
    with pytest.raises(
        BundleError, match=rf"^bundle purchase_7d:1: .* propensity_v1 .*\(columns that differ: {told}\)"
    ):
        agreed(made, plans)


def test_a_bundle_whose_manifest_and_plan_disagree_is_refused(plans, tmp_path):
    publish(plans, PLAN)
    directory = tmp_path / "bundle"
    directory.mkdir()
    (directory / PLAN_FILE).write_text(PLAN.to_json())
    bundle.write(directory, replace(MANIFEST, plan_hash="cd" * 32))
    with pytest.raises(BundleError, match="was trained on another propensity_v1"):
        agreed(Bundle.read(directory, "purchase_7d:1"), plans)


def test_a_bundle_without_a_plan_is_refused(plans, tmp_path):
    publish(plans, PLAN)
    (tmp_path / "bundle").mkdir()
    bundle.write(tmp_path / "bundle", MANIFEST)
    with pytest.raises(BundleError, match=r"has no file 'plan\.json'"):
        agreed(Bundle.read(tmp_path / "bundle", "purchase_7d:1"), plans)


def test_a_bundle_of_a_service_nobody_published_is_refused(plans, tmp_path):
    with pytest.raises(BundleError, match="no serving plan for propensity_v1"):
        agreed(trained_with(tmp_path / "bundle", PLAN), plans)
