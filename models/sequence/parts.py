"""Parts: all that a bundle holds and a service answers by besides the encoder, learned from the same split."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from models.sequence import blend, content, ladder, related, trends
from models.sequence.baselines import Fitted
from models.sequence.blend import Blend, strongest
from models.sequence.config import Config
from models.sequence.dataset import Dataset, Split
from models.sequence.ladder import Live
from models.sequence.scoring import Deep
from models.sequence.train import Trained
from segue.catalogue import Catalogue
from segue.events import Events
from segue.history import Timelines
from segue.inference.cohorts import Cohorts
from segue.inference.content import CONTENT, ContentMap
from segue.inference.followers import Followers
from segue.inference.item_table import ItemTable
from segue.inference.related import Relation


@dataclass(frozen=True, eq=False)
class Parts:
    """Each is a rung of the ladder, or a way into it."""

    followers: Followers
    """Mixed into what the encoder says, and what is left without it."""
    related: Mapping[Relation, ItemTable]
    cohorts: Cohorts | None
    """Of customers of whom no item is known; none where validation shows no gain."""
    content: ContentMap
    """Where items that come later belong among those of training."""

    @classmethod
    def learn(
        cls,
        events: Events,
        dataset: Dataset,
        trained: Trained,
        catalogue: Catalogue,
        config: Config,
        *,
        counted: Fitted,
    ) -> Self:
        """Learn from `dataset`, a split of `events`, beside the encoder and the markov baseline fitted on it."""
        return cls(
            mixed_in(dataset, trained, counted, Live.of(events), include_seen=config.include_seen),
            related.learn(Timelines.of(events), dataset.final.vocabulary, dataset.cuts_ms[1]),
            ladder.learn(events, dataset, catalogue, config),
            content.fit(trained, dataset, catalogue, config).map,
        )

    def save(self, directory: Path) -> None:
        """Write every part as the files of a bundle."""
        self.followers.save(directory)
        related.save(directory, self.related)
        if self.cohorts is not None:
            self.cohorts.save(directory)
        self.content.save(directory / CONTENT)


def mixed_in(split: Split, trained: Trained, counted: Fitted, live: Live, *, include_seen: bool) -> Followers:
    """What was `counted`, and how it is mixed with the encoder and the trend, as validation chooses."""
    encoder, vocabulary = Deep(trained.choosing), split.choosing.vocabulary
    mixture = blend.choose(encoder, counted.choosing, vocabulary, split.validation, include_seen=include_seen)
    chosen = Blend(encoder, Followers(strongest(counted.choosing.table), mixture))
    mixture = trends.choose(chosen, live, vocabulary, split.validation, include_seen=include_seen)
    return Followers(strongest(counted.scorer.table), mixture)
