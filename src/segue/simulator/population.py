"""Who shops and what is sold: the latent facts, drawn once from the seed."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Self

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from segue.catalogue import Catalogue
from segue.events import NO_ITEM, item_id
from segue.simulator.config import ShopConfig

Floats = NDArray[np.float64]

FOLLOWER_COUNT = 8
FOLLOWER_WEIGHT: Floats = 0.6 ** np.arange(FOLLOWER_COUNT) / (0.6 ** np.arange(FOLLOWER_COUNT)).sum()
"""How likely each of an item's followers is the one that follows."""
TASTE_SHARPNESS = 4.0
STYLE_SHARPNESS = 3.0
FRESH_DAYS = 7.0


class Stream(IntEnum):
    """Independent streams of random numbers: what one draws never shifts what another does."""

    POPULATION = 0
    DYNAMICS = 1
    VISITS = 2
    DELIVERY = 3


def generator(config: ShopConfig, stream: Stream, day: int = 0) -> Generator:
    """The random numbers of one stream on one day."""
    return np.random.default_rng([config.seed, stream, day])


def unit(vectors: Floats) -> Floats:
    """Each row scaled to length 1."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@dataclass(frozen=True, eq=False)
class Customers:
    """n customers as nobody can see them."""

    taste: Floats  # (n, d) unit vectors
    sessions_per_day: Floats  # (n,) while exploring
    need: Floats  # (n,) multiplies how readily exploring turns into evaluating
    leaving_per_day: Floats  # (n,) hazard of leaving for good, before the intent's share in it
    arrival_day: NDArray[np.int64]  # (n,) first day of the shop on which sessions may happen

    def __len__(self) -> int:
        return len(self.need)

    @classmethod
    def draw(cls, config: ShopConfig, random: Generator) -> Self:
        """The customers of `config`."""
        count = config.customers
        arriving = random.random(count) < config.arriving_ratio
        hazard = -np.log1p(-config.leaving_ratio) / 30
        return cls(
            taste=unit(random.standard_normal((count, config.taste_dimension))),
            sessions_per_day=config.sessions_per_day * np.exp(random.normal(0, 0.8, count).clip(-2, 2)),
            need=np.exp(random.normal(-0.3, 0.9, count).clip(-2, 2)),
            leaving_per_day=hazard * random.gamma(2.0, 0.5, count).clip(0, 5),
            arrival_day=np.where(arriving, random.integers(0, config.days, count), 0),
        )


@dataclass(frozen=True, eq=False)
class Items:
    """m items: what everybody sees (`catalogue`) and what nobody does.

    `style_weight[c, i]` is how much somebody in the mood for category c wants item i: its popularity times the
    exponential of its likeness to the category. `followers[i]` are the items a view of i leads to, most likely first.
    """

    catalogue: Catalogue
    item_or_none: NDArray[np.int64]  # (m + 1,) the catalogue's ids, then NO_ITEM at the place that -1 points to
    price_or_none: NDArray[np.int64]  # (m + 1,) minor units, then 0
    vector: Floats  # (m, d)
    centroid: Floats  # (categories, d) unit vectors
    style_weight: Floats  # (categories, m)
    launch_day: NDArray[np.int64]  # (m,)
    followers: NDArray[np.int32]  # (m, FOLLOWER_COUNT) positions

    def __len__(self) -> int:
        return len(self.launch_day)

    @classmethod
    def draw(cls, config: ShopConfig, random: Generator) -> Self:
        """The items of `config`; every category has one, and one item is on sale from the first day."""
        count, categories = config.items, config.categories
        centroid = unit(random.standard_normal((categories, config.taste_dimension)))
        category = np.arange(count) % categories
        random.shuffle(category)
        noise = random.standard_normal((count, config.taste_dimension)) / np.sqrt(config.taste_dimension)
        vector = centroid[category] + 0.5 * noise
        likeness = np.exp(STYLE_SHARPNESS * (centroid @ vector.T))
        popularity = (random.permutation(count) + 10.0) ** -0.7
        launching = random.random(count) < config.launching_ratio
        launch_day = np.where(launching, random.integers(0, config.days, count), 0)
        launch_day[0] = 0
        followers = Lottery.of(likeness).draw(np.repeat(category, FOLLOWER_COUNT), random)
        followers = followers.reshape(count, FOLLOWER_COUNT)
        itself = followers == np.arange(count)[:, None]
        base_price = np.exp(random.normal(8.0, 0.7, categories))
        price = np.maximum(99, (base_price[category] * np.exp(random.normal(0, 0.4, count))).astype(np.int64))
        catalogue = describe(category, price)
        return cls(
            catalogue=catalogue,
            item_or_none=np.append(catalogue.item, NO_ITEM),
            price_or_none=np.append(price, 0),
            vector=vector,
            centroid=centroid,
            style_weight=likeness * popularity,
            launch_day=launch_day,
            followers=np.where(itself, (followers + 1) % count, followers).astype(np.int32),
        )


def describe(category: NDArray[np.integer], price_minor: NDArray[np.int64]) -> Catalogue:
    """The catalogue of items named `item-0`, `item-1`, ... in categories `category-0`, ..."""
    names = [f"item-{i}" for i in range(len(category))]
    return Catalogue(
        item=np.array([item_id(name) for name in names], np.int64),
        external_id=np.array(names, np.object_),
        category=np.array([f"category-{c}" for c in category], np.object_),
        price_minor=price_minor,
    )


@dataclass(frozen=True, eq=False)
class Lottery:
    """Draws positions from r rows of weights over w positions, by bisection."""

    width: int
    ladder: Floats  # (r * w,) ascending: the running sums of row k, scaled into (k, k + 1]

    @classmethod
    def of(cls, weight: Floats) -> Self:
        """A lottery over `weight`, shape (r, w), >= 0, some of each row above 0."""
        running = np.cumsum(weight, axis=1)
        return cls(weight.shape[1], (running / running[:, -1:] + np.arange(len(weight))[:, None]).ravel())

    def draw(self, row: NDArray[np.integer], random: Generator) -> NDArray[np.int64]:
        """One position for each of `row`, shape (n,); never one of weight 0."""
        ticket = np.minimum(random.random(len(row)) + row, np.nextafter(row + 1.0, 0.0))
        return np.searchsorted(self.ladder, ticket, side="right") - row * self.width


@dataclass(frozen=True, eq=False)
class Shelf:
    """What is on sale on one day, and how likely somebody in the mood for a category views it."""

    probability: Floats  # (categories, m), each row sums to 1
    launched: NDArray[np.bool_]  # (m,)

    @classmethod
    def on(cls, day: int, items: Items) -> Self:
        """The shelf of `day`: items just launched draw up to three times the views, fading over about a week."""
        age = day - items.launch_day
        fresh = np.where(items.launch_day > 0, 2.0 * np.exp(-np.maximum(age, 0) / FRESH_DAYS), 0.0)
        weight = items.style_weight * ((age >= 0) * (1.0 + fresh))
        return cls(weight / weight.sum(axis=1, keepdims=True), age >= 0)


def mood(taste: Floats, items: Items) -> Floats:
    """How likely customers of these tastes, shape (n, d), are in the mood for each category, shape (n, categories)."""
    weight = np.exp(TASTE_SHARPNESS * (taste @ items.centroid.T))
    return weight / weight.sum(axis=1, keepdims=True)
