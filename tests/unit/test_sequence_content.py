"""Learning the content map: attributes that say where an item belongs put new items there."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.sequence import content
from models.sequence.content import (
    LOSS_MAX_RATIO,
    HeldOut,
    Outcome,
    Parameters,
    Regression,
    aligned,
    known_tokens,
    lifting,
    states,
)
from models.sequence.dataset import sequences_of, split
from models.sequence.scoring import Deep, as_scorer, torch_rank
from models.sequence.train import fit
from segue.catalogue import Catalogue
from segue.events import item_id
from segue.inference.content import Newcomers, token_ids
from segue.inference.sequence import Rung
from segue.inference.windows import Vocabulary
from tests.sequence_log import CONFIG, ITEMS, events

GROUPS = 10
"""Categories of items that follow each other."""


def catalogue(category):
    names = np.array([f"sku-{number}" for number in range(len(ITEMS))], object)
    return Catalogue(ITEMS, names, np.array(category, object), np.zeros(len(ITEMS), np.int64))


TELLING = catalogue([f"group {number * GROUPS // len(ITEMS)}" for number in range(len(ITEMS))])
SILENT = catalogue([""] * len(ITEMS))


@pytest.fixture(scope="module")
def dataset():
    return split(events(), CONFIG)


@pytest.fixture(scope="module")
def trained(dataset):
    torch.set_num_threads(1)
    return fit(dataset, replace(CONFIG, refit=False))


def regression(trained, dataset, described=TELLING):
    return Regression.of(trained.model, dataset.choosing, described)


def test_the_catalogue_is_aligned_with_the_vocabulary_whatever_either_lacks():
    vocabulary = Vocabulary.of(np.append(ITEMS[5:], item_id("unlisted")))
    found = aligned(TELLING, vocabulary)
    assert (found.item == vocabulary.item).all()
    said = dict(zip(TELLING.item.tolist(), zip(TELLING.external_id, TELLING.category, strict=True), strict=True))
    assert list(zip(found.external_id, found.category, strict=True)) == [
        said.get(item, ("", "")) if item in ITEMS[5:] else ("", "") for item in found.item.tolist()
    ]


def test_tokens_of_a_single_item_are_not_known():
    _, hashes = token_ids(TELLING)
    found = known_tokens(TELLING).tolist()
    # Ten groups and "sku" of the ids, each item's number being its own.
    assert len(found) == GROUPS + 1
    assert set(found) <= set(hashes.tolist())


def test_the_solution_is_the_one_of_the_textbook(trained, dataset):
    """Weighted least squares with a penalty on all but the intercept, by the normal equations in full."""
    learned = regression(trained, dataset)
    rows = np.random.default_rng(2).random(len(learned.embedding)) < 0.7
    found = learned.solve(rows, Parameters(penalty=3.0), np.zeros(CONFIG.width))
    design = np.column_stack([np.ones(len(rows)), learned.features.toarray()])[rows]
    importance = learned.importance[rows][:, None]
    penalty = np.diag([0.0] + [3.0] * len(learned.token))
    expected = np.linalg.solve(
        design.T @ (importance * design) + penalty, design.T @ (importance * learned.embedding[rows])
    )
    assert found.base == pytest.approx(expected[0], abs=1e-5)
    assert found.weight == pytest.approx(expected[1:], abs=1e-5)


def test_scale_and_lift_change_vectors_as_they_say(trained, dataset):
    learned = regression(trained, dataset)
    rows, lift = np.ones(len(learned.embedding), bool), np.arange(CONFIG.width, dtype=float)
    plain, changed = (
        learned.vectors(learned.solve(rows, parameters, lift))
        for parameters in (Parameters(scale=1.0, lift=0.0), Parameters(scale=0.5, lift=2.0))
    )
    assert changed == pytest.approx(0.5 * plain + 2.0 * lift, abs=1e-5)


def test_training_and_serving_give_an_item_one_vector(trained, dataset):
    learned = regression(trained, dataset)
    made = learned.solve(np.ones(len(learned.embedding), bool), Parameters(), np.zeros(CONFIG.width))
    assert made.vectors(aligned(TELLING, dataset.choosing.vocabulary)) == pytest.approx(learned.vectors(made), abs=1e-5)


def test_the_lift_raises_every_score_alike():
    """Where states have something in common; where they have not, it stays short."""
    rng = np.random.default_rng(3)
    spread = rng.normal(size=(500, 8))
    raised = (spread + 3) @ lifting(spread + 3)
    assert abs(raised.mean() - 1) < 0.05
    assert raised.std() < 0.2
    assert np.linalg.norm(lifting(spread)) < 0.2
    assert not lifting(spread[:0]).any()


def test_states_are_what_item_embeddings_are_multiplied_by(trained, dataset):
    state = states(trained.model, dataset.choosing.vocabulary, dataset.validation, CONFIG)
    scored = Deep(trained.model).scores(dataset.choosing.vocabulary.windows(dataset.validation.prefixes, CONFIG.length))
    weight = trained.model.item.weight.detach().numpy()
    assert np.sort((state @ weight.T).sum(axis=1)) == pytest.approx(np.sort(scored.sum(axis=1)), abs=1e-3)


def test_what_is_learned_ranks_new_items_better_than_nothing_known_of_them(trained, dataset):
    told, untold = (content.fit(trained, dataset, each, CONFIG) for each in (TELLING, SILENT))
    assert told.outcome.new_ndcg > untold.outcome.new_ndcg
    assert max(told.outcome.old_loss_ratio, untold.outcome.old_loss_ratio) <= LOSS_MAX_RATIO
    assert told.map.vectors(TELLING).std(axis=0).max() > 0
    assert (untold.map.vectors(SILENT) == untold.map.base).all()


def test_held_out_items_are_ranked_by_their_attributes_alone(trained, dataset):
    held_out = HeldOut(trained.model, dataset.choosing, dataset.validation, TELLING, CONFIG)
    is_new = held_out.new[dataset.choosing.vocabulary.index(held_out.cases.turns.item)]
    assert 0.1 < held_out.new.mean() < 0.3
    assert (is_new == held_out.asks_new).all()
    told, hidden = held_out.places(Parameters()), held_out.places(Parameters(), hidden=True)
    assert (told[is_new] > 0).all()
    assert not hidden[is_new].any()
    assert (hidden[~is_new] <= told[~is_new]).all()


def test_equal_data_give_equal_maps(trained, dataset):
    first, second = (content.fit(trained, dataset, TELLING, CONFIG) for _ in range(2))
    assert first.parameters == second.parameters
    assert first.map.vectors(TELLING).tobytes() == second.map.vectors(TELLING).tobytes()


def test_without_validation_there_is_a_map_still(trained, dataset):
    nothing = replace(dataset, validation=dataset.validation.take(np.empty(0, np.intp)))
    learned = content.fit(trained, nothing, TELLING, CONFIG)
    assert (learned.parameters, learned.outcome) == (Parameters(), Outcome(0.0, 0.0))
    assert np.isfinite(learned.map.vectors(TELLING)).all()


def test_a_newcomer_that_a_scorer_welcomes_is_recommended_and_read(trained, dataset):
    """After an item of its own category, as one call of the scorer later."""
    learned = content.fit(trained, dataset, TELLING, CONFIG)
    raised = replace(learned.map, base=learned.map.base + 3 * lifting(states_of(trained, dataset)).astype(np.float32))
    newcomers = Newcomers(raised, dataset.final.vocabulary.item)
    scorer = as_scorer(torch_rank(trained.model), dataset.final, CONFIG)
    asked = sequences_of([ITEMS[:3], np.array([item_id("new")])])

    def recommended():
        answers = scorer.recommend(asked, exclude=[ITEMS[:0]] * 2, limit=100)
        return [answer.external_id for answer in answers], [answer.fallback for answer in answers]

    names, rungs = recommended()
    assert "new" not in names[0]
    texts = (np.array([text], object) for text in ("new", "group 0"))
    newcomers.add(Catalogue(np.array([item_id("new")]), *texts, np.zeros(1, np.int64)))
    scorer.welcome(*newcomers.told())
    names, rungs_after = recommended()
    assert "new" in names[0]
    assert (rungs[1], rungs_after[1]) == (Rung.POPULAR, Rung.SEQUENCE)
    newcomers.remove("new")
    scorer.welcome(*newcomers.told())
    assert "new" not in recommended()[0][0]


def states_of(trained, dataset):
    return states(trained.model, dataset.choosing.vocabulary, dataset.validation, CONFIG)
