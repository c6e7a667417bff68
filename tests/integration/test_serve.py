"""A service that cannot serve says why, before BentoML is started."""

import os

import pytest

from segue.adapters.model_store import ModelStore
from segue.adapters.plan_files import PLAN_FILE, publish
from segue.inference import bundle
from segue.inference.plan import Column, Plan
from segue.rpc import serve
from services.propensity import bundles as propensity
from services.propensity.settings import PropensitySettings
from services.recommendation import bundles as recommendation
from services.recommendation.settings import RecommendationSettings
from tests.bundles import MANIFEST


def plan(service, column="a_count"):
    return Plan(service, "shop", (Column(column, "int64", "history"),), (), ())


@pytest.fixture
def home(tmp_path):
    """Bundles of two outcomes, a copy of one, and one of another feature service."""
    store = ModelStore(tmp_path / "bentoml")
    named = {"purchase_7d": "purchase_7d", "churn_30d": "churn_30d", "copy": "purchase_7d", "next_item": "next_item"}
    for name, outcome in named.items():
        made = plan("recommendation_v1" if name == "next_item" else "propensity_v1")
        directory = tmp_path / name
        directory.mkdir()
        (directory / PLAN_FILE).write_text(made.to_json())
        fields = {"name": outcome, "feature_service": made.feature_service, "plan_hash": made.hash}
        bundle.write(directory, type(MANIFEST)(**{**vars(MANIFEST), **fields}))
        store.save(directory, name)
        publish(tmp_path / "plans", made)
    return tmp_path


@pytest.fixture
def started(home, monkeypatch):
    """Start a service with settings; what it said, or the command it became."""

    class Became(Exception):
        pass

    def execv(path, arguments):
        raise Became(arguments)

    monkeypatch.setattr(os, "execv", execv)

    def start(name, settings, check, **values):
        places = {"MODEL_STORE": str(home / "bentoml"), "PLANS": str(home / "plans")}
        for key, value in (places | values).items():
            monkeypatch.setenv(f"SEGUE_{name.upper()}_{key}", value)
        with pytest.raises((SystemExit, Became)) as caught:
            serve.main(f"services.{name}.service:Class", settings, check=check, arguments=["--http-port", "3333"])
        return caught.value.args[0]

    return start


@pytest.fixture
def start_propensity(started):
    return lambda **values: started("propensity", PropensitySettings, propensity.agreed, **values)


@pytest.fixture
def start_recommendation(started):
    return lambda **values: started("recommendation", RecommendationSettings, recommendation.agreed, **values)


def test_a_service_that_can_serve_becomes_bentoml(start_propensity, start_recommendation):
    command = start_propensity(BUNDLES="purchase_7d,churn_30d")
    assert command[1:5] == ["-m", "bentoml", "serve", "services.propensity.service:Class"]
    assert command[5:] == ["--host", "127.0.0.1", "--port", "3333"]
    assert start_recommendation()[4] == "services.recommendation.service:Class"


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"BUNDLES": "absent"}, "bundle 'absent' is not in the model store"),
        ({"BUNDLES": "purchase_7d,next_item"}, "were trained on different feature services"),
        ({"BUNDLES": ","}, "were trained on different feature services"),
        ({"BUNDLES": "purchase_7d,copy"}, "two of them answer the same outcome"),
        ({"PLANS": "nowhere"}, "no serving plan for propensity_v1 in nowhere"),
        ({"GRPC_PORT": "many"}, "SEGUE_PROPENSITY_GRPC_PORT: must be a whole number"),
        ({"BUNDEL": "x"}, "SEGUE_PROPENSITY_BUNDEL: is not a setting"),
    ],
)
def test_a_propensity_service_that_cannot_serve_says_why(start_propensity, values, told):
    assert told in start_propensity(**values)


def test_a_bundle_that_disagrees_with_the_published_plan_is_not_served(home, start_propensity, start_recommendation):
    publish(home / "plans", plan("propensity_v1", "another_count"))
    publish(home / "plans", plan("recommendation_v1", "another_count"))
    for told in (start_propensity(), start_recommendation()):
        assert "than the registry holds now (columns that differ: ['a_count', 'another_count'])" in told
