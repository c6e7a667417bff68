"""Protocols ask what they say, from what they say, and nothing that is asked for is learned from."""

import numpy as np
import pytest

from models.sequence.config import Config
from models.sequence.protocols import pose
from segue.adapters.datasets import Dataset
from segue.catalogue import Catalogue
from segue.errors import InvalidInput
from segue.events import Events, Kind, event_ids

SEQUENCES = [[11, 12, 13, 14], [12, 11], [13], [14, 13, 12, 11, 15], [12, 12, 14, 12], [11, 15, 16]]
CONFIG = Config(refit=False)


def data(sequences=SEQUENCES, test_from=None, shuffled=False):
    """Session k begins k hours after 0; its events are one second apart."""
    customer = np.repeat(np.arange(len(sequences)), [len(each) for each in sequences])
    step = np.concatenate([np.arange(len(each)) for each in sequences])
    time_ms = customer * 3_600_000 + step * 1000
    order = np.random.default_rng(1).permutation(len(time_ms)) if shuffled else np.arange(len(time_ms))
    events = Events(
        customers=np.array([f"c{number}" for number in range(len(sequences))], object),
        customer=customer[order].astype(np.int32),
        event_id=event_ids("test", np.arange(len(customer))),
        kind=np.full(len(customer), Kind.PRODUCT_VIEWED, np.uint8),
        item=np.concatenate([np.array(each) for each in sequences])[order],
        event_time_ms=time_ms[order],
        available_time_ms=time_ms[order],
        value_minor=np.zeros(len(customer), np.int64),
    )
    empty = np.empty(0, object)
    catalogue = Catalogue(np.empty(0, np.int64), empty, empty, np.empty(0, np.int64))
    return Dataset("test", events, catalogue, "", test_from_ms=None if test_from is None else test_from * 3_600_000)


def rows(offsets, values):
    return [part.tolist() for part in np.split(values, offsets[1:-1])]


def learned(corpus):
    return rows(corpus.offsets, corpus.vocabulary.item[corpus.index])


def asked(cases):
    return list(zip(rows(cases.prefixes.offsets, cases.prefixes.item), cases.turns.item.tolist(), strict=True))


@pytest.mark.parametrize("shuffled", [False, True])
def test_leave_one_out_keeps_the_last_two_items_of_each_customer(shuffled):
    posed = pose("leave-one-out", data(shuffled=shuffled), CONFIG)
    assert learned(posed.split.choosing) == [[11, 12], [12, 11], [13], [14, 13, 12], [12, 12], [11]]
    assert posed.split.final is posed.split.choosing
    assert asked(posed.split.validation) == [([11, 12], 13), ([14, 13, 12], 11), ([12, 12], 14), ([11], 15)]
    # The fifth customer's last item is in its own prefix.
    assert asked(posed.split.test) == [([11, 12, 13], 14), ([14, 13, 12, 11], 15), ([11, 15], 16)]
    assert posed.split.test.seen_count == 1
    assert posed.split.test.turns.customer.tolist() == [0, 3, 5]
    assert not posed.config.include_seen


def test_a_refit_includes_the_validation_item_and_says_so():
    posed = pose("leave-one-out", data(), Config(refit=True))
    assert learned(posed.split.final) == [[11, 12, 13], [12, 11], [13], [14, 13, 12, 11], [12, 12, 14], [11, 15]]
    assert any("validation item included" in rule for rule in posed.rules)
    assert any(rule.startswith("Strict") for rule in pose("leave-one-out", data(), CONFIG).rules)


def test_validation_is_a_sample_where_it_would_be_large():
    posed = pose("leave-one-out", data(), Config(refit=False, max_cases=2))
    assert len(posed.split.validation) == 2
    assert len(posed.split.test) == 3


def test_ages_are_as_of_the_item_asked_for():
    posed = pose("leave-one-out", data(), CONFIG)
    prefixes = posed.split.test.prefixes
    assert rows(prefixes.offsets, prefixes.age_ms)[1] == [4000, 3000, 2000, 1000]


def test_the_published_split_asks_for_every_item_of_the_test_sessions():
    sequences = [[item, item + 1, item + 2] for item in range(1, 21)] + [[1, 2, 2], [7], [3, 9]]
    posed = pose("published-split", data(sequences, test_from=20), Config(refit=True))
    assert learned(posed.split.choosing) == sequences[:18]
    assert learned(posed.split.final) == sequences[:20]
    assert asked(posed.split.validation) == [([19], 20), ([19, 20], 21), ([20], 21), ([20, 21], 22)]
    assert asked(posed.split.test) == [([1], 2), ([1, 2], 2), ([3], 9)]
    assert posed.config.include_seen


def test_a_data_set_without_a_test_part_has_no_published_split():
    with pytest.raises(InvalidInput, match="data: test has no test part"):
        pose("published-split", data(), CONFIG)


def test_the_temporal_split_is_the_datasets():
    posed = pose("temporal", data(), Config(validation_ratio=0.2, test_ratio=0.2, include_seen=True))
    assert posed.split.test.turns.time_ms.min() > posed.split.validation.turns.time_ms.max()


def test_an_unknown_protocol_is_named():
    with pytest.raises(InvalidInput, match="protocol: 'leave-two-out' is unknown"):
        pose("leave-two-out", data(), CONFIG)


def test_nothing_to_learn_from_is_refused():
    with pytest.raises(InvalidInput, match="data: holds no sequence of two items"):
        pose("leave-one-out", data([[1, 2, 3], [4]]), CONFIG)
