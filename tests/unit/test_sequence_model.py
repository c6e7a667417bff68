"""No family of the model sees the future or the padding; configurations are checked."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import pad

from models.sequence import config as configuration
from models.sequence.config import Config
from models.sequence.model import Ranker, SequenceModel
from segue.errors import InvalidSettings

VOCABULARY = 30
LENGTH = 6
CONFIGS = {
    "transformer": Config(length=LENGTH, width=16, blocks=3, heads=2),
    "transformer with context": Config(length=LENGTH, width=16, blocks=1, heads=2, kinds=True, gaps=True),
    "gru": Config(length=LENGTH, width=16, blocks=2, family="gru"),
    "gru with kinds": Config(length=LENGTH, width=16, blocks=1, family="gru", kinds=True),
}


@pytest.fixture(params=CONFIGS)
def model(request):
    torch.manual_seed(0)
    model = SequenceModel(CONFIGS[request.param], VOCABULARY).eval()
    with torch.no_grad():  # far from the near-zero start, where little would show
        for name, weight in model.named_parameters():
            weight.add_(torch.randn_like(weight) * 0.3)
            if name in ("item.weight", "kind.weight", "gap.weight"):
                weight[0] = 0
    return model


def inputs(model, rows, seed=1):
    """What the model reads, (rows, LENGTH) each, without padding."""
    draws = torch.Generator().manual_seed(seed)
    return [torch.randint(1, VOCABULARY, (rows, LENGTH), generator=draws) for _ in model.inputs]


def test_later_items_do_not_change_earlier_outputs(model):
    before = inputs(model, 4)
    after = [
        torch.cat([one[:, :4], other[:, 4:]], dim=1) for one, other in zip(before, inputs(model, 4, 2), strict=True)
    ]
    left, right = model(*before), model(*after)
    torch.testing.assert_close(left[:, :4], right[:, :4])
    assert not torch.allclose(left[:, 4:], right[:, 4:])


def test_padding_does_not_change_what_the_model_says(model):
    short = [each[:, :3] for each in inputs(model, 4)]
    padded = [pad(each, (3, 0)) for each in short]
    torch.testing.assert_close(model(*short), model(*padded)[:, 3:])
    torch.testing.assert_close(model.last(*short), model.last(*padded))


def test_the_newest_position_alone_is_what_the_whole_forward_pass_ends_in(model):
    rows = inputs(model, 5)
    for each in rows:
        each[1, :4] = 0
        each[2] = 0
    torch.testing.assert_close(model.last(*rows), model(*rows)[:, -1])


def test_every_position_of_a_training_window_is_a_prefix_as_it_is_served(model):
    rows = inputs(model, 3)
    outputs = model(*rows)
    for end in range(1, LENGTH + 1):
        torch.testing.assert_close(outputs[:, end - 1], model.last(*(each[:, :end] for each in rows)))


def test_an_empty_sequence_gives_numbers(model):
    nothing = [torch.zeros(2, 3, dtype=torch.int64) for _ in model.inputs]
    assert torch.isfinite(model(*nothing)).all()
    assert torch.isfinite(model.last(*nothing)).all()


def test_every_input_counts(model):
    rows = inputs(model, 3)
    for which, name in enumerate(model.inputs):
        changed = [each.clone() for each in rows]
        changed[which] = 1 + changed[which] % (VOCABULARY - 1)
        assert not torch.allclose(model.last(*rows), model.last(*changed)), name


def test_the_ranker_orders_every_item_but_padding_and_the_excluded(model):
    rows, exclude = inputs(model, 4), torch.tensor([[3, 0], [7, 9], [0, 0], [29, 29]])
    raised, raised_by = (
        torch.tensor([[0, 0], [4, 5], [0, 8], [30, 1]]),
        torch.tensor([[0.0, 0], [9, -9], [0, 9], [9, 0]]),
    )
    fresh, trend = torch.randn(1, model.item.embedding_dim), torch.rand(VOCABULARY + 1)
    trust = torch.tensor([0.0, 1.0, 2.0, 0.5])
    ranker = Ranker(model)
    with torch.no_grad():
        indices, scores, vector = ranker(*rows, exclude, raised, raised_by, fresh, trend, trust)
        expected = torch.cat([vector @ model.item.weight.T, vector @ fresh.T], dim=1)
        expected = (expected + trust[:, None] * trend).scatter_add(1, raised, raised_by)
        torch.testing.assert_close(vector, model(*rows)[:, -1])
    for row in range(4):
        barred = {0, *exclude[row].tolist()}
        allowed = sorted(set(range(VOCABULARY + 1)) - barred, key=lambda item: -expected[row, item])[:VOCABULARY]
        assert indices[row, : len(allowed)].tolist() == allowed
        assert torch.isinf(scores[row, len(allowed) :]).all()


def test_a_fresh_item_is_read_by_its_own_embedding(model):
    rows = inputs(model, 3)
    fresh = torch.randn(4, model.item.embedding_dim)
    later = [rows[0].clone(), *rows[1:]]
    later[0][:, -1] = VOCABULARY + 2
    known = [rows[0].clone(), *rows[1:]]
    known[0][:, -1] = 5
    with torch.no_grad():
        model.item.weight[5] = fresh[2]
        torch.testing.assert_close(model.last(*later, fresh=fresh), model.last(*known))
        torch.testing.assert_close(model.last(*known, fresh=fresh), model.last(*known))


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
        ("family", "lstm"),
        ("positions", "first"),
        ("gaps", 1),
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
