"""What Feast's batch views keep of a customer: rows of the snapshots, and the newest of them in the online store."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from segue.adapters import plan_files
from segue.adapters.plan_reader import hash_key

ENTITY = "customer"


@dataclass(frozen=True)
class BatchViews:
    """The snapshots under one directory, the serving plans under another, and the online store they lead to."""

    snapshots: Path
    plans: Path
    redis: Any

    def forget(self, customers: Collection[str]) -> None:
        """Remove what is kept of `customers`; a reader sees a file before or after, never between."""
        self._forget_online(customers)
        names = pa.array(sorted(customers), pa.string())
        for path in sorted((self.snapshots / "customer_lifetime").glob("*.parquet")):
            column = pq.read_table(path, columns=[ENTITY])[ENTITY]
            if pc.any(pc.is_in(column, names)).as_py():
                table = pq.read_table(path)
                # A name that no reader's pattern matches until the file is whole.
                written = path.with_suffix(".new")
                pq.write_table(table.filter(pc.invert(pc.is_in(table[ENTITY], names))), written)
                written.replace(path)

    def _forget_online(self, customers: Collection[str]) -> None:
        # One hash holds all views of an entity, so the key is the same in every plan.
        parts = [part for plan in plan_files.every(self.plans) for part in plan.hashes if part.entity == ENTITY]
        if keys := {hash_key(part, customer) for part in parts for customer in customers}:
            self.redis.delete(*keys)
