"""Traces of a person in text: what an e-mail address, a network address, a phone, bank or card number looks like.

Names of people and postal addresses look like any other words: they are known by the field they stand in
(`services.collector.scrub`) and by nothing else.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import Self

from services.collector.names import folded

REMOVED = "[removed]"

ID_MIN_CHARS = 6
"""A caller's id that is shorter, found within other text, is more likely chance than trace."""

Check = Callable[[str], bool]


def luhn(text: str) -> bool:
    """Whether the digits in `text` pass the check of payment cards (ISO/IEC 7812-1)."""
    digits = [int(character) for character in text if character.isdecimal()]
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
    return 14 <= len(digits) <= 19 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def iban(text: str) -> bool:
    """Whether `text` passes the check of bank accounts (ISO 13616-1, modulo 97)."""
    packed = re.sub(r"[\s-]", "", text).upper()
    return 15 <= len(packed) <= 34 and int("".join(str(int(c, 36)) for c in packed[4:] + packed[:4])) % 97 == 1


def network(text: str) -> bool:
    """Whether `text` is an IPv4 or IPv6 address."""
    for candidate in (text, text.rstrip(".:")):
        with suppress(ValueError):
            return bool(ip_address(candidate))
    return False


def always(_: str) -> bool:
    """That the shape alone is enough."""
    return True


EMAIL = re.compile(r"(?i)[^\s@<>()\[\],;:\"']{1,64}(?:@|%40)[^\s@<>()\[\],;:\"'?&=#/]{1,255}")

IPV4 = re.compile(r"(?a)(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
IPV6 = re.compile(r"(?ai)(?<![\w:.])(?:[0-9a-f]{0,4}:){2,7}[0-9a-f:.]{0,19}")

FOUR_DIGITS = re.compile(r"(?a)\d[ ().\-/]{0,2}\d[ ().\-/]{0,2}\d[ ().\-/]{0,2}\d")

GROUPS: tuple[tuple[Check, tuple[tuple[re.Pattern, Check], ...]], ...] = (
    (
        lambda text: "@" in text or "%40" in text,
        (
            # Who is to log in at a URL, before it can be taken for an address.
            (re.compile(r"(?<=://)[^\s/@]{1,128}@"), always),
            (EMAIL, always),
        ),
    ),
    # What follows the path of a URL.
    (lambda text: "=" in text, ((re.compile(r"(?:(?<=[\w/])|^)[?#&][^\s?#=]*=\S*"), always),)),
    (
        lambda text: text.count(":") > 1,
        ((IPV6, network),),
    ),
    (
        lambda text: FOUR_DIGITS.search(text) is not None,
        (
            (IPV4, network),
            (re.compile(r"(?ai)\b[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,3})?\b"), iban),
            (re.compile(r"(?a)(?<!\d)[2-6](?:[ -]?\d){13,18}(?!\d)"), luhn),
            # Phones: international; with a trunk zero; in the North American shape.
            (re.compile(r"(?a)(?<!\w)(?:\+|00 ?)[1-9](?:[ ().\-/]{0,2}\d){6,14}(?!\d)"), always),
            (re.compile(r"(?a)(?<![\w.,:+\-])\(?0[1-9]\d{0,4}\)?(?:[ .\-/]?\d){6,10}(?!\d)"), always),
            (re.compile(r"(?a)(?<![\w.])\(?[2-9]\d{2}\)?[ .\-][2-9]\d{2}[ .\-]\d{4}(?!\d)"), always),
        ),
    ),
)
"""What each kind of trace looks like, and what tells it from what merely looks so, behind what no such trace lacks."""


@dataclass(frozen=True, repr=False)
class Own:
    """The ids of the customer an event is of, as they are looked for: as they are, case folded, their letters alone."""

    ids: tuple[tuple[str, str, str], ...]

    @classmethod
    def of(cls, *ids: str) -> Self:
        """Of `ids`, none of them empty."""
        return cls(tuple((own, own.casefold(), folded(own)) for own in ids))


NOBODY = Own(())


def without(text: str, ids: Own = NOBODY) -> str:
    """`text` with every trace, and every mention of `ids`, replaced by `[removed]`."""
    text = without_ids(text, ids)
    if text.isalpha():
        return text
    for suspect, patterns in GROUPS:
        if suspect(text):
            for pattern, check in patterns:
                text = pattern.sub(partial(_removed, check), text)
    return text


def without_ids(text: str, ids: Own) -> str:
    """`text` with every mention of `ids` replaced by `[removed]`; a short id only where it is all of the text."""
    lower = text.casefold()
    for own, wanted, _ in ids.ids:
        if wanted in lower:
            text = _without_id(text, own)
    return text


def tells(text: str, ids: Own) -> bool:
    """Whether `text`, an item or the name of an event, holds an e-mail or network address or one of `ids`.

    Items are often numbered as customers are, so numbers are no trace here.
    """
    if EMAIL.search(text):
        return True
    if (text.count(".") > 2 or text.count(":") > 1) and any(
        network(match[0]) for pattern in (IPV4, IPV6) for match in pattern.finditer(text)
    ):
        return True
    words = folded(text)
    return any(
        len(own) >= ID_MIN_CHARS and not own.isdecimal() and (own in text or _mentions(words, part))
        for own, _, part in ids.ids
    )


def _mentions(words: str, part: str) -> bool:
    return part in words and len(part) >= ID_MIN_CHARS and not part.isdecimal()


def _removed(check: Check, match: re.Match) -> str:
    return REMOVED if check(match[0]) else match[0]


def _without_id(text: str, own: str) -> str:
    lower, wanted = text.casefold(), own.casefold()
    if wanted not in lower:
        return text
    if lower == wanted:
        return REMOVED
    if len(own) < ID_MIN_CHARS:
        return text
    if own.isdecimal():
        return re.sub(rf"(?<!\d){re.escape(own)}(?!\d)", REMOVED, text)
    replaced = re.sub(re.escape(own), REMOVED, text, flags=re.IGNORECASE)
    # Where folding case changes the length, a search by pattern may miss what comparing has found.
    return replaced if wanted not in replaced.casefold() else REMOVED
