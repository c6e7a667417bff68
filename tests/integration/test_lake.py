"""The event lake: what was appended is read, whole or by ranges of customers."""

import multiprocessing
import threading
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from segue.adapters.history_features import feature_table, histories_as_of
from segue.adapters.lake import DETAILS_SCHEMA, EVENT_SCHEMA, Lake, OffsetStep
from segue.adapters.lake_rows import CATALOGUE_SCHEMA, RECORD_SCHEMA, timestamps
from segue.catalogue import Catalogue
from segue.customers import BARRED_MS, Barrier, Link
from segue.errors import InvalidInput, LakeConflict
from segue.events import COLUMNS, Events, Kind
from segue.features import table
from tests import oracle

NOW = 1_780_000_000_000


@pytest.fixture
def lake(tmp_path):
    return Lake(tmp_path / "lake")


@pytest.fixture
def log(lake):
    """A log of customers with 1 to 9 events and one with 100, in the lake in two commits."""
    facts = oracle.facts(1, customers=40, count=180, now=NOW) + oracle.facts(2, customers=1, count=100, now=NOW)
    for part in (facts[:150], facts[150:]):
        lake.append(oracle.to_events(part))
    return facts


def rows(events):
    """The events as facts, in order."""
    columns = [getattr(events, name).tolist() for name in COLUMNS if name != "customer"]
    names = events.customers[events.customer].tolist()
    return sorted(zip(names, *columns, strict=True))


def test_what_was_appended_is_read(lake, log):
    assert rows(lake.read()) == rows(oracle.to_events(log))
    before = lake.version()
    lake.append(oracle.to_events(log[:1]))
    assert lake.version() == before + 1


def test_every_value_of_every_column_survives(lake):
    extreme = oracle.Fact("ünï 🙂", -1, 2**64 - 1, -(2**63), int(Kind.FILTER_APPLIED), -(2**63), 2**41)
    facts = [extreme, extreme._replace(customer="", time=0, event_id=0, item=2**63 - 1, value=2**63 - 1, available=0)]
    lake.append(oracle.to_events(facts))
    assert rows(lake.read()) == rows(oracle.to_events(facts))


def test_every_kind_survives_by_its_name(lake, tmp_path):
    facts = [oracle.Fact("c", kind, kind, 1, int(kind), 0) for kind in Kind]
    lake.append(oracle.to_events(facts))
    assert rows(lake.read()) == rows(oracle.to_events(facts))
    names = DeltaTable(lake.events_uri).to_pyarrow_table()["kind"].to_pylist()
    assert set(names) == {kind.label for kind in Kind}


def test_a_kind_this_program_does_not_know_is_read_as_unknown_and_kept_by_name(lake, log):
    stranger = pa.table([["c"], [1], ["quiz_completed"], [5], [0], [0], [0]], RECORD_SCHEMA.names).cast(RECORD_SCHEMA)
    write_deltalake(lake.events_uri, stranger, mode="append", schema_mode="merge")
    events = lake.read(first_customer="c", past_customer="c0")
    assert events.kind.tolist() == [Kind.UNKNOWN]
    assert "quiz_completed" in DeltaTable(lake.events_uri).to_pyarrow_table()["kind"].to_pylist()


@pytest.mark.parametrize("max_events", [1, 7, 50, 279, 10**9])
def test_ranges_hold_every_customer_once_and_few_events(lake, log, max_events):
    ranges = list(lake.customer_ranges(max_events))
    assert ranges[0][0] is None
    assert ranges[-1][1] is None
    assert [past for _, past in ranges[:-1]] == [first for first, _ in ranges[1:]]
    parts = [lake.read(first_customer=first, past_customer=past) for first, past in ranges]
    assert sorted(row for part in parts for row in rows(part)) == rows(oracle.to_events(log))
    largest = max(sum(1 for fact in log if fact.customer == name) for name in {fact.customer for fact in log})
    assert all(len(part) < max_events + largest for part in parts)


def test_a_range_of_no_events_is_refused(lake, log):
    with pytest.raises(InvalidInput, match="max_events: is 0, must be at least 1"):
        list(lake.customer_ranges(0))


def test_customers_come_in_order(lake, log):
    assert lake.customers() == sorted({fact.customer for fact in log})


def test_the_most_recent_customers_come_first(lake, log):
    newest = {}
    for fact in log:
        newest[fact.customer] = max(fact.time, newest.get(fact.customer, fact.time))
    ranked = sorted(newest, key=lambda name: (-newest[name], name))
    assert lake.recent_customers(5) == ranked[:5]
    assert lake.recent_customers(10**6) == ranked


def test_the_time_range_is_that_of_the_events(lake, log):
    assert lake.time_range() == (min(fact.time for fact in log), max(fact.time for fact in log))


@pytest.mark.parametrize(
    "ask",
    [
        Lake.read,
        Lake.time_range,
        Lake.customers,
        lambda lake: lake.recent_customers(1),
        lambda lake: list(lake.customer_ranges(1)),
    ],
)
def test_a_lake_nobody_wrote_to_says_so(lake, ask):
    assert lake.version() == -1
    with pytest.raises(InvalidInput, match=r"lake: no event table at .*/events; `segue events` writes one"):
        ask(lake)


def test_a_lake_without_events_is_empty(lake):
    lake.append(Events.empty())
    assert len(lake.read()) == 0
    assert lake.customers() == lake.recent_customers(3) == []
    assert list(lake.customer_ranges(10)) == [(None, None)]
    with pytest.raises(InvalidInput, match="lake: no event in "):
        lake.time_range()


def test_a_refused_batch_leaves_the_lake_as_it_was(lake, log):
    events = oracle.to_events(log)
    with pytest.raises(InvalidInput, match="kind: 200 is no kind"):
        lake.append(replace(events, kind=np.full(len(events), 200, np.uint8)))
    assert rows(lake.read()) == rows(events)


def test_the_catalogue_is_replaced(lake):
    assert len(lake.catalogue()) == 0
    for price_minor in (100, 250):
        lake.write_catalogue(catalogue([7, -3], price_minor))
    found = lake.catalogue()
    assert found.item.tolist() == [7, -3]
    assert found.external_id.tolist() == ["sku-7", "sku--3"]
    assert found.category.tolist() == ["", "shoes"]
    assert found.price_minor.tolist() == [250, 250]
    assert found.title.tolist() == ["", "Boots"]


def test_a_catalogue_from_before_there_were_titles_is_read_and_replaced(lake):
    whole = catalogue([7, -3], 100)
    names = [name for name in CATALOGUE_SCHEMA.names if name != "title"]
    former = pa.table({name: pa.array(getattr(whole, name), CATALOGUE_SCHEMA.field(name).type) for name in names})
    write_deltalake(lake.catalogue_uri, former)
    assert lake.catalogue().title.tolist() == ["", ""]
    assert lake.catalogue().category.tolist() == ["", "shoes"]
    lake.write_catalogue(whole)
    assert lake.catalogue().title.tolist() == ["", "Boots"]


def catalogue(items, price_minor):
    return Catalogue(
        item=np.array(items, np.int64),
        external_id=np.array([f"sku-{item}" for item in items], object),
        category=np.array(["", "shoes"], object),
        price_minor=np.full(len(items), price_minor, np.int64),
        title=np.array(["", "Boots"], object),
    )


def asked(log, count=60):
    """Customers, some unknown, some twice, each with a time."""
    rng = np.random.default_rng(4)
    customers = rng.choice([*sorted({fact.customer for fact in log}), "", "nobody", "zz"], count).tolist()
    return customers, NOW - rng.choice([0, oracle.HOUR, 9 * oracle.DAY], count)


@pytest.mark.parametrize("max_events", [1, 60, 10**9])
def test_histories_as_of_many_times_do_not_depend_on_the_ranges(lake, log, max_events):
    customers, times = asked(log)
    found = {}
    for positions, histories in histories_as_of(lake, customers, times, max_events=max_events):
        for index, position in enumerate(positions.tolist()):
            assert position not in found
            found[position] = oracle.to_history(histories, index)
    for position, (name, t) in enumerate(zip(customers, times.tolist(), strict=True)):
        assert found[position] == oracle.as_of([fact for fact in log if fact.customer == name], t)


@pytest.mark.parametrize("max_events", [20, 10**9])
def test_a_feature_table_has_a_row_for_each_question_in_their_order(lake, log, max_events):
    customers, times = asked(log)
    names = ["customer_item_sequence", "as_of_ms", table.FEATURES[5].name, "kind"]
    found = feature_table(lake, customers, times, names, max_events=max_events)
    assert found.column_names == names
    for row, name, t in zip(found.to_pylist(), customers, times.tolist(), strict=True):
        history = oracle.as_of([fact for fact in log if fact.customer == name], t)
        assert row["customer_item_sequence"] == [turn[0] for turn in oracle.item_sequence(history, t)]
        assert row["as_of_ms"] == t
        assert row[table.FEATURES[5].name] == oracle.features(history, t)[table.FEATURES[5].name]
        assert row["kind"] == [record[3] for record in history]


def test_a_feature_table_of_nobody_has_its_columns(lake, log):
    found = feature_table(lake, [], np.empty(0, np.int64), ["customer_item_sequence", "as_of_ms"])
    assert (found.num_rows, found.column_names) == (0, ["customer_item_sequence", "as_of_ms"])


def test_an_empty_lake_knows_of_no_customer(lake):
    lake.append(Events.empty())
    found = feature_table(lake, ["a", "b"], np.array([NOW, NOW]), ["customer_view_count_7d", "customer_item_sequence"])
    assert found.to_pylist() == [{"customer_view_count_7d": 0, "customer_item_sequence": []}] * 2


def details(count):
    """Details of `count` events, of which all but the first say nothing."""
    said = {"kind": "quiz_completed", "item_id": "sku-1", "currency": "EUR", "properties": '{"a": 1}'}
    said |= {name: timestamps([NOW])[0].as_py() for name in ("receive_time", "original_time", "sent_time")}
    return pa.Table.from_pylist([said] + [dict.fromkeys(said)] * (count - 1), DETAILS_SCHEMA)


def test_details_are_kept_and_their_kind_wins(lake):
    facts = [oracle.Fact("a", 1, number, 5, int(Kind.PRODUCT_VIEWED), 0) for number in range(3)]
    lake.append(oracle.to_events(facts), details=details(3))
    table = DeltaTable(lake.events_uri).to_pyarrow_table().sort_by("event_id")
    assert table.schema.names == EVENT_SCHEMA.names
    assert table["kind"].to_pylist() == ["quiz_completed", "product_viewed", "product_viewed"]
    for name in DETAILS_SCHEMA.names[1:]:
        assert table[name].to_pylist() == details(3)[name].to_pylist()
    assert sorted(lake.read().kind.tolist()) == [Kind.UNKNOWN, Kind.PRODUCT_VIEWED, Kind.PRODUCT_VIEWED]


@pytest.mark.parametrize("wrong", [details(2), details(3).drop_columns("currency")])
def test_details_of_other_events_are_refused(lake, wrong):
    facts = [oracle.Fact("a", 1, number, 5, 1, 0) for number in range(3)]
    with pytest.raises(InvalidInput, match="details: are not one row for each of 3 events"):
        lake.append(oracle.to_events(facts), details=wrong)
    assert lake.version() == -1


def test_a_lake_of_an_earlier_version_is_read_and_appended_to(lake, log):
    facts = [oracle.Fact("old", 1, number, 5, 1, 0) for number in range(3)]
    Lake(f"{lake.root}-new").append(oracle.to_events(facts))
    columns = DeltaTable(f"{lake.root}-new/events").to_pyarrow_table().select(RECORD_SCHEMA.names)
    old = Lake(f"{lake.root}-old")
    write_deltalake(old.events_uri, columns)
    assert rows(old.read()) == rows(oracle.to_events(facts))
    old.append(oracle.to_events(log), details=details(len(log)), offsets={"log/0": OffsetStep(None, 7)})
    assert len(rows(old.read())) == 3 + len(log)
    assert old.offset("log/0") == 7


def batch(number):
    return oracle.to_events([oracle.Fact("a", 1, number, 5, 1, 0, available=number)])


def appended(lake):
    return sorted(lake.read().event_id.tolist())


def test_offsets_move_with_the_events_they_are_of(lake):
    assert lake.offset("log/0") is None
    lake.append(batch(1), offsets={"log/0": OffsetStep(None, 5), "log/1": OffsetStep(None, 2)})
    lake.append(batch(2), offsets={"log/0": OffsetStep(5, 9)})
    assert (lake.offset("log/0"), lake.offset("log/1"), lake.offset("log/2")) == (9, 2, None)
    assert appended(lake) == [1, 2]


@pytest.mark.parametrize("step", [OffsetStep(None, 8), OffsetStep(4, 8), OffsetStep(6, 8)])
def test_what_another_took_is_not_taken_again(lake, step):
    lake.append(batch(1), offsets={"log/0": OffsetStep(None, 5)})
    with pytest.raises(LakeConflict, match=r"log/0: the lake is at offset 5, not at"):
        lake.append(batch(2), offsets={"log/1": OffsetStep(None, 1), "log/0": step})
    assert appended(lake) == [1]
    assert (lake.offset("log/0"), lake.offset("log/1")) == (5, None)


def test_a_writer_that_fell_behind_may_go_on_with_partitions_of_its_own(lake):
    one, other = Lake(lake.root), Lake(lake.root)
    one.append(batch(1), offsets={"log/0": OffsetStep(None, 1)})
    other.append(batch(2), offsets={"log/1": OffsetStep(None, 1)})
    DeltaTable(lake.events_uri).delete("event_id = 2")  # after which an append from before fails at first
    one.append(batch(3), offsets={"log/0": OffsetStep(1, 2)})
    with pytest.raises(LakeConflict):
        other.append(batch(4), offsets={"log/0": OffsetStep(1, 2)})
    assert appended(lake) == [1, 3]


def take_entries(root, start, took):
    """Take entries 1 to 12 of one partition, each in a commit, as one of several that all believe it is theirs."""
    lake = Lake(root)
    start.wait()
    for offset in range(1, 13):
        try:
            lake.append(batch(offset), offsets={"log/0": OffsetStep(offset - 1 or None, offset)})
        except LakeConflict:
            continue
        with took.get_lock():
            took.value += 1


def test_processes_that_take_the_same_entries_take_each_once(lake):
    # Also the creation of the table is raced for.
    context = multiprocessing.get_context("spawn")
    start, took = context.Barrier(3), context.Value("i", 0)
    workers = [context.Process(target=take_entries, args=(lake.root, start, took)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert appended(lake) == list(range(1, 13))
    assert took.value == 12
    assert lake.offset("log/0") == 12


def test_threads_with_partitions_of_their_own_do_not_disturb_each_other(lake):
    failures = []

    def work(partition):
        own = Lake(lake.root)
        try:
            for offset in range(1, 6):
                step = OffsetStep(offset - 1 or None, offset)
                own.append(batch(10 * partition + offset), offsets={f"log/{partition}": step})
        except LakeConflict as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(partition,)) for partition in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert appended(lake) == [10 * partition + offset for partition in range(4) for offset in range(1, 6)]


def test_links_are_a_set_and_known_since_the_first(lake):
    assert lake.links() == []
    lake.append_links([])
    lake.append_links([Link("a", "b", 30), Link("a", "c", 10)])
    lake.append_links([Link("a", "b", 20), Link("b", "a", 5)])
    lake.append_links([Link("a", "b", 25)])
    assert set(lake.links()) == {Link("a", "b", 20), Link("a", "c", 10), Link("b", "a", 5)}
    assert len(lake.links()) == 3


def test_barriers_only_rise(lake):
    assert lake.barriers() == {}
    lake.append_barriers([])
    lake.append_barriers([Barrier("a", erased_at_ms=30), Barrier("b", denied_at_ms=5), Barrier("c", granted_at_ms=9)])
    lake.append_barriers([Barrier("a", erased_at_ms=20), Barrier("b", granted_at_ms=4)])
    assert lake.barriers() == {"a": 30, "b": BARRED_MS}
    assert lake.barrier_registers()["b"] == Barrier("b", None, 5, 4)
    lake.append_barriers([Barrier("b", granted_at_ms=7)])
    assert lake.barriers() == {"a": 30, "b": 7}


def test_the_customers_of_late_are_those_with_an_event_that_became_available_since(lake, log):
    available = {}
    for fact in log:
        available[fact.customer] = max(fact.available, available.get(fact.customer, 0))
    for since_ms in (0, NOW, sorted(available.values())[len(available) // 2]):
        wanted = sorted(name for name, at in available.items() if at >= since_ms)
        assert lake.customers(available_since_ms=since_ms) == wanted
    assert lake.available_range() == (min(fact.available for fact in log), max(fact.available for fact in log))
