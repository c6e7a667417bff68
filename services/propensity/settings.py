"""What the propensity service reads from its environment."""

from dataclasses import dataclass
from typing import ClassVar

from segue.rpc.serve import ModelServerSettings
from segue.rpc.settings import setting


@dataclass(frozen=True, kw_only=True)
class PropensitySettings(ModelServerSettings):
    """See `python -m services.propensity --help`."""

    PREFIX: ClassVar[str] = "SEGUE_PROPENSITY_"

    bundles: tuple[str, ...] = setting(
        ("purchase_7d",), meaning="the bundles to serve, names or name:version, one per outcome"
    )
