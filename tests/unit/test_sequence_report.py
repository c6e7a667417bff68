"""The report: reasons against an oracle, parts and map against their definitions, and a page that nothing can break."""

import html.parser
import math
from dataclasses import dataclass, field

import numpy as np
import pytest

from models.sequence import report
from models.sequence.config import Config
from models.sequence.dataset import Cases, Corpus, Dataset, Turns, sequences_of
from models.sequence.evaluate import CUTOFFS, MODEL, evaluate
from models.sequence.export import export_graph
from models.sequence.model import SequenceModel
from models.sequence.report import FirstSeen, Items, Subject
from models.sequence.report.embedding_map import CATEGORIES, PALETTE, likeness, palette, project
from models.sequence.report.examples import EXAMPLES, LENGTHS_FROM, draw, examples, explain, without
from models.sequence.report.parts import DAY_MS, by_customer, by_item_age
from models.sequence.report.text import duration, shown
from models.sequence.run import Epoch
from segue.catalogue import Catalogue
from segue.events import Events
from segue.inference.sequence import LIMIT_MAX, Recommendation, Rung, Vocabulary

COUNT = 160
ITEM = 10 * np.arange(1, COUNT + 1)
HOSTILE = '</title><script>alert("1")</script>\u202e\x00\ud800$\\frac{'


@dataclass
class Additive:
    """A scorer whose reasons are known: an item's score is the sum of what the items of the window give it."""

    length: int = 6
    vocabulary: Vocabulary = field(default_factory=lambda: Vocabulary.of(ITEM))
    calls: int = 0

    def __post_init__(self):
        rng = np.random.default_rng(1)
        self.gives = rng.normal(size=(COUNT + 1, COUNT + 1)).round(3)

    def scores(self, item):
        index = self.vocabulary.index(np.array(item, np.int64))
        return self.gives[index[index > 0][-self.length :]].sum(axis=0)

    def recommend(self, sequences, *, exclude, limit, include_seen=False):
        self.calls += 1
        answers = []
        for row in range(len(sequences)):
            item = sequences.item[sequences.offsets[row] : sequences.offsets[row + 1]]
            index = self.vocabulary.index(item)
            score = self.scores(item) if index.any() else 1000 - np.arange(COUNT + 1.0)
            barred = np.union1d(exclude[row], [] if include_seen else item)
            order = [each for each in np.argsort(-score, kind="stable") if each and ITEM[each - 1] not in barred]
            order = np.array(order[:limit])
            rung = Rung.SEQUENCE if index.any() else Rung.POPULAR
            answers.append(Recommendation(ITEM[order - 1], [""] * len(order), score[order].astype(np.float32), rung))
        return answers


def cases_of(prefixes, targets, customers, time_ms=None):
    times = np.zeros(len(targets), np.int64) if time_ms is None else np.array(time_ms)
    turns = Turns(np.array(customers), np.array(targets), times)
    return Cases(turns, sequences_of([np.array(each, np.int64) for each in prefixes]), 0, len(targets))


def catalogue_of(names, categories):
    return Catalogue(ITEM, np.array(names, object), np.array(categories, object), np.zeros(len(ITEM), np.int64))


def seen_at(item, time_ms):
    return FirstSeen(np.array(item), np.array(time_ms))


@pytest.mark.parametrize("include_seen", [False, True])
def test_a_reason_is_the_past_item_that_gives_most(include_seen):
    scorer, rng = Additive(), np.random.default_rng(2)
    for _ in range(40):
        past = rng.choice(ITEM, size=rng.integers(2, scorer.length + 1), replace=False)
        answer, reasons = explain(scorer, sequences_of([past]), include_seen=include_seen)
        for item, reason in zip(answer.item.tolist(), reasons, strict=False):
            given = {each: scorer.gives[each // 10, item // 10] for each in past.tolist()}
            strongest = max(given, key=given.get)
            left = scorer.scores([each for each in past if each != strongest])
            barred = {0} if include_seen else {0, *(past // 10)}
            order = [each for each in np.argsort(-left, kind="stable") if each not in barred]
            place = order.index(item // 10) + 1
            if place <= LIMIT_MAX and reason.place:
                assert (reason.item, reason.place) == (strongest, place)
                assert reason.drop == pytest.approx(given[strongest], abs=1e-4)
            else:  # what fell out of sight fell by no less than is said
                assert reason.place == 0
                assert reason.drop <= given[reason.item] + 1e-4


def test_reasons_take_one_call_and_only_what_the_model_reads():
    scorer = Additive(length=3)
    past = np.array([50, 7, 10, 20, 10, 7, 30])  # 7 is unknown; the three newest known ones are 20, 10, 30
    _, reasons = explain(scorer, sequences_of([past]), include_seen=True)
    assert scorer.calls == 1
    assert {each.item for each in reasons if each is not None} <= {10, 20, 30}


def test_what_hangs_on_the_only_known_item_has_no_other_reason():
    _, reasons = explain(Additive(), sequences_of([np.array([7, 40, 8])]), include_seen=False)
    assert [(each.item, each.drop) for each in reasons] == [(40, math.inf)] * 5
    answer, reasons = explain(Additive(), sequences_of([np.array([7, 8])]), include_seen=False)
    assert answer.fallback is Rung.POPULAR
    assert reasons == [None] * 5


def test_without_an_item_all_its_turns_are_gone():
    left = without(sequences_of([np.array([1, 2, 1, 3])]), 1)
    assert left.item.tolist() == [2, 3]
    assert left.offsets.tolist() == [0, 2]


def test_examples_are_of_several_lengths_and_customers_and_the_same_every_time():
    rng = np.random.default_rng(3)
    lengths = rng.permutation(np.repeat([0, 1, 4, 12, 40], 20))
    cases = cases_of([rng.choice(ITEM, size=each) for each in lengths], rng.choice(ITEM, 100), np.arange(100) // 2)
    rows = draw(cases, EXAMPLES)
    assert np.bincount(np.digitize(lengths[rows], LENGTHS_FROM), minlength=5).tolist() == [0, 2, 2, 2, 2]
    assert len(set(cases.turns.customer[rows].tolist())) == EXAMPLES
    assert rows.tolist() == draw(cases, EXAMPLES).tolist()
    assert len(draw(cases_of([[], [10]], [10, 20], [0, 1]), EXAMPLES)) == 1


def test_an_example_says_what_came_next_and_where_it_stood():
    scorer = Additive()
    prefix, best = [10, 20], None
    best = scorer.recommend(sequences_of([np.array(prefix)]), exclude=[np.empty(0)], limit=20)[0].item
    cases = cases_of([prefix, prefix, prefix], [best[2], 5, best[0]], [0, 1, 1])
    evaluation = judged(cases, scorer)
    found = {each.next_item: each for each in examples(evaluation, scorer, include_seen=False)}
    assert found[int(best[2])].place == 3
    assert found[int(best[2])].is_known
    if 5 in found:
        assert (found[5].place, found[5].is_known) == (0, False)
    for example in found.values():
        assert [each.item for each in example.recommended] == best[:5].tolist()


def judged(cases, scorer):
    def model(prefixes):
        exclude = [np.empty(0, np.int64)] * len(prefixes)
        answers = scorer.recommend(prefixes, exclude=exclude, limit=max(CUTOFFS))
        return np.array([each.item for each in answers])

    return evaluate(
        cases, scorer.vocabulary, model, {"popularity": lambda prefixes: np.tile(ITEM[:20], (len(cases), 1))}
    )


def test_first_seen_is_the_oldest_event_of_an_item():
    rng = np.random.default_rng(4)
    item, time_ms = rng.integers(1, 30, 300), rng.integers(0, 1 << 40, 300)
    nothing = np.zeros(300, np.int64)
    events = Events(
        np.array(["c"], object),
        nothing.astype(np.int32),
        np.arange(300, dtype=np.uint64),
        nothing.astype(np.uint8),
        item,
        time_ms,
        time_ms,
        nothing,
    )
    asked = Turns(np.zeros(40, np.int64), np.arange(40), np.full(40, 1 << 39))
    expected = [max([0, *((1 << 39) - time_ms[item == each])]) for each in range(40)]
    assert FirstSeen.of(events).age_ms(asked).tolist() == expected
    assert seen_at([], []).age_ms(asked).tolist() == [0] * 40


def test_parts_are_by_age_of_the_item_and_by_what_is_known_of_the_customer():
    prefixes = [[], [10], [10, 20], [10, 20, 30], [7], [10]]
    days = np.array([0, 0.5, 1, 7, 28, 100])
    cases = cases_of(prefixes, [10, 20, 30, 40, 50, 7], range(6), (days * DAY_MS).astype(np.int64))
    items = Items(
        Vocabulary.of(ITEM), catalogue_of(ITEM.astype(str), [""] * COUNT), seen_at([7, *ITEM], [0] * (COUNT + 1))
    )
    evaluation = judged(cases, Additive())
    ages = {part: np.flatnonzero(inside).tolist() for part, inside in by_item_age(evaluation, items).items()}
    assert ages == {
        "new after training": [5],
        "seen < 1 day": [0, 1],
        "seen 1-7 days": [2],
        "seen 7-28 days": [3],
        "seen 28+ days": [4, 5],
    }
    customers = {part: np.flatnonzero(inside).tolist() for part, inside in by_customer(evaluation, items).items()}
    assert customers == {
        "cold: nothing": [0],
        "cold: 1 item": [1, 4, 5],
        "cold: 2 items": [2],
        "warm: 3+ items": [3],
        "items, none known": [4],
    }


def test_the_map_shows_the_directions_of_greatest_variance():
    rng = np.random.default_rng(5)
    turned = np.linalg.qr(rng.normal(size=(7, 7)))[0]
    vectors = rng.normal(size=(400, 7)) * [0.1, 5, 0.1, 0.1, 2, 0.1, 0.1] @ turned + 3
    plane = project(vectors.astype(np.float32))
    assert np.abs(plane.point.mean(axis=0)).max() < 1e-3
    variance = np.sort(np.linalg.eigvalsh(np.cov(vectors.T, ddof=0)))[::-1]
    np.testing.assert_allclose(plane.point.var(axis=0), variance[:2], rtol=1e-4)
    assert plane.explained == pytest.approx((25 / 29, 4 / 29), abs=0.05)
    assert abs(np.corrcoef(plane.point.T)[0, 1]) < 1e-4
    assert project(np.ones((5, 3), np.float32)).explained == (0, 0)


def test_likeness_tells_categories_that_lie_together_from_those_that_do_not():
    rng = np.random.default_rng(6)
    category = np.array([f"c{each}" for each in np.repeat(np.arange(4), 50)] + [""] * 20, object)
    centres = rng.normal(size=(5, 16))[np.repeat(np.arange(5), [50, 50, 50, 50, 20])]
    together = centres + 0.1 * rng.normal(size=(220, 16))
    unit = (together / np.linalg.norm(together, axis=1, keepdims=True)).astype(np.float32)
    near, other = likeness(unit, category)
    assert near == 1
    assert other == pytest.approx(49 / 199)
    assert likeness(unit, rng.permutation(category))[0] < 0.4
    assert np.isnan(likeness(unit, np.full(220, "", object))).all()


def test_the_embedding_read_from_an_exported_graph_is_the_models(tmp_path):
    config = Config(length=5, width=8, blocks=1)
    vocabulary = Vocabulary.of(ITEM[:31])
    model = SequenceModel(config, len(vocabulary)).eval()
    export_graph(model, tmp_path / "model.onnx")
    read = report.exported_embedding(tmp_path / "model.onnx", vocabulary)
    np.testing.assert_array_equal(read, model.item.weight.detach().numpy())
    assert report.exported_embedding(tmp_path / "model.onnx", Vocabulary.of(ITEM[:30])) is None


def test_the_largest_categories_have_a_colour():
    names = np.array([f"c{each:02}" for each in range(15) for _ in range(each + 1)] + [""] * 99, object)
    colours = palette(names)
    assert list(colours) == [f"c{each:02}" for each in range(14, 14 - CATEGORIES, -1)]
    assert list(colours.values()) == list(PALETTE)


def test_text_is_cut_escaped_and_marked_where_it_cannot_be_printed():
    assert shown("a<b>&\"'") == "<bdi>a&lt;b&gt;&amp;&quot;&#x27;</bdi>"
    assert shown("x\u202ey\x00z\ud800") == "<bdi>x\ufffdy\ufffdz\ufffd</bdi>"
    assert len(shown("é" * 10_000)) < 100
    assert [duration(each) for each in (999, 61_000, 7_200_000, 86_400_000 * 1200)] == [
        "0 s",
        "1 min",
        "2 h",
        "1,200 d",
    ]


class Strict(html.parser.HTMLParser):
    """Reads a page and notes every tag, and that each is closed by its own."""

    void = frozenset(["meta", "img", "br", "circle"])

    def __init__(self):
        super().__init__()
        self.open, self.tags = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.void:
            assert self.open.pop() == tag


@pytest.fixture(autouse=True)
def small_plots(monkeypatch):
    monkeypatch.setattr("models.sequence.report.plots.DPI", 20)


@pytest.fixture(scope="module")
def judgement():
    rng = np.random.default_rng(7)
    lengths = rng.integers(0, 40, 60)
    prefixes = [rng.choice([*ITEM, 7], size=each) for each in lengths]
    cases = cases_of(prefixes, rng.choice([*ITEM, 9], 60), np.arange(60) // 2, rng.integers(0, 40 * DAY_MS, 60))
    corpus = Corpus.of(sequences_of([*prefixes, ITEM]))
    dataset = Dataset(choosing=corpus, final=corpus, validation=cases, test=cases, cuts_ms=(0, 5), end_ms=40 * DAY_MS)
    return dataset, judged(cases, Additive())


def page_of(tmp_path, judgement, subject, name="next_item"):
    dataset, evaluation = judgement
    curve = [Epoch(2.0, 0.1, 1.0), Epoch(1.5, 0.2, 1.0), Epoch(1.2, 0.15, 1.0)]
    return report.write(tmp_path, Config(name=name), dataset, evaluation, curve, subject).read_text(encoding="utf-8")


def subject_of(names, categories, embedding=True):
    vectors = np.random.default_rng(8).normal(size=(COUNT + 1, 8)).astype(np.float32) if embedding else None
    catalogue = catalogue_of(names, categories)
    return Subject(
        Additive(), Items(Vocabulary.of(ITEM), catalogue, seen_at([7, 9, *ITEM], [0] * (COUNT + 2)), vectors)
    )


def test_a_page_holds_every_section_and_is_the_same_every_time(tmp_path, judgement):
    subject = subject_of([f"sku-{each}" for each in ITEM], [f"shelf-{each % 12}" for each in range(COUNT)])
    page = page_of(tmp_path, judgement, subject)
    for heading in ("Learning", "Cold items", "Cold customers", "Map of the items", "Examples", "Protocol"):
        assert f"<h2>{heading}</h2>" in page
    for measure in ("coverage@10", "novelty@10", "category diversity@10", "cosine diversity@10"):
        assert measure in page
    assert page.count('<section class="example">') == EXAMPLES
    assert "sku-" in page
    assert page == page_of(tmp_path, judgement, subject)


def test_a_page_is_whole_and_inert_whatever_items_are_called(tmp_path, judgement):
    page = page_of(tmp_path, judgement, subject_of([HOSTILE] * COUNT, [HOSTILE] * COUNT))
    reader = Strict()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    tags = {tag for tag, _ in reader.tags}
    assert not tags & {"script", "iframe", "link", "object"}
    attributes = [(name, value) for _, given in reader.tags for name, value in given.items()]
    assert not [name for name, _ in attributes if name.startswith("on")]
    assert all(value.startswith("data:image/png;base64,") for name, value in attributes if name in ("src", "href"))
    assert "\u202e" not in page
    assert "\x00" not in page


def test_a_page_names_no_customer(tmp_path, judgement):
    dataset, _ = judgement
    pseudonyms = dataset.test.turns.customer + 987_654_321_000
    turns = Turns(pseudonyms, dataset.test.turns.item, dataset.test.turns.time_ms)
    cases = Cases(turns, dataset.test.prefixes, 0, len(pseudonyms))
    subject = subject_of([f"sku-{each}" for each in ITEM], ["shelf"] * COUNT)
    page = page_of(tmp_path, (dataset, judged(cases, Additive())), subject)
    assert not [each for each in pseudonyms.tolist() if str(each) in page]


def test_a_page_does_without_categories_an_embedding_or_a_catalogue(tmp_path, judgement):
    empty = Catalogue(np.empty(0, np.int64), np.empty(0, object), np.empty(0, object), np.empty(0, np.int64))
    items = Items(Vocabulary.of(ITEM), empty, seen_at([], []), None)
    page = page_of(tmp_path, judgement, Subject(Additive(), items))
    assert "there is no map" in page
    assert "item 10" in page
    assert "cosine diversity" not in page
    with_map = page_of(tmp_path, judgement, subject_of(ITEM.astype(str), [""] * COUNT))
    assert "The catalogue names no categories." in with_map


def test_a_page_without_a_subject_has_the_judgement_only(tmp_path, judgement):
    page = page_of(tmp_path, judgement, None)
    assert "Examples" not in page
    assert f"{judgement[1].scores(MODEL)['ndcg@10'].mean:.4f}" in page
