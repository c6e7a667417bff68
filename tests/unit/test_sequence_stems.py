"""Stems and cohorts against their definitions in plain Python."""

from collections import Counter

import numpy as np
import pytest

from models.sequence import stems as counting
from models.sequence.dataset import Cases, Corpus, Turns, sequences_of
from models.sequence.stems import REACH, Pairs, choose, cohorts_of, recommend
from segue.catalogue import Catalogue
from segue.errors import BundleError
from segue.events import NO_ITEM, Events, Kind
from segue.features.sequence import SEQUENCE_KINDS
from segue.history import Histories, Timelines
from segue.inference.cohorts import (
    CATEGORIES,
    CATEGORIES_MAX,
    DEPTH,
    NO_STEM,
    STEM_ITEMS_MAX,
    STEMS,
    Categories,
    Cohorts,
    beginning,
    common_names,
    stems,
    word_count,
)

KINDS = [
    Kind.PRODUCT_VIEWED,
    Kind.PRODUCT_ADDED,
    Kind.PRODUCTS_SEARCHED,
    Kind.RECOMMENDATION_SHOWN,
    Kind.PRODUCT_REMOVED,
]
ITEMS = [11, 12, 13, 14, 15, 16, -4]
CATEGORY = {11: "shoes", 12: "shoes", 13: "hats", 14: "", 15: "hats"}
NOW = 10_000
NOTHING = np.empty(0, np.int64)


def catalogue():
    item = np.array(list(CATEGORY), np.int64)
    names = np.array([f"sku-{each}" for each in item], object)
    return Catalogue(item, names, np.array(list(CATEGORY.values()), object), np.zeros(len(item), np.int64))


def log(seed, customers=40):
    """A log of up to nine events each, some of them sent twice, some without an item, some after NOW."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(customers, dtype=np.int32), rng.integers(0, 10, customers))
    count = len(owner)
    kind = rng.choice(KINDS, count).astype(np.uint8)
    item = np.where(np.isin(kind, [Kind.PRODUCTS_SEARCHED]), NO_ITEM, rng.choice(ITEMS, count))
    time_ms = rng.permutation(count) * 40
    columns = {"customer": owner, "kind": kind, "item": item, "event_time_ms": time_ms}
    columns |= {"available_time_ms": time_ms, "event_id": rng.permutation(count).astype(np.uint64)}
    columns |= {"value_minor": np.zeros(count, np.int64)}
    again = rng.random(count) < 0.2
    columns = {name: np.concatenate([column, column[again]]) for name, column in columns.items()}
    names = np.array([f"c{number:03}" for number in range(customers)], object)
    return Events(names, **columns)


def counted(events, corpus, **parameters):
    categories = Categories.of(catalogue(), common_names(catalogue()))
    pairs = Pairs.known_at(Timelines.of(events), NOW, corpus.vocabulary, categories)
    return cohorts_of(pairs, corpus.popularity, categories, **parameters)


def naive_words(events):
    """By customer: the word and the item of each event that stems are made of."""
    told = {number: [] for number in range(len(events.customers))}
    rows = sorted(range(len(events)), key=lambda row: (events.event_time_ms[row], events.event_id[row]))
    ids = set()
    for row in rows:
        if events.event_time_ms[row] >= NOW or events.event_id[row] in ids:
            continue
        ids.add(events.event_id[row])
        kind, item = int(events.kind[row]), int(events.item[row])
        if kind != Kind.RECOMMENDATION_SHOWN:
            place = "nothing" if item == NO_ITEM else CATEGORY.get(item) or "unnamed"
            told[int(events.customer[row])].append(((kind, place), kind, item))
    return told


@pytest.mark.parametrize("seed", range(5))
def test_customers_share_a_stem_exactly_if_their_first_events_share_words(seed):
    events = log(seed)
    timelines = Timelines.of(events)
    everyone = np.arange(len(events.customers))
    now_ms = np.full(len(everyone), NOW)
    told = naive_words(events)
    categories = Categories.of(catalogue(), common_names(catalogue()))
    for depth in range(DEPTH + 1):
        found = stems(timelines.as_of(everyone, now_ms), now_ms, categories, depth).tolist()
        words = [tuple(word for word, _, _ in told[customer][:depth]) for customer in everyone.tolist()]
        assert len(set(zip(found, words, strict=True))) == len(set(found)) == len(set(words))
        assert all((stem == NO_STEM) == (not spoken) for stem, spoken in zip(found, words, strict=True))
        assert word_count(np.array(found)).tolist() == [len(spoken) for spoken in words]
        whole = stems(timelines.as_of(everyone, now_ms), now_ms, categories)
        assert beginning(whole, depth).tolist() == found


def test_an_item_of_an_unknown_category_is_no_item_without_a_category():
    categories = Categories.of(catalogue(), ("hats",))
    codes = categories.codes(np.array([13, 15, 11, 14, 99, NO_ITEM]))
    assert codes[0] == codes[1]
    assert codes[2] == codes[3] == codes[4]
    assert len({codes[0], codes[2], codes[5]}) == 3
    assert Categories("", NOTHING, NOTHING.astype(np.int16)).codes(np.array([11, NO_ITEM])).tolist() == [
        codes[2],
        codes[5],
    ]


def test_only_the_largest_categories_have_names():
    count = CATEGORIES_MAX + 5
    category = np.array([f"c{number:05}" for number in range(count)] * 2 + ["c00003", "c04093"], object)[5:]
    item = np.arange(1, len(category) + 1)
    names = common_names(Catalogue(item, category, category, np.zeros(len(item), np.int64)))
    assert len(names) == CATEGORIES_MAX
    assert {"c04093", "c00010"} <= set(names)
    assert set(names) & {f"c{number:05}" for number in range(5)} == {"c00003"}


def naive_counts(events, vocabulary, step_decay):
    """By stem: the weight of each item that followed, and the customers it followed for."""
    counts, customers = {}, {}
    for customer, told in naive_words(events).items():
        for depth in range(DEPTH + 1):
            stem = tuple(word for word, _, _ in told[:depth])
            own = {item for _, _, item in told[:depth]}
            turns = []
            previous = None
            for word_at in range(depth, len(told)):
                _, kind, item = told[word_at]
                good = kind in SEQUENCE_KINDS and item in vocabulary and item not in own
                if good and previous != item:
                    turns.append(item)
                previous = item if kind in SEQUENCE_KINDS and item in vocabulary else None
            for step, item in enumerate(turns[:REACH]):
                counts.setdefault(stem, Counter())[item] += step_decay**step
                customers.setdefault(stem, set()).add(customer)
    return counts, customers


def naive_share(counts, stem, item, popularity, smoothing):
    if stem is None:
        return popularity[item]
    own = counts[stem]
    above = naive_share(counts, stem[:-1] if stem else None, item, popularity, smoothing)
    return (own[item] + smoothing * above) / (sum(own.values()) + smoothing)


@pytest.mark.parametrize("seed", range(4))
def test_cohorts_are_the_smoothed_counts(seed):
    events = log(seed, customers=120)
    known = ITEMS[:6]
    corpus = Corpus.of(sequences_of([np.array(known), np.array([known[0], known[1], known[0]])]))
    index = {item: int(corpus.vocabulary.index(np.array([item]))[0]) for item in known}
    popularity = {item: corpus.popularity[index[item]] / corpus.popularity.sum() for item in known}
    support, smoothing, step_decay = 3, 4.0, 0.6
    timelines = Timelines.of(events)
    made = counted(events, corpus, support=support, smoothing=smoothing, step_decay=step_decay)
    counts, customers = naive_counts(events, known, step_decay)
    kept = {stem for stem in counts if len(customers[stem]) >= support}
    assert len(made) == len(kept)
    everyone = np.arange(len(events.customers))
    now_ms = np.full(len(everyone), NOW)
    whole = stems(timelines.as_of(everyone, now_ms), now_ms, made.categories)
    told = naive_words(events)
    for customer, position in enumerate(made.find(whole).tolist()):
        words = tuple(word for word, _, _ in told[customer][:DEPTH])
        while words not in kept:
            words = words[:-1]
        shares = {item: naive_share(counts, words, item, popularity, smoothing) for item in known}
        found, share = made.entries(position)
        assert share == pytest.approx(sorted(shares.values(), reverse=True), rel=1e-5)
        named = {int(corpus.vocabulary.item[place]): value for place, value in zip(found, share.tolist(), strict=True)}
        assert named == pytest.approx(shares, rel=1e-5)
        unheard = naive_share({stem: Counter(counts[stem]) for stem in counts}, words, known[0], popularity, smoothing)
        rest = float(made.rest[position])
        assert 0 < rest <= 1
        assert rest * popularity[known[0]] <= unheard + 1e-9


def test_the_rest_is_what_an_item_nobody_of_the_cohort_turned_to_has():
    customers, first, then = [0, 1, 2, 3], 11, 12
    columns = {
        "customer": np.repeat(np.array(customers, np.int32), 2),
        "kind": np.full(8, Kind.PRODUCT_VIEWED, np.uint8),
        "item": np.array([first, then] * 4),
        "event_time_ms": np.arange(8),
        "available_time_ms": np.arange(8),
        "event_id": np.arange(8, dtype=np.uint64),
        "value_minor": np.zeros(8, np.int64),
    }
    events = Events(np.array(list("abcd"), object), **columns)
    corpus = Corpus.of(sequences_of([np.array([first, then, 13, 13])]))
    made = counted(events, corpus, support=2, smoothing=2.0, step_decay=1.0)
    everybody, viewed_shoes = 2 / (8 + 2), 2 / (8 + 2) * 2 / (4 + 2)
    assert made.rest.tolist() == pytest.approx([everybody, viewed_shoes])
    index, share = made.entries(1)
    by_item = dict(zip(corpus.vocabulary.item[index].tolist(), share.tolist(), strict=True))
    assert by_item[13] == pytest.approx(viewed_shoes * 0.5)


def test_cohorts_are_bounded_and_keep_the_beginnings_of_what_they_keep(monkeypatch):
    monkeypatch.setattr(counting, "STEMS_MAX", 5)
    corpus = Corpus.of(sequences_of([np.array(ITEMS)]))
    made = counted(log(1, customers=200), corpus, support=2, smoothing=1.0, step_decay=1.0)
    assert len(made) == 5
    for depth in range(DEPTH):
        assert np.isin(beginning(made.stem, depth), made.stem).all()
    assert np.diff(made.offsets).max() <= STEM_ITEMS_MAX


@pytest.fixture
def made():
    corpus = Corpus.of(sequences_of([np.array(ITEMS)]))
    return counted(log(2), corpus, support=2, smoothing=1.0, step_decay=0.5)


def test_cohorts_come_back_as_they_were_saved(made, tmp_path):
    made.save(tmp_path)
    loaded = Cohorts.load(tmp_path / STEMS, tmp_path / CATEGORIES, len(ITEMS) + 1)
    assert loaded.categories.names == made.categories.names
    for name in ("stem", "offsets", "index", "share", "rest"):
        assert (getattr(loaded, name) == getattr(made, name)).all()
        assert getattr(loaded, name).dtype == getattr(made, name).dtype
    assert (loaded.categories.codes(np.array([*ITEMS, 0])) == made.categories.codes(np.array([*ITEMS, 0]))).all()


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("stem", lambda stem: stem[::-1]),
        ("stem", lambda stem: stem[:-1]),
        ("offsets", lambda offsets: offsets + 1),
        ("index", lambda index: index + 1_000_000),
        ("index", lambda index: index.astype(np.int64)),
        ("index", lambda index: index - index.max()),
        ("share", lambda share: -share),
        ("share", lambda share: share[1:]),
        ("rest", lambda rest: rest + 2),
        ("code", lambda code: code + np.int16(100)),
        ("item", lambda item: item[::-1]),
    ],
)
def test_altered_cohorts_are_refused(made, tmp_path, name, wrong):
    made.save(tmp_path)
    with np.load(tmp_path / STEMS) as file:
        arrays = dict(file)
    np.savez(tmp_path / STEMS, **arrays | {name: wrong(arrays[name])})
    with pytest.raises(BundleError, match=STEMS):
        Cohorts.load(tmp_path / STEMS, tmp_path / CATEGORIES, len(ITEMS) + 1)


@pytest.mark.parametrize("names", ["[", "7", '[1, "hats"]', '["hats"]'])
def test_names_that_do_not_fit_are_refused(made, tmp_path, names):
    made.save(tmp_path)
    (tmp_path / CATEGORIES).write_text(names)
    with pytest.raises(BundleError):
        Cohorts.load(tmp_path / STEMS, tmp_path / CATEGORIES, len(ITEMS) + 1)


def test_where_the_first_category_decides_validation_finds_cohorts_that_beat_what_is_popular():
    rng = np.random.default_rng(7)
    customers, shelf = 400, {"hats": np.arange(100, 120), "shoes": np.arange(200, 220)}
    item = np.concatenate([rng.choice(shelf[name], 4, replace=False) for name in rng.choice(list(shelf), customers)])
    time_ms = np.arange(len(item))
    columns = {
        "customer": np.repeat(np.arange(customers, dtype=np.int32), 4),
        "kind": np.full(len(item), Kind.PRODUCT_VIEWED, np.uint8),
        "item": item,
        "event_time_ms": time_ms,
        "available_time_ms": time_ms,
        "event_id": time_ms.astype(np.uint64),
        "value_minor": np.zeros(len(item), np.int64),
    }
    events = Events(np.array([f"c{number}" for number in range(customers)], object), **columns)
    both = np.concatenate(list(shelf.values()))
    names = np.array([f"sku-{each}" for each in both], object)
    category = np.array([name for name in shelf for _ in shelf[name]], object)
    # Two items newer than training, whose category is known.
    all_items = Catalogue(
        np.append(both, [1, 2]),
        np.append(names, ["new hat", "new shoe"]),
        np.append(category, ["hats", "shoes"]),
        np.zeros(len(both) + 2, np.int64),
    )
    timelines = Timelines.of(events)
    corpus = Corpus.known_at(timelines, int(time_ms[-1]) + 1)
    categories = Categories.of(all_items, common_names(all_items))
    asked = Histories(
        np.arange(201),
        time_ms[:200],
        np.full(200, 1, np.uint8),
        np.tile([1, 2], 100),
        time_ms[:200],
        time_ms[:200].astype(np.uint64),
    )
    stem = stems(asked, np.full(200, 1000), categories)
    wanted = np.stack([rng.choice(shelf["hats"], 100), rng.choice(shelf["shoes"], 100)], axis=1).ravel()
    turns = Turns(np.arange(200), wanted, np.full(200, 1000))
    cases = Cases(turns, sequences_of([np.array([each]) for each in asked.item]), 0, 200)
    pairs = Pairs.known_at(timelines, int(time_ms[-1]) + 1, corpus.vocabulary, categories)
    chosen = choose(pairs, corpus, categories, stem, cases)
    made = cohorts_of(pairs, corpus.popularity, categories, **chosen)
    best = recommend(made, corpus, stem, cases.prefixes)
    popular = recommend(made, corpus, np.zeros_like(stem), cases.prefixes)
    hits = [(lists[:, :10] == wanted[:, None]).any(axis=1).mean() for lists in (best, popular)]
    assert hits[0] > 1.6 * hits[1]
    assert (np.isin(best[::2, :10], shelf["hats"])).all()
