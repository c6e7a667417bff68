"""An embedding is the same number for number offline and online, alone and in a batch, in ONNX Runtime and PyTorch."""

import asyncio
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from segue.adapters import plan_files
from segue.adapters.embeddings import embeddings_as_of
from segue.adapters.lake import Lake
from segue.adapters.plan_reader import PlanReader
from segue.errors import BundleError
from segue.events import NO_ITEM
from segue.history import histories_of, merge
from segue.inference.answers import Status
from segue.inference.embedding import Encoder
from segue.inference.graph import BESIDE, EMBEDDING, Question, feeding, open_session
from segue.inference.sequence import GRAPH
from segue.inference.windows import GAP_BUCKETS, Windows
from tests import encoders, oracle
from tests.conftest import SETTLED, redis_url

NOBODY = "nobody"
SAME = {"rtol": 0, "atol": 1e-6}


@pytest.fixture(scope="module")
def items(filled_repo):
    """Two of three items of the log; the others came after training."""
    every = np.unique([fact.item for fact in filled_repo.log if fact.item != NO_ITEM])
    return every[np.arange(len(every)) % 3 != 0]


@pytest.fixture(scope="module", params=encoders.CONFIGS, ids=str)
def made(request, tmp_path_factory, items):
    """An encoder, and the model it was made of."""
    directory = tmp_path_factory.mktemp("bundle")
    model = encoders.write(directory, encoders.CONFIGS[request.param], items)
    return Encoder.load(encoders.read(directory)), model


@pytest.fixture(scope="module")
def asked(filled_repo):
    """Customers and times, among them when nobody had done a thing."""
    rng = np.random.default_rng(3)
    customers = [*filled_repo.customers, NOBODY]
    names = [customers[at] for at in rng.integers(len(customers), size=300)]
    edges = np.array([time + by for fact in filled_repo.log for time in (fact.time, fact.available) for by in (0, 1)])
    return names, rng.choice([*rng.choice(edges, 400), 0, SETTLED], size=300)


def offline(filled_repo, encoder, names, t_ms, **bounds):
    return embeddings_as_of(Lake(filled_repo.home / "lake"), encoder, names, np.asarray(t_ms, np.int64), **bounds)


def online(filled_repo, encoder, names, t_ms, extra=None):
    """What a service would make of the histories its plan reader returns anyway."""
    from redis.asyncio import Redis

    now_ms = np.asarray(t_ms, np.int64)

    async def read():
        async with Redis.from_url(redis_url(filled_repo.address)) as redis:
            reader = PlanReader(plan_files.published(filled_repo.home / "plans", "recommendation_v1"), redis)
            return await reader.read("customer", names, now_ms, extra=extra)

    return encoder.embed(asyncio.run(read()).histories, now_ms)


def by_hand(model, items, facts, t):
    """The vector of one customer at `t` by the trained model, from the naive oracle's account; None without an item."""
    index = {item: 1 + place for place, item in enumerate(np.unique(items).tolist())}
    turns = [turn for turn in oracle.item_sequence(oracle.as_of(facts, t), t, 256) if turn[0] in index]
    ages = [*(turn[2] for turn in turns), 0]
    gaps = [min(GAP_BUCKETS - 1, (1 + (a - b) // 1000).bit_length()) for a, b in pairwise(ages)]
    columns = {
        "items": [index[turn[0]] for turn in turns],
        "kinds": [int(turn[1]) for turn in turns],
        "gaps": gaps,
    }
    if not turns:
        return None
    with torch.inference_mode():
        inputs = [torch.tensor([columns[name][-model.length :]]) for name in model.inputs]
        return model(*inputs)[0, -1].numpy()


def test_offline_is_what_the_model_says_of_what_was_known(filled_repo, made, asked, items):
    encoder, model = made
    facts_of = filled_repo.facts_of() | {NOBODY: []}
    found = offline(filled_repo, encoder, *asked)
    wanted = [by_hand(model, items, facts_of[name], int(t)) for name, t in zip(*asked, strict=True)]
    assert found.present.tolist() == [each is not None for each in wanted]
    assert 50 < found.present.sum() < 300
    assert found.status.count(Status.MISSING) == 300 - found.present.sum()
    assert np.isnan(found.matrix[~found.present]).all()
    np.testing.assert_allclose(
        found.matrix[found.present], np.stack([each for each in wanted if each is not None]), rtol=0, atol=1e-5
    )


def test_online_is_offline_for_every_customer(filled_repo, made):
    encoder, _ = made
    names = [*filled_repo.customers, NOBODY]
    for t in (SETTLED, SETTLED + 3 * oracle.DAY):
        times = np.full(len(names), t)
        left, right = offline(filled_repo, encoder, names, times), online(filled_repo, encoder, names, times)
        assert left.status == right.status
        assert left.status.count(Status.PRESENT) == len(filled_repo.customers)
        np.testing.assert_allclose(left.matrix, right.matrix, **SAME)
        assert left.version == right.version
        assert left.expires_ms.tolist() == right.expires_ms.tolist() == [t + encoder.ttl_ms] * len(names)


def test_events_of_the_request_count_as_if_they_were_stored(filled_repo, made):
    encoder, _ = made
    brought = histories_of(oracle.to_events(oracle.facts(9, customers=8, count=200, now=SETTLED)))
    names = [f"c{number:02}" for number in range(8)]
    times = np.full(8, SETTLED)
    stored = histories_of(oracle.to_events([fact for fact in filled_repo.log if fact.customer in names]))
    wanted = encoder.embed(merge(stored, brought), times)
    found = online(filled_repo, encoder, names, times, extra=brought)
    np.testing.assert_allclose(found.matrix, wanted.matrix, **SAME)
    assert np.abs(found.matrix - online(filled_repo, encoder, names, times).matrix).max() > 0.01


def test_a_row_does_not_depend_on_its_batch_nor_on_the_ranges_of_customers(filled_repo, made, asked):
    encoder, _ = made
    names, times = asked
    together = offline(filled_repo, encoder, names, times)
    np.testing.assert_allclose(
        offline(filled_repo, encoder, names, times, max_events=300).matrix, together.matrix, **SAME
    )
    histories = histories_of(oracle.to_events(filled_repo.log))
    now_ms = np.full(len(histories), SETTLED)
    batch = encoder.embed(histories, now_ms)
    alone = [encoder.embed(histories.take([row]), now_ms[:1]).matrix for row in range(len(histories))]
    np.testing.assert_allclose(np.concatenate(alone), batch.matrix, **SAME)


def test_what_only_ranks_does_not_change_the_vector(tmp_path, items):
    encoders.write(tmp_path, encoders.CONFIGS["kinds and gaps"], items)
    session = open_session(tmp_path / GRAPH)

    windows = Windows(*np.random.default_rng(0).integers(1, 9, (3, 5, 4)))
    plain = Question.plain(windows, len(items) + 1, 12)

    def vectors(seed):
        rng = np.random.default_rng(seed)
        other = {
            name: rng.integers(1, 9, size=each.shape)
            if each.dtype == np.int64
            else rng.normal(size=each.shape).astype(np.float32)
            for name in BESIDE
            for each in [getattr(plain, name)]
        }
        return session.run([EMBEDDING], feeding(session, GRAPH)(replace(plain, **other)))[0]

    np.testing.assert_array_equal(vectors(1), vectors(2))


def test_a_graph_without_an_embedding_is_no_encoder(tmp_path, items):
    import onnx

    encoders.write(tmp_path, encoders.CONFIGS["transformer"], items[:20])
    graph = onnx.load(tmp_path / GRAPH)
    kept = [each for each in graph.graph.output if each.name != EMBEDDING]
    del graph.graph.output[:]
    graph.graph.output.extend(kept)
    older = tmp_path / "older"
    older.mkdir()
    onnx.save(graph, older / GRAPH)
    (older / "items.npy").write_bytes((tmp_path / "items.npy").read_bytes())
    encoders.complete(older, length=8)
    with pytest.raises(BundleError, match="embedding"):
        Encoder.load(encoders.read(older))
