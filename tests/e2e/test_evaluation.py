"""What is evaluated is what is served: PyTorch, ONNX Runtime, gRPC and HTTP give one answer, and so one metric."""

from itertools import pairwise

import numpy as np
import pytest
from google.protobuf.json_format import MessageToDict

from models.sequence.dataset import Cases, Turns
from models.sequence.evaluate import by_scorer, ndcg, ranks
from models.sequence.served import Served
from segue.adapters.model_store import ModelStore
from segue.errors import InvalidInput
from segue.events import item_id
from segue.features.sequence import SEQUENCE_KINDS, Sequences
from segue.inference.sequence import SequenceScorer
from segue.v1 import recommendation_pb2 as pb
from segue.v1.recommendation_pb2_grpc import RecommendationServiceStub
from tests.bundles import SKUS
from tests.conftest import SETTLED
from tests.e2e.conftest import TIMEOUT

NAMES = {item_id(name): name for name in SKUS}
COUNT = 520
TOP = 20


@pytest.fixture(scope="module")
def prefixes():
    """Empty, of one item, longer than the window of 8, the longest there are, with unknown items and at equal times."""
    rng = np.random.default_rng(21)
    lengths = np.concatenate([[0, 0, 1, 1, 256, 256], rng.integers(0, 25, size=COUNT - 6)])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    gaps = rng.choice([0, 1, 1_000, 60_000, 86_400_000], size=offsets[-1])
    age_ms = np.concatenate([1 + np.cumsum(gaps[start:stop])[::-1] for start, stop in pairwise(offsets)])
    item = rng.choice([*NAMES, 7, -7], size=offsets[-1])
    again = np.flatnonzero(item[1:] == item[:-1]) + 1
    item[again] = 1_000 + again  # an item turned to twice in a row is one turn: here none is
    return Sequences(offsets, item, rng.choice(SEQUENCE_KINDS, size=offsets[-1]), age_ms)


@pytest.fixture(scope="module")
def scorers(world):
    bundle = ModelStore(world.model_store).get("next_item")
    return SequenceScorer.load(bundle), world.torch


@pytest.fixture(scope="module")
def served(recommendation, scorers):
    return Served(recommendation.target, NAMES, scorers[0].version, SETTLED, include_seen=False)


@pytest.fixture(scope="module")
def answers(served, prefixes, channels, recommendation):
    """Over gRPC and over HTTP, as (items, scores) each."""
    stub = RecommendationServiceStub(channels["recommendation"])
    over_grpc, over_http = [], []
    for start, stop in zip(prefixes.offsets[:-1].tolist(), prefixes.offsets[1:].tolist(), strict=True):
        request = served.request(prefixes, start, stop)
        items = stub.RecommendNext(request, timeout=TIMEOUT).items
        over_grpc.append(([item_id(each.item) for each in items], [each.score for each in items]))
        body = MessageToDict(request, preserving_proto_field_name=True)
        status, answer = recommendation.post("/v1/recommend_next", body)
        assert status == 200, answer
        items = answer["items"]
        over_http.append(([item_id(each["item"]) for each in items], [each["score"] for each in items]))
    return over_grpc, over_http


def test_torch_onnx_grpc_and_http_give_the_same_top_20(prefixes, scorers, answers):
    nothing = [np.empty(0, np.int64)] * len(prefixes)
    in_onnx, in_torch = (
        [(each.item.tolist(), each.score.tolist()) for each in scorer.recommend(prefixes, exclude=nothing, limit=TOP)]
        for scorer in scorers
    )
    over_grpc, over_http = answers
    assert len(prefixes) > 500
    for row in zip(in_torch, in_onnx, over_grpc, over_http, strict=True):
        (items, scores), *others = row
        for other_items, other_scores in others:
            assert other_items == items
            np.testing.assert_allclose(other_scores, scores, atol=1e-4)


def test_ndcg_through_the_service_is_the_trainers(prefixes, scorers, served):
    rng = np.random.default_rng(22)
    target = rng.choice(list(NAMES), size=len(prefixes))
    cases = Cases(
        Turns(np.arange(len(prefixes)), target, np.zeros(len(prefixes), np.int64)), prefixes, 0, len(prefixes)
    )
    through_service = ndcg(ranks(served, cases), 10).mean()
    in_training = ndcg(ranks(by_scorer(scorers[1], include_seen=False), cases), 10).mean()
    assert through_service == pytest.approx(in_training, abs=1e-6)
    assert through_service > 0


def test_another_bundle_than_the_one_to_be_judged_is_refused(served, prefixes):
    other = Served(served.target, NAMES, "next_item:another", SETTLED, include_seen=False)
    with pytest.raises(InvalidInput, match="service: "):
        other(prefixes)


def test_requests_are_questions_as_backends_ask_them(served, prefixes):
    request = served.request(prefixes, 0, 0)
    assert isinstance(request, pb.RecommendNextRequest)
    assert not request.events
