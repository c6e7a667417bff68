"""Whom a message is about, by the caller's own ids, and the pseudonyms that stand for them."""

from dataclasses import dataclass

from services.collector.keys import KeyRing
from services.collector.refusal import Refused
from services.collector.traces import Own

ID_MAX_CHARS = 256


@dataclass(frozen=True, slots=True, repr=False)
class Identity:
    """A known user, an anonymous visitor, or a visitor who is known to be the user; an id is empty where it is not.

    Or a pseudonym alone, from a caller who knows no other id; it stands for itself.
    """

    user_id: str = ""
    anonymous_id: str = ""
    pseudonym: str = ""

    def ids(self) -> Own:
        """The caller's ids, which nothing behind the door may see."""
        return Own.of(*(value for value in (self.user_id, self.anonymous_id) if value))

    def checked(self, *, user_field: str, anonymous_field: str) -> "Identity":
        """Itself.

        Raises:
            Refused: it has no id, or one that is too long.
        """
        if self.pseudonym:
            return self
        if not (self.user_id or self.anonymous_id):
            raise Refused.because(user_field, f"is empty, and so is {anonymous_field}")
        for field, value in ((user_field, self.user_id), (anonymous_field, self.anonymous_id)):
            if len(value) > ID_MAX_CHARS:
                raise Refused.because(field, f"has {len(value)} characters, at most {ID_MAX_CHARS} are allowed")
        return self

    def customer(self, ring: KeyRing) -> str:
        """The pseudonym events count for: the user's, or else the visitor's."""
        return self.resolved(ring)[0]

    def customers(self, ring: KeyRing) -> list[str]:
        """Every pseudonym it has or had, that of `customer` first."""
        customer, pairs = self.resolved(ring)
        return list(dict.fromkeys([customer, *(source for source, _ in pairs)]))

    def resolved(self, ring: KeyRing) -> tuple[str, list[tuple[str, str]]]:
        """The pseudonym of `customer`, and what is to be linked, (source, target).

        The pseudonyms of former keys are linked to the current, and the visitor's to the user's.
        """
        pairs, visitor, user = [], "", self.pseudonym
        if self.anonymous_id:
            visitor = ring.visitor(self.anonymous_id)
            pairs += [(former, visitor) for former in ring.former_visitor(self.anonymous_id)]
        if self.user_id:
            user = ring.user(self.user_id)
            pairs += [(former, user) for former in ring.former_user(self.user_id)]
        if user and visitor:
            pairs.append((visitor, user))
        return user or visitor, pairs
