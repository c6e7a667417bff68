"""The keys: those that make pseudonyms of customer ids, and those that callers show to be let in."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from segue.errors import InvalidSettings
from segue.events import pseudonym

KEY_BYTES = 32
LINE = re.compile(r"([a-zA-Z0-9_.-]{1,64}):(\S+)")
HASHED = "sha256:"
WRITE_KEY_MIN_CHARS = 16


@dataclass(frozen=True)
class KeyRing:
    """Pseudonym keys, the current one first; those behind it are former ones, known so that histories stay together.

    The two spaces of ids never meet: those of known users are under the key itself (`segue.events.pseudonym`), those of
    anonymous visitors under a key derived from it.
    """

    users: Sequence[bytes]
    anonymous: Sequence[bytes]
    values: bytes

    def __repr__(self) -> str:
        return f"KeyRing({len(self.users)} keys)"

    @classmethod
    def of(cls, keys: Sequence[bytes]) -> Self:
        """The ring of `keys`, at least one, each of at least 16 bytes."""
        derived = [hmac.digest(key, b"anonymous", "sha256") for key in keys]
        return cls(tuple(keys), tuple(derived), hmac.digest(keys[0], b"value", "sha256"))

    @classmethod
    def read(cls, path: Path, *, field: str) -> Self:
        """The ring in a file of lines `name:hex`, at least 64 hex digits each.

        Raises:
            InvalidSettings: the file cannot be read, or is none; `field` is the setting it came from.
        """
        found = [(name, _from_hex(text)) for name, text in _lines(path, field)]
        if bad := [name for name, key in found if len(key) < KEY_BYTES]:
            raise InvalidSettings.because(field, f"key {bad[0]} in {path} is not {2 * KEY_BYTES} or more hex digits")
        return cls.of([key for _, key in found])

    def user(self, user_id: str) -> str:
        """The pseudonym of a known user."""
        return pseudonym(user_id, self.users[0])

    def visitor(self, anonymous_id: str) -> str:
        """The pseudonym of an anonymous visitor."""
        return pseudonym(anonymous_id, self.anonymous[0])

    def former_user(self, user_id: str) -> list[str]:
        """The pseudonyms that a known user had under former keys, newest first."""
        return [pseudonym(user_id, key) for key in self.users[1:]]

    def former_visitor(self, anonymous_id: str) -> list[str]:
        """The pseudonyms that an anonymous visitor had under former keys, newest first."""
        return [pseudonym(anonymous_id, key) for key in self.anonymous[1:]]

    def value(self, text: str) -> str:
        """What stands for the value of a property that is to be pseudonymised."""
        return hmac.digest(self.values, text.encode(), "sha256").hex()[:32]


@dataclass(frozen=True, repr=False)
class WriteKeys:
    """What callers must show. Kept as digests; a digest has one length, so a comparison says nothing by its time."""

    digests: Mapping[str, bytes]

    @classmethod
    def read(cls, path: Path, *, field: str) -> Self:
        """The keys in a file of lines `name:key` or `name:sha256:<64 hex digits>`.

        Raises:
            InvalidSettings: the file cannot be read, or is none; `field` is the setting it came from.
        """
        digests = {}
        for name, text in _lines(path, field):
            hashed = text.startswith(HASHED)
            kept = _from_hex(text.removeprefix(HASHED)) if hashed else digest(text)
            if len(kept) != KEY_BYTES:
                raise InvalidSettings.because(field, f"key {name} in {path} is not a SHA-256 in hex")
            if not hashed and len(text) < WRITE_KEY_MIN_CHARS:
                raise InvalidSettings.because(field, f"key {name} in {path} has under {WRITE_KEY_MIN_CHARS} characters")
            digests[name] = kept
        return cls(digests)

    def knows(self, key: str) -> bool:
        """Whether `key` is one of them."""
        shown = digest(key)
        return any(hmac.compare_digest(shown, known) for known in self.digests.values())


def new(path: Path, text: str) -> None:
    """Put `text` as the first line of the file `path`, which only its owner may read.

    A former version is replaced in one step.
    """
    former = path.read_text() if path.exists() else ""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh.touch(mode=0o600, exist_ok=False)
    fresh.write_text(f"{text}\n{former}")
    fresh.replace(path)


def _lines(path: Path, field: str) -> Iterator[tuple[str, str]]:
    """Name and value of each line that is not empty nor a comment; names are distinct."""
    try:
        lines = [line.strip() for line in path.read_text().splitlines()]
    except (OSError, UnicodeDecodeError):
        raise InvalidSettings.because(
            field, f"{path} cannot be read; `python -m services.collector --help` tells how to make one"
        ) from None
    matches = [LINE.fullmatch(line) for line in lines if line and not line.startswith("#")]
    names = [match[1] for match in matches if match]
    if not matches or len(names) < len(matches):
        raise InvalidSettings.because(field, f"{path} does not consist of lines `name:key`")
    if len(set(names)) < len(names):
        raise InvalidSettings.because(field, f"{path} has two keys of one name")
    yield from ((match[1], match[2]) for match in matches if match)


def _from_hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


def digest(key: str) -> bytes:
    """What is kept of a write key: SHA-256, enough for keys of 24 random bytes."""
    return hashlib.sha256(key.encode(errors="replace")).digest()
