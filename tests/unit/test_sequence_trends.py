"""What is trending counts where validation shows that it helps, and is asked for as of each question's own time."""

import numpy as np
import pytest

from models.sequence.blend import WEIGHTS, Blend
from models.sequence.dataset import Cases, Turns, sequences_of
from models.sequence.evaluate import by_scorer
from models.sequence.ladder import REFRESH_MS, Live
from models.sequence.trends import Following, by_cut, choose, trend_of
from segue.events import Events, Kind
from segue.inference.followers import LENGTHS, Followers, Mixture
from segue.inference.known import TREND_SMOOTHING
from segue.inference.sequence import Rung, SequenceScorer
from segue.inference.windows import Vocabulary

SIZE = 40
VOCABULARY = Vocabulary.of(np.arange(1, SIZE))
HOUR_MS = 3_600_000
START_MS = 1_780_000_000_000 // REFRESH_MS * REFRESH_MS


class Indifferent:
    """An encoder that expects every item alike."""

    length = 8

    def scores(self, windows):
        return np.zeros((len(windows), SIZE))


def events(item, time_ms):
    count = len(item)
    return Events(
        customers=np.array(["c"], object),
        customer=np.zeros(count, np.int32),
        event_id=np.arange(count, dtype=np.uint64),
        kind=np.full(count, Kind.PRODUCT_VIEWED, np.uint8),
        item=np.asarray(item, np.int64),
        event_time_ms=np.asarray(time_ms, np.int64),
        available_time_ms=np.asarray(time_ms, np.int64),
        value_minor=np.zeros(count, np.int64),
    )


@pytest.fixture(scope="module")
def live():
    """Every hour another item is looked at a hundred times, and ten others once."""
    rng = np.random.default_rng(1)
    hours = np.arange(200)
    item = np.concatenate([[1 + hour % (SIZE - 1)] * 100 + rng.integers(1, SIZE, 10).tolist() for hour in hours])
    time_ms = START_MS + np.concatenate([hour * HOUR_MS + np.sort(rng.integers(HOUR_MS, size=110)) for hour in hours])
    return Live.of(events(item, time_ms))


def asked(item, time_ms):
    count = len(item)
    prefixes = sequences_of([np.array([1 + SIZE // 2])] * count)
    return Cases(Turns(np.arange(count), np.asarray(item), np.asarray(time_ms)), prefixes, 0, count)


@pytest.fixture(scope="module")
def hours():
    return np.arange(60, 120)


@pytest.fixture(scope="module")
def trending(hours):
    """Asks, late in each hour, for what everybody looks at in it."""
    return asked(1 + hours % (SIZE - 1), START_MS + hours * HOUR_MS + 50 * 60_000)


def blend():
    mixture = Mixture(1.0, 1.0, (0.0,) * len(LENGTHS))
    return Blend(Indifferent(), Followers(Followers.none(SIZE).table, mixture))


def test_the_trend_counts_where_validation_shows_that_it_helps(live, trending):
    chosen = choose(blend(), live, VOCABULARY, trending, include_seen=True)
    assert chosen.trust[0] in WEIGHTS[1:]
    assert chosen.trust[1:] == (0.0,) * (len(LENGTHS) - 1)  # of which there was no case


def test_the_trend_counts_nothing_where_it_tells_nothing(live, hours):
    item = np.random.default_rng(3).permutation(1 + hours % (SIZE - 1))
    elsewhere = asked(item, START_MS + hours * HOUR_MS + 50 * 60_000)
    assert choose(blend(), live, VOCABULARY, elsewhere, include_seen=True) == blend().followers.mixture
    nobody = asked(np.empty(0, np.int64), np.empty(0, np.int64))
    assert choose(blend(), live, VOCABULARY, nobody, include_seen=True) == blend().followers.mixture


def test_a_trend_is_what_was_known_at_its_time(live):
    cut_ms = START_MS + 30 * HOUR_MS + 50 * 60_000
    said = trend_of(live, VOCABULARY, cut_ms)
    assert said.argmax() == 31
    assert said[0] == 0
    assert (said >= 0).all()
    assert said.max() <= np.log1p(1 / TREND_SMOOTHING)
    assert np.ptp(trend_of(live, VOCABULARY, START_MS)[1:]) == 0  # nothing had happened


def test_statistics_are_made_before_what_is_asked(trending):
    seen = np.zeros(len(trending), bool)
    newest = 0
    for cut_ms, rows in by_cut(trending):
        assert newest < cut_ms
        newest = cut_ms
        age_ms = trending.turns.time_ms[rows] - cut_ms
        assert ((age_ms >= 0) & (age_ms < REFRESH_MS)).all()
        seen[rows] = True
    assert seen.all()


def test_a_service_that_follows_is_asked_as_of_each_question(live, trending):
    popularity = np.arange(SIZE)[::-1].copy()
    scorer = SequenceScorer(
        rank=lambda _: pytest.fail("nobody has an item that it knows"),
        vocabulary=VOCABULARY,
        external_id=[str(each) for each in range(SIZE)],
        popularity=popularity,
        length=8,
        width=4,
        version="",
    )
    cases = Cases(trending.turns, sequences_of([np.empty(0, np.int64)] * len(trending)), 0, len(trending))
    before = by_scorer(scorer, include_seen=False)(cases.prefixes)
    assert (before[:, 0] == 1).all()
    best = Following(scorer, live, cases, include_seen=False)(cases.prefixes)
    assert (best[:, 0] == cases.turns.item).all()
    (answer,) = scorer.recommend(sequences_of([[]]), exclude=[np.empty(0, np.int64)], limit=1)
    assert answer.fallback is Rung.TRENDING
