"""The scrubber: what of an event's properties may be kept.

Fields known by name to identify a person are dropped with all that is in them, or replaced by a keyed hash where the
privacy file says so; in the text that is left every trace of a person (`services.collector.traces`) is replaced.
"""

import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import orjson

from segue.errors import InvalidSettings
from services.collector import traces
from services.collector.keys import KeyRing
from services.collector.names import normal
from services.collector.refusal import EventTooLarge, Refused
from services.collector.traces import Own

DEPTH_MAX = 8
FIELDS_MAX_COUNT = 200
VALUES_MAX_COUNT = 2_000
NAME_MAX_CHARS = 128
TEXT_MAX_CHARS = 1_024
PROPERTIES_MAX_BYTES = 16 * 1_024
PATH_MAX_CHARS = 160
WHOLE_MIN = 10 ** (traces.ID_MIN_CHARS - 1)
"""Whole numbers below it have too few digits to tell whose they are."""

_EXACTLY = """
    name ip ipv4 ipv6 ua zip dob ssn pan cvv cvc pin tel mobile cell fax mail city town suburb lat lng lon long geo gps
    auth authorization cookie cookies session traits context contact customer user visitor person recipient buyer
    shopper subscriber attention salutation gender iban bic
"""
EXACTLY = frozenset(_EXACTLY.split())
"""Names of fields that identify a person, alone or with another."""

WITHIN = re.compile(
    "email|phonenumber|mobilenumber|cellnumber|faxnumber|telephone|whatsapp|password|passwd|passphrase|passcode"
    "|passport|socialsecurity|nationalid|taxid|taxnumber|vatnumber|driverslicen|bankaccount|accountnumber|accountholder"
    "|sortcode|routingnumber|creditcard|debitcard|cardnumber|cardholder|securitycode|firstname|lastname|middlename"
    "|fullname|surname|givenname|familyname|maidenname|username|nickname|screenname|displayname|legalname"
    "|recipientname|customername|contactname|personname|billingname|shippingname|birthda|birthyear|dateofbirth"
    "|ipaddr|remoteaddr|clientip|userip|useragent|advertisingid|androidid|fingerprint|address|street|housenumber"
    "|zipcode|postalcode|postcode|postal|latitude|longitude|geoloc|geohash|coordinate|apikey|accesskey|privatekey"
    "|secret|credential|sessionid"
)
"""What the name of such a field may hold."""

ENDINGS = (
    *("phone", "token", "userid", "anonymousid", "customerid", "memberid", "accountid", "clientid", "visitorid"),
    *("deviceid", "previousid", "distinctid", "personid", "contactid", "loginid", "subscriberid", "profileid"),
    *("externalid", "idfa", "idfv", "gaid", "imei", "macaddr", "mailaddr", "loyaltynumber", "membernumber"),
)
"""What the name of such a field may end with."""


@dataclass(frozen=True, kw_only=True)
class Privacy:
    """A shop's own fields: `drop` and `pseudonymise` beside those known here, `keep` in spite of them."""

    drop: frozenset[str] = frozenset()
    pseudonymise: frozenset[str] = frozenset()
    keep: frozenset[str] = frozenset()

    @classmethod
    def read(cls, path: str, *, field: str) -> Self:
        """The fields in a TOML file with lists of names `drop`, `pseudonymise`, `keep`; none without a path.

        Raises:
            InvalidSettings: the file cannot be read or holds something else; `field` is the setting it came from.
        """
        if not path:
            return cls()
        try:
            lists = tomllib.loads(Path(path).read_text())
        except (OSError, ValueError):
            raise InvalidSettings.because(field, f"{path} cannot be read as TOML") from None
        if unknown := sorted(set(lists) - {"drop", "pseudonymise", "keep"}):
            raise InvalidSettings.because(field, f"{path} has {unknown[0]}; it may have drop, pseudonymise and keep")
        for name, words in lists.items():
            if not isinstance(words, list) or not all(isinstance(word, str) and normal(word) for word in words):
                raise InvalidSettings.because(field, f"{name} in {path} is not a list of field names")
        return cls(**{name: frozenset(map(normal, words)) for name, words in lists.items()})


@dataclass(frozen=True, eq=False)
class Scrubber:
    """Scrubs properties, by the rules above and the shop's."""

    privacy: Privacy
    ring: KeyRing

    def json(self, properties: Mapping[str, Any], ids: Own, *, field: str) -> str:
        """What may be kept of `properties`, as JSON with its names in order; empty where that is nothing.

        Args:
            properties: JSON as Python objects.
            ids: the customer's own ids; they are replaced wherever they occur.
            field: what the properties are called in the event.

        Raises:
            Refused: a number is not finite.
            EventTooLarge: they hold too much, too deep, or a text that is too long.
        """
        if not properties:
            return ""
        kept = _Pass(self, ids).mapping(properties, field, 1)
        if not kept:
            return ""
        text = orjson.dumps(kept, option=orjson.OPT_SORT_KEYS)
        if len(text) > PROPERTIES_MAX_BYTES:
            raise EventTooLarge.because(field, f"have {len(text)} bytes, at most {PROPERTIES_MAX_BYTES} are allowed")
        return text.decode()


@lru_cache(maxsize=4_096)
def rule(name: str, own: Privacy) -> str:
    """What is done with a field called `name`: drop, pseudonymise or keep."""
    known = normal(name)
    if traces.without(name) != name:
        return "drop"
    if known in own.pseudonymise:
        return "pseudonymise"
    if known in own.keep:
        return "keep"
    return "drop" if known in own.drop or identifies(known) else "keep"


def identifies(name: str) -> bool:
    """Whether a field of the normal name `name` identifies a person."""
    return name in EXACTLY or name.endswith(ENDINGS) or WITHIN.search(name) is not None


@dataclass(eq=False, slots=True)
class _Pass:
    """One walk through the properties of one event."""

    scrubber: Scrubber
    ids: Own
    values_count: int = 0

    def mapping(self, fields: Mapping[str, Any], path: str, depth: int) -> dict[str, Any]:
        if depth > DEPTH_MAX:
            raise EventTooLarge.because(path, f"is nested more than {DEPTH_MAX} deep")
        if len(fields) > FIELDS_MAX_COUNT:
            raise EventTooLarge.because(path, f"has {len(fields)} fields, at most {FIELDS_MAX_COUNT} are allowed")
        kept = {}
        for name, value in fields.items():
            if len(name) > NAME_MAX_CHARS:
                raise EventTooLarge.because(path, f"has a name of more than {NAME_MAX_CHARS} characters")
            done = rule(name, self.scrubber.privacy)
            if done == "drop" or traces.without_ids(name, self.ids) != name:
                continue
            kept[name] = self._pseudonym(value) if done == "pseudonymise" else self.value(value, path, name, depth)
        return kept

    def value(self, value: Any, path: str, name: str | int, depth: int) -> Any:
        self.values_count += 1
        if self.values_count > VALUES_MAX_COUNT:
            raise EventTooLarge.because(path, f"hold more than {VALUES_MAX_COUNT:,} values")
        if isinstance(value, str):
            if len(value) > TEXT_MAX_CHARS:
                raise EventTooLarge.because(_path(path, name), f"has more than {TEXT_MAX_CHARS:,} characters")
            return traces.without(value, self.ids)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            return self._whole(value)
        if isinstance(value, float):
            if not math.isfinite(value):
                raise Refused.because(_path(path, name), "is not a finite number")
            return value
        where = _path(path, name)
        return (
            self.mapping(value, where, depth + 1) if isinstance(value, dict) else self._listed(value, where, depth + 1)
        )

    def _listed(self, values: Iterable[Any], path: str, depth: int) -> list[Any]:
        if depth > DEPTH_MAX:
            raise EventTooLarge.because(path, f"is nested more than {DEPTH_MAX} deep")
        return [self.value(each, path, index, depth) for index, each in enumerate(values)]

    def _whole(self, value: int) -> int | str:
        """A whole number, unless it is the number of a card or the customer's own."""
        if value < WHOLE_MIN:
            return value
        text = str(value)
        card = len(text) >= 14 and text[0] in "23456" and traces.luhn(text)
        return traces.REMOVED if card or any(own == text for own, _, _ in self.ids.ids) else value

    def _pseudonym(self, value: Any) -> str | None:
        if value is None or value == "":
            return None
        return self.scrubber.ring.value(value if isinstance(value, str) else orjson.dumps(value).decode())


def _path(path: str, name: str | int) -> str:
    return (f"{path}[{name}]" if isinstance(name, int) else f"{path}.{name}")[:PATH_MAX_CHARS]
