"""What the propensity service reads from its environment."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from segue.rpc.server import ServerSettings
from segue.rpc.settings import setting


@dataclass(frozen=True, kw_only=True)
class PropensitySettings(ServerSettings):
    """See `python -m services.propensity --help`."""

    PREFIX: ClassVar[str] = "SEGUE_PROPENSITY_"

    redis_url: str = setting(
        "redis://127.0.0.1:6399", meaning="the online store, redis://user:password@host:port/db", secret=True
    )
    store_timeout_ms: int = setting(
        500, meaning="how long the online store may take to connect or to answer", low=1, high=60_000
    )
    model_store: Path = setting(Path(".segue/bentoml"), meaning="the BentoML home that holds the bundles")
    plans: Path = setting(Path(".segue/plans"), meaning="where `segue plan` publishes the serving plans")
    bundles: tuple[str, ...] = setting(
        ("purchase_7d",), meaning="the bundles to serve, names or name:version, one per outcome"
    )
