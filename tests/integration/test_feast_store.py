"""The other ways into the feature store that the stock SDK offers give the same values as the common ones."""

import asyncio

import numpy as np
import pandas as pd
import pytest

from segue.adapters.histories import HistoryStore
from segue.adapters.lake import EVENT_SCHEMA, Lake
from segue.errors import InvalidInput
from segue.events import Events
from segue.history import RECORD_COLUMNS, histories_of
from tests import oracle
from tests.conftest import NOW, SETTLED, at, forget, open_store

REFS = ["customer_behaviour:customer_view_count_90d", "customer_lifetime:customer_event_count_lifetime"]
NAMES = [ref.split(":")[1] for ref in REFS]


@pytest.fixture(scope="module")
def store(filled_repo):
    return filled_repo.store


@pytest.fixture(scope="module")
def entities(filled_repo):
    times = [at(SETTLED), at(NOW)] * (len(filled_repo.customers) // 2)
    return pd.DataFrame({"customer": filled_repo.customers, "event_timestamp": times})


@pytest.fixture(scope="module")
def expected(store, entities):
    return store.get_historical_features(entities, REFS).to_arrow().select(NAMES).to_pydict()


def test_a_data_frame_holds_what_the_table_holds(store, entities, expected):
    frame = store.get_historical_features(entities, REFS).to_df()
    assert frame.columns.tolist() == ["customer", "event_timestamp", *NAMES]
    assert {name: frame[name].tolist() for name in NAMES} == expected


@pytest.mark.parametrize(
    "dtype", ["datetime64[ns, UTC]", "datetime64[ms, UTC]", "datetime64[us, Asia/Tokyo]", "datetime64[ns]"]
)
def test_a_time_means_the_same_in_any_type(store, entities, expected, dtype):
    times = entities["event_timestamp"].astype("datetime64[us, UTC]")
    typed = times.dt.tz_localize(None) if dtype == "datetime64[ns]" else times.astype(dtype)
    found = store.get_historical_features(entities.assign(event_timestamp=typed), REFS).to_arrow()
    assert found.select(NAMES).to_pydict() == expected


def test_a_result_can_be_kept(store, entities, expected, tmp_path):
    from feast.infra.offline_stores.file_source import SavedDatasetFileStorage

    path = tmp_path / "kept.parquet"
    store.get_historical_features(entities, REFS).persist(SavedDatasetFileStorage(path=str(path)))
    assert pd.read_parquet(path)[NAMES].to_dict("list") == expected


def test_entities_in_sql_are_refused(store):
    with pytest.raises(InvalidInput, match="entity_df: must be a pandas DataFrame"):
        store.get_historical_features("select * from customers", REFS)


def test_a_missing_key_is_named(store, entities):
    with pytest.raises(Exception, match="customer"):
        store.get_historical_features(entities.rename(columns={"customer": "shopper"}), REFS).to_arrow()


DROPPED = pytest.mark.xfail(
    reason="Feast 0.67.0 drops the full names of on-demand views in python mode", raises=KeyError
)


@pytest.mark.parametrize("ref", [*REFS[1:], "customer_history:kind", pytest.param(REFS[0], marks=DROPPED)])
def test_full_names_online(store, ref):
    rows = [{"customer": "c00"}, {"customer": "nobody"}]
    short = store.get_online_features([ref], rows).to_dict()
    full = store.get_online_features([ref], rows, full_feature_names=True).to_dict()
    assert full[ref.replace(":", "__")] == short[ref.split(":")[1]]


def test_the_asynchronous_sdk_reads_the_same(store):
    rows = [{"customer": "c00"}, {"customer": "nobody"}, {"customer": "c00"}]
    refs = [f"customer_history:{name}" for name in RECORD_COLUMNS] + REFS[1:]
    found = asyncio.run(store.get_online_features_async(refs, rows)).to_dict()
    assert found == store.get_online_features(refs, rows).to_dict()


@pytest.fixture
def applied(feast_repo):
    from segue.adapters.feast import pipeline

    forget(feast_repo)
    pipeline.apply(feast_repo)
    return open_store(feast_repo)


def history_rows(log):
    """A log's histories as the rows of a write."""
    events = oracle.to_events(log)
    histories = histories_of(events)
    rows = []
    for index, name in enumerate(events.customers):
        span = slice(*histories.offsets[index : index + 2])
        columns = {each: getattr(histories, each)[span] for each in RECORD_COLUMNS}
        lists = {
            each: (column.view(np.int64) if each == "event_id" else column).tolist() for each, column in columns.items()
        }
        rows.append({"customer": name, "event_time": at(NOW), "available_time": at(NOW), "as_of_ms": NOW, **lists})
    return pd.DataFrame(rows)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_the_sdk_writes_is_merged_into_histories(applied, redis, asynchronous):
    log = oracle.facts(21, customers=3, count=450)
    histories = HistoryStore(redis, "segue:customer_history:")
    histories.add(oracle.to_events(log[:100]))
    frame = history_rows(log[100:])
    # A customer may come twice in one write.
    frame = pd.concat([frame, history_rows(log[:50])], ignore_index=True)
    if asynchronous:
        asyncio.run(applied.write_to_online_store_async("customer_history", frame))
    else:
        applied.write_to_online_store("customer_history", frame)
    found = histories.read(["c00", "c01", "c02"])
    for index, name in enumerate(("c00", "c01", "c02")):
        assert oracle.to_history(found, index) == oracle.union([fact.record for fact in log if fact.customer == name])


def test_lists_of_different_length_are_refused(applied, redis):
    frame = history_rows(oracle.facts(22, customers=1, count=3))
    frame.at[0, "kind"] = [1]
    with pytest.raises(InvalidInput, match=r"rows\[0\]: the lists of a history differ in length"):
        applied.write_to_online_store("customer_history", frame)
    assert redis.dbsize() == 0


def test_events_do_not_enter_the_lake_by_the_side_door(applied, feast_repo):
    Lake(feast_repo.parent / ".segue" / "lake").append(Events.empty())
    frame = EVENT_SCHEMA.empty_table().to_pandas()
    with pytest.raises(InvalidInput, match="to: events enter the lake through the event log"):
        applied.write_to_offline_store("customer_history", frame)
