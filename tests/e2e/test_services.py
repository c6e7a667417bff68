"""Both services as a backend sees them: real processes, asked over gRPC and over HTTP."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from segue.adapters.model_store import ModelStore
from segue.adapters.new_items import NewItems, item_of
from segue.adapters.plan_files import publish, published
from segue.events import item_id
from segue.features.sequence import item_sequences
from segue.history import HISTORY_LIMIT, histories_of
from segue.inference.propensity import PropensityScorer, Tier
from segue.inference.related import Related, Relation
from segue.inference.sequence import SequenceScorer
from segue.rpc.channel import connect as balanced
from segue.rpc.convert import to_timestamp
from segue.v1 import propensity_pb2 as p
from segue.v1 import recommendation_pb2 as r
from segue.v1.answer_pb2 import Fallback, PartStatus
from segue.v1.propensity_pb2_grpc import PropensityServiceStub
from tests import oracle, snapshot_oracle
from tests.bundles import SKUS
from tests.conftest import NOW, SETTLED, connect
from tests.e2e.conftest import AS_OF, BROWSERS, OUTCOMES, TIMEOUT, as_json, events, running, without_id

NAMES = {"propensity": "segue.v1.PropensityService", "recommendation": "segue.v1.RecommendationService"}


def parts(answer):
    return [(part.name, PartStatus.Name(part.status).removeprefix("PART_STATUS_")) for part in answer.context.parts]


def now_ms():
    return time.time_ns() // 1_000_000


@pytest.mark.parametrize("name", NAMES)
def test_health_is_serving(channels, name):
    stub = HealthStub(channels[name])
    for service in ("", NAMES[name]):
        answer = stub.Check(HealthCheckRequest(service=service), timeout=TIMEOUT)
        assert answer.status == HealthCheckResponse.SERVING


@pytest.mark.parametrize("name", NAMES)
def test_reflection_lists_the_service(channels, name):
    asked = iter([ServerReflectionRequest(list_services="")])
    (answer,) = ServerReflectionStub(channels[name]).ServerReflectionInfo(asked, timeout=TIMEOUT)
    found = {each.name for each in answer.list_services_response.service}
    assert found == {NAMES[name], "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


def test_propensities_are_those_of_the_model_on_the_oracles_features(world, filled_repo, batch):
    facts_of = filled_repo.facts_of()
    cut = snapshot_oracle.newest_cut(filled_repo.cuts_ms, SETTLED, 60 * oracle.DAY)
    answers = batch(customers=list(facts_of), as_of=AS_OF, max_reasons=5).answers
    for position, outcome in enumerate(sorted(OUTCOMES)):
        bundle = ModelStore(world.model_store).get(outcome)
        scorer = PropensityScorer.load(bundle)
        rows = []
        for facts in facts_of.values():
            values = oracle.features(oracle.as_of(facts, SETTLED), SETTLED) | snapshot_oracle.lifetime(facts, cut)
            rows.append([values[column] for column in scorer.columns])
        matrix = np.array(rows, float)
        scores, reasons = scorer.score(matrix), scorer.reasons(matrix, max_reasons=5)
        assert len({round(each, 6) for each in scores.probability}) > 3
        for row, (customer, answer) in enumerate(zip(facts_of, answers, strict=True)):
            assert answer.customer == customer
            made = answer.propensities[position]
            assert made.outcome == outcome
            assert made.probability == scores.probability[row]
            assert p.Tier.Name(made.tier) == f"TIER_{Tier(int(scores.tier[row])).name}"
            assert [each.feature for each in made.reasons] == [each.feature for each in reasons[row]]
            assert answer.context.model_versions[position] == bundle.version


def test_an_answer_says_what_it_was_made_from(filled_repo, score):
    answer = score(customer="c00", as_of=AS_OF)
    assert answer.context.feature_service == "propensity_v1"
    assert answer.context.as_of == AS_OF
    assert answer.context.fallback == Fallback.FALLBACK_NONE
    assert parts(answer) == [("customer_history", "PRESENT"), ("customer_lifetime", "PRESENT")]
    history, lifetime = answer.context.parts
    newest = max(fact.time for fact in filled_repo.log if fact.customer == "c00")
    assert history.age.ToMilliseconds() == SETTLED - newest
    assert history.truncated
    assert not lifetime.truncated
    assert lifetime.age.ToMilliseconds() == SETTLED - filled_repo.cuts_ms[-1]
    assert len(answer.answer_id) == 32
    assert answer.answer_id != score(customer="c00", as_of=AS_OF).answer_id


def test_the_past_is_answered_from_what_was_known_then(filled_repo, score):
    first = min(fact.time for fact in filled_repo.log)
    assert parts(score(customer="c05", as_of=to_timestamp(NOW - 20 * oracle.DAY)))[1][1] == "MISSING"
    assert parts(score(customer="c05", as_of=to_timestamp(first))) == [
        ("customer_history", "MISSING"),
        ("customer_lifetime", "MISSING"),
    ]
    later = to_timestamp(SETTLED + 61 * oracle.DAY)
    assert parts(score(customer="c05", as_of=later)) == [
        ("customer_history", "PRESENT"),
        ("customer_lifetime", "EXPIRED"),
    ]


def test_a_batch_answers_each_as_it_would_be_answered_alone(score, batch):
    customers = ["c03", "nobody", "c00", "c03"]
    answers = batch(customers=customers, outcomes=["purchase_7d"], as_of=AS_OF, max_reasons=2).answers
    assert len({answer.answer_id for answer in answers}) == len(customers)
    for customer, answer in zip(customers, answers, strict=True):
        alone = score(customer=customer, outcomes=["purchase_7d"], as_of=AS_OF, max_reasons=2)
        assert without_id(as_json(answer)) == without_id(as_json(alone))


@pytest.mark.parametrize("outcomes", [["purchase_7d", "engage_7d"], ["engage_7d"], []])
def test_outcomes_come_in_the_order_asked(score, outcomes):
    answer = score(customer="c01", outcomes=outcomes, as_of=AS_OF, max_reasons=0)
    assert [each.outcome for each in answer.propensities] == (outcomes or sorted(OUTCOMES))
    assert [version.split(":")[0] for version in answer.context.model_versions] == (outcomes or sorted(OUTCOMES))
    assert [list(each.reasons) for each in answer.propensities] == [[]] * len(answer.propensities)


def test_somebody_nobody_knows_is_answered(score, recommend):
    answer = score(customer="nobody")
    assert parts(answer) == [("customer_history", "MISSING"), ("customer_lifetime", "MISSING")]
    assert not any(part.HasField("age") for part in answer.context.parts)
    assert all(0 < each.probability < 1 for each in answer.propensities)
    answer = recommend(customer="nobody", limit=5)
    assert parts(answer) == [("customer_history", "MISSING")]
    assert answer.context.fallback == Fallback.FALLBACK_POPULAR
    assert [item.rank for item in answer.items] == [1, 2, 3, 4, 5]
    assert {item.item for item in answer.items} <= set(SKUS)


def test_a_requests_own_events_count_at_once(score):
    before = score(customer="nobody", outcomes=["purchase_7d"])
    # The caller's clock may run ahead: the newest event still counts.
    added = events("nobody", "product_added", ["sku-1", "sku-2", "sku-1"], now_ms() + 5_000, value_minor=700)
    after = score(customer="nobody", outcomes=["purchase_7d"], events=added, max_reasons=20)
    assert after.propensities[0].probability > before.propensities[0].probability
    values = {reason.feature: reason.value for reason in after.propensities[0].reasons}
    assert values["customer_add_count_30d"] == 3
    assert parts(after) == [("customer_history", "PRESENT"), ("customer_lifetime", "MISSING")]
    assert after.context.parts[0].age.ToMilliseconds() == 1
    assert after.context.as_of.ToMilliseconds() == added[-1].event_time.ToMilliseconds() + 1
    # Answering stored nothing.
    again = score(customer="nobody", outcomes=["purchase_7d"])
    assert again.propensities[0].probability == before.propensities[0].probability


def test_a_requests_own_events_count_once_though_they_are_stored_too(score, world):
    fact = max(fact.time for fact in world.log if fact.customer == "b00")
    moment = to_timestamp(SETTLED)
    event = events("b00", "product_added", ["sku-1"], fact + oracle.HOUR)
    once = score(customer="b00", events=event, as_of=moment)
    twice = score(customer="b00", events=[*event, *event], as_of=moment)
    assert without_id(as_json(once)) == without_id(as_json(twice))


def local(scorer, log, customers, **options):
    """What a scorer in this process recommends."""
    history = histories_of(oracle.to_events(log))
    names = sorted({fact.customer for fact in log})
    rows = history.take([names.index(customer) for customer in customers])
    sequences = item_sequences(rows, np.full(len(customers), SETTLED), length=HISTORY_LIMIT)
    return scorer.recommend(sequences, exclude=[np.empty(0, np.int64)] * len(customers), **options)


@pytest.mark.parametrize("include_seen", [False, True])
def test_pytorch_onnx_grpc_and_http_recommend_the_same(world, recommendation, recommend, include_seen):
    options = {"limit": 20, "include_seen": include_seen}
    in_torch = local(world.torch, world.log, BROWSERS, **options)
    bundle = ModelStore(world.model_store).get("next_item")
    in_onnx = local(SequenceScorer.load(bundle), world.log, BROWSERS, **options)
    for customer, one, other in zip(BROWSERS, in_torch, in_onnx, strict=True):
        request = r.RecommendNextRequest(customer=customer, as_of=AS_OF, **options)
        answer = recommend(customer=customer, as_of=AS_OF, **options)
        status, body = recommendation.post("/v1/recommend_next", as_json(request))
        assert [item.item for item in answer.items] == other.external_id == one.external_id
        assert [item.score for item in answer.items] == other.score.tolist()
        np.testing.assert_allclose(one.score, other.score, rtol=1e-4, atol=1e-4)
        assert (status, without_id(body)) == (200, without_id(as_json(answer)))
        assert answer.context.fallback == Fallback.FALLBACK_NONE
        assert list(answer.context.model_versions) == [bundle.version]


def test_a_new_item_is_recommended_and_read_without_another_model(world, recommend):
    viewed = events("nobody", "product_viewed", SKUS[:10], NOW)
    moment = to_timestamp(NOW)

    def recommended(**fields) -> set[str]:
        return {item.item for item in recommend(as_of=moment, limit=100, **fields).items}

    with connect(world.address) as redis:
        new_items = NewItems(redis)
        assert "brand-new" not in recommended(customer="nobody", events=viewed)
        new_items.put(item_of("brand-new", title="A new one"))
        eventually(lambda: "brand-new" in recommended(customer="nobody", events=viewed))
        only = events("nobody", "product_viewed", ["brand-new"], NOW)
        answer = recommend(customer="nobody", events=only, as_of=moment, include_seen=True, limit=3)
        assert answer.context.fallback == Fallback.FALLBACK_NONE
        assert "brand-new" not in recommended(customer="nobody", events=only)
        new_items.remove(["brand-new"])
        eventually(lambda: "brand-new" not in recommended(customer="nobody", events=viewed))
    answer = recommend(customer="nobody", events=only, as_of=moment)
    assert answer.context.fallback in {Fallback.FALLBACK_POPULAR, Fallback.FALLBACK_TRENDING}


def eventually(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_was_seen_or_excluded_is_not_recommended(recommend):
    moment = to_timestamp(NOW)
    viewed = events("nobody", "product_viewed", SKUS[:10], NOW)
    answer = recommend(customer="nobody", events=viewed, as_of=moment, limit=100, exclude_items=SKUS[10:20])
    assert {item.item for item in answer.items} == set(SKUS[20:])
    assert answer.context.fallback == Fallback.FALLBACK_NONE
    assert [item.rank for item in answer.items] == list(range(1, 41))
    scores = [item.score for item in answer.items]
    assert scores == sorted(scores, reverse=True)
    seen_too = recommend(customer="nobody", events=viewed, as_of=moment, limit=100, include_seen=True)
    assert {item.item for item in seen_too.items} == set(SKUS)
    assert len(recommend(customer="nobody", as_of=moment).items) == 10


def test_related_items_are_those_of_the_bundles_table(world, related):
    bundle = ModelStore(world.model_store).get("next_item")
    named = np.array([item_id(sku) for sku in SKUS[:3]])
    expected = Related.load(bundle).answer(named, Relation.SIMILAR, limit=4, exclude=[item_id(SKUS[3])])
    answer = related(items=SKUS[:3], relation="RELATION_SIMILAR", limit=4, exclude_items=[SKUS[3]])
    assert [item.item for item in answer.items] == expected.external_id
    assert [item.score for item in answer.items] == expected.score.tolist()
    assert [item.rank for item in answer.items] == [1, 2, 3, 4]
    assert not {item.item for item in answer.items} & set(SKUS[:4])
    assert list(answer.context.model_versions) == [bundle.version]
    assert answer.context.as_of.ToMilliseconds() == bundle.manifest.data_cut_ms
    assert answer.context.fallback == Fallback.FALLBACK_NONE
    assert parts(answer) == []
    assert not related(items=["no such item"], relation="RELATION_SIMILAR").items


@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_that_disagrees_with_the_published_plan_is_not_served(world, tmp_path, name):
    service = {"propensity": "propensity_v1", "recommendation": "recommendation_v1"}[name]
    plan = published(world.plans, service)
    publish(tmp_path, replace(plan, columns=plan.columns[1:]))
    with running(name, world, tmp_path, PLANS=str(tmp_path)) as process:
        assert process.process.wait(60) == 1
        (line,) = process.log.read_text().splitlines()
    assert f"was trained on another {service} than the registry holds now" in line
    assert f"(columns that differ: ['{plan.columns[0].name}'])" in line


def test_a_stop_under_load_fails_no_call(world, propensity, tmp_path):
    """Of two servers one is told to leave while a crowd asks both: nobody sees an error, and its exit status is 0."""
    with running("propensity", world, tmp_path) as leaving:
        leaving.await_ready()

        async def scenario():
            answered = 0
            stopped = asyncio.Event()
            target = f"ipv4:{leaving.target},{propensity.target}"
            asked = p.ScorePropensityRequest(customer="c00", as_of=AS_OF, max_reasons=0)
            async with balanced(target) as channel:
                stub = PropensityServiceStub(channel)

                async def ask():
                    nonlocal answered
                    while not stopped.is_set():
                        answer = await stub.ScorePropensity(asked, timeout=TIMEOUT, wait_for_ready=True)
                        assert answer.customer == "c00"
                        answered += 1
                        await asyncio.sleep(0.002)

                async with asyncio.TaskGroup() as crowd:
                    for _ in range(8):
                        crowd.create_task(ask())
                    while answered < 100:
                        await asyncio.sleep(0.01)
                    status = await asyncio.to_thread(leaving.stop)
                    after = answered
                    while answered < after + 20:
                        await asyncio.sleep(0.01)
                    stopped.set()
            return status

        assert asyncio.run(scenario()) == 0
        log = leaving.log.read_text()
    assert "Traceback" not in log
