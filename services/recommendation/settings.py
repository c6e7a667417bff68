"""What the recommendation service reads from its environment."""

from dataclasses import dataclass
from typing import ClassVar

from segue.rpc.serve import ModelServerSettings
from segue.rpc.settings import setting


@dataclass(frozen=True, kw_only=True)
class RecommendationSettings(ModelServerSettings):
    """See `python -m services.recommendation --help`."""

    PREFIX: ClassVar[str] = "SEGUE_RECOMMENDATION_"

    trend_refresh_seconds: float = setting(
        300, meaning="how often what is trending is read from the online store", low=1, high=86_400
    )
    new_items_refresh_seconds: float = setting(
        0.25, meaning="how often the online store is asked for items that came after training", low=0.05, high=3_600
    )
    bundle: str = setting("next_item", meaning="the bundle to serve, a name or name:version")
