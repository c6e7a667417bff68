"""New items: what the catalogue gained since the models were trained, kept in the online store for the services.

A hash holds what is known of each item, a sorted set beside it when each was last put or removed. That time is the
version: a service that asks for what changed since the version it has gets little, and soon. Putting what is there
already changes nothing, so a feed may send its newest items again and again. With too many, the oldest go.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from redis import Redis
from redis import asyncio as aioredis

from segue.adapters.history_script import errors
from segue.catalogue import Catalogue
from segue.errors import InvalidInput, StoreCorrupted, Violation
from segue.events import item_id
from segue.inference.content import Newcomers
from segue.inference.sequence import FRESH_MAX

KEY = "{segue:new_items}"
"""Of the hash; the braces keep both keys on one node of a cluster."""

ORDER_KEY = f"{KEY}:changed"

PUT_MAX_COUNT = 1_000
"""Items put in one call."""

ID_MAX_CHARS = 128
CATEGORY_MAX_CHARS = 256
TITLE_MAX_CHARS = 512
PRICE_LIMIT_MINOR = 2**53

PAGE_COUNT = 100
"""Changes read at a time: what they cost a service's loop is some milliseconds."""

GONE = b""
"""What is kept of an item that was removed, so that those who have it hear of it."""

# A version is the server's time in us, or one more than the newest where its clock stands still or went back: a
# store that lost everything goes on above what its readers have seen.
_CHANGE = """
local newest = redis.call('ZRANGE', KEYS[2], -1, -1, 'WITHSCORES')
local time = redis.call('TIME')
local version = math.max(tonumber(newest[2] or '0'), tonumber(time[1]) * 1000000 + tonumber(time[2]) - 1)
local changed = 0
for i = 2, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[i]) ~= ARGV[i + 1] then
    version = version + 1
    changed = changed + 1
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
    redis.call('ZADD', KEYS[2], string.format('%.0f', version), ARGV[i])
  end
end
local surplus = redis.call('ZCARD', KEYS[2]) - tonumber(ARGV[1])
if surplus > 0 then
  local oldest = redis.call('ZRANGE', KEYS[2], 0, surplus - 1)
  for _, id in ipairs(oldest) do
    redis.call('HDEL', KEYS[1], id)
    redis.call('ZREM', KEYS[2], id)
  end
end
return changed
"""


def item_of(external_id: str, category: str = "", price_minor: int = 0, title: str = "") -> Catalogue:
    """The catalogue of one item.

    Raises:
        InvalidInput: the id or the price is none.
    """
    if wrong := list(_id_violations("external_id", external_id)):
        raise InvalidInput(*wrong)
    if not 0 <= price_minor < PRICE_LIMIT_MINOR:
        raise InvalidInput.because("price_minor", "must be from 0 to below 2^53")
    texts = np.array([[external_id], [category], [title]], np.object_)
    price = np.array([price_minor], np.int64)
    return Catalogue(np.array([item_id(external_id)], np.int64), texts[0], texts[1], price, texts[2])


class NewItems:
    """The new items in the Redis behind `redis`, a blocking client that returns bytes: the newest `max_count` changes.

    Every call raises StoreUnavailable where the server does not answer, StoreCorrupted where it holds something else.
    """

    def __init__(self, redis: Redis, *, max_count: int = FRESH_MAX) -> None:
        self._redis = redis
        self._max_count = max_count

    def put(self, items: Catalogue) -> int:
        """Add `items`, or replace what is known of them, at once; how many were not there just so.

        Raises:
            InvalidInput: a value is not acceptable, with every violation (`items[3].title`); nothing was added.
        """
        if violations := list(_violations(items)):
            raise InvalidInput(*violations)
        return self._change(items.external_id.tolist(), _records(items))

    def remove(self, external_ids: Sequence[str]) -> int:
        """Let items be new no more, known ones or not; how many had not been removed before.

        Raises:
            InvalidInput: an id is none.
        """
        wrong = [each for at, name in enumerate(external_ids) for each in _id_violations(f"external_ids[{at}]", name)]
        if wrong:
            raise InvalidInput(*wrong)
        return self._change(external_ids, [GONE] * len(external_ids))

    def newest(self, limit: int) -> Catalogue:
        """The items among the newest `limit` changes, at least 1, the oldest of them first."""
        with errors():
            names: Any = self._redis.zrange(ORDER_KEY, -limit, -1)
            records: Any = self._redis.hmget(KEY, names) if names else []
        return _catalogue([pair for pair in zip(names, records, strict=True) if pair[1]])

    def _change(self, names: Sequence[str], records: Sequence[bytes]) -> int:
        arguments = [value for pair in zip(names, records, strict=True) for value in pair]
        with errors():
            reply: Any = self._redis.eval(_CHANGE, 2, KEY, ORDER_KEY, self._max_count, *arguments)
        return int(reply)


@dataclass(eq=False)
class NewItemFeed:
    """Keeps `newcomers` as the store behind `redis`, an asyncio client that returns bytes, has them."""

    redis: aioredis.Redis
    newcomers: Newcomers
    version: int = 0
    """Of the newest change taken over."""

    async def poll(self) -> bool:
        """Take over what changed since the last poll; whether anything did. One round trip where nothing has.

        Raises:
            StoreUnavailable: the online store did not answer; what was taken over before stays.
            StoreCorrupted: it holds something else than new items.
        """
        changed = False
        while page := await self._page():
            self._take_over(page)
            changed = True
        return changed

    async def _page(self) -> Sequence[tuple[bytes, bytes | None, int]]:
        with errors():
            found: Any = await self.redis.zrange(
                ORDER_KEY, f"({self.version}", "+inf", byscore=True, offset=0, num=PAGE_COUNT, withscores=True
            )
            names = [name for name, _ in found]
            records: Any = await self.redis.hmget(KEY, names) if names else []  # type: ignore[misc]
        return [(name, record, int(version)) for (name, version), record in zip(found, records, strict=True)]

    def _take_over(self, page: Sequence[tuple[bytes, bytes | None, int]]) -> None:
        # In order, and a removal between what it is between: a run of items is one batch.
        run: list[tuple[bytes, bytes]] = []
        for name, record, _ in page:
            if record:
                run.append((name, record))
                continue
            self.newcomers.add(_catalogue(run))
            self.newcomers.remove(name.decode(errors="replace"))
            run = []
        self.newcomers.add(_catalogue(run))
        self.version = page[-1][2]


def _records(items: Catalogue) -> Sequence[bytes]:
    columns = (items.category, items.title, items.price_minor.tolist())
    return [
        json.dumps({"category": category, "title": title, "price_minor": price_minor}).encode()
        for category, title, price_minor in zip(*columns, strict=True)
    ]


def _catalogue(found: Sequence[tuple[bytes, bytes]]) -> Catalogue:
    """The items of stored names and records.

    Raises:
        StoreCorrupted: they are none.
    """
    try:
        names = [name.decode() for name, _ in found]
        records = [json.loads(record) for _, record in found]
        texts = np.full((3, len(found)), "", np.object_)
        texts[0] = names
        texts[1] = [str(record["category"]) for record in records]
        texts[2] = [str(record["title"]) for record in records]
        price_minor = np.array([int(record["price_minor"]) for record in records], np.int64)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise StoreCorrupted(f"a new item cannot be read: {error!r}") from error
    item = np.array([item_id(name) for name in names], np.int64)
    return Catalogue(item, texts[0], texts[1], price_minor, texts[2])


def _violations(items: Catalogue) -> Iterator[Violation]:
    if not 1 <= len(items) <= PUT_MAX_COUNT:
        yield Violation("items", f"are {len(items)}, 1 to {PUT_MAX_COUNT:,} are taken at a time")
        return
    for at, (item, name) in enumerate(zip(items.item.tolist(), items.external_id, strict=True)):
        wrong = list(_id_violations(f"items[{at}].external_id", name))
        yield from wrong
        if not wrong and item != item_id(name):
            yield Violation(f"items[{at}].item", "is not the id of its external id")
        yield from _text_violations(f"items[{at}].category", items.category[at], CATEGORY_MAX_CHARS)
        yield from _text_violations(f"items[{at}].title", items.title[at], TITLE_MAX_CHARS)
        if not 0 <= items.price_minor[at] < PRICE_LIMIT_MINOR:
            yield Violation(f"items[{at}].price_minor", "must be from 0 to below 2^53")


def _id_violations(field: str, value: str) -> Iterator[Violation]:
    """As the collector takes them: an item no event can name would be new in vain."""
    if not value:
        yield Violation(field, "is empty")
    elif not value.isprintable():
        yield Violation(field, "holds a control character")
    yield from _text_violations(field, value, ID_MAX_CHARS)


def _text_violations(field: str, value: str, limit: int) -> Iterator[Violation]:
    if len(value) > limit:
        yield Violation(field, f"has {len(value)} characters, at most {limit} are allowed")
    elif any("\ud800" <= character <= "\udfff" for character in value):
        yield Violation(field, "is not Unicode text")
