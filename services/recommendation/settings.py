"""What the recommendation service reads from its environment."""

from dataclasses import dataclass
from typing import ClassVar

from segue.rpc.serve import ModelServerSettings
from segue.rpc.settings import setting


@dataclass(frozen=True, kw_only=True)
class RecommendationSettings(ModelServerSettings):
    """See `python -m services.recommendation --help`."""

    PREFIX: ClassVar[str] = "SEGUE_RECOMMENDATION_"

    popularity_refresh_seconds: float = setting(
        300, meaning="how often what is popular is read from the online store", low=1, high=86_400
    )
    bundle: str = setting("next_item", meaning="the bundle to serve, a name or name:version")
