"""New items in the real store: who polls has them as they are put, whatever comes between."""

import asyncio

import numpy as np
import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from segue.__main__ import main
from segue.adapters.new_items import KEY, ORDER_KEY, PAGE_COUNT, PUT_MAX_COUNT, NewItemFeed, NewItems, item_of
from segue.catalogue import Catalogue
from segue.errors import InvalidInput, StoreCorrupted, StoreUnavailable
from segue.events import item_id
from segue.inference.content import ContentMap, Newcomers, token_ids
from tests.conftest import free_port, redis_url

HATS, BOOTS = (item_of(f"sku-{name}", f"clothes/{name}", 1990, name) for name in ("hats", "boots"))


def many(names):
    blank = np.full(len(names), "", object)
    ids = np.array([item_id(name) for name in names], np.int64)
    return Catalogue(ids, np.array(names, object), blank, np.zeros(len(names), np.int64), blank)


def named(external_id):
    """An item whose id is not that of its name."""
    texts = (np.array([text], object) for text in (external_id, ""))
    return Catalogue(np.array([5]), *texts, np.array([0]))


def content():
    """Knows hats and boots, and puts them on different axes."""
    token = np.unique(np.concatenate([token_ids(HATS)[1], token_ids(BOOTS)[1]]))
    weight = np.stack([np.isin(token, token_ids(each)[1]) for each in (HATS, BOOTS)], axis=1)
    return ContentMap(token, weight.astype(np.float32), np.zeros(2, np.float32))


class Follower:
    """A service's side, over a connection of its own for each poll."""

    def __init__(self, scratch, *, trained=(), limit=10_000):
        self.url = redis_url(scratch)
        self.newcomers = Newcomers(content(), np.array(trained, np.int64), limit=limit)
        self.version = 0

    def poll(self):
        async def once():
            async with AsyncRedis.from_url(self.url) as client:
                feed = NewItemFeed(client, self.newcomers, self.version)
                changed = await feed.poll()
                self.version = feed.version
                return changed

        return asyncio.run(once())

    @property
    def names(self):
        return self.newcomers.told()[1]


@pytest.fixture
def items(redis):
    return NewItems(redis)


@pytest.fixture
def follower(scratch):
    return Follower(scratch)


def test_a_new_item_is_seen_by_the_next_poll_with_its_vector(items, follower):
    assert not follower.poll()
    assert items.put(HATS) == 1
    assert follower.poll()
    assert not follower.poll()
    item, external_id, vectors = follower.newcomers.told()
    assert (item.tolist(), external_id) == ([item_id("sku-hats")], ["sku-hats"])
    assert vectors.tolist() == content().vectors(HATS).tolist()


def test_what_is_there_already_changes_nothing(items, follower):
    assert items.put(many(["a", "b", "c"])) == 3
    assert follower.poll()
    assert items.put(many(["b", "a", "c"])) == 0
    assert not follower.poll()
    assert items.put(item_of("b", "hats")) == 1
    assert follower.poll()
    assert follower.names == ["a", "c", "b"]


def test_a_removed_item_leaves_and_may_come_back(items, follower):
    items.put(many(["a", "b"]))
    follower.poll()
    assert items.remove(["a", "unknown"]) == 2
    assert items.remove(["a"]) == 0
    assert follower.poll()
    assert follower.names == ["b"]
    assert items.newest(10).external_id.tolist() == ["b"]
    items.put(many(["a"]))
    follower.poll()
    assert follower.names == ["b", "a"]


def test_whoever_polled_along_the_way_has_what_a_latecomer_reads(redis, scratch):
    """Seeded random puts and removals over more pages than one, and more items than are kept."""
    rng = np.random.default_rng(5)
    limit = PAGE_COUNT + 40
    items, early = NewItems(redis, max_count=limit), Follower(scratch, limit=limit)
    for _ in range(40):
        drawn = [f"sku-{number}" for number in rng.choice(500, 30, replace=False)]
        if rng.random() < 0.3:
            items.remove(drawn)
        else:
            items.put(many(drawn))
        if rng.random() < 0.4:
            early.poll()
        assert redis.hlen(KEY) == redis.zcard(ORDER_KEY) <= limit
    early.poll()
    late = Follower(scratch, limit=limit)
    late.poll()
    assert early.names == late.names == items.newest(limit).external_id.tolist()


def test_a_trained_item_is_not_new(items, scratch):
    follower = Follower(scratch, trained=[item_id("sku-boots")])
    items.put(HATS)
    items.put(BOOTS)
    follower.poll()
    assert follower.names == ["sku-hats"]


def test_after_the_store_lost_everything_its_readers_go_on(items, redis, follower):
    items.put(many(["a", "b"]))
    follower.poll()
    redis.flushdb()
    items.put(many(["c"]))
    assert follower.poll()
    assert follower.names == ["a", "b", "c"]


def test_versions_rise_within_one_put_and_when_the_clock_stands_behind(items, redis, follower):
    ahead = 4_000_000_000_000_000
    redis.zadd(ORDER_KEY, {b"old": ahead})
    redis.hset(KEY, b"old", b"")
    follower.poll()
    items.put(many(["a", "b", "c"]))
    assert [int(score) for _, score in redis.zrange(ORDER_KEY, 1, -1, withscores=True)] == [
        ahead + n for n in (1, 2, 3)
    ]
    assert follower.poll()
    assert follower.names == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (many([""]), "items[0].external_id"),
        (many(["fine", "x" * 129]), "items[1].external_id"),
        (many(["new\nline"]), "items[0].external_id"),
        (many(["zero\x00"]), "items[0].external_id"),
        (named("\ud800"), "items[0].external_id"),
        (many([]), "items"),
        (many([str(number) for number in range(PUT_MAX_COUNT + 1)]), "items"),
        (item_of("a", "c" * 257), "items[0].category"),
        (item_of("a", title="t" * 513), "items[0].title"),
        (item_of("a", title="\ud800"), "items[0].title"),
        (named("a"), "items[0].item"),
        (Catalogue(HATS.item, HATS.external_id, HATS.category, np.array([-1])), "items[0].price_minor"),
        (Catalogue(HATS.item, HATS.external_id, HATS.category, np.array([2**53])), "items[0].price_minor"),
    ],
)
def test_what_is_not_acceptable_is_refused_by_its_field_and_nothing_is_put(items, redis, bad, field):
    with pytest.raises(InvalidInput) as refused:
        items.put(bad)
    assert {violation.field for violation in refused.value.violations} == {field}
    assert not redis.exists(KEY, ORDER_KEY)


def test_hostile_names_are_names_like_others(items, follower):
    hostile = ["{segue:new_items}", "*", "') redis.call('FLUSHALL')", "../../x", "🙂" * 128, " ", "%s%n", "-1"]
    items.put(many(hostile))
    follower.poll()
    assert follower.names == hostile
    with pytest.raises(InvalidInput, match="external_ids"):
        items.remove(["a", "\x00"])


@pytest.mark.parametrize("record", [b"{", b"[]", b'{"category": "", "title": ""}', b'"text"', b"\xff\xfe", b"1"])
def test_records_that_are_none_are_told_as_such(items, redis, follower, record):
    redis.hset(KEY, "a", record)
    redis.zadd(ORDER_KEY, {"a": 7})
    with pytest.raises(StoreCorrupted):
        follower.poll()
    with pytest.raises(StoreCorrupted):
        items.newest(5)


def test_keys_of_another_type_and_a_store_that_is_away(items, redis, follower):
    redis.set(ORDER_KEY, "x")
    with pytest.raises(StoreCorrupted):
        follower.poll()
    with pytest.raises(StoreCorrupted):
        items.put(HATS)
    away = f"127.0.0.1:{free_port()}"
    with pytest.raises(StoreUnavailable):
        Follower(away).poll()
    with pytest.raises(StoreUnavailable):
        NewItems(Redis.from_url(redis_url(away))).put(HATS)


def test_the_command_adds_lists_and_removes(scratch, redis, follower, capsys):
    def run(*arguments):
        status = main(["item", *arguments, "--redis", scratch])
        return status, capsys.readouterr()

    add = ["add", "--id", "sku-hats", "--category", "clothes/hats", "--title", "hats", "--price-minor", "1990"]
    assert run(*add)[0] == 0
    assert "0 added" in run(*add)[1].out
    follower.poll()
    assert follower.newcomers.told()[2].tolist() == content().vectors(HATS).tolist()
    assert run("list")[1].out == "sku-hats clothes/hats 1990 hats\n"
    assert run("remove", "--id", "sku-hats")[0] == 0
    assert run("list")[1].out == ""
    status, said = run("add", "--category", "hats")
    assert (status, "external_id: is empty" in said.err) == (2, True)
    status, said = run("add", "--id", "a", "--price-minor", "-1")
    assert (status, "price_minor" in said.err) == (2, True)
