"""What the recommendation service reads from its environment."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from segue.rpc.server import ServerSettings
from segue.rpc.settings import setting


@dataclass(frozen=True, kw_only=True)
class RecommendationSettings(ServerSettings):
    """See `python -m services.recommendation --help`."""

    PREFIX: ClassVar[str] = "SEGUE_RECOMMENDATION_"

    redis_url: str = setting(
        "redis://127.0.0.1:6399", meaning="the online store, redis://user:password@host:port/db", secret=True
    )
    store_timeout_ms: int = setting(
        500, meaning="how long the online store may take to connect or to answer", low=1, high=60_000
    )
    model_store: Path = setting(Path(".segue/bentoml"), meaning="the BentoML home that holds the bundle")
    plans: Path = setting(Path(".segue/plans"), meaning="where `segue plan` publishes the serving plans")
    popularity_refresh_seconds: float = setting(
        300, meaning="how often what is popular is read from the online store", low=1, high=86_400
    )
    bundle: str = setting("next_item", meaning="the bundle to serve, a name or name:version")
