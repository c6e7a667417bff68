"""Settings: environment variables read once, at start, into a frozen dataclass.

A settings class is a frozen dataclass with a `PREFIX`, each field made by `setting`. The variable of a field is the
prefix and the field's name in capitals. Names carry their unit (`grpc_keepalive_seconds`).

On Kubernetes a Service called `segue-x` puts `SEGUE_X_PORT=tcp://...` into every pod: set `enableServiceLinks: false`.
"""

import dataclasses
import difflib
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, TypeVar, get_args, get_origin, get_type_hints

from segue.errors import InvalidSettings, Violation


class SettingsClass(Protocol):
    """A frozen dataclass of settings."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    PREFIX: ClassVar[str]
    """What all its variables start with, e.g. `SEGUE_PROPENSITY_`."""


S = TypeVar("S", bound=SettingsClass)


class Meaning(NamedTuple):
    """What a field's metadata holds under `meaning`."""

    text: str
    low: float
    high: float
    secret: bool


def setting(
    default: object = dataclasses.MISSING,
    *,
    meaning: str,
    low: float = -math.inf,
    high: float = math.inf,
    secret: bool = False,
) -> Any:
    """A field of a settings class: str, int, float, bool, Path, a `Literal` of words, or `tuple[str, ...]`.

    Args:
        default: the value when the variable is unset or empty; without one the variable is required.
        meaning: what it means, for `--help`.
        low: least allowed number, inclusive.
        high: greatest allowed number, inclusive.
        secret: keep the value out of the repr and of `describe`.
    """
    metadata = {"meaning": Meaning(meaning, low, high, secret)}
    return dataclasses.field(default=default, metadata=metadata, repr=not secret, kw_only=True)


def read(cls: type[S], environ: Mapping[str, str]) -> S:
    """The settings in `environ`. No value is ever quoted in a problem, for it may be a secret.

    Raises:
        InvalidSettings: a variable is missing, malformed, out of range, or begins with the prefix but is not known;
            every problem is listed, each under its variable's name.
    """
    fields = {variable(cls, field): field for field in dataclasses.fields(cls)}
    types = get_type_hints(cls)
    violations = list(_unknown(cls, fields, environ))
    values = {}
    for name, field in fields.items():
        if text := environ.get(name, ""):
            try:
                values[field.name] = _parse(types[field.name], text, field.metadata["meaning"])
            except ValueError as problem:
                violations.append(Violation(name, str(problem)))
        elif field.default is dataclasses.MISSING:
            violations.append(Violation(name, f"is required: {field.metadata['meaning'].text}"))
    if violations:
        raise InvalidSettings(*violations)
    return cls(**values)


def describe(cls: type[SettingsClass]) -> str:
    """One paragraph per variable, for `--help`: its name, default, range and meaning."""
    types = get_type_hints(cls)
    return "\n".join(_paragraph(cls, field, types[field.name]) for field in dataclasses.fields(cls))


def variable(cls: type[SettingsClass], field: dataclasses.Field) -> str:
    """The environment variable of a field."""
    return cls.PREFIX + field.name.upper()


def _unknown(cls: type[SettingsClass], known: Mapping[str, object], environ: Mapping[str, str]) -> Iterator[Violation]:
    for name in sorted(environ):
        if name.startswith(cls.PREFIX) and name not in known:
            alike = difflib.get_close_matches(name, known, n=1)
            yield Violation(name, f"is not a setting; did you mean {alike[0]}?" if alike else "is not a setting")


def _parse(kind: Any, text: str, meaning: Meaning) -> object:
    """The value that `text` stands for; raises ValueError with the problem, without the text."""
    if get_origin(kind) is Literal:
        if text not in get_args(kind):
            raise ValueError(f"must be one of {', '.join(get_args(kind))}")
        return text
    parse, wanted = PARSERS[kind]
    try:
        value = parse(text)
    except (ValueError, KeyError):
        raise ValueError(f"must be {wanted}") from None
    # Not math.isfinite: it overflows on a whole number of 400 digits.
    if isinstance(value, (int, float)) and not (meaning.low <= value <= meaning.high and abs(value) != math.inf):
        raise ValueError(f"must be {wanted}{_range(meaning)}")
    return value


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for part in text.split(",") if (word := part.strip()))


PARSERS: Mapping[Any, tuple[Callable[[str], object], str]] = {
    str: (str, "text"),
    int: (int, "a whole number"),
    float: (float, "a number"),
    bool: ({"true": True, "false": False}.__getitem__, "true or false"),
    Path: (Path, "a path"),
    tuple[str, ...]: (_words, "words with commas between them"),
}
"""For each type a setting may have: how its text is read, and what a person is told it must be."""


def _range(meaning: Meaning) -> str:
    match math.isfinite(meaning.low), math.isfinite(meaning.high):
        case True, True:
            return f" from {meaning.low:,} to {meaning.high:,}"
        case True, False:
            return f", {meaning.low:,} or more"
        case False, True:
            return f", {meaning.high:,} or less"
    return ""


def _paragraph(cls: type[SettingsClass], field: dataclasses.Field, kind: Any) -> str:
    meaning = field.metadata["meaning"]
    words = ", ".join(get_args(kind)) if get_origin(kind) is Literal else PARSERS[kind][1]
    if field.default is dataclasses.MISSING:
        default = "required"
    else:
        default = "default hidden" if meaning.secret else f"default {field.default}"
    return f"{variable(cls, field)} ({words}{_range(meaning)}; {default})\n    {meaning.text}"
