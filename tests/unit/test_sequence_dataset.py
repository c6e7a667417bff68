"""The split leaks nothing, and every sequence is the one that serving would have read."""

import numpy as np
import pytest

from models.sequence.config import Config
from models.sequence.dataset import draw, known_sequences, split, turns_of
from segue.errors import InvalidInput
from segue.events import NO_ITEM, Events
from segue.features.sequence import SEQUENCE_KINDS
from segue.history import Timelines
from tests import oracle

ALL = Config(validation_ratio=0.2, test_ratio=0.2, include_seen=True, max_cases_per_customer=10_000)


@pytest.fixture(params=[1, 2])
def facts(request):
    return oracle.facts(request.param)


def whole(facts, customer):
    return [fact for fact in facts if fact.customer == customer]


def oracle_turns(facts, customer):
    """(time, item) of every turn of one customer, from the whole log."""
    turns, last = [], None
    for time, _, item, kind, _ in oracle.resolved(oracle.as_of(whole(facts, customer), 1 << 62, limit=10**9)):
        if item != NO_ITEM and kind in SEQUENCE_KINDS:
            if item != last:
                turns.append((time, item))
            last = item
    return turns


def oracle_prefix(facts, customer, time):
    return [item for item, _, _ in oracle.item_sequence(oracle.as_of(whole(facts, customer), time), time, length=256)]


def rows(sequences):
    return [part.tolist() for part in np.split(sequences.item, sequences.offsets[1:-1])]


def test_turns_are_the_oracles_and_item_sequences_tells_the_same_items(facts):
    timelines = Timelines.of(oracle.to_events(facts))
    turns = turns_of(timelines)
    told = rows(known_sequences(timelines, 1 << 62))
    for row, customer in enumerate(timelines.events.customers):
        mine = turns.customer == row
        found = list(zip(turns.time_ms[mine].tolist(), turns.item[mine].tolist(), strict=True))
        assert found == oracle_turns(facts, customer)
        assert [item for _, item in found] == told[row]


def test_questions_are_all_turns_of_the_span_each_with_what_was_known_before_it(facts):
    events = oracle.to_events(facts)
    dataset = split(events, ALL)
    validation_ms, test_ms = dataset.cuts_ms
    for cases, low, high in ((dataset.validation, validation_ms, test_ms), (dataset.test, test_ms, dataset.end_ms)):
        asked = [
            (events.customers[customer], time, item)
            for customer, time, item in zip(cases.turns.customer, cases.turns.time_ms, cases.turns.item, strict=True)
        ]
        expected = [
            (customer, time, item)
            for customer in events.customers
            for time, item in oracle_turns(facts, customer)
            if low <= time < high
        ]
        assert asked == expected
        assert cases.turn_count == len(expected) > 10
        for (customer, time, _), prefix in zip(asked, rows(cases.prefixes), strict=True):
            assert prefix == oracle_prefix(facts, customer, time)


def test_turns_back_to_an_item_of_the_prefix_are_left_out_and_counted(facts):
    asked_all = split(oracle.to_events(facts), ALL)
    filtered = split(oracle.to_events(facts), Config(**{**vars(ALL), "include_seen": False}))
    fresh = [
        item not in prefix
        for item, prefix in zip(asked_all.test.turns.item.tolist(), rows(asked_all.test.prefixes), strict=True)
    ]
    assert filtered.test.turns.item.tolist() == asked_all.test.turns.item[fresh].tolist()
    assert filtered.test.seen_count == len(fresh) - sum(fresh) > 0
    assert asked_all.test.seen_count == 0


def test_the_future_and_what_had_not_arrived_do_not_reach_the_corpus(facts):
    dataset = split(oracle.to_events(facts), ALL)
    for corpus, cut in zip((dataset.choosing, dataset.final), dataset.cuts_ms, strict=True):
        known = [fact for fact in facts if fact.time < cut and fact.available <= cut]
        expected = sequences_of(known, cut)
        found = [corpus.vocabulary.item[part].tolist() for part in np.split(corpus.index, corpus.offsets[1:-1])]
        assert found == expected
        items = [item for sequence in expected for item in sequence]
        assert corpus.vocabulary.item.tolist() == [NO_ITEM, *sorted(set(items))]
        assert corpus.popularity.tolist() == [0, *(items.count(item) for item in sorted(set(items)))]


def sequences_of(facts, t_ms):
    customers = sorted({fact.customer for fact in facts})
    histories = [oracle.as_of(whole(facts, customer), t_ms, limit=10**9) for customer in customers]
    told = [[item for item, _, _ in oracle.item_sequence(history, t_ms, length=10**9)] for history in histories]
    return [sequence for sequence in told if sequence]


def test_changing_the_future_changes_nothing_that_is_learned_from(facts):
    events = oracle.to_events(facts)
    dataset = split(events, ALL)
    later = events.event_time_ms >= dataset.cuts_ms[1]
    item = np.where(later, events.item + 1, events.item)
    changed = split(Events(**{**vars(events), "item": item}), ALL, dataset.cuts_ms)
    np.testing.assert_array_equal(changed.final.index, dataset.final.index)
    np.testing.assert_array_equal(changed.validation.turns.item, dataset.validation.turns.item)


def test_a_bundles_own_cuts_hold_however_the_log_grows(facts):
    events = oracle.to_events(facts)
    end = int(events.event_time_ms.max())
    old = events.take(events.event_time_ms < end - 20 * oracle.DAY)
    cuts_ms = split(old, ALL).cuts_ms
    grown = split(events, ALL, cuts_ms)
    assert grown.cuts_ms == cuts_ms
    assert grown.test.turns.time_ms.min() >= cuts_ms[1]
    assert grown.test.turn_count > split(old, ALL).test.turn_count


def test_without_a_refit_both_corpora_are_one(facts):
    dataset = split(oracle.to_events(facts), Config(**{**vars(ALL), "refit": False}))
    assert dataset.final is dataset.choosing


def test_the_draw_keeps_to_both_limits_and_does_not_depend_on_the_training_seed():
    customer = np.repeat(np.arange(20), np.arange(20) + 1)
    config = Config(max_cases=30, max_cases_per_customer=3, seed=1)
    drawn = draw(customer, config)
    assert len(drawn) == 30
    assert np.bincount(customer[drawn]).max() == 3
    assert (np.diff(drawn) > 0).all()
    np.testing.assert_array_equal(drawn, draw(customer, Config(max_cases=30, max_cases_per_customer=3, seed=2)))


def test_a_log_of_single_turns_is_refused():
    facts = [oracle.Fact(f"c{number}", number, number, 7, 1, 0, number) for number in range(9)]
    with pytest.raises(InvalidInput, match="lake: holds no customer who turned to two items"):
        split(oracle.to_events(facts), ALL)


def test_an_empty_log_is_refused():
    with pytest.raises(InvalidInput, match="lake: holds no event"):
        split(Events.empty(), ALL)
