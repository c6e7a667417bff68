"""The exported graph answers as the trained model does, through the scorer that services call."""

import dataclasses
import json

import numpy as np
import onnx
import pytest
import torch

from models.sequence import report
from models.sequence.baselines import recommenders
from models.sequence.dataset import Corpus, concat, sequences_of, take
from models.sequence.evaluate import by_scorer, evaluate, ndcg, ranks
from models.sequence.export import TOLERANCE, agree, export_graph, odd_prefixes, verify
from models.sequence.model import SequenceModel
from models.sequence.scoring import as_scorer, torch_rank
from models.sequence.train import read_curve, train
from segue.errors import BundleError, InvalidInput
from segue.events import item_id
from segue.features.sequence import FEATURES, Sequences
from segue.inference.bundle import Bundle, write
from segue.inference.graph import open_graph
from segue.inference.sequence import EXCLUDE_MAX, FRESH_MAX, GRAPH, LIMIT_MAX, Rung, SequenceScorer
from tests import sequence_log
from tests.sequence_log import CONFIG, ITEMS

UNKNOWN = 123_456


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return sequence_log.run(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def prefixes(run):
    rng = np.random.default_rng(11)
    lengths = rng.integers(0, 3 * CONFIG.length, size=300)
    invented = [rng.choice([*ITEMS, UNKNOWN, -UNKNOWN], size=length) for length in lengths]
    real = take(run.dataset.test.prefixes, np.arange(300))
    return concat([real, sequences_of(invented), odd_prefixes(run.torch)])


def ask(scorer, prefixes, *, limit=20, exclude=(), include_seen=False):
    exclude = exclude or [np.empty(0, np.int64)] * len(prefixes)
    return scorer.recommend(prefixes, exclude=exclude, limit=limit, include_seen=include_seen)


@pytest.mark.parametrize("include_seen", [False, True])
def test_torch_and_onnx_give_the_same_top_20(run, prefixes, include_seen):
    left = ask(run.onnx, prefixes, include_seen=include_seen)
    right = ask(run.torch, prefixes, include_seen=include_seen)
    assert len(left) == len(prefixes) > 600
    same = [one.item.tolist() == other.item.tolist() for one, other in zip(left, right, strict=True)]
    # Rounding may swap two items of equal score; that is rare, and `agree` still compares their scores.
    assert np.mean(same) > 0.99
    assert all(agree(one, other) for one, other in zip(left, right, strict=True))
    assert {each.fallback for each in left} == {Rung.SEQUENCE, Rung.POPULAR}


def test_scores_are_the_dot_products_of_the_whole_forward_pass(run, prefixes):
    model, vocabulary = run.trained.model, run.onnx.vocabulary
    for row, answer in enumerate(ask(run.onnx, prefixes)[::7]):
        sequence = take(prefixes, np.array([7 * row]))
        known = [index for index in vocabulary.index(sequence.item).tolist() if index][-CONFIG.length :]
        if known:
            with torch.no_grad():
                scores = (model(torch.tensor([known]))[0, -1] @ model.item.weight.T).numpy()
            index, raised_by = run.followers.raised(vocabulary.windows(sequence).items)
            scores[index[0]] += raised_by[0]
            np.testing.assert_allclose(answer.score, scores[vocabulary.index(answer.item)], atol=TOLERANCE)
            open_to_all = np.setdiff1d(np.arange(1, len(vocabulary)), vocabulary.index(sequence.item))
            best = np.sort(scores[open_to_all])[::-1][:20]
            np.testing.assert_allclose(answer.score, best, atol=TOLERANCE)


def test_a_batch_answers_each_row_as_if_it_were_alone(run, prefixes):
    some = take(prefixes, np.arange(250, 350))
    for row, together in enumerate(ask(run.onnx, some)):
        (alone,) = ask(run.onnx, take(some, np.array([row])))
        assert agree(together, alone)


def test_the_graph_is_one_file_of_opset_18_with_dynamic_sizes(run):
    graph = onnx.load(run.bundle.file("model.onnx"))
    assert {each.domain: each.version for each in graph.opset_import}[""] == 18
    sizes = {each.name: [size.dim_param for size in each.type.tensor_type.shape.dim] for each in graph.graph.input}
    assert list(sizes) == ["items", "exclude", "raised", "raised_by", "fresh", "trend", "trust"]
    assert [name for size in sizes.values() for name in size if not name] == [""]  # the width of what is fresh
    assert not any(each.external_data for each in graph.graph.initializer)


def test_excluded_and_seen_items_are_never_recommended(run, prefixes):
    rng = np.random.default_rng(4)
    exclude = [rng.choice([*ITEMS, UNKNOWN], size=rng.integers(0, 40)) for _ in range(len(prefixes))]
    answers = ask(run.onnx, prefixes, limit=LIMIT_MAX, exclude=exclude)
    for row, (answer, excluded) in enumerate(zip(answers, exclude, strict=True)):
        seen = prefixes.item[prefixes.offsets[row] : prefixes.offsets[row + 1]]
        assert not np.isin(answer.item, [*excluded, *seen]).any()
        assert len(answer.item) == len(set(answer.item.tolist()))
        assert (np.diff(answer.score) <= 0).all()


def test_a_prefix_without_a_known_item_is_answered_by_popularity(run):
    popularity, vocabulary = run.dataset.final.popularity, run.onnx.vocabulary
    order = sorted(range(1, len(vocabulary)), key=lambda index: (-popularity[index], index))
    excluded = vocabulary.item[order[1:3]]
    nothing = sequences_of([np.empty(0, np.int64), np.array([UNKNOWN])])
    for answer in ask(run.onnx, nothing, limit=5, exclude=[excluded, excluded]):
        assert answer.fallback is Rung.POPULAR
        assert answer.item.tolist() == vocabulary.item[[order[0], *order[3:7]]].tolist()
        np.testing.assert_allclose(answer.score, popularity[[order[0], *order[3:7]]] / popularity.sum(), rtol=1e-6)


def test_external_ids_are_the_catalogues(run, prefixes):
    named = dict(zip(ITEMS.tolist(), (f"sku-{number}" for number in range(len(ITEMS))), strict=True))
    for answer in ask(run.onnx, take(prefixes, np.arange(20))):
        assert answer.external_id == [named[item] for item in answer.item.tolist()]


NEW = np.array([item_id(f"new-{number}") for number in range(5)])


@pytest.fixture
def welcoming(run):
    """Both scorers, after five items came that are like five of training but a little better."""
    scorers = [SequenceScorer.load(run.bundle), as_scorer(torch_rank(run.trained.model), run.dataset.final, CONFIG)]
    like = run.trained.model.item.weight[10:15].detach().numpy()
    for each in scorers:
        each.welcome(NEW, [f"new-{number}" for number in range(5)], 1.2 * like)
    return scorers


def test_items_that_came_after_training_are_recommended_and_read(run, welcoming, prefixes):
    scorer, _ = welcoming
    answers = ask(scorer, prefixes, limit=LIMIT_MAX)
    named = {name for answer in answers for name in answer.external_id}
    assert {f"new-{number}" for number in range(5)} <= named
    old = run.onnx.vocabulary.item[10]
    like, new, nothing = ask(scorer, sequences_of([[old], [NEW[0]], []]), include_seen=True)
    assert new.fallback is Rung.SEQUENCE
    assert nothing.fallback is Rung.POPULAR
    assert len(set(like.item[:10].tolist()) & set(new.item[:10].tolist())) >= 3
    seen = ask(scorer, sequences_of([[NEW[0], old]]), limit=LIMIT_MAX)[0].item
    assert not np.isin([NEW[0], old], seen).any()
    barred = ask(scorer, sequences_of([[old]]), exclude=[NEW], limit=LIMIT_MAX)[0].item
    assert not np.isin(NEW, barred).any()


def test_torch_and_onnx_agree_on_them(welcoming, run, prefixes):
    in_onnx, in_torch = welcoming
    mixed = sequences_of(
        [np.random.default_rng(row).choice([*ITEMS, *NEW, UNKNOWN], size=row % 20) for row in range(100)]
    )
    without = as_scorer(open_graph(run.bundle.file(GRAPH)), run.dataset.final, CONFIG)
    known = in_onnx.vocabulary
    fresh = known.item[known.trained_count :]
    like = run.trained.model.item.weight[10:15].detach().numpy()
    without.welcome(fresh, [""] * 5, 1.2 * like[[NEW.tolist().index(each) for each in fresh.tolist()]])
    assert all(agree(one, other) for one, other in zip(ask(without, mixed), ask(in_torch, mixed), strict=True))


def test_what_is_welcome_replaces_what_was_and_training_is_never_replaced(run, welcoming):
    scorer, _ = welcoming
    old = run.onnx.vocabulary.item
    scorer.welcome(np.append(NEW[:2], old[7]), ["a", "b", "c"], np.zeros((3, CONFIG.width), np.float32))
    assert scorer.vocabulary.item.tolist() == [*old.tolist(), *sorted(NEW[:2].tolist())]
    scorer.welcome(NEW[:0], [], np.zeros((0, CONFIG.width), np.float32))
    assert scorer.vocabulary.item.tolist() == old.tolist()
    same = ask(run.onnx, sequences_of([old[3:6]]))[0]
    assert agree(ask(scorer, sequences_of([old[3:6]]))[0], same)


def test_what_is_popular_may_be_fresh(run, welcoming):
    scorer, _ = welcoming
    scorer.follow(np.array([NEW[3], UNKNOWN, run.onnx.vocabulary.item[2]]), np.array([5, 100, 3]))
    (answer,) = ask(scorer, sequences_of([[]]), limit=2)
    assert answer.item.tolist() == [NEW[3], run.onnx.vocabulary.item[2]]
    np.testing.assert_allclose(answer.score, [5 / 8, 3 / 8])
    scorer.welcome(NEW[3:], ["x", "y"], np.zeros((2, CONFIG.width), np.float32))
    assert ask(scorer, sequences_of([[]]), limit=2)[0].item.tolist() == answer.item.tolist()


@pytest.mark.parametrize(
    ("count", "named", "shape", "field"),
    [(1, 2, (1, CONFIG.width), "vector"), (2, 2, (2, 3), "vector"), (FRESH_MAX + 1, 0, (0, 0), "item")],
)
def test_what_is_welcome_has_a_name_and_a_vector_each(run, count, named, shape, field):
    with pytest.raises(InvalidInput) as error:
        run.onnx.welcome(np.arange(1, count + 1), [""] * named, np.zeros(shape, np.float32))
    assert error.value.violations[0].field == field


def test_where_little_is_left_answers_are_short(run):
    known = run.onnx.vocabulary.item[1:]
    rows = sequences_of([known[:1], np.empty(0, np.int64)])
    answers = ask(run.onnx, rows, limit=10, exclude=[known[3:], known[3:]])
    assert [sorted(answer.item.tolist()) for answer in answers] == [known[1:3].tolist(), known[:3].tolist()]


def test_no_row_gives_no_answer(run):
    assert ask(run.onnx, sequences_of([]), exclude=[]) == []


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("limit", {"limit": 0}),
        ("limit", {"limit": LIMIT_MAX + 1}),
        ("exclude", {"exclude": [ITEMS[:1]] * 3}),
        ("exclude[1]", {"exclude": [ITEMS[:1], np.arange(EXCLUDE_MAX + 1)]}),
    ],
)
def test_a_question_out_of_bounds_is_refused_by_name(run, field, arguments):
    with pytest.raises(InvalidInput) as error:
        ask(run.onnx, sequences_of([ITEMS[:1], ITEMS[:2]]), **arguments)
    assert error.value.violations[0].field == field


def test_the_bundle_says_what_it_is(run):
    manifest = run.bundle.manifest
    assert (manifest.family, manifest.feature_service) == ("sequence", "recommendation_v1")
    assert manifest.columns == [feature.name for feature in FEATURES]
    assert manifest.plan_hash == sequence_log.PLAN.hash
    assert manifest.data_cut_ms == run.dataset.cuts_ms[1]
    assert manifest.config["length"] == CONFIG.length
    assert read_curve(run.bundle) == run.trained.curve
    run.onnx.warm_up()


@pytest.mark.parametrize(
    ("name", "content"),
    [("items.npy", ITEMS[:3]), ("popularity.npy", np.arange(3)), ("items.npy", np.arange(151)[::-1])],
)
def test_files_that_do_not_fit_together_are_refused(run, tmp_path, name, content):
    for path in run.bundle.path.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    np.save(tmp_path / name, content)
    write(tmp_path, run.bundle.manifest)
    with pytest.raises(BundleError, match=r"items|disagree"):
        SequenceScorer.load(Bundle.read(tmp_path, "altered"))


def test_a_bundle_of_another_family_is_refused(run):
    other = dataclasses.replace(run.bundle, manifest=dataclasses.replace(run.bundle.manifest, family="propensity"))
    with pytest.raises(BundleError, match="family"):
        SequenceScorer.load(other)


def test_a_graph_of_other_weights_is_found_out(run, prefixes):
    import copy

    other = copy.deepcopy(run.trained.model)
    with torch.no_grad():
        other.norm.bias.add_(0.01)
    with pytest.raises(BundleError, match="does not answer"):
        verify(run.onnx, as_scorer(torch_rank(other), run.dataset.final, CONFIG, run.followers), prefixes)


def test_the_trainers_metric_is_the_exported_scorers(run):
    cases = run.dataset.test
    measured = [ndcg(ranks(by_scorer(each, include_seen=False), cases), 10).mean() for each in (run.torch, run.onnx)]
    assert measured[0] == pytest.approx(measured[1], abs=1e-6)
    assert run.bundle.manifest.metrics["ndcg@10"] == pytest.approx(measured[0])


def test_the_model_has_learned_and_says_so(run, tmp_path):
    evaluation = evaluate(
        run.dataset.test,
        run.onnx.vocabulary,
        by_scorer(run.onnx, include_seen=False),
        recommenders(run.dataset, CONFIG),
    )
    assert evaluation.margins("popularity")["ndcg@10"].low > 0.1
    page = report.write(tmp_path, CONFIG, run.dataset, evaluation, run.trained.curve).read_text()
    assert "data:image/png;base64," in page
    assert "never a sample" in page
    assert json.dumps(CONFIG.name)[1:-1] in page


def test_equal_seeds_give_equal_weights(run):
    short = dataclasses.replace(CONFIG, max_epochs=2, epoch_windows=64, dropout=0.1)
    once, again, other = (
        train(run.dataset.final, config, validation=run.dataset.validation, epochs=2)
        for config in (short, short, dataclasses.replace(short, seed=99))
    )
    assert [epoch.loss for epoch in once.curve] == [epoch.loss for epoch in again.curve]
    assert [epoch.loss for epoch in once.curve] != [epoch.loss for epoch in other.curve]
    for left, right in zip(once.model.parameters(), again.model.parameters(), strict=True):
        np.testing.assert_array_equal(left.detach().numpy(), right.detach().numpy())


@pytest.mark.parametrize(
    "change",
    [{"kinds": True, "gaps": True}, {"family": "gru", "blocks": 1}, {"family": "gru", "kinds": True, "gaps": True}],
    ids=["transformer with context", "gru", "gru with context"],
)
def test_every_family_answers_as_its_exported_graph(tmp_path, change):
    config = dataclasses.replace(CONFIG, **change)
    torch.manual_seed(7)
    corpus = Corpus.of(sequences_of([ITEMS, ITEMS[::-1]]))
    model = SequenceModel(config, len(corpus.vocabulary)).eval()
    with torch.no_grad():
        for each in model.modules():  # as initialised, all items are nearly alike
            if isinstance(each, torch.nn.Embedding):
                each.weight.mul_(20)
    export_graph(model, tmp_path / GRAPH)
    in_torch, in_onnx = (as_scorer(rank, corpus, config) for rank in (torch_rank(model), open_graph(tmp_path / GRAPH)))
    probes = random_sequences(500)
    verify(in_onnx, in_torch, probes)
    left, right = ask(in_onnx, probes), ask(in_torch, probes)
    assert np.mean([one.item.tolist() == other.item.tolist() for one, other in zip(left, right, strict=True)]) > 0.99
    alone = [ask(in_onnx, take(probes, np.array([row])))[0] for row in range(0, 500, 25)]
    assert all(agree(one, other) for one, other in zip(alone, left[::25], strict=True))


def random_sequences(count):
    """Known and unknown items, empty rows and rows longer than a window, any kind, milliseconds to years apart."""
    rng = np.random.default_rng(12)
    offsets = np.cumsum([0, *rng.integers(0, 3 * CONFIG.length, size=count)])
    age_ms = np.concatenate(
        [np.cumsum(rng.integers(1, 10 ** rng.integers(1, 11, size=size)))[::-1] for size in np.diff(offsets)]
    )
    item = rng.choice([*ITEMS, UNKNOWN], size=offsets[-1])
    return Sequences(offsets, item, rng.integers(0, 256, size=offsets[-1]).astype(np.uint8), age_ms)
