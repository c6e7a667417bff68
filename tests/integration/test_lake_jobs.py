"""Upkeep of the lake changes nothing that counts, whoever appends meanwhile, and leaves nothing of who was erased."""

import threading
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from segue.adapters import delta, lake_jobs
from segue.adapters.lake import DETAILS_SCHEMA, Lake, OffsetStep
from segue.adapters.lake_jobs import compact, erase
from segue.adapters.lake_rows import RECORD_SCHEMA
from segue.customers import Barrier, Link
from segue.errors import InvalidInput, LakeConflict
from tests import oracle

NOW = 1_780_000_000_000
LATER = NOW + oracle.DAY
"""After every event of the log."""


@pytest.fixture
def lake(tmp_path):
    return Lake(tmp_path / "lake")


def rows(events):
    names = events.customers[events.customer].tolist()
    columns = (events.event_time_ms, events.event_id, events.item, events.kind, events.value_minor)
    records = zip(names, *(column.tolist() for column in columns), events.available_time_ms.tolist(), strict=True)
    return sorted(records)


def distinct(log):
    """Each record once, as of when it was first available."""
    first = {}
    for fact in log:
        key = (fact.customer, *fact.record)
        first[key] = min(fact.available, first.get(key, fact.available))
    return sorted((*key, available) for key, available in first.items())


@pytest.fixture
def log():
    """A log with copies, of which some became available at the very same time, and many pairwise different records."""
    facts = oracle.facts(3, customers=12, count=300, now=NOW)
    return facts + facts[:40] + facts[:7] + [fact._replace(available=fact.available + 5) for fact in facts[:20]]


def fill(lake, log, commits=10):
    for part in range(commits):
        lake.append(oracle.to_events(log[part::commits]))


@pytest.mark.parametrize("z_order", [True, False])
def test_a_compaction_removes_copies_and_nothing_else(lake, log, z_order):
    fill(lake, log)
    done = compact(lake, z_order=z_order, retention_hours=0, max_events=100)
    assert rows(lake.read()) == distinct(log)
    assert done.copy_count == len(log) - len(distinct(log)) > 60
    assert done.forgotten_count == 0
    assert done.files_before >= 10 > done.files_after
    assert done.deleted_file_count >= 10
    files = {Path(path).name for path in lake.dataset().files}
    assert {path.name for path in Path(lake.events_uri).glob("*.parquet")} == files
    again = compact(lake, z_order=z_order, retention_hours=0)
    assert (again.copy_count, again.forgotten_count) == (0, 0)
    assert rows(lake.read()) == distinct(log)


def test_copies_keep_what_is_known_of_the_first(lake):
    fact = oracle.Fact("a", 1, 1, 5, 1, 0, available=10)
    for available, text in ((20, "second"), (10, "first"), (10, "first"), (30, "third")):
        row = {"kind": "product_viewed", "properties": text}
        table = pa.Table.from_pylist([dict.fromkeys(DETAILS_SCHEMA.names) | row], DETAILS_SCHEMA)
        lake.append(oracle.to_events([fact._replace(available=available)]), details=table)
    assert compact(lake).copy_count == 3
    (kept,) = DeltaTable(lake.events_uri).to_pyarrow_table().to_pylist()
    assert (kept["properties"], kept["available_time"].microsecond) == ("first", 10_000)


def test_a_sorted_lake_has_each_customer_in_one_place(lake, log):
    fill(lake, log)
    compact(lake)
    (file,) = lake.dataset().files
    names = lake.dataset().filesystem.open_input_file(file)
    column = pa.parquet.read_table(names, columns=["customer"])["customer"].to_pylist()
    assert column == sorted(column)


def test_offsets_and_what_links_and_barriers_say_survive(lake, log):
    lake.append(oracle.to_events(log), offsets={"log/0": OffsetStep(None, 9)})
    for _ in range(3):
        lake.append_links([Link("a", "b", 1)])
        lake.append_barriers([Barrier("zz", erased_at_ms=5)])
    compact(lake, retention_hours=0)
    assert lake.offset("log/0") == 9
    assert lake.links() == [Link("a", "b", 1)]
    assert lake.barriers() == {"zz": 5}
    lake.append(oracle.to_events(log[:1]), offsets={"log/0": OffsetStep(9, 10)})


def test_a_compaction_removes_what_barriers_forget_for_good(lake, log):
    fill(lake, log)
    times = sorted(fact.time for fact in log)
    erased, denied, granted = times[len(times) // 2], times[len(times) // 3], times[-30]
    lake.append_barriers(
        [
            Barrier("c00", erased_at_ms=erased),
            Barrier("c01", denied_at_ms=denied),  # later events may count yet: a grant may still be on its way
            Barrier("c02", denied_at_ms=denied, granted_at_ms=granted),
            Barrier("nobody", erased_at_ms=LATER),
        ]
    )
    upto = {"c00": erased, "c01": denied, "c02": granted}
    done = compact(lake)
    kept = [fact for fact in log if fact.time > upto.get(fact.customer, -1)]
    assert rows(lake.read()) == distinct(kept)
    assert done.forgotten_count == len(log) - len(kept) > 10


@pytest.mark.parametrize("job", ["compact", "erase"])
def test_an_updater_goes_on_meanwhile(lake, log, job):
    fill(lake, log)
    over = threading.Event()
    appended = [0]

    def update():
        own = Lake(lake.root)
        while not over.wait(0.005):
            number = appended[0] + 1
            step = OffsetStep(appended[0] or None, number)
            fact = oracle.Fact("zz", LATER, number, 1, 1, 0, available=LATER)
            own.append(oracle.to_events([fact]), offsets={"log/0": step})
            appended[0] = number

    updater = threading.Thread(target=update)
    updater.start()
    try:
        while appended[0] < 20:
            if job == "compact":
                compact(lake, retention_hours=0)
            else:
                erase(lake, ["c00", "c01"], LATER)
    finally:
        over.set()
        updater.join()
    assert lake.offset("log/0") == appended[0]
    found = [row for row in rows(lake.read()) if row[0] != "zz"]
    if job == "compact":
        assert found == distinct(log)
    else:
        assert found == rows(oracle.to_events([fact for fact in log if fact.customer not in {"c00", "c01"}]))
    assert sorted(lake.read(customers=["zz"]).event_id.tolist()) == list(range(1, appended[0] + 1))


def test_a_job_that_always_meets_an_append_says_so_and_changes_nothing(lake, log, monkeypatch):
    monkeypatch.setattr(delta, "CHANGE_ATTEMPTS", 2)
    fill(lake, log)
    change = delta.change

    def disturbed(uri, commit):
        def late(table, properties):
            Lake(lake.root).append(oracle.to_events(log[:1]))
            return commit(table, properties)

        return change(uri, late)

    monkeypatch.setattr(lake_jobs.delta, "change", disturbed)
    with pytest.raises(LakeConflict, match="2 commits in a row failed"):
        erase(lake, ["c00"], LATER)
    assert rows(lake.read()) == rows(oracle.to_events(log + [log[0]] * 2))


def test_appends_wait_for_a_change_that_cannot_get_through(lake, log, monkeypatch):
    fill(lake, log)
    waits, tries = [], []

    def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            delta._gate(DeltaTable(lake.events_uri), 0)

    monkeypatch.setattr(delta.time, "sleep", sleep)
    delta._gate(DeltaTable(lake.events_uri), delta._now_ms() + 60_000)
    lake.append(oracle.to_events(log[:1]))
    assert len(waits) == 3

    def commit(table, properties):
        tries.append(properties.app_transactions)
        if len(tries) < 3:
            raise delta.CommitFailedError
        return table.delete("customer = 'c00'", commit_properties=properties)

    assert delta.change(lake.events_uri, commit)["num_deleted_rows"] > 0
    assert [bool(each) for each in tries] == [False, False, True]
    assert lake.offset(delta.GATE) == 0
    lake.append(oracle.to_events(log[:1]))
    assert len(waits) == 3


SECRET = "5ec2e7" * 5 + "00"


def mentions(root, text):
    """The files under `root` that hold `text`."""
    files = (path for path in Path(root).rglob("*") if path.is_file())
    return sorted(str(path.relative_to(root)) for path in files if text.encode() in path.read_bytes())


@pytest.mark.parametrize("sorted_before", [True, False])
def test_nothing_is_left_of_who_was_erased(lake, log, sorted_before):
    mine = [fact._replace(customer=SECRET) for fact in log if fact.customer == "c03"]
    fill(lake, log + mine)
    if sorted_before:
        compact(lake)
    assert len(mentions(lake.root, SECRET)) > 1
    upto = sorted(fact.time for fact in mine)[-5]
    gone = [fact for fact in mine if fact.time <= upto]
    count = len(distinct(gone)) if sorted_before else len(gone)
    assert erase(lake, [SECRET, "c04' OR 'a' = 'a", "nobody"], upto) == count
    assert {row[:2] for row in rows(lake.read(customers=[SECRET]))} == {
        (fact.customer, fact.time) for fact in mine if fact.time > upto
    }
    erase(lake, [SECRET], LATER)
    assert mentions(lake.root, SECRET) == []
    assert {row[0] for row in rows(lake.read())} == {fact.customer for fact in log}
    assert erase(lake, [SECRET], LATER) == 0


def test_only_the_barrier_of_an_erased_customer_remains(lake, log):
    fill(lake, [fact._replace(customer=SECRET) for fact in log])
    lake.append_barriers([Barrier(SECRET, erased_at_ms=LATER)])
    erase(lake, [SECRET], LATER)
    compact(lake, retention_hours=0)
    assert all(path.startswith("barriers/") for path in mentions(lake.root, SECRET))
    assert lake.barriers() == {SECRET: LATER}
    assert lake.customers() == []


def test_who_was_erased_meanwhile_does_not_come_back_with_copies(lake, log):
    fill(lake, log)
    found = list(lake_jobs._copies(lake, 10**6))
    lake.append_barriers([Barrier("c00", erased_at_ms=LATER)])
    erase(lake, ["c00"], LATER)
    for kept in found:
        lake_jobs._drop_copies(lake, kept)
    assert rows(lake.read()) == distinct([fact for fact in log if fact.customer != "c00"])


def test_files_that_a_writer_is_still_to_commit_are_left_alone(lake, log):
    fill(lake, log)
    unnamed = Path(lake.events_uri) / "part-00000-being-written.snappy.parquet"
    unnamed.write_bytes(b"half of it")
    erase(lake, ["c00"], LATER)
    compact(lake, retention_hours=0)
    assert unnamed.exists()


@pytest.mark.parametrize("customer", ["", "x" * 129])
def test_what_is_no_pseudonym_is_refused(lake, log, customer):
    fill(lake, log, 1)
    with pytest.raises(InvalidInput, match="customer: has"):
        erase(lake, ["c00", customer], LATER)
    assert rows(lake.read()) == rows(oracle.to_events(log))


def test_a_lake_of_an_earlier_version_gets_rid_of_names_in_its_log(lake, log):
    fill(Lake(f"{lake.root}-new"), log)
    columns = DeltaTable(f"{lake.root}-new/events").to_pyarrow_table().select(RECORD_SCHEMA.names)
    write_deltalake(lake.events_uri, columns)
    compact(lake, retention_hours=0)
    assert rows(lake.read()) == distinct(log)
    stats = DeltaTable(lake.events_uri).get_add_actions(flatten=True)
    assert "min.customer" not in stats.schema.names or stats["min.customer"].null_count == len(stats)


def test_an_empty_place_has_nothing_to_erase(lake):
    assert erase(lake, ["a"], LATER) == 0
