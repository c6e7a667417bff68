"""Reads the event table: some columns of some customers, as a stream of batches.

Not by a filter of pyarrow's dataset: where it changes rows, deltalake 1.6 writes strings as another Arrow type than
where it appends them, and a filter by the statistics of such a file is an error.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

T = TypeVar("T")

ATTEMPTS = 3


@dataclass(frozen=True)
class Customers:
    """Which customers: those in [first, past), and only `names`, in order, where it is given."""

    first: str | None = None
    past: str | None = None
    names: Sequence[str] | None = None

    def may_be_in(self, least: str, greatest: str) -> bool:
        """Whether one of them may lie in [least, greatest]."""
        if (self.past is not None and least >= self.past) or (self.first is not None and greatest < self.first):
            return False
        if self.names is None:
            return True
        next_up = bisect_left(self.names, least)
        return next_up < len(self.names) and self.names[next_up] <= greatest

    def chosen(self, column: pa.Array) -> pa.Array:
        """Whether each name in `column` is one of them."""
        mask = pa.repeat(pa.scalar(True), len(column))
        if self.first is not None:
            mask = pc.and_(mask, pc.greater_equal(column, self.first))
        if self.past is not None:
            mask = pc.and_(mask, pc.less(column, self.past))
        if self.names is not None:
            mask = pc.and_(mask, pc.is_in(column, pa.array(self.names, pa.string())))
        return mask


def batches(dataset: ds.Dataset, columns: Sequence[str], customers: Customers) -> Iterator[pa.RecordBatch]:
    """The rows of `customers`; of each file only the parts that may hold one are read."""
    names = list(dict.fromkeys([*columns, "customer"]))
    for fragment in dataset.get_fragments():
        groups = [group.id for group in fragment.row_groups if _may_hold(group, customers)]
        if not groups:
            continue
        part = fragment.subset(row_group_ids=groups, schema=dataset.schema)
        for batch in part.to_batches(schema=dataset.schema, columns=names):
            yield batch.filter(customers.chosen(batch["customer"])).select(list(columns))


def table(dataset: ds.Dataset, columns: Sequence[str], customers: Customers) -> pa.Table:
    """As `batches`, all at once."""
    schema = pa.schema([dataset.schema.field(name) for name in columns])
    return pa.Table.from_batches(batches(dataset, columns, customers), schema)


def again(open_dataset: Callable[[], ds.Dataset], read: Callable[[ds.Dataset], T]) -> T:
    """What `read` makes of the table as it is now, once more where a file was deleted under its hands."""
    for _ in range(ATTEMPTS - 1):
        try:
            return read(open_dataset())
        except FileNotFoundError:
            continue
    return read(open_dataset())


def _may_hold(group: Any, customers: Customers) -> bool:
    known = (group.statistics or {}).get("customer")
    return known is None or customers.may_be_in(known["min"], known["max"])
