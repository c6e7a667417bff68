"""What is known of a customer besides events: into whom they flow, and up to when they are forgotten.

Both are facts that merge in any order and any number of times: links form a set, the registers of a barrier only rise.
"""

from dataclasses import dataclass

from segue.errors import InvalidInput

BARRED_MS = 2**53 - 1
"""The barrier of a customer who withdrew consent: no event is later."""


@dataclass(frozen=True, slots=True)
class Link:
    """What `source` does, and did, also counts for `target`; not the other way round."""

    source: str
    target: str
    available_time_ms: int
    """From when the online system could know it."""


@dataclass(frozen=True, slots=True)
class Barrier:
    """Up to when the events of a customer are forgotten, as three registers; `merge` makes them a semilattice."""

    customer: str
    erased_at_ms: int | None = None
    """The last moment up to which an erasure asked to forget; None: nobody asked."""
    denied_at_ms: int | None = None
    """When consent was last withdrawn."""
    granted_at_ms: int | None = None
    """When consent was last given."""

    @property
    def effective_ms(self) -> int | None:
        """Events at or before it do not count; None: all do.

        While consent is withdrawn that is every event. Once it is given again, what came before stays forgotten.
        """
        erased, denied, granted = self.erased_at_ms, self.denied_at_ms, self.granted_at_ms
        if denied is None:
            return erased
        if granted is None or denied > granted:
            return BARRED_MS
        return _later(erased, granted)

    def merge(self, other: "Barrier") -> "Barrier":
        """The barrier that knows what both know: the later of each register.

        Raises:
            InvalidInput: `other` is another customer's.
        """
        if other.customer != self.customer:
            raise InvalidInput.because("customer", "two barriers of different customers do not merge")
        return Barrier(
            self.customer,
            _later(self.erased_at_ms, other.erased_at_ms),
            _later(self.denied_at_ms, other.denied_at_ms),
            _later(self.granted_at_ms, other.granted_at_ms),
        )


def _later(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return one if other is None else other
    return max(one, other)
