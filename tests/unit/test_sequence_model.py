"""The model sees no future and no padding; its losses and gradients are what the formulas say."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, pad

from models.sequence import config as configuration
from models.sequence.config import Config
from models.sequence.model import Ranker, SequenceModel
from models.sequence.train import LOSS_CHUNK, full_gradient, sampled_loss
from segue.errors import InvalidSettings

CONFIG = Config(length=6, width=16, blocks=3, heads=2)
VOCABULARY = 30


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = SequenceModel(CONFIG, VOCABULARY).eval()
    with torch.no_grad():  # far from the near-zero start, where little would show
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.3)
        model.item.weight[0] = 0
    return model


def items(rows, seed=1):
    return torch.randint(1, VOCABULARY, (rows, CONFIG.length), generator=torch.Generator().manual_seed(seed))


def test_later_items_do_not_change_earlier_outputs(model):
    before = items(4)
    after = before.clone()
    after[:, 4:] = items(4, seed=2)[:, 4:]
    left, right = model(before), model(after)
    torch.testing.assert_close(left[:, :4], right[:, :4])
    assert not torch.allclose(left[:, 4:], right[:, 4:])


def test_padding_does_not_change_what_the_model_says(model):
    short = items(4)[:, :3]
    padded = pad(short, (3, 0))
    torch.testing.assert_close(model(short), model(padded)[:, 3:])


def test_the_newest_position_alone_is_what_the_whole_forward_pass_ends_in(model):
    rows = items(5)
    rows[1, :4] = 0
    rows[2] = 0
    torch.testing.assert_close(model.last(rows), model(rows)[:, -1])


def test_every_position_of_a_training_window_is_a_prefix_as_it_is_served(model):
    rows = items(3)
    outputs = model(rows)
    for end in range(1, CONFIG.length + 1):
        torch.testing.assert_close(outputs[:, end - 1], model.last(rows[:, :end]))


def test_an_empty_sequence_gives_numbers(model):
    assert torch.isfinite(model(torch.zeros(2, 3, dtype=torch.int64))).all()


def test_the_ranker_orders_every_item_but_padding_and_the_excluded(model):
    rows, exclude = items(4), torch.tensor([[3, 0], [7, 9], [0, 0], [29, 29]])
    ranker = Ranker(model)
    with torch.no_grad():
        indices, scores = ranker(rows, exclude)
        expected = model(rows)[:, -1] @ model.item.weight.T
    for row in range(4):
        barred = {0, *exclude[row].tolist()}
        allowed = sorted(set(range(VOCABULARY)) - barred, key=lambda item: -expected[row, item])
        assert indices[row, : len(allowed)].tolist() == allowed
        assert torch.isinf(scores[row, len(allowed) :]).all()


def test_the_chunked_gradient_is_the_gradient_of_the_mean_cross_entropy():
    torch.manual_seed(2)
    count = 2 * LOSS_CHUNK + 5
    hidden, item = torch.randn(count, 8, requires_grad=True), torch.randn(40, 8, requires_grad=True)
    target = torch.randint(40, (count,))
    expected = cross_entropy(hidden @ item.T, target)
    gradients = torch.autograd.grad(expected, (hidden, item))
    total = full_gradient(hidden, item, target)
    assert total / count == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close((hidden.grad, item.grad), gradients)


def test_the_sampled_loss_estimates_the_full_one():
    torch.manual_seed(3)
    hidden, item, target = torch.randn(64, 8), torch.randn(50, 8) * 0.3, torch.randint(1, 50, (64,))
    item[0] = 100  # padding, never drawn
    full = cross_entropy(hidden @ item[1:].T, target - 1, reduction="sum").item()
    sampled = np.mean([sampled_loss(hidden, item, target, count=40).item() for _ in range(100)])
    assert sampled == pytest.approx(full, rel=0.03)


def test_an_unknown_key_is_named(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text("widht = 64\n")
    with pytest.raises(InvalidSettings) as error:
        configuration.read(path)
    assert [violation.field for violation in error.value.violations] == ["widht"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("length", 0),
        ("length", 257),
        ("width", 64.0),
        ("dropout", "0.1"),
        ("learning_rate", 0),
        ("loss", "hinge"),
        ("include_seen", 1),
        ("width", 6),
        ("seed", True),
    ],
)
def test_a_value_that_cannot_be_is_named(key, value):
    with pytest.raises(InvalidSettings) as error:
        configuration.resolve({"heads": 2, key: value})
    assert [violation.field for violation in error.value.violations] == [key]


def test_every_bad_value_is_reported_at_once():
    with pytest.raises(InvalidSettings) as error:
        configuration.resolve({"length": -1, "blocks": "two"})
    assert [violation.field for violation in error.value.violations] == ["length", "blocks"]


@pytest.mark.parametrize("path", sorted(Path("models/sequence/configs").glob("*.toml")), ids=lambda path: path.stem)
def test_the_configurations_that_come_along_are_sound_and_overrides_win(path):
    assert configuration.read(path, seed=9).seed == 9
    assert configuration.read(path, seed=None).seed == 1


def test_a_resolved_configuration_comes_back_from_json():
    assert configuration.resolve({"dropout": 0}) == Config(dropout=0)
