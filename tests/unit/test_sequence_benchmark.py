"""The blend mixes what it says it mixes, and the benchmark judges every contender by the same rules."""

import dataclasses
import io
import json
import math

import numpy as np
import pytest
import torch
from rich.console import Console

from models.sequence import scoreboard
from models.sequence.baselines.linear import Linear
from models.sequence.benchmark import Benchmark
from models.sequence.blend import SMOOTHINGS, WEIGHTS, Blend, choose, strongest
from models.sequence.config import Config
from models.sequence.dataset import Cases, Turns, sequences_of
from models.sequence.evaluate import ndcg
from models.sequence.protocols import pose
from models.sequence.ranking import places, top
from segue.adapters.datasets import Dataset
from segue.catalogue import Catalogue
from segue.errors import InvalidInput
from segue.inference.followers import LENGTHS, Followers, Mixture, part
from segue.inference.windows import Vocabulary, Windows
from tests import sequence_log

SIZE = 8
VOCABULARY = Vocabulary.of(np.arange(1, SIZE))


@dataclasses.dataclass(frozen=True)
class Table:
    """Scores by the newest item alone."""

    table: np.ndarray
    length: int = 200

    def scores(self, windows):
        return self.table[windows.items[:, -1]].copy()


@pytest.fixture
def tables():
    rng = np.random.default_rng(1)
    counts = rng.random((SIZE, SIZE))
    counts[:, 0] = counts[0] = 0  # padding neither says anything nor is spoken for
    return Table(rng.normal(size=(SIZE, SIZE))), Linear(counts, np.zeros(SIZE), 0.7)


def windows(rows):
    width = max(map(len, rows))
    items = np.array([[0] * (width - len(row)) + row for row in rows])
    return Windows(items, items * 0, items * 0)


def test_a_blend_ranks_by_log_probability_and_the_weighted_log_of_what_was_counted(tables):
    encoder, counted = tables
    rows = [[1], [2, 3], [4, 5, 6, 7], [1] * 12, [2] * 150]
    mixture = Mixture(0.5, 0.01, (0.0, 0.5, 1.0, 2.0, 0.1))
    blend = Blend(encoder, Followers(strongest(counted.table), mixture))
    found = top(blend.scores(windows(rows)), np.zeros((5, 1), np.int64), SIZE - 1)
    for row, ranking in zip(rows, found.tolist(), strict=True):
        weight = mixture.weight[max(at for at, begin in enumerate(LENGTHS) if len(row) >= begin)]
        logits = encoder.table[row[-1]]
        total = sum(math.exp(each) for each in logits)
        count = sum(0.5**age * counted.table[item] for age, item in enumerate(row[:-33:-1]))
        score = [
            math.log(math.exp(logit) / total) + weight * math.log(each + 0.01)
            for logit, each in zip(logits, count, strict=True)
        ]
        assert ranking == sorted(range(1, SIZE), key=lambda item, score=score: -score[item])


def test_each_part_gets_the_weight_that_ranks_its_own_validation_cases_best(tables):
    encoder, counted = tables
    rng = np.random.default_rng(2)
    prefixes = [rng.integers(1, SIZE, size=size) for size in (*rng.integers(1, 13, size=60), 40, 120)]
    turns = Turns(np.arange(62), rng.integers(1, SIZE, size=62), np.zeros(62, np.int64))
    cases = Cases(turns, sequences_of(prefixes), 0, 62)
    chosen = choose(encoder, counted, VOCABULARY, cases, include_seen=True)

    def value(mixture, inside):
        blend = Blend(encoder, Followers(strongest(counted.table), mixture))
        return ndcg(places(blend, VOCABULARY, cases, include_seen=True), 10)[inside].sum()

    parts = part(VOCABULARY.windows(cases.prefixes).items)
    totals = []
    for smoothing in SMOOTHINGS:
        mixtures = [Mixture(counted.age_decay, smoothing, (weight,) * len(LENGTHS)) for weight in WEIGHTS]
        best = [max(value(mixture, parts == at) for mixture in mixtures) for at in range(len(LENGTHS))]
        totals.append(sum(best))
    assert value(chosen, parts >= 0) == pytest.approx(max(totals))


def test_the_strongest_followers_are_kept_in_the_order_of_the_vocabulary():
    table = np.array([[0, 0, 0, 0], [0, 3.0, 1.0, 2.0], [0, 1.0, 1.0, 1.0], [0, 0, -1.0, 0.5]])
    kept = strongest(table, 2)
    rows = [kept.index[start:stop].tolist() for start, stop in zip(kept.offsets, kept.offsets[1:], strict=False)]
    assert rows == [[], [1, 3], [1, 2], [3]]
    assert kept.weight.tolist() == [3.0, 2.0, 1.0, 1.0, 0.5]


CONFIG = dataclasses.replace(sequence_log.CONFIG, max_epochs=2, refit=False)


@pytest.fixture(scope="module", params=["leave-one-out", "temporal"])
def posed(request):
    torch.set_num_threads(1)
    empty = np.empty(0, object)
    catalogue = Catalogue(np.empty(0, np.int64), empty, empty, np.empty(0, np.int64))
    events = sequence_log.events(customers=120, turns=12)
    config = dataclasses.replace(CONFIG, refit=request.param == "temporal")
    return pose(request.param, Dataset("log", events, catalogue, ""), config)


def test_the_scoreboard_says_what_was_measured(posed, tmp_path):
    names = ["markov", "popularity", "transformer", "transformer+markov"]
    benchmark = Benchmark(posed, Console(file=io.StringIO()))
    evaluation = benchmark.run(names)
    measured = scoreboard.content(benchmark, evaluation, data="log", protocol="some", git_sha="")
    page = scoreboard.write(tmp_path, measured)
    assert json.loads(page.with_suffix(".json").read_text()) == json.loads(json.dumps(measured))
    assert list(measured["contenders"]) == names
    for name in names:
        contender = benchmark.contenders[name].scorer
        vocabulary = posed.split.final.vocabulary
        place = places(contender, vocabulary, posed.split.test, include_seen=posed.config.include_seen)
        mean = measured["contenders"][name]["metrics"]["ndcg@10"]["mean"]
        assert mean == pytest.approx(ndcg(np.where(place <= 20, place, 0), 10).mean())
        assert f"| {name} | " in page.read_text()
    assert measured["contenders"]["markov"]["metrics"]["ndcg@10"]["mean"] > 0.3
    assert measured["contenders"]["popularity"]["ahead_of_markov"]["ndcg@10"]["p_value"] < 0.01
    blended = benchmark.contenders["transformer+markov"]
    assert blended.fit_seconds > benchmark.contenders["transformer"].fit_seconds


@pytest.mark.parametrize("name", ["lstm", "gru+ease", ""])
def test_an_unknown_contender_is_refused_before_anything_is_fitted(posed, name):
    benchmark = Benchmark(posed, Console(file=io.StringIO()))
    with pytest.raises(InvalidInput, match="models: "):
        benchmark.run(["markov", name])
    assert not benchmark.contenders


def test_the_command_line_names_what_is_wrong(tmp_path, capsys):
    from models.sequence.__main__ import main

    assert main(["benchmark", "--data", str(tmp_path), "--models", "markov"]) == 1
    assert "is none of the known data sets" in capsys.readouterr().err


def test_a_benchmark_runs_from_the_command_line(tmp_path):
    from models.sequence.__main__ import main

    rng = np.random.default_rng(3)
    lines = [" ".join(map(str, [user, *rng.permutation(30)[: rng.integers(3, 9)] + 1])) for user in range(1, 40)]
    import gzip

    with gzip.open(tmp_path / "Beauty.txt.gz", "wt") as file:
        file.write("\n".join(lines))
    config = tmp_path / "small.toml"
    config.write_text("length = 8\nwidth = 8\nmax_epochs = 1\nrefit = false\n")
    reports = tmp_path / "reports"
    arguments = ["--data", str(tmp_path), "--config", str(config), "--report-dir", str(reports)]
    assert main(["benchmark", *arguments, "--models", "popularity", "gru", "--checkpoint", str(tmp_path / "runs")]) == 0
    assert (tmp_path / "runs" / "gru" / "choosing.npz").exists()
    assert "# amazon_beauty, leave-one-out" in (reports / "benchmark-amazon_beauty-leave-one-out.md").read_text()
    assert Config().include_seen is False
