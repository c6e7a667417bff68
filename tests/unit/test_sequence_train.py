"""Losses are the formulas, batches ask for everything once, and an interrupted run ends as if it had not been."""

import dataclasses
import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from models.sequence import losses
from models.sequence.batches import batches, cut, spans
from models.sequence.config import Config
from models.sequence.dataset import Corpus, sequences_of, split
from models.sequence.train import learning_ratio, train
from segue.errors import InvalidInput
from segue.features.sequence import Sequences
from segue.inference.windows import GAP_BUCKETS, Vocabulary, gap_buckets
from tests import sequence_log

SEQUENCES = [[1], [1, 2], [3, 1, 2, 4, 5, 1], [2, 1, 2, 1], [5, 4, 3, 2, 1]]


@pytest.fixture
def corpus():
    return Corpus.of(sequences_of([np.array(each) for each in SEQUENCES]))


def asked_of(batch):
    """(newest item, target, items before) of every asked position, checking the padding on the way."""
    for items, targets, asked in zip(batch.windows.items, batch.targets, batch.asked, strict=True):
        known = np.flatnonzero(items)
        assert (np.diff(known) == 1).all()
        assert known[-1] == len(items) - 1
        for place in np.flatnonzero(asked):
            yield items[place], targets[place], items[known[0] : place].tolist()


@pytest.mark.parametrize("length", [1, 3, 4])
@pytest.mark.parametrize("positions", ["all", "last"])
@pytest.mark.parametrize("batch_size", [1, 2, 50])
def test_every_item_but_the_first_is_asked_for_once_after_what_came_before_it(corpus, length, positions, batch_size):
    config = Config(length=length, positions=positions, batch_size=batch_size)
    rng = np.random.default_rng(1)
    found = [each for batch in batches(corpus, spans(corpus, config), config, rng) for each in asked_of(batch)]
    pairs = sorted((newest, target) for newest, target, _ in found)
    assert pairs == sorted(pair for each in SEQUENCES for pair in pairwise(each))
    assert max(len(before) + 1 for _, _, before in found) == min(length, 5)
    if positions == "last":
        assert all(
            1 + len(before) == length or [*before, newest] in [s[: len(before) + 1] for s in SEQUENCES]
            for newest, _, before in found
        )


def test_an_epoch_keeps_to_its_limit_and_is_drawn_anew(corpus):
    config = Config(length=2, epoch_windows=3, batch_size=1)
    rng = np.random.default_rng(2)
    passes = spans(corpus, config)
    drawn = [[each.windows.items.tolist() for each in batches(corpus, passes, config, rng)] for _ in range(2)]
    assert [len(each) for each in drawn] == [3, 3]
    assert drawn[0] != drawn[1]


def test_batches_hold_windows_of_like_length():
    rng = np.random.default_rng(3)
    corpus = Corpus.of(sequences_of([rng.integers(1, 9, size=size) for size in rng.integers(2, 60, size=400)]))
    config = Config(length=50, batch_size=8)
    widths = [(batch.windows.items > 0).sum(axis=1) for batch in batches(corpus, spans(corpus, config), config, rng)]
    padded = sum(int(each.max() * len(each) - each.sum()) for each in widths)
    assert padded < 0.05 * sum(each.sum() for each in widths)


def test_kinds_and_gaps_stand_beside_their_items():
    age_ms = np.array([90_000, 30_000, 10_000, 5_000, 1])
    sequences = Sequences(np.array([0, 3, 5]), np.array([7, 8, 9, 8, 7]), np.array([1, 2, 3, 4, 5], np.uint8), age_ms)
    corpus = Corpus.of(sequences)
    batch = cut(corpus, spans(corpus, Config(length=4)), last=False)
    assert batch.windows.kinds.tolist() == [[1, 2], [0, 4]]
    # 60 s and 20 s between the first three, 5 s between the other two.
    assert batch.windows.gaps.tolist() == [[6, 5], [0, 3]]
    assert batch.targets[:, -1].tolist() == corpus.vocabulary.index(np.array([9, 7])).tolist()


def test_gap_buckets_are_powers_of_two_of_seconds_until_the_next_item_or_now():
    rng = np.random.default_rng(4)
    lengths = rng.integers(0, 6, size=50)
    offsets = np.cumsum([0, *lengths])
    age_ms = np.concatenate([np.sort(rng.integers(1, 1 << int(rng.integers(1, 44)), size))[::-1] for size in lengths])
    found = gap_buckets(offsets, age_ms)
    for start, stop in pairwise(offsets):
        ages = [*age_ms[start:stop].tolist(), 0]
        for place, (older, newer) in enumerate(pairwise(ages)):
            assert found[start + place] == min(1 + int(math.log2(1 + (older - newer) // 1000)), GAP_BUCKETS - 1)


def test_a_window_skips_what_is_unknown_and_counts_the_time_across_it():
    sequences = Sequences(
        np.array([0, 4]), np.array([5, 99, 6, 99]), np.array([1, 2, 3, 4], np.uint8), np.array([9, 8, 2, 1]) * 1000
    )
    windows = Vocabulary.of(np.array([5, 6])).windows(sequences, 3)
    assert windows.items.tolist() == [[1, 2]]
    assert windows.kinds.tolist() == [[1, 3]]
    assert windows.gaps.tolist() == [[4, 2]]  # 7 s, then 2 s until now


@pytest.mark.parametrize("chunk_scores", [1, 1000, 1 << 20])
def test_the_closed_form_gradient_is_that_of_the_mean_cross_entropy(monkeypatch, chunk_scores):
    monkeypatch.setattr(losses, "CHUNK_SCORES", chunk_scores)
    torch.manual_seed(2)
    hidden, item = torch.randn(205, 8, requires_grad=True), torch.randn(40, 8, requires_grad=True)
    target = torch.randint(40, (205,))
    expected = cross_entropy(hidden @ item.T, target)
    gradients = torch.autograd.grad(expected, (hidden, item))
    total = losses.full(hidden, item, target)
    assert total / 205 == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close((hidden.grad, item.grad), gradients)


@pytest.mark.parametrize("chunk_scores", [1, 300, 1 << 20])
def test_the_closed_form_gradient_of_the_sampled_loss_is_that_of_the_formula(monkeypatch, chunk_scores):
    monkeypatch.setattr(losses, "CHUNK_SCORES", chunk_scores)
    torch.manual_seed(2)
    hidden, item = torch.randn(75, 8, requires_grad=True), torch.randn(40, 8, requires_grad=True)
    target, drawn = torch.randint(1, 40, (75,)), torch.randint(1, 40, (12,))
    drawn[3] = drawn[4]
    positive = (hidden * item[target]).sum(dim=1, keepdim=True)
    negative = hidden @ item[drawn].T + math.log(38 / 12)
    negative = negative.masked_fill(drawn == target[:, None], -torch.inf)
    expected = cross_entropy(torch.cat([positive, negative], dim=1), torch.zeros(75, dtype=torch.int64))
    gradients = torch.autograd.grad(expected, (hidden, item))
    total = losses.sampled_softmax(hidden, item, target, drawn)
    assert total / 75 == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close((hidden.grad, item.grad), gradients)


def test_where_nothing_but_the_target_is_drawn_there_is_nothing_to_learn():
    hidden, item = torch.randn(3, 8, requires_grad=True), torch.randn(5, 8, requires_grad=True)
    same = torch.full((3,), 2)
    assert losses.sampled_softmax(hidden, item, same, same) == 0
    assert not hidden.grad.any()
    assert not item.grad.any()


def test_the_sampled_loss_estimates_the_full_one():
    torch.manual_seed(3)
    hidden, item = torch.randn(64, 8, requires_grad=True), (torch.randn(50, 8) * 0.3).requires_grad_()
    target = torch.randint(1, 50, (64,))
    with torch.no_grad():
        item[0] = 100  # padding, never drawn
    full = cross_entropy(hidden @ item[1:].T, target - 1, reduction="sum").item()
    draws = (torch.randint(1, 50, (40,)) for _ in range(100))
    sampled = np.mean([losses.sampled_softmax(hidden, item, target, drawn) for drawn in draws])
    assert sampled == pytest.approx(full, rel=0.03)


@pytest.mark.parametrize("calibration", [0.0, 0.75, 1.0])
def test_gbce_is_the_formula(calibration):
    torch.manual_seed(4)
    hidden, item, target = torch.randn(6, 8).double(), torch.randn(20, 8).double(), torch.randint(1, 20, (6,))
    drawn = torch.tensor([3, 4, 4, 11, 19])
    alpha = 5 / 18
    power = alpha * (calibration * (1 - 1 / alpha) + 1 / alpha)
    expected = 0.0
    for vector, wanted in zip(hidden.tolist(), target.tolist(), strict=True):

        def sure(index, vector=vector):
            return 1 / (1 + math.exp(-sum(a * b for a, b in zip(vector, item[index].tolist(), strict=True))))

        terms = [-math.log(sure(wanted) ** power)]
        terms += [-math.log(1 - sure(index)) for index in drawn.tolist() if index != wanted]
        expected += sum(terms) / 6
    found = losses.gbce(hidden, item, target, drawn, calibration=calibration)
    assert found.item() == pytest.approx(expected)


def test_the_learning_rate_rises_and_falls_to_zero():
    rates = [learning_ratio(step, 1000) for step in range(1001)]
    assert rates[0] == 0.01
    assert max(rates) < 1
    assert rates[-1] == 0
    assert rates.index(max(rates)) in (90, 91, 92)


SHORT = dataclasses.replace(sequence_log.CONFIG, dropout=0.2, max_epochs=4, epoch_windows=96)


@pytest.fixture(scope="module")
def log():
    torch.set_num_threads(1)
    return split(sequence_log.events(), SHORT)


@pytest.mark.parametrize(
    "change",
    [{}, {"family": "gru", "kinds": True, "gaps": True, "loss": "sampled"}, {"loss": "gbce", "positions": "last"}],
)
def test_a_resumed_run_ends_as_one_that_was_not_interrupted(log, tmp_path, change):
    config = dataclasses.replace(SHORT, **change)
    path = tmp_path / "folder" / "run.npz"
    whole = train(log.choosing, config, validation=log.validation, epochs=4)
    train(log.choosing, config, validation=log.validation, epochs=2, checkpoint=path)
    resumed = train(log.choosing, config, validation=log.validation, epochs=4, checkpoint=path)
    assert [epoch.loss for epoch in resumed.curve] == [epoch.loss for epoch in whole.curve]
    assert resumed.best_epoch == whole.best_epoch
    for left, right in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(left, right)


def test_a_checkpoint_of_another_run_is_refused(log, tmp_path):
    path = tmp_path / "run.npz"
    train(log.choosing, SHORT, validation=log.validation, epochs=1, checkpoint=path)
    with pytest.raises(InvalidInput, match=r"checkpoint: .* another configuration or another log"):
        train(log.choosing, dataclasses.replace(SHORT, seed=9), validation=None, epochs=1, checkpoint=path)
    path.write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(InvalidInput, match=r"checkpoint: .* cannot be read"):
        train(log.choosing, SHORT, validation=None, epochs=1, checkpoint=path)


def test_a_checkpoint_holds_no_objects(log, tmp_path):
    path = tmp_path / "run.npz"
    train(log.choosing, SHORT, validation=log.validation, epochs=1, checkpoint=path)
    with np.load(path, allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file)
        assert json.loads(str(file["state"]))["steps"] == 6


def test_progress_that_is_no_terminal_gets_a_line_per_epoch(log):
    import io

    from rich.console import Console

    out = io.StringIO()
    train(log.choosing, SHORT, validation=log.validation, epochs=2, console=Console(file=out, width=200))
    lines = out.getvalue().splitlines()
    assert [line.startswith(f"epoch {number} of at most 2: loss ") for number, line in enumerate(lines, 1)] == [
        True
    ] * 2
    assert all("tokens/s" in line and "min left" in line and "validation NDCG@10" in line for line in lines)
