from dataclasses import FrozenInstanceError, dataclass, fields
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from segue.errors import InvalidSettings
from segue.rpc.server import ServerSettings
from segue.rpc.settings import describe, read, setting

PLANS = Path("plans")


@dataclass(frozen=True, kw_only=True)
class ShopSettings(ServerSettings):
    PREFIX: ClassVar[str] = "SEGUE_SHOP_"

    redis_url: str = setting(meaning="where the online store is", secret=True)
    cache_items: int = setting(100, meaning="items kept in memory", low=1, high=10_000)
    share_ratio: float = setting(0.5, meaning="share of calls logged", low=0, high=1)
    warm: bool = setting(True, meaning="warm up before serving")
    plans: Path = setting(PLANS, meaning="where the serving plans are")
    mode: Literal["exact", "fast"] = setting("exact", meaning="how candidates are found")
    outcomes: tuple[str, ...] = setting((), meaning="outcomes served; none: all")


REQUIRED = {"SEGUE_SHOP_REDIS_URL": "redis://:hunter2@store/0"}


def problems(environ: dict[str, str]) -> dict[str, str]:
    with pytest.raises(InvalidSettings) as caught:
        read(ShopSettings, REQUIRED | environ)
    return dict(caught.value.violations)


def test_every_type_is_read():
    settings = read(
        ShopSettings,
        REQUIRED
        | {
            "SEGUE_SHOP_CACHE_ITEMS": "7",
            "SEGUE_SHOP_SHARE_RATIO": "0.25",
            "SEGUE_SHOP_WARM": "false",
            "SEGUE_SHOP_PLANS": "/srv/plans",
            "SEGUE_SHOP_MODE": "fast",
            "SEGUE_SHOP_OUTCOMES": "purchase_7d, churn_30d,",
            "SEGUE_SHOP_GRPC_PORT": "0",
        },
    )
    assert settings == ShopSettings(
        redis_url="redis://:hunter2@store/0",
        cache_items=7,
        share_ratio=0.25,
        warm=False,
        plans=Path("/srv/plans"),
        mode="fast",
        outcomes=("purchase_7d", "churn_30d"),
        grpc_port=0,
    )


def test_what_is_unset_or_empty_takes_its_default():
    assert read(ShopSettings, REQUIRED | {"SEGUE_SHOP_MODE": ""}) == read(ShopSettings, REQUIRED)
    assert read(ShopSettings, REQUIRED).grpc_host == "127.0.0.1"


def test_settings_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        read(ShopSettings, REQUIRED).warm = False


def test_all_problems_are_reported_at_once_by_variable():
    found = problems(
        {
            "SEGUE_SHOP_REDIS_URL": "",
            "SEGUE_SHOP_CACHE_ITEMS": "many",
            "SEGUE_SHOP_SHARE_RATIO": "1.5",
            "SEGUE_SHOP_WARM": "yes",
            "SEGUE_SHOP_MODE": "quick",
            "SEGUE_SHOP_GRPC_PROT": "1",
        }
    )
    assert found == {
        "SEGUE_SHOP_GRPC_PROT": "is not a setting; did you mean SEGUE_SHOP_GRPC_PORT?",
        "SEGUE_SHOP_REDIS_URL": "is required: where the online store is",
        "SEGUE_SHOP_CACHE_ITEMS": "must be a whole number",
        "SEGUE_SHOP_SHARE_RATIO": "must be a number from 0 to 1",
        "SEGUE_SHOP_WARM": "must be true or false",
        "SEGUE_SHOP_MODE": "must be one of exact, fast",
    }


@pytest.mark.parametrize("text", ["0", "10001", "-1", "1.0", "nan", "9" * 400, "9" * 10_000])
def test_whole_numbers_outside_their_range_are_refused(text):
    assert set(problems({"SEGUE_SHOP_CACHE_ITEMS": text})) == {"SEGUE_SHOP_CACHE_ITEMS"}


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999", "-0.001", "1.001"])
def test_numbers_outside_their_range_are_refused(text):
    assert set(problems({"SEGUE_SHOP_SHARE_RATIO": text})) == {"SEGUE_SHOP_SHARE_RATIO"}


@pytest.mark.parametrize("text", ["0", "1"])
def test_ranges_include_their_ends(text):
    assert read(ShopSettings, REQUIRED | {"SEGUE_SHOP_SHARE_RATIO": text}).share_ratio == float(text)


def test_infinity_is_no_number_even_where_there_is_no_range():
    @dataclass(frozen=True)
    class Bare:
        PREFIX: ClassVar[str] = "SEGUE_BARE_"
        weight_ratio: float = setting(1.0, meaning="weight")

    with pytest.raises(InvalidSettings):
        read(Bare, {"SEGUE_BARE_WEIGHT_RATIO": "inf"})


def test_variables_of_other_services_are_not_ours():
    assert read(ShopSettings, REQUIRED | {"SEGUE_OTHER_PORT": "x", "PATH": "/bin", "SEGUE_SHO": "x"})


def test_a_secret_is_shown_nowhere():
    settings = read(ShopSettings, REQUIRED)
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(problems({"SEGUE_SHOP_REDIS_URL": "", "SEGUE_SHOP_MODE": "hunter2"}))


def test_a_secret_default_is_not_described():
    @dataclass(frozen=True)
    class Keyed:
        PREFIX: ClassVar[str] = "SEGUE_KEYED_"
        key: str = setting("hunter2", meaning="signing key", secret=True)

    assert describe(Keyed) == "SEGUE_KEYED_KEY (text; default hidden)\n    signing key"


def test_describe_lists_every_variable():
    lines = describe(ShopSettings).splitlines()
    for field in fields(ShopSettings):
        assert any(line.startswith(f"SEGUE_SHOP_{field.name.upper()} (") for line in lines)
    assert "SEGUE_SHOP_CACHE_ITEMS (a whole number from 1 to 10,000; default 100)" in lines
    assert "SEGUE_SHOP_MODE (exact, fast; default exact)" in lines
    assert "SEGUE_SHOP_REDIS_URL (text; required)" in lines
    assert "    items kept in memory" in lines
