"""The windowed features of the table as one DuckDB query over the lake's own files."""

from collections.abc import Mapping, Sequence

from deltalake import DeltaTable

from segue.adapters.lake import Lake
from segue.events import NO_ITEM, Kind
from segue.features.batch import SIGNALS, WINDOWS_MS
from segue.features.windows import VALUES


def windows_sql(lake: Lake, columns: Sequence[str]) -> str:
    """The query for `columns` of the table `labels`: customer, event_timestamp and row, by which its answer is ordered.

    It was tuned. Times are whole milliseconds, since arithmetic on timestamps with a zone goes through a calendar; and
    they are compared after the join, since as conditions of the join they make DuckDB give up hashing customers.
    """
    files = ", ".join(f"'{uri}'" for uri in DeltaTable(lake.events_uri).file_uris())
    wanted = ", ".join(f"{EXPRESSIONS[name]} AS {name}" for name in columns)
    # An event delivered twice is one event, available from its first delivery on.
    return f"""
        WITH events AS (
            SELECT any_value(customer) AS customer, any_value(kind) AS kind, any_value(item) AS item,
                any_value(value_minor) AS value_minor, epoch_ms(any_value(event_time)) AS event_ms,
                epoch_ms(min(available_time)) AS available_ms
            FROM read_parquet([{files}]) GROUP BY event_id
        ), asked AS (
            SELECT row, customer, epoch_ms(event_timestamp) AS t_ms FROM labels
        ), joined AS (
            SELECT row, kind, item, value_minor, t_ms - event_ms AS age_ms,
                event_ms < t_ms AND available_ms <= t_ms AS known
            FROM asked LEFT JOIN events USING (customer)
        )
        SELECT row, {wanted} FROM joined GROUP BY row ORDER BY row
    """


def _expressions() -> Mapping[str, str]:
    """Every windowed count, sum and number of distinct items, by its feature's name."""
    items = {
        "view_item": f"kind = '{Kind.PRODUCT_VIEWED.label}'",
        "add_item": f"kind = '{Kind.PRODUCT_ADDED.label}'",
        "item": f"item <> {NO_ITEM}",
    }
    columns = {}
    for window, ms in WINDOWS_MS.items():
        within = f"known AND age_ms <= {ms}"
        for signal, kind in SIGNALS.items():
            columns[f"customer_{signal}_count_{window}"] = f"count(*) FILTER (kind = '{kind.label}' AND {within})"
        for signal, kind in VALUES.items():
            total = f"sum(value_minor) FILTER (kind = '{kind.label}' AND {within})"
            columns[f"customer_{signal}_value_minor_{window}"] = f"coalesce({total}, 0)::BIGINT"
        for word, which in items.items():
            columns[f"customer_{word}_distinct_count_{window}"] = f"count(DISTINCT item) FILTER ({which} AND {within})"
    return columns


EXPRESSIONS = _expressions()
