"""What kind of shop to simulate."""

from collections.abc import Iterator
from dataclasses import dataclass

from segue.errors import InvalidInput, Violation

DAY_MS = 86_400_000

DEMO_KEY = b"segue-demonstration-key: everybody knows it"
"""The pseudonym key of simulated shops and public data sets. It is public: never use it for real customers."""

COUNT_LIMITS = {
    "customers": (1, 10_000_000),
    "items": (2, 1_000_000),
    "days": (1, 3_650),
    "seed": (0, 2**63 - 1),
    "categories": (1, 256),
    "taste_dimension": (1, 64),
}
RATIO_LIMITS = {
    "follow_ratio": 1.0,
    "arriving_ratio": 1.0,
    "launching_ratio": 0.9,
    "leaving_ratio": 0.9,
    "late_ratio": 1.0,
    "duplicate_ratio": 1.0,
}
SHELF_LIMIT = 50_000_000
"""The most categories x items: the shelf of one day holds that many probabilities."""


@dataclass(frozen=True, kw_only=True)
class ShopConfig:
    """A shop to simulate; the same config gives the same events, byte for byte.

    Raises:
        InvalidInput: one or more values are out of range; all of them are listed.
    """

    customers: int = 2_000
    items: int = 500
    days: int = 90
    start_ms: int = 1_736_121_600_000
    """The first midnight UTC; the default is Monday 2025-01-06."""
    seed: int = 0
    categories: int = 12
    taste_dimension: int = 8
    sessions_per_day: float = 0.2
    """The median customer's rate of sessions while exploring."""
    follow_ratio: float = 0.5
    """How often a view follows from the item viewed last, where the rest is taste."""
    arriving_ratio: float = 0.3
    """Share of the customers who join during the simulated days; the others are there from the start."""
    launching_ratio: float = 0.15
    """Share of the items launched during the simulated days."""
    leaving_ratio: float = 0.12
    """Share of the customers expected to leave for good within 30 days."""
    late_ratio: float = 0.05
    """Share of the events that become available minutes to days after they happened."""
    duplicate_ratio: float = 0.01
    """Share of the events delivered a second time."""

    def __post_init__(self) -> None:
        if violations := tuple(self._violations()):
            raise InvalidInput(*violations)

    def _violations(self) -> Iterator[Violation]:
        sound = True
        for field, (low, high) in COUNT_LIMITS.items():
            value = getattr(self, field)
            if not (is_integer(value) and low <= value <= high):
                sound = False
                yield Violation(field, f"is {value!r}, must be an integer from {low} to {high}")
        for field, highest in RATIO_LIMITS.items():
            value = getattr(self, field)
            if not (is_number(value) and 0 <= value <= highest):
                yield Violation(field, f"is {value!r}, must be a number from 0 to {highest}")
        if not (is_number(self.sessions_per_day) and 0 < self.sessions_per_day <= 4):
            yield Violation("sessions_per_day", f"is {self.sessions_per_day!r}, must be above 0 and at most 4")
        if not (is_integer(self.start_ms) and 0 <= self.start_ms < 2**42 and self.start_ms % DAY_MS == 0):
            yield Violation("start_ms", f"is {self.start_ms!r}, must be a midnight UTC from 1970 to 2109")
        if sound and self.categories > self.items:
            yield Violation("categories", f"is {self.categories}, more than the {self.items} items")
        if sound and self.categories * self.items > SHELF_LIMIT:
            yield Violation("items", f"times categories is above {SHELF_LIMIT}")


def is_integer(value: object) -> bool:
    """Whether `value` is an int and not a bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether `value` is an int or a float and not a bool."""
    return is_integer(value) or isinstance(value, float)
