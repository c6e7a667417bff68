"""The plan reader: everything a feature service needs of some entities, in one round trip, without Feast.

It keeps what Feast's own online read loses: the declared order, the ttl, and the difference between a value that is
missing and one that is zero.
"""

import itertools
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray
from redis.exceptions import RedisError

from segue.adapters import histories as history_codec
from segue.adapters import progress
from segue.adapters.event_log import Offsets
from segue.errors import InvalidInput, StoreCorrupted, StoreUnavailable
from segue.features import table
from segue.history import Histories, Times, before, merge, newest
from segue.inference.answers import Features, Part, Status
from segue.inference.plan import HashPart, HistoryPart, Plan

MAX_ENTITIES = 1000
"""Entities one read may ask for."""

AFTER_MAX_SECONDS = 5.0
"""How long a read waits for what it is to come after; a caller's deadline may end it earlier."""


class PlanReader:
    """Reads by `plan` through `redis`, an asyncio client that returns bytes.

    Attributes:
        plan: what is read.
        scalar_columns: the plan's columns that are numbers, in declared order: those of `Features.matrix`.
    """

    def __init__(self, plan: Plan, redis: Any) -> None:
        self.plan = plan
        self._redis = redis
        position = {feature.name: index for index, feature in enumerate(table.FEATURES)}
        self.scalar_columns = tuple(column for column in plan.columns if not column.dtype.endswith("[]"))
        history_views = {part.view for part in plan.histories}
        if unknown := [
            each.name for each in self.scalar_columns if each.view in history_views and each.name not in position
        ]:
            raise InvalidInput.because("plan", f"asks for history features this program does not compute: {unknown}")
        self._names = tuple(each.name for each in self.scalar_columns)
        self._computed = np.array([each.view in history_views for each in self.scalar_columns], bool)
        self._features = np.array([position[name] for name in itertools.compress(self._names, self._computed)], np.intp)
        self._column = {(each.view, each.name): column for column, each in enumerate(self.scalar_columns)}

    async def read(
        self,
        entity: str,
        ids: Sequence[str] | Sequence[int],
        now_ms: Times,
        *,
        extra: Histories | None = None,
        after: Offsets | None = None,
    ) -> Features:
        """Fetch and compute all columns of one entity type, in one round trip.

        Args:
            entity: which of the plan's entities `ids` are; columns of other entities stay NaN.
            ids: n ids, at most MAX_ENTITIES.
            now_ms: shape (n,), the time each is asked about.
            extra: n histories of events the caller brings along; they count as if they were stored.
            after: what of the event log must be in the store before it is read.

        Raises:
            InvalidInput: too many ids.
            StoreUnavailable: the online store did not answer.
            StoreCorrupted: it holds something other than Feast or Segue wrote.
            DeadlineExceeded: what `after` names is not there within AFTER_MAX_SECONDS.
        """
        if len(ids) > MAX_ENTITIES:
            raise InvalidInput.because(entity, f"{len(ids)} of them; at most {MAX_ENTITIES} can be read at once")
        if after:
            await progress.wait(self._redis, after, timeout_seconds=AFTER_MAX_SECONDS)
        hashes = [part for part in self.plan.hashes if part.entity == entity]
        histories = [part for part in self.plan.histories if part.entity == entity]
        replies = await self._fetch(hashes, histories, ids)
        matrix = np.full((len(ids), len(self.scalar_columns)), np.nan)
        parts = {part.view: self._fill(matrix, part, replies[part.view], now_ms) for part in hashes}
        if extra is not None and not extra.lengths.any():
            extra = None
        merged = Histories.empty(len(ids)) if extra is None else newest(extra)
        for history in histories:
            stored = history_codec.decode(replies[history.view])
            merged = stored if extra is None else merge(stored, extra, limit=history.limit)
            parts[history.view] = _history_part(history, merged, now_ms)
            if len(self._features):
                computed = table.compute(merged, now_ms, limit=history.limit)
                matrix[:, self._computed] = computed[:, self._features]
        declared = dict.fromkeys(each.view for each in self.plan.columns)
        in_order = tuple(parts[view] for view in declared if view in parts)
        return Features(self._names, matrix, merged, in_order)

    async def _fetch(
        self, hashes: Sequence[HashPart], histories: Sequence[HistoryPart], ids: Sequence[Any]
    ) -> dict[str, list[Any]]:
        """The n replies for each part, by its view."""
        pipe = self._redis.pipeline(transaction=False)
        for part in hashes:
            fields = [bytes.fromhex(field.field_hex) for field in part.fields] + [part.timestamp_field]
            for each in ids:
                pipe.hmget(hash_key(part, each), fields)
        for history in histories:
            for each in ids:
                pipe.zrange(f"{history.key_prefix}{each}", 0, -1)
        try:
            replies = await pipe.execute()
        except (RedisError, OSError) as error:
            raise StoreUnavailable("the online store did not answer") from error
        views = [*(part.view for part in hashes), *(part.view for part in histories)]
        return {view: replies[index * len(ids) : (index + 1) * len(ids)] for index, view in enumerate(views)}

    def _fill(self, matrix: NDArray[np.float64], part: HashPart, replies: Sequence[Any], now_ms: Times) -> Part:
        """Put one view's values into its columns; the others' stay as they are."""
        columns = [self._column[part.view, field.name] for field in part.fields]
        statuses = []
        ages = np.full(len(replies), np.nan)
        for row, (*values, stamp) in enumerate(replies):
            age_ms = np.nan if stamp is None else now_ms[row] - _milliseconds(stamp)
            # What a later cut holds was not known at the time asked about.
            if not age_ms >= 0:
                statuses.append(Status.MISSING)
                continue
            ages[row] = age_ms
            expired = part.ttl_seconds and ages[row] > part.ttl_seconds * 1000
            statuses.append(Status.EXPIRED if expired else Status.PRESENT)
            if not expired:
                matrix[row, columns] = [scalar(value) for value in values]
        return Part(part.view, tuple(statuses), ages, np.zeros(len(replies), bool))


def hash_key(part: HashPart, entity_id: str | int) -> bytes:
    """The Redis key of one entity, in Feast's layout (entity key serialization version 3)."""
    is_text = part.key_type == "string"
    value = str(entity_id).encode() if is_text else int(entity_id).to_bytes(8, "little", signed=True)
    length = len(value).to_bytes(4, "little")
    return bytes.fromhex(part.key_prefix_hex) + length + value + bytes.fromhex(part.key_suffix_hex)


def scalar(encoded: bytes | None) -> float:
    """The number in a serialized `feast.types.Value`; NaN for none.

    Read from the wire by hand, since the message's own module is Feast: a Value with a number is one tag and one value
    (field 3 int32, 4 int64, 5 double, 6 float, 7 bool; protocol buffers encoding).

    Raises:
        StoreCorrupted: it holds something other than a number.
    """
    if not encoded:
        return float("nan")
    tag, payload = encoded[0], encoded[1:]
    if tag == 5 << 3 | 1 and len(payload) == 8:
        return float(struct.unpack("<d", payload)[0])
    if tag == 6 << 3 | 5 and len(payload) == 4:
        return float(struct.unpack("<f", payload)[0])
    if tag in {3 << 3, 4 << 3, 7 << 3} and 0 < len(payload) <= 10:
        unsigned = sum((byte & 0x7F) << (7 * index) for index, byte in enumerate(payload))
        return float(unsigned - (1 << 64) if unsigned >= 1 << 63 else unsigned)
    raise StoreCorrupted("a value is not a number in Feast's encoding")


def _milliseconds(stamp: bytes) -> int:
    try:
        return Timestamp.FromString(stamp).ToMilliseconds()
    except DecodeError as error:
        raise StoreCorrupted("a timestamp is not one in Feast's encoding") from error


def _history_part(part: HistoryPart, histories: Histories, now_ms: Times) -> Part:
    """A history's age is that of its newest event before the time asked about."""
    past = before(histories, now_ms)
    some = past.lengths > 0
    ages = np.full(len(past), np.nan)
    ages[some] = now_ms[some] - past.event_time_ms[past.offsets[1:][some] - 1]
    statuses = tuple(Status.PRESENT if each else Status.MISSING for each in some)
    return Part(part.view, statuses, ages, histories.lengths >= part.limit)
