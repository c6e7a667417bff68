"""The benchmark: models and baselines over one protocol, each fitted, chosen and judged by the same rules."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from models.sequence import baselines, blend
from models.sequence.baselines import Fitted
from models.sequence.blend import Blend, strongest
from models.sequence.config import CHOICES
from models.sequence.evaluate import Evaluation, joined, judge
from models.sequence.protocols import Posed
from models.sequence.ranking import ItemScorer, recommender
from models.sequence.scoring import Deep
from models.sequence.train import fit
from segue.errors import InvalidInput
from segue.inference.followers import Followers

COUNTED = "markov"
BLENDED = f"+{COUNTED}"
DEEP = CHOICES["family"]
NAMES = (*baselines.FAMILIES, *DEEP, *(name + BLENDED for name in DEEP))


@dataclass(frozen=True, eq=False)
class Contender:
    """A fitted scorer and what it took."""

    choosing: ItemScorer
    """Fitted on what was known before validation."""
    scorer: ItemScorer
    """Fitted on the final corpus, which is what is judged."""
    chosen: dict[str, Any]
    """What validation chose."""
    fit_seconds: float
    """Processor time of fitting and choosing, that of a blend's parts included."""


@dataclass(eq=False)
class Benchmark:
    """Contenders over one posed data set; each is fitted when it is first asked for, and then kept."""

    posed: Posed
    console: Console
    checkpoints: Path | None = None
    """A folder from which interrupted training resumes."""
    contenders: dict[str, Contender] = field(default_factory=dict)
    ask_seconds: dict[str, float] = field(default_factory=dict)
    """Processor time of ranking all test cases."""
    _fitted: dict[str, Fitted] = field(default_factory=dict)

    def check(self, names: Sequence[str]) -> None:
        """Refuse what cannot be run before anything is.

        Raises:
            InvalidInput: a name is unknown, or the vocabulary too large for it.
        """
        counted = baselines.names(len(self.posed.split.final.vocabulary))
        for name in names:
            if name not in NAMES:
                raise InvalidInput.because("models", f"{name!r} is unknown; there are {', '.join(NAMES)}")
            if name in baselines.FAMILIES and name not in counted:
                raise InvalidInput.because("models", f"{name}: is for at most {baselines.EASE_ITEMS_MAX:,} items")

    def run(self, names: Sequence[str]) -> Evaluation:
        """Fit `names` and ask each every test case."""
        self.check(names)
        vocabulary, seen = self.posed.split.final.vocabulary, self.posed.config.include_seen
        evaluations = []
        for name in names:
            scorer = self.contender(name).scorer
            began = time.process_time()
            with self.console.status(f"asking {name}"):
                answers = {name: recommender(scorer, vocabulary, include_seen=seen)}
                evaluations.append(judge(self.posed.split.test, vocabulary, answers))
            self.ask_seconds[name] = time.process_time() - began
        return joined(evaluations)

    def contender(self, name: str) -> Contender:
        """The contender of that name, fitted."""
        if name not in self.contenders:
            self.console.print(f"fitting {name}", highlight=False)
            fitted = self._blended if name.endswith(BLENDED) else self._trained if name in DEEP else self._counted
            self.contenders[name] = fitted(name)
        return self.contenders[name]

    def _counted(self, name: str) -> Contender:
        began = time.process_time()
        fitted = baselines.fit(name, self.posed.split, include_seen=self.posed.config.include_seen)
        self._fitted[name] = fitted
        chosen = {**fitted.parameters, "age_decay": fitted.scorer.age_decay}
        return Contender(fitted.choosing, fitted.scorer, chosen, time.process_time() - began)

    def _trained(self, name: str) -> Contender:
        config = replace(self.posed.config, family=name)
        folder = self.checkpoints / name if self.checkpoints else None
        trained = fit(self.posed.split, config, console=self.console, checkpoint=folder)
        chosen = {
            "epochs": trained.best_epoch,
            "epochs_run": len(trained.curve),
            "validation_ndcg@10": trained.curve[trained.best_epoch - 1].validation_ndcg_10,
            "config": asdict(config),
        }
        return Contender(Deep(trained.choosing), Deep(trained.model), chosen, trained.processor_seconds)

    def _blended(self, name: str) -> Contender:
        encoder, counted = self.contender(name.removesuffix(BLENDED)), self.contender(COUNTED)
        began = time.process_time()
        split = self.posed.split
        fitted = self._fitted[COUNTED]
        mixture = blend.choose(
            encoder.choosing,
            fitted.choosing,
            split.choosing.vocabulary,
            split.validation,
            include_seen=self.posed.config.include_seen,
        )
        choosing, scorer = (
            Blend(encoding, Followers(strongest(table), mixture))
            for encoding, table in (
                (encoder.choosing, fitted.choosing.table),
                (encoder.scorer, fitted.scorer.table),
            )
        )
        spent = encoder.fit_seconds + counted.fit_seconds + time.process_time() - began
        return Contender(choosing, scorer, asdict(mixture), spent)
