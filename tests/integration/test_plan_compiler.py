"""A feature service becomes a serving plan, or is refused by the name of the view that cannot be in one."""

from datetime import timedelta

import pytest

from segue.adapters import plan_files
from segue.errors import InvalidInput
from segue.features import sequence, table
from segue.features.snapshots import CUSTOMER_LIFETIME, ITEM_STATS
from segue.history import HISTORY_LIMIT
from segue.inference.plan import Column, HistoryPart
from tests.conftest import forget, open_store

HISTORY = HistoryPart("customer_history", "customer", "segue:customer_history:", HISTORY_LIMIT)


def compile_plan(store, service):
    from segue.adapters.feast import plans

    return plans.compile_plan(store, service)


@pytest.mark.parametrize("service", ["propensity_v1", "recommendation_v1"])
def test_what_is_published_is_what_the_registry_says(filled_repo, service):
    assert plan_files.published(filled_repo.home / "plans", service) == compile_plan(filled_repo.store, service)


def test_columns_come_in_the_order_of_the_service(filled_repo):
    plan = compile_plan(filled_repo.store, "propensity_v1")
    behaviour = [Column(each.name, each.dtype, "customer_history") for each in table.FEATURES]
    assert list(plan.columns) == behaviour + [
        Column(each.name, "int64", "customer_lifetime") for each in CUSTOMER_LIFETIME
    ]
    assert plan.histories == (HISTORY,)
    plan = compile_plan(filled_repo.store, "recommendation_v1")
    sequences = [Column(each.name, each.dtype, "customer_history") for each in sequence.FEATURES]
    assert list(plan.columns) == sequences + [Column(each.name, "int64", "item_stats") for each in ITEM_STATS]
    assert plan.histories == (HISTORY,)
    assert [(part.entity, part.key_type) for part in plan.hashes] == [("item", "int64")]


def test_applying_again_changes_no_plan(filled_repo, feast_repo):
    from segue.adapters.feast import pipeline

    forget(feast_repo)
    pipeline.apply(feast_repo)
    store = open_store(feast_repo)
    for service in ("propensity_v1", "recommendation_v1"):
        assert compile_plan(store, service) == compile_plan(filled_repo.store, service)


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    """A store with services that no plan can express, by the name of the culprit."""
    from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.on_demand_feature_view import on_demand_feature_view
    from feast.types import Int64, String

    from segue.adapters.feast.views import EVENT_LAKE_TAG, HISTORY_FIELDS

    directory = tmp_path_factory.mktemp("refused")
    config = RepoConfig(
        project="shop",
        provider="local",
        registry=str(directory / "registry.db"),
        offline_store={"type": "duckdb"},
        online_store={"type": "redis"},
        entity_key_serialization_version=3,
        repo_path=directory,
    )
    time = {"timestamp_field": "event_timestamp", "path": str(directory / "any.parquet")}
    source, lake = FileSource(name="any", **time), FileSource(name="lake", tags=EVENT_LAKE_TAG, **time)
    customer = Entity(name="customer", join_keys=["customer"], value_type=ValueType.STRING)
    item = Entity(name="item", join_keys=["item"], value_type=ValueType.INT64)
    flag = Entity(name="flag", join_keys=["flag"], value_type=ValueType.BOOL)

    def view(name, entities, field, source):
        fields = HISTORY_FIELDS if source is lake else [field]
        return FeatureView(name=name, entities=entities, schema=fields, source=source, ttl=timedelta(0))

    count, word = Field(name="a_count", dtype=Int64), Field(name="a_word", dtype=String)
    history = view("history", [customer], None, lake)

    @on_demand_feature_view(sources=[history], schema=[count], mode="python")
    def own_view(inputs):
        return {"a_count": [0 for _ in inputs["kind"]]}

    views = {
        "pairs": view("pairs", [customer, item], count, source),
        "flags": view("flags", [flag], count, source),
        "words": view("words", [customer], word, source),
        "history": history,
        "own_view": own_view,
    }
    services = [FeatureService(name=f"{name}_v1", features=[each]) for name, each in views.items()]
    store = FeatureStore(config=config)
    store.apply([customer, item, flag, *views.values(), *services])
    return store


@pytest.mark.parametrize(
    ("view", "problem"),
    [
        ("pairs", "pairs: a plan reads views of exactly one entity"),
        ("flags", "flags: an entity of type BOOL cannot be a key; use string or int64"),
        ("words", "a_word: has type String; a plan reads int64, float64"),
        ("history", "history: a plan reads batch views and views derived from a history"),
        ("own_view", "own_view: a plan computes Segue's own features of one history only"),
    ],
)
def test_what_a_plan_cannot_express_is_refused_by_name(refused, view, problem):
    with pytest.raises(InvalidInput, match=f"^{problem}"):
        compile_plan(refused, f"{view}_v1")
